"""An outbox that packs does what one does that never packs."""

import json
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.outbox.packing import unpack
from gateway.outbox.port import KINDS
from tests.support.gateway_parts import (
    START_US,
    Clock,
    Record,
    open_outbox,
    outbox_in,
)

ALL = {"max_records": 10**6, "max_bytes": 10**9}
PACKING = {"rows_kept": 0, "run_records": 5}
HOUR_US = 3_600_000_000

PART = st.tuples(st.integers(0, 60), st.integers(0, 30))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from(KINDS[:3]), min_size=1, max_size=20)),
        st.tuples(st.sampled_from(["acknowledge one", "acknowledge two"]), PART),
        st.tuples(st.just("quarantine"), st.integers(0, 60)),
        st.tuples(st.just("flush"), st.integers(1, 4)),
        st.tuples(st.just("read"), st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 9))),
        st.tuples(st.just("uplinks"), st.sampled_from([["one"], ["one", "two"], ["one", "two", "three"]])),
        st.tuples(st.sampled_from(["kill", "reopen"]), st.none()),
        st.tuples(st.just("time"), st.integers(1, 120)),
    ),
    max_size=40,
)


class Twin:
    """One of two outboxes to which the same is done."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.folder.mkdir()
        self.options = options
        self.uplinks = ["one", "two"]
        self.running = Clock(0)
        self.number = 0
        self.open()

    def open(self):
        self.outbox = open_outbox(
            self.folder, uplinks=self.uplinks, clock=self.running, max_age_us=HOUR_US, **self.options
        )

    def do(self, what, how):
        """Do a step, and return what it tells."""
        base = self.outbox.first_sequence
        match what:
            case "append":
                drafts = [Record(self.number + n, kind) for n, kind in enumerate(how)]
                self.number += len(how)
                return self.outbox.append(drafts)
            case "acknowledge one" | "acknowledge two":
                uplink = what.removeprefix("acknowledge ")
                if uplink in self.uplinks:
                    self.outbox.acknowledge(uplink, [(base + how[0], base + sum(how))])
            case "quarantine":
                if base + how < self.outbox.next_sequence:
                    self.outbox.quarantine("one", base + how, "poison")
            case "flush":
                for _ in range(how):
                    self.outbox.flush()
            case "read":
                return self.outbox.read(base + how[0], base + sum(how[:2]), max_records=how[2], max_bytes=700)
            case "uplinks":
                self.uplinks = how
                self.outbox.use_uplinks(how)
            case "reopen":
                self.outbox.close()
                self.open()
            case "kill":
                self.kill()
            case "time":
                self.running.now_us += how * 60_000_000
        return None

    def kill(self):
        """Go on with what a process that was killed here would have left behind."""
        left = self.folder.with_name(f"{self.folder.name}-left")
        shutil.copytree(self.folder, left)
        self.outbox._database.close()
        shutil.rmtree(self.folder)
        left.rename(self.folder)
        self.open()

    def told(self):
        """Return everything that an outbox tells, but bytes."""
        while self.outbox.flush():
            pass
        statistics = self.outbox.statistics()
        return (
            self.outbox.read(0, 2**53, **ALL),
            {name: list(self.outbox.acknowledged(name)) for name in self.uplinks},
            {name: self.outbox.pending(name) for name in self.uplinks},
            (statistics.records, statistics.oldest_us, statistics.first_sequence, statistics.next_sequence),
            (
                statistics.dropped,
                statistics.quarantined,
                statistics.damaged_files,
                self.outbox.first_sequence,
            ),
        )


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_whatever_is_done_packing_changes_nothing(steps):
    with tempfile.TemporaryDirectory() as name:
        rows = Twin(Path(name) / "rows")
        packs = Twin(Path(name) / "packs", **PACKING)
        for what, how in steps:
            assert packs.do(what, how) == rows.do(what, how)
        assert packs.told() == rows.told()
        assert counted(packs.outbox) == held(packs.outbox), "the sums are those of what is there"
        for twin in (rows, packs):
            twin.outbox.close()


def held(outbox):
    """Return how many records stand in an outbox's tables, and how many of them in packs."""
    run = outbox._database.run
    rows = run("SELECT count(*) FROM records").fetchone()[0]
    packed = sum(len(unpack(content)) for (content,) in run("SELECT content FROM packs"))
    return rows + packed, packed


def counted(outbox):
    standing = outbox._database.standing
    return standing.records, standing.packed


def filled(outbox, count, kind=lambda n: "counter"):
    for start in range(0, count, 100):
        last = outbox.append([Record(n, kind(n)) for n in range(start, min(start + 100, count))])
    while outbox.flush():
        pass
    return last


@pytest.mark.parametrize("seed", range(3))
def test_a_full_outbox_of_packs_drops_by_rank_and_says_so(tmp_path, seed):
    kinds = random.Random(seed).choices(KINDS[:3], k=1_500)
    with outbox_in(tmp_path, max_bytes=30_000, **PACKING) as outbox:
        for start in range(0, len(kinds), 100):
            outbox.append([Record(start + n, kind) for n, kind in enumerate(kinds[start : start + 100])])
            while outbox.flush():
                pass
        found = [json.loads(one.payload) for one in outbox.read(0, 2**53, **ALL)]
        assert counted(outbox) == held(outbox)
        dropped = outbox.statistics().dropped["full"]
    kept = {one["total_units"] for one in found if "total_units" in one}
    gaps = [(one["from_epochtime"], one["to_epochtime"]) for one in found if "cause" in one]
    lost = [n for n in range(len(kinds)) if n not in kept]
    assert lost
    assert dropped >= len(lost)
    assert 1499 in kept
    facts = [n for n in sorted(kept) if kinds[n] != "analogue"]
    assert facts == [n for n in range(facts[0], 1500) if kinds[n] != "analogue"], "the oldest go first"
    for n in lost:
        assert any(since <= START_US / 1e6 + n <= until for since, until in gaps), "what is lost is told"


def test_old_rows_are_packed_and_the_newest_are_not(tmp_path):
    with outbox_in(tmp_path, rows_kept=300, run_records=100) as outbox:
        filled(outbox, 250)
        assert held(outbox) == (250, 0)
        filled(outbox, 1_000)
        assert held(outbox) == (1_250, 900)
        assert outbox.statistics().bytes < 100_000
        assert len(outbox.read(0, 2**53, **ALL)) == 1_250


def test_large_records_are_packed_few_at_a_time(tmp_path):
    with outbox_in(tmp_path, rows_kept=0, run_records=1_000) as outbox:
        for _ in range(3):
            outbox.append([Record(n, padding="x" * 450) for n in range(1_000)])
        assert outbox.flush()
        assert 1_000 < 3_000 - held(outbox)[1] < 3_000
        [(first, last)] = outbox._database.run("SELECT min(first), max(last) FROM packs")
        assert last - first + 1 == held(outbox)[1]


def test_what_is_packed_is_read_from_one_unpacking(tmp_path, monkeypatch):
    unpackings = Counter()

    def counting(content):
        unpackings[content] += 1
        return unpack(content)

    monkeypatch.setattr("gateway.outbox.packs.unpack", counting)
    with outbox_in(tmp_path, rows_kept=0, run_records=100) as outbox:
        last = filled(outbox, 1_000)
        at = outbox.first_sequence
        while at <= last:
            at = outbox.read(at, last, max_records=7, max_bytes=10**6)[-1].sequence + 1
    assert list(unpackings.values()) == [1] * 10


def test_packs_that_every_uplink_has_are_deleted_unread(tmp_path, monkeypatch):
    with outbox_in(tmp_path, rows_kept=0, run_records=100) as outbox:
        last = filled(outbox, 1_000)
        monkeypatch.setattr("gateway.outbox.packs.unpack", None)
        outbox.acknowledge("broker", [(0, last)])
        while outbox.flush():
            pass
        assert held(outbox) == (0, 0)
        assert outbox.statistics().bytes == 0


def test_a_damaged_pack_goes_alone_and_is_kept_aside(tmp_path):
    with outbox_in(tmp_path, rows_kept=0, run_records=100) as outbox:
        filled(outbox, 1_000)
        outbox._database.run("UPDATE packs SET content = zeroblob(500) WHERE first = ?", (START_US + 300,))
        kept = [one.sequence - START_US for one in outbox.read(0, 2**53, **ALL)]
        assert kept == [n for n in range(1_000) if not 300 <= n < 400]
        statistics = outbox.statistics()
        assert (statistics.records, statistics.damaged_files) == (900, 1)
        assert "100 records" in statistics.alarm
        [aside] = tmp_path.glob("outbox.damaged-*.pack")
        assert aside.read_bytes() == bytes(500)
    with outbox_in(tmp_path) as outbox:
        assert outbox.statistics().damaged_files == 1


@pytest.mark.parametrize("what", ["flush", "drop", "age"])
def test_a_damaged_pack_holds_nothing_up(tmp_path, what):
    clock = Clock(0)
    bounds = {"max_bytes": 50_000} if what == "drop" else {"max_age_us": HOUR_US}
    outbox = open_outbox(tmp_path, clock=clock, rows_kept=0, run_records=100, **bounds)
    filled(outbox, 300)
    outbox._database.run("UPDATE packs SET content = zeroblob(500) WHERE id = (SELECT min(id) FROM packs)")
    if what == "flush":
        outbox.acknowledge("broker", [(0, outbox.first_sequence + 50)])
    if what == "age":
        clock.now_us += 2 * HOUR_US
        outbox.flush()
        clock.now_us += 2 * HOUR_US
    if what == "drop":
        outbox.append([Record(n) for n in range(500)])
    for _ in range(5):
        filled(outbox, 100)
    assert outbox.statistics().damaged_files == 1
    assert counted(outbox) == held(outbox)
    outbox.close()


def test_of_a_damaged_file_every_whole_pack_is_saved(tmp_path):
    with outbox_in(tmp_path, rows_kept=50, run_records=100) as outbox:
        filled(outbox, 5_000, kind=lambda n: KINDS[n % 3])
        before = outbox.read(0, 2**53, **ALL)
        spoilt = {
            record.sequence
            for (content,) in outbox._database.run("SELECT content FROM packs WHERE id % 97 = 0")
            for record in unpack(content)
        }
        outbox._database.run("UPDATE packs SET content = zeroblob(9) WHERE id % 97 = 0")
        page = outbox._database.value("SELECT rootpage FROM sqlite_master WHERE name = 'marks'")
    with (tmp_path / "outbox.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    with outbox_in(tmp_path, rows_kept=50, run_records=100) as outbox:
        assert outbox.statistics().damaged_files == 1
        assert outbox.read(0, 2**53, **ALL) == [one for one in before if one.sequence not in spoilt]
        assert 0 < len(spoilt) < 500
        assert counted(outbox) == held(outbox)
        assert outbox.append([Record(1)]) > before[-1].sequence


def test_a_file_of_rows_alone_opens_and_is_packed_from_then_on(tmp_path):
    with outbox_in(tmp_path) as outbox:
        filled(outbox, 500)
        before = outbox.read(0, 2**53, **ALL)
    connection = sqlite3.connect(tmp_path / "outbox.sqlite")
    connection.executescript("DROP TABLE packs; DELETE FROM ledger WHERE name = 'packed'; VACUUM;")
    connection.close()
    with outbox_in(tmp_path, rows_kept=0, run_records=100) as outbox:
        while outbox.flush():
            pass
        assert held(outbox) == (500, 500)
        assert outbox.read(0, 2**53, **ALL) == before


@pytest.mark.parametrize("seed", range(6))
def test_wherever_a_file_is_damaged_its_packs_tell_the_truth_and_what_comes_is_kept(tmp_path, seed):
    dice = random.Random(seed)
    with outbox_in(tmp_path, rows_kept=100, run_records=50) as outbox:
        last = filled(outbox, 1_500, kind=lambda n: KINDS[n % 3])
        before = {one.sequence: one.payload for one in outbox.read(0, 2**53, **ALL)}
        _, packed = held(outbox)
    path = tmp_path / "outbox.sqlite"
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 2, 5])):
        size = dice.choice([1, 50, 4096])
        place = dice.randrange(len(content) - size)
        content[place : place + size] = dice.randbytes(size)
    path.write_bytes(content)
    with outbox_in(tmp_path, rows_kept=100, run_records=50, clock=Clock(1_000_000)) as outbox:
        outbox.read(0, 2**53, **ALL)
        outbox.acknowledge("broker", [(START_US + 100, START_US + 170)])
        outbox.flush()
        fresh = filled(outbox, 200)
        assert fresh > last
        found = outbox.read(0, 2**53, **ALL)
        sequences = [one.sequence for one in found]
        assert sequences == sorted(set(sequences))
        assert sequences[-200:] == list(range(fresh - 199, fresh + 1))
        assert all(before[one.sequence] == one.payload for one in found if one.sequence < START_US + packed)
        assert counted(outbox) == held(outbox)


@pytest.mark.parametrize(
    "spoilt",
    [
        "content = NULL",
        "content = 1000000000000",
        "content = 'text'",
        "records = 3",
        "records = 'x'",
        "first = NULL",
        "first = first + 1",
        "last = 'late'",
        "rank = 2",
        "rank = NULL",
        "first_us = NULL",
    ],
)
def test_no_column_of_a_pack_is_believed_blindly(tmp_path, spoilt):
    with outbox_in(tmp_path, rows_kept=0, run_records=100) as outbox:
        filled(outbox, 500)
    connection = sqlite3.connect(tmp_path / "outbox.sqlite")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'packs'")
    connection.commit()
    connection.close()
    connection = sqlite3.connect(tmp_path / "outbox.sqlite")
    connection.execute(f"UPDATE packs SET {spoilt} WHERE id = (SELECT min(id) FROM packs)")
    connection.commit()
    connection.close()
    with outbox_in(tmp_path, rows_kept=0, run_records=100) as outbox:
        kept = [one.sequence - START_US for one in outbox.read(0, 2**53, **ALL)]
        assert kept[-400:] == list(range(100, 500)), "all others are whole"
        outbox.acknowledge("broker", [(START_US + 50, START_US + 150)])
        filled(outbox, 200)
        assert outbox.statistics().oldest_us is not None
        assert counted(outbox) == held(outbox)
