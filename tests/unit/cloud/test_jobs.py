"""Jobs come round whatever restarts and clocks do; backups hold everything."""

import asyncio
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud import backup, upkeep
from cloud.config import CloudConfig
from cloud.errors import StoreError
from cloud.jobs import Job, Jobs
from cloud.opening import open_store
from cloud.store.port import Arrivals, DeadLetter, JobRun
from cloud.store.rows import to_telemetry
from cloud.store.sqlite import SqliteStore
from contract.states import MachineState
from contract.telemetry import Telemetry

SEC, HOUR, DAY = 1_000_000, 3600, 86_400
T0 = 1_625_011_200


class Clock:
    """A wall clock that runs beside the true time, and may be set."""

    def __init__(self) -> None:
        self.offset_us = T0 * SEC

    def wall_us(self) -> int:
        return self.offset_us + self.true_us()

    def true_us(self) -> int:
        return time.monotonic_ns() // 1000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.sqlite3")
    yield opened
    opened.close()


def at(store: SqliteStore, now_us: int, *jobs: Job) -> Jobs:
    return Jobs(jobs, store, now_us=lambda: now_us, monotonic_us=lambda: now_us)


def test_a_job_is_due_by_when_it_last_began(store: SqliteStore) -> None:
    job = Job("sweep", 60.0, lambda: "")
    assert at(store, T0 * SEC, job).due_us("sweep") == T0 * SEC + SEC // 5
    store.save_job_run(JobRun("sweep", T0 * SEC, 5, 1, 0, "", ""))
    assert at(store, (T0 + 10) * SEC, job).due_us("sweep") == (T0 + 60) * SEC
    assert at(store, (T0 + 999) * SEC, job).due_us("sweep") == (T0 + 999) * SEC + SEC // 5
    assert at(store, (T0 - HOUR) * SEC, job).due_us("sweep") == (T0 - HOUR) * SEC + SEC // 5


async def _run_for(jobs: Jobs, secs: float) -> None:
    task = asyncio.create_task(jobs.run())
    await asyncio.sleep(secs)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_jobs_run_and_their_runs_are_kept(store: SqliteStore) -> None:
    done: list[str] = []

    def fail() -> str:
        done.append("fail")
        raise StoreError("no room")

    def breaks() -> str:
        raise ValueError("a fault of the program")

    clock = Clock()
    jobs = Jobs(
        [
            Job("good", 0.3, lambda: done.append("good") or "swept"),
            Job("bad", 3600, fail),
            Job("worse", 3600, breaks),
        ],
        store,
        now_us=clock.wall_us,
        monotonic_us=clock.true_us,
    )
    await _run_for(jobs, 2.2)
    assert done.count("good") >= 3
    assert done.count("fail") == 1
    runs = {run.name: run for run in store.job_runs()}
    assert runs["good"].result == "swept"
    assert runs["good"].runs == done.count("good")
    assert (runs["bad"].failures, runs["bad"].error) == (1, "no room")
    assert "ValueError" in runs["worse"].error
    (good, bad, _) = jobs.views()
    assert good.failures == 0
    assert good.next_epochtime > T0
    assert bad.last_epochtime is not None


async def test_a_restart_does_not_repeat_a_job(store: SqliteStore) -> None:
    done: list[int] = []
    clock = Clock()
    for _ in range(2):
        jobs = Jobs(
            [Job("daily", DAY, lambda: done.append(1) or "")],
            store,
            now_us=clock.wall_us,
            monotonic_us=clock.true_us,
        )
        await _run_for(jobs, 1.4)
    assert len(done) == 1


def record(sequence: int, when: float) -> Telemetry:
    return Telemetry(
        epochtime=when,
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        state=MachineState.RUNNING,
        gateway="gw",
        sequence=sequence,
        total_units=sequence,
    )


def configured(tmp_path: Path, **tables: dict[str, object]) -> CloudConfig:
    return CloudConfig.model_validate({"cloud": {"data_dir": str(tmp_path / "data")}, **tables})


def everything(store: SqliteStore) -> list[object]:
    machines = range(len(store.names.all("machine")))
    return list(to_telemetry(store.read_table(machines, 0, 2**62), store.names))


def test_upkeep_moves_old_days_joins_pieces_and_forgets(tmp_path: Path) -> None:
    config = configured(
        tmp_path, history={"keep_days": 10}, backup={"folder": str(tmp_path / "backups"), "keep": 2}
    )
    config = config.model_copy(update={"cloud": config.cloud.model_copy(update={"dead_letters_max": 1})})
    store = open_store(config)
    try:
        records = [record(n, T0 - 5 * DAY + n * HOUR / 2) for n in range(200)]
        for one in records:
            store.append(Arrivals([one], dead_letters=[DeadLetter(1, "topic", "reason", b"x")]))
        now = [T0 * SEC]
        work = {job.name: job.work for job in upkeep.jobs(config, store, lambda: now[0])}
        assert set(work) == {"join", "memory", "dead-letters", "history", "retention", "backup"}
        assert "joined" in work["join"]()
        assert "dropped" in work["dead-letters"]()
        assert "2021-06-25" in work["history"]()
        assert work["history"]() == ""
        assert everything(store) == records
        for _ in range(4):
            now[0] += SEC
            assert "MB" in work["backup"]()
        assert len(list((tmp_path / "backups").iterdir())) == 2
        assert work["retention"]() == ""
        now[0] += 8 * DAY * SEC
        assert "left" in work["retention"]()
        assert len(everything(store)) < len(records)
    finally:
        store.close()


def test_what_a_killed_backup_left_behind_goes_with_a_later_one(tmp_path: Path) -> None:
    config = configured(tmp_path, backup={"folder": str(tmp_path / "backups"), "keep": 2})
    left, under_way, foreign = (
        tmp_path / "backups" / name for name in (".oee-cloud-abc", ".oee-cloud-def", ".backup-abc")
    )
    for folder in (left, under_way, foreign):
        folder.mkdir(parents=True)
        (folder / backup.STORE_FILE).write_bytes(b"half a copy")
    (tmp_path / "backups" / ".oee-cloud-1.tar.partial").write_bytes(b"half an archive")
    for path in (left, foreign, tmp_path / "backups" / ".oee-cloud-1.tar.partial"):
        os.utime(path, (T0, T0))
    store = open_store(config)
    work = {job.name: job.work for job in upkeep.jobs(config, store, lambda: T0 * SEC)}
    work["backup"]()
    store.close()
    hidden = {path.name for path in (tmp_path / "backups").glob(".*")}
    assert hidden == {under_way.name, foreign.name}


def test_a_backup_holds_everything_and_is_restored_in_place_of_nothing(tmp_path: Path) -> None:
    config = configured(tmp_path)
    store = open_store(config)
    records = [record(n, T0 - 5 * DAY + n * HOUR) for n in range(100)]
    store.append(Arrivals(records))
    for job in upkeep.jobs(config, store, lambda: T0 * SEC):
        job.work()
    target = tmp_path / "backup.tar"
    backup.back_up(store, config.history_folder, target)
    store.append(Arrivals([record(1000, T0)]))
    with pytest.raises(StoreError, match="in place of nothing"):
        backup.restore(target, config.cloud.data_dir, config.history_folder)
    store.close()
    elsewhere = configured(tmp_path / "elsewhere")
    backup.restore(target, elsewhere.cloud.data_dir, elsewhere.history_folder)
    again = open_store(elsewhere)
    assert everything(again) == records
    assert again.append(Arrivals(records)).repeated == len(records)
    again.close()


@pytest.mark.parametrize("name", ["../store.sqlite3", "/etc/passwd", "history/../../x", "other"])
def test_a_backup_with_strange_members_is_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(StoreError):
        backup.restore(tmp_path / "evil.tar", tmp_path / "data", tmp_path / "data" / "history")
    assert not (tmp_path / "data" / "store.sqlite3").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240])
def test_what_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(StoreError):
        backup.restore(tmp_path / "file", tmp_path / "data", tmp_path / "data" / "history")


def test_a_backup_that_cannot_be_written_is_told(tmp_path: Path, store: SqliteStore) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        backup.back_up(store, tmp_path / "history", tmp_path / "file" / "backup.tar")


async def test_a_clock_that_jumps_a_year_runs_each_job_once(store: SqliteStore) -> None:
    """Ahead and back again; no list of the runs between is made."""
    done: list[str] = []
    clock = Clock()
    jobs = Jobs(
        [
            Job(name, every, lambda name=name: done.append(name) or "")
            for name, every in (("a", 10), ("b", DAY))
        ],
        store,
        now_us=clock.wall_us,
        monotonic_us=clock.true_us,
    )
    await _run_for(jobs, 1.0)
    assert sorted(done) == ["a", "b"]
    for step in (365 * DAY * SEC, -365 * DAY * SEC):
        clock.offset_us += step
        done.clear()
        assert jobs.due_us("a") <= clock.wall_us() + SEC
        await _run_for(jobs, 1.0)
        assert sorted(done) == ["a", "b"]
        assert jobs.due_us("b") > clock.wall_us() + (DAY - 60) * SEC


def test_a_rare_job_that_failed_is_due_again_soon(store: SqliteStore) -> None:
    rare, often = Job("rare", DAY, lambda: ""), Job("often", 10.0, lambda: "")
    for job in (rare, often):
        store.save_job_run(JobRun(job.name, T0 * SEC, 5, 1, 1, "", "no room"))
    jobs = at(store, (T0 + 1) * SEC, rare, often)
    assert jobs.due_us("rare") == (T0 + 600) * SEC
    assert jobs.due_us("often") == (T0 + 10) * SEC


async def test_runs_that_do_nothing_are_noted_once_a_minute(store: SqliteStore) -> None:
    clock = Clock()
    jobs = Jobs([Job("idle", 0.2, lambda: "")], store, now_us=clock.wall_us, monotonic_us=clock.true_us)
    await _run_for(jobs, 2.0)
    (view,) = jobs.views()
    (noted,) = store.job_runs()
    assert view.runs > noted.runs == 1
    clock.offset_us += 61 * SEC
    await _run_for(jobs, 1.0)
    assert store.job_runs()[0].runs > 1


def test_a_backup_that_is_made_while_records_pour_in_is_whole(tmp_path: Path) -> None:
    """Every backup holds an unbroken beginning of what was stored; its receipt promises no more than that.

    What went to the history while the backup was written may be in it beyond the receipt: a gateway that
    sends it again changes nothing.
    """
    config = configured(tmp_path)
    store = open_store(config)
    stop = threading.Event()
    stored = [0]

    def pour() -> None:
        number = 0
        while not stop.is_set():
            batch = [record(number + n + 1, T0 - 6 * DAY + (number + n) * 60) for n in range(50)]
            store.append(Arrivals(batch))
            number += 50
            stored[0] = number

    def tidy() -> None:
        while not stop.is_set():
            for job in upkeep.jobs(config, store, lambda: T0 * SEC):
                job.work()

    threads = [threading.Thread(target=work) for work in (pour, tidy)]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            before = stored[0]
            while stored[0] < before + 500:
                time.sleep(0.01)
            known = stored[0]
            target = tmp_path / f"{number}.tar"
            backup.back_up(store, config.history_folder, target)
            elsewhere = configured(tmp_path / f"restored-{number}")
            backup.restore(target, elsewhere.cloud.data_dir, elsewhere.history_folder)
            again = open_store(elsewhere)
            sequences = sorted(item.sequence for item in everything(again))
            (_, _, _, receipt) = again.gateways()[0]
            again.close()
            assert len(sequences) >= known
            assert sequences == list(range(1, len(sequences) + 1))
            ((first, last),) = receipt.stored_beyond
            assert first == 1
            assert known <= last <= len(sequences)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        store.close()
