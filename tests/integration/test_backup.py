"""Backups made beside a service that takes in, revises and moves records, restored and compared."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud import commands_report, commands_work
from cloud.commands import import_telemetry
from cloud.config import load
from cloud.opening import open_store
from cloud.store.sqlite import SqliteStore
from contract.telemetry import encode
from tests.support.cloud import CloudProcess, write_config
from tests.support.edge import Edge, wait_for
from tests.support.mosquitto import Mosquitto

HOUR = 3600
KEY = "berlin/packaging/line-1/filler-1"
SCOPES = (KEY, KEY.rpartition("/")[0])
Revisions = dict[tuple[str, int], list[dict[str, Any]]]


def closed(store: SqliteStore) -> Revisions:
    """Return the figures of all revisions of all closed shifts, by place and beginning."""
    return {
        (scope, shift.start_us): [each.figures for each in store.closed(scope, shift.start_us)]
        for scope in SCOPES
        for shift in store.closed_between(scope, 0, 2**62)
    }


@contextmanager
def under_way(edge: Edge, start: float) -> Iterator[None]:
    """Let records of now and of days ago, which revise their shifts, come until the end."""
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.wait(0.2):
            number += 1
            late = start + HOUR / 2 + number * 997 % (40 * HOUR)
            edge.send([edge.record("filler-1", total_units=100_000 + number)], live=True)
            if number % 15 == 1:  # with pauses in which their shifts are revised
                edge.send([edge.record("filler-1", "stopped", at=late + 0.5)])

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        stop.set()
        sending.join()


def test_closed_shifts_are_the_same_after_a_restore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mosquitto(tmp_path / "broker") as broker, Edge(broker.port) as edge:
        options = {"history": "after_days = 1", "web": "enabled = false"}
        config = write_config(tmp_path / "cloud", broker.url, options=options)
        start = time.time() - 56 * HOUR
        records = [edge.record("filler-1", at=start + n, total_units=n) for n in range(0, 55 * HOUR, 30)]
        (tmp_path / "days.jsonl").write_bytes(b"\n".join(map(encode, records)))
        assert import_telemetry([tmp_path / "days.jsonl"], config) == 0
        history = tmp_path / "cloud" / "store" / "history"
        with closing(open_store(load(config))) as store, CloudProcess(config) as cloud:
            assert wait_for(lambda: len(closed(store)) >= 10 and list(history.glob("*/day=*")), 30), (
                cloud.log()
            )
            with under_way(edge, start):
                assert wait_for(lambda: any(len(each) > 1 for each in closed(store).values()), 30)
                before = closed(store)
                assert commands_work.back_up(config, tmp_path / "backup.tar") == 0
                after = closed(store)
            edge.settle()
    restored = write_config(tmp_path / "restored", broker.url, options=options)
    assert commands_work.restore(restored, tmp_path / "backup.tar") == 0
    with closing(open_store(load(restored))) as store:
        found = closed(store)
    assert found.keys() == after.keys()
    for shift, revisions in found.items():
        assert before.get(shift, []) == revisions[: len(before.get(shift, []))], shift
        assert revisions == after[shift][: len(revisions)], shift
    span = {"since": time.strftime("%Y-%m-%d", time.gmtime(start)), "until": None}
    capsys.readouterr()
    assert commands_report.report(restored, **span, form="json") == 0
    reported = {(row["start"], row["revision"]) for row in json.loads(capsys.readouterr().out)}
    newest = [revisions[-1] for (scope, _), revisions in found.items() if scope == KEY]
    assert {(each["start"], each["revision"]) for each in newest[1:]} <= reported
