"""Changed files under a running service: results.toml, masterdata.toml; who was at work goes on or ends."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cloud.carrier import Carrier, Running
from cloud.jobs import Job, Jobs
from cloud.results.health import _own_problems
from cloud.store.sqlite import SqliteStore
from tests.support.patience import until
from tests.support.turns import Turns

SHIFT = 1_624_852_800.0
"""2021-06-28 06:00 in Berlin."""
WEBHOOK = """
[[webhook]]
name = "{name}"
url = "http://127.0.0.1:9/{path}"
allow_insecure = true
"""
BAD = """
[[webhook]]
name = "mes"
url = "ftp://127.0.0.1"
[[report]]
name = "shift"
every = "fortnight"
"""
HEAD = "ref,calendar,date,shift,start,end,crew,cancelled,deleted\n"


def test_a_changed_results_file_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    turns = Turns(tmp_path, WEBHOOK.format(name="mes", path="a"), now=SHIFT)
    file, cloud = turns.cloud._results_file, turns.cloud
    assert file is not None
    assert not cloud._take_changed(file)
    (before,) = cloud._outlets.carriers
    (tmp_path / "results.toml").write_text(BAD)
    assert not cloud._take_changed(file)
    told = "\n".join(cloud.health().results_faults)
    assert "webhook[mes].url" in told or "report[shift].every" in told
    assert any("results.toml" in problem for problem in _own_problems(cloud.health()))
    assert cloud._outlets.carriers == [before]
    kept, other = WEBHOOK.format(name="mes", path="a"), WEBHOOK.format(name="bi", path="b")
    (tmp_path / "results.toml").write_text(kept + other + '[[report]]\nname = "shift"\nfolder = "out"\n')
    assert cloud._take_changed(file)
    assert cloud.health().results_faults == []
    assert [each.name for each in cloud._outlets.carriers] == ["webhook:mes", "webhook:bi"]
    assert cloud._outlets.carriers[0] is before
    assert "report-shift" in [each.name for each in cloud.jobs()]
    (tmp_path / "results.toml").write_text(WEBHOOK.format(name="mes", path="elsewhere"))
    assert cloud._take_changed(file)
    assert cloud._outlets.carriers[0] is not before
    turns.stop()


def test_a_changed_masterdata_file_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    source = '[[source]]\nname = "{name}"\nkind = "shift"\nfolder = "plan"\n'
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "p.csv").write_text(HEAD + "a,,2021-06-28,2,14:00,18:00,,,\n")
    (tmp_path / "masterdata.toml").write_text(source.format(name="mes"))
    turns = Turns(tmp_path, "", now=SHIFT, masterdata="masterdata.toml")
    file, cloud = turns.cloud._masterdata_file, turns.cloud
    assert file is not None
    turns.sync()
    key = next(iter(cloud.plant.machines))
    assert cloud.plant.machines[key].calendar.table.exceptions
    (tmp_path / "masterdata.toml").write_text(source.format(name="mes") * 2)
    assert not cloud._take_changed(file)
    assert cloud.health().masterdata_faults
    (tmp_path / "masterdata.toml").write_text("")
    assert cloud._take_changed(file)
    assert cloud.health().masterdata_faults == []
    assert [each.name for each in cloud.jobs() if each.name.startswith("masterdata")] == []
    cloud._present.look()
    assert not cloud.plant.machines[key].calendar.table.exceptions
    turns.stop()


class Slow(Carrier[int]):
    """Takes until it is let go for each item; what it carried is told by its mark."""

    def __init__(
        self, store: SqliteStore, mark: str, queue: list[int], carried: list[tuple[str, int]]
    ) -> None:
        super().__init__("slow", store, kind="test", retry_max_secs=1.0)
        self.mark, self.queue, self.carried = mark, queue, carried
        self.begun, self.may_end = threading.Event(), threading.Event()

    def waiting(self) -> Sequence[int]:
        """Return what waits."""
        return list(self.queue)

    def carry(self, item: int) -> bool:
        """Carry one."""
        self.begun.set()
        assert self.may_end.wait(60)
        self.carried.append((self.mark, item))
        self._note_sent()
        return True

    def done(self, item: int) -> None:
        """Take it off."""
        self.queue.remove(item)

    def backlog(self) -> int:
        """Return how many wait."""
        return len(self.queue)


async def test_who_takes_a_carriers_place_begins_when_that_one_has_ended(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    queue, carried = [1, 2, 3], list[tuple[str, int]]()
    first, second = (Slow(store, mark, queue, carried) for mark in ("first", "second"))
    running = Running()
    second.may_end.set()
    async with asyncio.TaskGroup() as group:
        running.serve([first], group)
        assert await until(first.begun.is_set)
        running.serve([second], group)
        assert not second.begun.is_set()
        first.may_end.set()
        assert await until(lambda: len(carried) == 3)
        running.serve([], group)
    assert carried == [("first", 1), ("second", 2), ("second", 3)]
    again = Slow(store, "again", [], carried)
    assert again.view.sent == second.view.sent >= 2  # counts go on over restarts
    store.close()


async def test_a_job_that_takes_long_holds_up_its_own_lane_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    may_end, done = threading.Event(), list[str]()

    def long() -> str:
        assert may_end.wait(60)
        done.append("long")
        return ""

    def quick(name: str) -> str:
        done.append(name)
        return ""

    jobs = Jobs(
        [
            Job("long", 3600.0, long, lane="letters"),
            Job("same-lane", 3600.0, lambda: quick("same-lane"), lane="letters"),
            Job("other-lane", 0.3, lambda: quick("other-lane")),
        ],
        store,
        now_us=lambda: round(SHIFT * 1e6),
        monotonic_us=lambda: 0,
    )
    task = asyncio.create_task(jobs.run())
    try:
        assert await until(lambda: done.count("other-lane") >= 2)
        assert set(done) == {"other-lane"}
        jobs.take([Job("new", 3600.0, lambda: quick("new"))])
        assert await until(lambda: "new" in done)
        assert [view.name for view in jobs.views()] == ["new"]
        may_end.set()
        assert await until(lambda: "same-lane" in done)
    finally:
        may_end.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    store.close()
