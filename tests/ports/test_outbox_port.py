"""What every outbox does, whether what waits is still rows or packed."""

import json
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from contract.telemetry import decode_one
from gateway.errors import OutboxError, OutboxLockedError, StartError
from gateway.outbox.port import GapDraft
from tests.support.gateway_parts import (
    GAP_TOPIC,
    MACHINE,
    PACK_AT_ONCE,
    START_US,
    TELEMETRY_TOPIC,
    Clock,
    Record,
    open_outbox,
    outbox_in,
)


@pytest.fixture(autouse=True, params=[0, 7], ids=["rows", "packs"])
def run_records(request, monkeypatch):
    """Have outboxes pack that many records at once; 0 for none."""
    if request.param:
        monkeypatch.setenv(PACK_AT_ONCE, str(request.param))
    return request.param


ALL = {"max_records": 10**6, "max_bytes": 10**9}


def everything(outbox):
    return outbox.read(0, 2**53, **ALL)


def test_a_new_outbox_begins_at_the_microseconds_of_the_clock(tmp_path):
    with outbox_in(tmp_path) as outbox:
        assert outbox.append([Record(1), Record(2)]) == START_US + 1
        assert [record.sequence for record in everything(outbox)] == [START_US, START_US + 1]


def test_a_record_carries_its_sequence_and_its_topic(tmp_path):
    with outbox_in(tmp_path) as outbox:
        sequence = outbox.append([Record(7)])
        [stored] = everything(outbox)
    assert stored.topic == TELEMETRY_TOPIC
    assert decode_one(stored.payload).sequence == sequence


def test_sequences_go_on_after_a_restart_even_when_all_was_delivered(tmp_path):
    with outbox_in(tmp_path) as outbox:
        last = outbox.append([Record(n) for n in range(5)])
        outbox.acknowledge("broker", [(0, last)])
    with outbox_in(tmp_path, clock=Clock(5)) as outbox:
        assert everything(outbox) == []
        assert outbox.append([Record(6)]) == last + 1


def test_sequences_are_not_repeated_when_the_file_is_gone_and_the_clock_is_back(tmp_path):
    with outbox_in(tmp_path) as outbox:
        last = outbox.append([Record(n) for n in range(5)])
    for path in tmp_path.glob("outbox.sqlite*"):
        path.unlink()
    with outbox_in(tmp_path, clock=Clock(1_000_000)) as outbox:
        assert outbox.append([Record(1)]) > last


def test_sequences_stay_above_what_a_store_has_seen(tmp_path):
    with outbox_in(tmp_path) as outbox:
        outbox.skip_past(START_US + 10**9)
        assert outbox.append([Record(1)]) == START_US + 10**9 + 1
        outbox.skip_past(5)
        assert outbox.append([Record(1)]) == START_US + 10**9 + 2


def test_an_append_that_fails_leaves_nothing(tmp_path):
    class Broken(Record):
        def encode(self, sequence):
            raise ValueError("no")

    with outbox_in(tmp_path) as outbox:
        outbox.append([Record(1)])
        with pytest.raises(ValueError, match="no"):
            outbox.append([Record(2), Broken(3)], {"plc": b"x"})
        assert len(everything(outbox)) == 1
        assert outbox.checkpoint("plc") is None
        assert outbox.append([Record(2)]) == START_US + 1
        assert outbox.statistics().records == 2


def test_any_part_is_read_as_the_whole_is(tmp_path):
    """However new, though a write was taken back between, and some have left."""

    def parts_are_right():
        whole = everything(outbox)
        first, following = whole[0].sequence if whole else outbox.first_sequence, outbox.next_sequence
        for start in range(first, following):
            for end in range(start, following):
                assert outbox.read(start, end, **ALL) == [
                    one for one in whole if start <= one.sequence <= end
                ]
                assert len(outbox.read(start, end, max_records=1, max_bytes=1)) <= 1

    with outbox_in(tmp_path) as outbox:
        outbox.append([Record(1), Record(2)])
        parts_are_right()
        with pytest.raises(OutboxError):
            outbox.append([Record(3), Record(4), Record(5)], {"plc": object()})
        outbox.append([Record(6)])
        parts_are_right()
        assert [decode_one(one.payload).total_units for one in everything(outbox)] == [1, 2, 6]
        outbox.append([Record(7), Record(8)])
        outbox.skip_past(outbox.next_sequence + 2)
        outbox.append([Record(9)])
        parts_are_right()
        last = outbox.append([Record(10), Record(11)])
        outbox.quarantine("broker", START_US + 1, "no")
        outbox.acknowledge("broker", [(START_US + 3, START_US + 3), (last - 1, last - 1)])
        while outbox.flush():
            pass
        parts_are_right()
        assert [decode_one(one.payload).total_units for one in everything(outbox)] == [1, 6, 8, 9, 11]


def test_what_was_appended_survives_kill_9(tmp_path):
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from tests.support.gateway_parts import Record, open_outbox
        outbox = open_outbox(Path(sys.argv[1]))
        for start in range(0, 500, 10):
            last = outbox.append([Record(n) for n in range(start, start + 10)])
            outbox.acknowledge("broker", [(0, last - 300)])
            if start == 400:
                outbox.flush()
        print(last, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path.cwd(),
        check=False,
    )
    last = int(done.stdout)
    with outbox_in(tmp_path) as outbox:
        kept = [record.sequence for record in everything(outbox)]
        assert kept == list(range(kept[0], last + 1))
        assert kept[0] <= last - 299
        assert outbox.append([Record(1)]) == last + 1
        assert outbox.statistics().records == len(kept) + 1


def test_reading_is_bounded_by_records_and_bytes_and_never_starves(tmp_path):
    with outbox_in(tmp_path) as outbox:
        outbox.append([Record(n) for n in range(10)])
        size = len(everything(outbox)[0].payload)
        assert len(outbox.read(0, 2**53, max_records=4, max_bytes=10**9)) == 4
        assert len(outbox.read(0, 2**53, max_records=10, max_bytes=3 * (size + 1))) == 3
        assert len(outbox.read(0, 2**53, max_records=10, max_bytes=1)) == 1
        assert outbox.read(START_US + 3, START_US + 4, **ALL)[0].sequence == START_US + 3


def test_a_record_leaves_when_every_uplink_has_it(tmp_path):
    with outbox_in(tmp_path, uplinks=["one", "two"]) as outbox:
        last = outbox.append([Record(n) for n in range(10)])
        outbox.acknowledge("one", [(START_US, last)])
        outbox.flush()
        assert outbox.statistics().records == 10
        assert (outbox.pending("one"), outbox.pending("two")) == (0, 10)
        outbox.acknowledge("two", [(START_US + 5, last)])
        outbox.flush()
        assert outbox.statistics().records == 5
        assert outbox.pending("two") == 5


def test_places_are_kept_across_a_restart(tmp_path):
    with outbox_in(tmp_path, uplinks=["one", "two"]) as outbox:
        last = outbox.append([Record(n) for n in range(10)])
        outbox.acknowledge("one", [(START_US, START_US + 2), (START_US + 8, last)])
    with outbox_in(tmp_path, uplinks=["one", "two"]) as outbox:
        assert list(outbox.acknowledged("one")) == [(START_US, START_US + 2), (START_US + 8, last)]
        assert list(outbox.acknowledged("two")) == []


def test_an_uplink_that_is_no_longer_configured_holds_nothing_back(tmp_path):
    with outbox_in(tmp_path, uplinks=["one", "two"]) as outbox:
        last = outbox.append([Record(n) for n in range(10)])
        outbox.acknowledge("one", [(0, last)])
    with outbox_in(tmp_path, uplinks=["one"]) as outbox:
        outbox.flush()
        assert outbox.statistics().records == 0


def test_uplinks_may_change_while_it_is_open(tmp_path):
    with outbox_in(tmp_path, uplinks=["one"]) as outbox:
        last = outbox.append([Record(n) for n in range(4)])
        outbox.use_uplinks(["one", "two"])
        outbox.acknowledge("one", [(0, last)])
        outbox.flush()
        assert (outbox.statistics().records, outbox.pending("two")) == (4, 4)
        outbox.use_uplinks(["one"])
        outbox.flush()
        assert outbox.statistics().records == 0


def test_acknowledging_what_never_existed_changes_nothing(tmp_path):
    with outbox_in(tmp_path) as outbox:
        outbox.append([Record(n) for n in range(3)])
        outbox.acknowledge("broker", [(0, START_US - 1), (START_US + 50, 2**53)])
        outbox.flush()
        last = outbox.append([Record(9)])
        assert outbox.statistics().records == 4
        assert last not in outbox.acknowledged("broker")


def test_statistics_tell_what_waits(tmp_path):
    with outbox_in(tmp_path) as outbox:
        assert outbox.statistics().oldest_us is None
        assert outbox.statistics().first_sequence == START_US
        outbox.append([Record(3), Record(4)])
        outbox.acknowledge("broker", [(START_US, START_US)])
        outbox.flush()
        statistics = outbox.statistics()
        assert (statistics.records, statistics.first_sequence) == (1, START_US + 1)
        assert statistics.oldest_us == Record(4).epoch_us
        assert statistics.appended == 2
        assert 100 < statistics.bytes < 400


def test_checkpoints_stand_with_the_records_of_their_transaction(tmp_path):
    with outbox_in(tmp_path) as outbox:
        outbox.append([Record(1)], {"plc": b"one", "other": b"o"})
        outbox.append([], {"plc": b"two"})
    with outbox_in(tmp_path) as outbox:
        assert outbox.checkpoint("plc") == b"two"
        assert outbox.checkpoint("other") == b"o"
        assert outbox.checkpoint("none") is None


def test_listeners_hear_of_each_append_with_records(tmp_path):
    heard = []

    def appended():
        heard.append(1)

    with outbox_in(tmp_path) as outbox:
        outbox.subscribe(appended)
        outbox.append([Record(1), Record(2)])
        outbox.append([], {"plc": b"x"})
        outbox.unsubscribe(appended)
        outbox.append([Record(3)])
    assert heard == [1]


def test_a_full_outbox_drops_the_oldest_analogue_records_first(tmp_path, run_records):
    max_bytes = 50_000 if run_records else 200_000
    with outbox_in(tmp_path, max_bytes=max_bytes) as outbox:
        kinds = ["state", "analogue", "counter", "analogue"]
        for n in range(3000):
            outbox.append([Record(n, kinds[n % 4])])
            assert outbox.statistics().bytes < max_bytes + 30_000
        kept = [
            json.loads(record.payload) for record in everything(outbox) if record.topic == TELEMETRY_TOPIC
        ]
        numbers = [record["total_units"] for record in kept]
        statistics = outbox.statistics()
    analogue = [n for n in numbers if n % 2]
    facts = [n for n in numbers if not n % 2]
    assert numbers[-1] == 2999, "the newest is always kept"
    assert len(facts) > (5 if run_records else 10) * len(analogue), (
        "states and counters outlive analogue records"
    )
    assert facts == list(range(facts[0], 3000, 2)), "what is kept of them is one stretch up to the newest"
    assert statistics.dropped["full"] > 0
    assert "full" in statistics.alarm


def test_what_a_full_outbox_dropped_stands_in_a_gap(tmp_path, run_records):
    with outbox_in(tmp_path, max_bytes=25_000 if run_records else 100_000) as outbox:
        for n in range(1000):
            outbox.append([Record(n)])
        records = everything(outbox)
    gaps = [json.loads(record.payload) for record in records if record.topic == GAP_TOPIC]
    kept = [json.loads(record.payload)["total_units"] for record in records if record.topic != GAP_TOPIC]
    assert gaps, "what was dropped is recorded"
    assert gaps[0]["from_epochtime"] == START_US / 1e6
    assert gaps[-1]["to_epochtime"] == START_US / 1e6 + kept[0] - 1
    covered = {
        second for gap in gaps for second in range(int(gap["from_epochtime"]), int(gap["to_epochtime"]) + 1)
    }
    assert covered == {START_US // 10**6 + n for n in range(kept[0])}
    assert {gap["machine"] for gap in gaps} == {"filler"}
    assert all("full" in gap["cause"] for gap in gaps)


def test_the_alarm_ends_when_there_is_room_again(tmp_path, run_records):
    with outbox_in(tmp_path, max_bytes=10_000 if run_records else 50_000) as outbox:
        for n in range(400):
            last = outbox.append([Record(n)])
        assert outbox.statistics().alarm
        outbox.flush()
        assert outbox.statistics().alarm
        outbox.acknowledge("broker", [(0, last)])
        outbox.flush()
        outbox.flush()
        assert outbox.statistics().alarm is None
        assert outbox.statistics().dropped["full"] > 0


def test_records_are_dropped_when_the_daemon_has_run_for_their_full_age(tmp_path):
    running = Clock(0)
    outbox = open_outbox(tmp_path, clock=running, max_age_us=3_600_000_000)
    for minute in range(100):
        running.now_us = minute * 60_000_000
        outbox.append([Record(minute)])
        outbox.flush()
    kept = [json.loads(r.payload) for r in everything(outbox)]
    numbers = [record["total_units"] for record in kept if "total_units" in record]
    assert 99 in numbers
    assert 25 <= numbers[0] <= 40
    assert outbox.statistics().dropped["age"] >= 25
    assert any("older" in record.get("cause", "") for record in kept)
    outbox.close()


def test_a_leap_of_the_wall_clock_drops_nothing(tmp_path):
    outbox = open_outbox(tmp_path, max_age_us=3_600_000_000)
    outbox.append([Record(n) for n in range(5)])
    outbox._clock_us.now_us += 366 * 86_400_000_000
    outbox.flush()
    outbox.append([Record(9)])
    assert outbox.statistics().records == 6
    outbox.close()


def test_a_quarantined_record_is_kept_aside_and_blocks_nobody(tmp_path):
    with outbox_in(tmp_path) as outbox:
        outbox.append([Record(1), Record(2)])
        outbox.quarantine("broker", START_US, "too large")
        outbox.flush()
        assert [record.sequence for record in everything(outbox)] == [START_US + 1]
        statistics = outbox.statistics()
        assert (statistics.quarantined, statistics.dropped["refused"]) == (1, 1)
    rows = sqlite3.connect(tmp_path / "outbox.sqlite")
    [(sequence, payload, reason)] = rows.execute(
        "SELECT sequence, payload, reason FROM quarantine"
    ).fetchall()
    rows.close()
    assert (sequence, reason) == (START_US, "too large")
    assert decode_one(payload).total_units == 1


@pytest.mark.parametrize("damage", [b"this is no database", b"", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(tmp_path, damage):
    with outbox_in(tmp_path) as outbox:
        last = outbox.append([Record(n) for n in range(50)])
    for path in tmp_path.glob("outbox.sqlite-*"):
        path.unlink()
    (tmp_path / "outbox.sqlite").write_bytes(damage)
    with outbox_in(tmp_path, clock=Clock(1_000_000)) as outbox:
        assert outbox.append([Record(1)]) > last, "no sequence is given twice"
        assert len(everything(outbox)) == 1
        if damage:
            assert "damaged" in outbox.statistics().alarm
            assert outbox.statistics().damaged_files == 1
            assert [path.read_bytes() for path in tmp_path.glob("outbox.damaged-*.sqlite")] == [damage]


def test_damage_that_shows_while_running_is_survived(tmp_path):
    with outbox_in(tmp_path) as outbox:
        for start in range(0, 3000, 100):
            last = outbox.append([Record(n) for n in range(start, start + 100)])
        outbox._database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / "outbox.sqlite"
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)
    with outbox_in(tmp_path, clock=Clock(1_000_000)) as outbox:
        everything(outbox)
        outbox.flush()
        assert outbox.append([Record(1)]) > last
        assert [r.sequence for r in everything(outbox)][-1] > last
        assert outbox.statistics().damaged_files == 1


@pytest.mark.parametrize("running", [False, True])
def test_what_can_be_read_of_a_damaged_file_is_saved(tmp_path, running):
    with outbox_in(tmp_path) as outbox:
        for start in range(0, 6000, 100):
            last = outbox.append([Record(n) for n in range(start, start + 100)])
        before = {record.sequence: record for record in everything(outbox)}
        outbox._database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    path = tmp_path / "outbox.sqlite"
    content = bytearray(path.read_bytes())
    middle = len(content) // 8192 * 4096
    content[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(content)
    with outbox_in(tmp_path, clock=Clock(1_000_000)) as outbox:
        if running:
            outbox.acknowledge("broker", [(START_US, START_US + 99)])
        everything(outbox)
        fresh = outbox.append([Record(1)])
        assert fresh > last
        kept = {record.sequence: record for record in everything(outbox)}
        assert len(kept) > 5700, "of two pages, all else"
        assert all(before[sequence] == record for sequence, record in kept.items() if sequence != fresh)
        assert outbox.statistics().damaged_files == 1
        assert "records were saved" in outbox.statistics().alarm
        assert outbox.statistics().records == len(kept)
        if running:
            outbox.flush()
            assert outbox.statistics().records == len(kept) - 100


def test_a_second_process_is_told_who_uses_the_folder(tmp_path):
    with outbox_in(tmp_path):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from tests.support.gateway_parts import *; open_outbox(Path(__import__('sys').argv[1]))",
                str(tmp_path),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "OutboxLockedError" in done.stderr
    assert "is used by another gateway process (pid " in done.stderr
    with pytest.raises(OutboxLockedError), outbox_in(tmp_path), outbox_in(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_said_plainly(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StartError, match="cannot be written"):
        open_outbox(tmp_path / "file" / "data")


def test_a_full_disk_stops_appends_and_nothing_else(tmp_path, run_records):
    """In a process of its own, because the limit is the process's."""
    program = textwrap.dedent("""
        import json, resource, sys
        from pathlib import Path
        from gateway.errors import OutboxFullError
        from tests.support.gateway_parts import Record, open_outbox
        folder = Path(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        outbox = open_outbox(folder)
        told = 0
        for n in range(0, 6000, 50):
            try:
                last = outbox.append([Record(m) for m in range(n, n + 50)])
            except OutboxFullError:
                told += 1
        alarm = outbox.statistics().alarm
        dropped = outbox.statistics().dropped["full"]
        while outbox.flush():
            pass
        outbox.acknowledge("broker", [(0, last)])
        for _ in range(5):
            outbox.flush()
        resumed = outbox.append([Record(1)])
        outbox.flush(); outbox.flush()
        print(json.dumps([alarm, dropped, told, resumed - last, outbox.statistics().alarm]))
        outbox.close()
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "200000" if run_records else "400000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alarm, dropped, told, resumed, later = json.loads(done.stdout.splitlines()[-1])
    assert "disk is full" in alarm or "no room" in alarm
    assert told == 0
    assert dropped > 0, "the oldest made room for the newest"
    assert resumed == 1
    assert later is None


def test_a_disk_that_has_room_again_costs_no_records(tmp_path):
    """What was held back meanwhile comes at once, before the outbox has looked at the disk again."""
    program = textwrap.dedent("""
        import json, resource, sys
        from pathlib import Path
        from gateway.errors import OutboxFullError
        from tests.support.gateway_parts import Record, open_outbox
        outbox = open_outbox(Path(sys.argv[1]))
        outbox.append([Record(m) for m in range(100)])
        outbox._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        try:
            outbox.append([Record(100)])
        except OutboxFullError:
            refused = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        outbox.append([Record(m) for m in range(100, 3000)])
        found = outbox.statistics()
        print(json.dumps([refused, found.dropped["full"], found.records]))
        outbox.close()
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True, 0, 3000]


def test_a_killed_daemon_starts_again_on_a_disk_that_is_full(tmp_path):
    """It goes on reading its PLCs, which keep their values for it; what is old makes room for them."""
    program = textwrap.dedent("""
        import json, os, resource, sys
        from pathlib import Path
        from tests.support.gateway_parts import Record, open_outbox
        folder = Path(sys.argv[1])
        log = folder / "outbox.sqlite-wal"
        if log.exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))
        outbox = open_outbox(folder)
        alarm = outbox.statistics().alarm
        for n in range(200):
            outbox.append([Record(n)])
        print(json.dumps([alarm, outbox.statistics().records]), flush=True)
        os._exit(0)
    """)
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout.splitlines()[-1]))
    assert told[0] == [None, 200]
    assert "the disk is full" in told[1][0]
    assert told[1][1] > 0


def test_what_was_delivered_while_nothing_could_be_written_is_let_go_later(tmp_path):
    program = textwrap.dedent("""
        import json, resource, sys
        from pathlib import Path
        from tests.support.gateway_parts import Record, open_outbox
        outbox = open_outbox(Path(sys.argv[1]))
        last = outbox.append([Record(n) for n in range(100)])
        outbox.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        outbox.acknowledge("broker", [(0, last)])
        for _ in range(3):
            outbox.flush()
        held = outbox.statistics().records
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for _ in range(3):
            outbox.flush()
        print(json.dumps([held, outbox.statistics().records, outbox.pending("broker")]))
        outbox.close()
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    held, records, pending = json.loads(done.stdout.splitlines()[-1])
    assert (held, records, pending) == (100, 0, 0)


def test_gap_drafts_follow_the_contract(tmp_path):
    gap = GapDraft(MACHINE, "edge", START_US, START_US + 5_000_000, "PLC lost")
    with outbox_in(tmp_path) as outbox:
        outbox.append([gap])
        [stored] = everything(outbox)
    document = json.loads(stored.payload)
    assert stored.topic == GAP_TOPIC
    assert (document["from_epochtime"], document["to_epochtime"]) == (START_US / 1e6, START_US / 1e6 + 5)
    assert document["cause"] == "PLC lost"
