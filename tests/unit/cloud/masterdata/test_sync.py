"""Each row once, changed rows anew, from real databases and real files."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from cloud.errors import ConfigError, CorrectionError, MasterDataError
from cloud.masterdata import sync as sync_module
from cloud.masterdata.config import MasterDataTable, load
from cloud.masterdata.sources import before, from_json, to_json
from cloud.masterdata.sync import Sync, preview
from cloud.oee.corrections import Correction, in_force
from cloud.plant import Plant
from tests.support.plants import plant

PLANT = plant(machines=("filler-1", "capper-1"))
NOW_US = 1_795_496_400_000_000
"""A day after what the rows are of."""


class Book:
    """Corrections as the service keeps them, but for its checks."""

    def __init__(self) -> None:
        self.made: list[Correction] = []
        self.refused = ""
        self.refused_rate = 0.0

    def correct(self, correction: Correction) -> int:
        if correction.machine == self.refused or correction.rate == self.refused_rate:
            raise CorrectionError("locked")
        self.made.append(structs.replace(correction, number=len(self.made) + 1, when_us=1))
        return len(self.made)

    @property
    def standing(self) -> dict[str | None, Correction]:
        return {item.ref: item for item in in_force(self.made)}


class Notes:
    """The store's notes."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def note(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def set_note(self, name: str, body: bytes) -> None:
        self.kept[name] = body


class Mes:
    """A planning database in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run("CREATE TABLE rate (id TEXT PRIMARY KEY, machine, since, rate, deleted, changed INTEGER)")

    def run(self, statement: str, *values: Any) -> None:
        database = sqlite3.connect(self.path)
        with database:
            database.execute(statement, values)
        database.close()

    def say(
        self, ref: str, rate: float, changed: int, *, machine: str = "filler-1", deleted: int = 0
    ) -> None:
        self.run(
            "INSERT OR REPLACE INTO rate VALUES (?, ?, 1795410000, ?, ?, ?)",
            ref,
            machine,
            rate,
            deleted,
            changed,
        )


@pytest.fixture
def mes(tmp_path: Path) -> Mes:
    return Mes(tmp_path / "mes.sqlite3")


@pytest.fixture
def notes() -> Notes:
    return Notes()


def sync_of(
    table: MasterDataTable, book: Book, notes: Notes, plant_now: Callable[[], Plant] = lambda: PLANT
) -> Sync:
    return Sync(
        table,
        notes,
        plant=plant_now,
        corrections=lambda: book.made,
        correct=book.correct,
        now_us=lambda: NOW_US,
    )


def rates(mes: Mes) -> MasterDataTable:
    return MasterDataTable(
        name="mes",
        kind="ideal_rate",
        url=f"sqlite:///{mes.path}",
        query='SELECT id AS ref, machine, since AS "from", rate, deleted, changed'
        " FROM rate WHERE changed >= :watermark",
        watermark="changed",
        start=0,
    )


def test_rows_are_worked_in_once_and_only_changed_ones_again(mes: Mes, notes: Notes) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", 60, 1)
    mes.say("b", 90, 2, machine="capper-1")
    assert sync.run() == "2 new"
    assert sync.run() == ""
    mes.say("b", 95, 3, machine="capper-1")
    assert sync.run() == "1 changed"
    assert book.standing["b"].rate == 95
    assert book.standing["a"].rate == 60
    assert [item.kind for item in book.made] == ["ideal_rate", "ideal_rate", "void", "ideal_rate"]


def test_a_row_that_commits_late_at_the_watermark_is_not_lost(mes: Mes, notes: Notes) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", 60, 5)
    sync.run()
    mes.say("b", 70, 5, machine="capper-1")
    assert sync.run() == "1 new"


def test_a_row_that_commits_after_others_of_a_higher_watermark_is_not_lost(mes: Mes, notes: Notes) -> None:
    """A transaction takes its time when it begins, and may commit after one that began later."""
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", 60, 1000)
    sync.run()
    mes.say("late", 70, 941, machine="capper-1")
    assert sync.run() == "1 new"
    assert sync.run() == ""
    mes.run("DELETE FROM rate WHERE id = 'a'")
    sync.run()
    mes.say("too-late", 70, 939, machine="capper-1")
    assert sync.run() == ""


def test_of_rows_of_one_ref_the_one_that_was_changed_last_holds(mes: Mes, notes: Notes) -> None:
    book = Book()
    mes.run("CREATE TABLE journal AS SELECT * FROM rate")
    for rate, changed in ((60, 10), (75, 12), (70, 11)):
        mes.run("INSERT INTO journal VALUES ('a', 'filler-1', 1795410000, ?, 0, ?)", rate, changed)
    query = (rates(mes).query or "").replace("FROM rate", "FROM journal")
    sync = sync_of(rates(mes).model_copy(update={"query": query}), book, notes)
    assert sync.run() == "1 new"
    assert sync.run() == ""
    assert book.standing["a"].rate == 75


@pytest.mark.parametrize(
    ("mark", "earlier"),
    [
        (datetime(2026, 11, 23, 6, tzinfo=UTC), datetime(2026, 11, 23, 5, 59, tzinfo=UTC)),
        ("2026-11-23 06:00:00", "2026-11-23 05:59:00"),
        ("2026-11-23T06:00:00.25", "2026-11-23T05:59:00.250000"),
        ("2026-11-23", "2026-11-23"),
        ("20261123T060000", "20261123T060000"),
        ("202611230600", "202611230600"),
        ("2026-11-23 25:00:00", "2026-11-23 25:00:00"),
        ("A-17", "A-17"),
        (100, 40),
        (100.5, 40.5),
        (Decimal("100.5"), Decimal("40.5")),
        (b"\0\xff", b"\0\xff"),
    ],
)
def test_a_watermark_is_kept_as_it_is_and_what_is_a_little_older_is_read_again(
    mark: Any, earlier: Any
) -> None:
    kept = from_json(to_json(mark))
    assert (kept, type(kept)) == (mark, type(mark))
    assert before(kept, 60.0) == earlier


def test_a_restart_goes_on_and_a_lost_mark_repeats_nothing(mes: Mes, notes: Notes) -> None:
    book = Book()
    mes.say("a", 60, 1)
    sync_of(rates(mes), book, notes).run()
    assert sync_of(rates(mes), book, notes).run() == ""
    notes.kept.clear()
    assert sync_of(rates(mes), book, notes).run() == ""
    assert len(book.made) == 1


def test_a_deleted_row_is_taken_back(mes: Mes, notes: Notes) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", 60, 1)
    sync.run()
    mes.say("a", 60, 2, deleted=1)
    assert sync.run() == "1 taken back"
    assert not book.standing


def test_a_bad_row_is_skipped_alone(mes: Mes, notes: Notes) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", -1, 1)
    mes.say("b", 70, 1)
    mes.say("c", 70, 1, machine="mixer")
    book.refused = "plant/packaging/line-1/capper-1"
    mes.say("d", 70, 1, machine="capper-1")
    assert sync.run() == "1 new, 3 refused"
    assert set(book.standing) == {"b"}


def test_a_refused_row_is_kept_over_a_restart_and_tried_again_when_the_plant_changes(
    mes: Mes, notes: Notes
) -> None:
    book, plants = Book(), [PLANT]
    mes.say("a", 60, 1, machine="mixer")
    sync = sync_of(rates(mes), book, notes, lambda: plants[0])
    assert sync.run() == "1 refused"
    assert sync.run() == ""
    sync = sync_of(rates(mes), book, notes, lambda: plants[0])
    assert [(row.ref, "not in the plant" in row.problem) for row in sync.refused()] == [("a", True)]
    mes.say("b", 60, 2)
    assert sync.run() == "1 new"
    plants[0] = plant(machines=("filler-1", "mixer"))
    assert sync.run() == "1 new"
    assert book.standing["a"].machine.endswith("mixer")
    assert sync.refused() == []


def test_a_refused_row_is_forgotten_when_its_source_says_otherwise(mes: Mes, notes: Notes) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", -5, 1)
    mes.say("b", 60, 1, machine="mixer")
    assert sync.run() == "2 refused"
    mes.say("a", 50, 2)
    mes.say("b", 60, 2, machine="mixer", deleted=1)
    assert sync.run() == "1 new, 1 refused"
    assert [row.ref for row in sync.refused()] == ["b"]


def test_a_row_that_another_one_kept_out_comes_in_when_that_one_has_gone(mes: Mes, notes: Notes) -> None:
    book = Book()
    book.refused = "plant/packaging/line-1/capper-1"
    sync = sync_of(rates(mes).model_copy(update={"overlap": 0.0}), book, notes)
    mes.say("a", 60, 1, machine="capper-1")
    mes.say("b", -1, 2)
    assert sync.run() == "2 refused"
    book.refused = ""
    assert sync.run() == ""
    mes.say("c", 60, 3)
    assert sync.run() == "1 new"
    assert sync.run() == "1 new"
    assert set(book.standing) == {"a", "c"}


def test_of_more_refused_rows_than_are_kept_none_is_lost(
    mes: Mes, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "_MAX_REFUSED", 2)
    book, plants = Book(), [PLANT]
    sync = sync_of(rates(mes), book, notes, lambda: plants[0])
    for number in range(5):
        mes.say(f"r{number}", 60, number, machine="mixer")
    assert sync.run() == "5 refused"
    assert len(sync.refused()) == 2
    plants[0] = plant(machines=("filler-1", "mixer"))
    assert sync.run() == "5 new"
    assert sync.refused() == []


def test_refused_rows_of_a_file_go_with_the_file(tmp_path: Path, notes: Notes) -> None:
    table = MasterDataTable(name="lab", kind="off_quality", folder=tmp_path)
    sync = sync_of(table, Book(), notes)
    (tmp_path / "a.csv").write_text("ref,machine,from,units\nq1,filler-1,2026-11-23T07:00:00,many\n")
    assert sync.run() == "1 refused"
    (tmp_path / "b.csv").write_text("ref,machine,from,units\nq2,mixer,2026-11-23T07:00:00,5\n")
    assert sync.run() == "1 refused"
    (tmp_path / "a.csv").unlink()
    assert sync.run() == ""
    assert [row.ref for row in sync.refused()] == ["q2"]


def test_what_a_row_said_before_stays_until_what_it_says_now_may_be_said(mes: Mes, notes: Notes) -> None:
    """Be it refused by what stands beside it, by itself, or only when it is said."""
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", 60, 1)
    mes.say("b", 90, 2, machine="capper-1")
    assert sync.run() == "2 new"
    mes.say("b", 95, 3)
    assert sync.run() == "1 refused"
    (bad,) = sync.refused()
    assert bad.problem == (
        "the range overlaps correction 1 (ideal_rate by mes): take that back first;"
        " what it said before stays in force"
    )
    assert book.standing["b"].rate == 90
    assert [item.kind for item in book.made] == ["ideal_rate", "ideal_rate"]
    mes.say("b", -1, 4)
    assert sync.run() == "1 refused"
    assert sync.refused()[0].problem == "-1 units/min is not a rate; what it said before stays in force"
    book.refused_rate = 97
    mes.say("b", 97, 5, machine="capper-1")
    assert sync.run() == "1 refused"
    assert sync.refused()[0].problem == "locked; what it said before stays in force"
    assert book.standing["b"].rate == 90


def test_rows_that_change_places_do_so_together_or_not_at_all(mes: Mes, notes: Notes) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, notes)
    mes.say("a", 60, 1)
    mes.say("b", 90, 2, machine="capper-1")
    sync.run()
    mes.say("a", 61, 3, machine="capper-1")
    mes.say("b", 91, 4, machine="filler-1")
    assert sync.run() == "2 changed"
    mes.say("a", 62, 5)
    mes.say("b", 92, 6, machine="none")
    assert sync.run() == "2 refused"
    assert {ref: item.rate for ref, item in book.standing.items()} == {"a": 61, "b": 91}


def test_a_preview_tells_what_would_be_refused(mes: Mes) -> None:
    mes.say("a", 60, 1)
    mes.say("b", 90, 2)
    outcome = preview(rates(mes), PLANT, [], NOW_US)
    assert str(outcome) == "1 new, 1 refused"
    assert outcome.bad_rows[0].problem.startswith("the range overlaps row a (ideal_rate by mes)")


def test_a_preview_changes_nothing(mes: Mes) -> None:
    mes.say("a", 60, 1)
    outcome = preview(rates(mes), PLANT, [], NOW_US)
    assert [change.ref for change in outcome.changes] == ["a"]


def test_a_database_that_cannot_be_read_is_named_without_its_password(tmp_path: Path) -> None:
    table = rates(Mes(tmp_path / "mes.sqlite3")).model_copy(update={"query": "SELECT * FROM missing"})
    with pytest.raises(MasterDataError, match="mes: cannot be read"):
        sync_of(table, Book(), Notes()).run()


def test_files_of_a_folder_are_read_when_they_change(tmp_path: Path, notes: Notes) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    table = MasterDataTable(name="lab", kind="off_quality", folder=folder)
    book = Book()
    sync = sync_of(table, book, notes)
    assert sync.run() == ""
    (folder / "monday.csv").write_text("ref;machine;from;units\nq1;filler-1;2026-11-23T07:00:00;12\n")
    assert sync.run() == "1 new"
    assert sync.run() == ""
    (folder / "monday.csv").write_text(
        "ref;machine;from;units\nq1;filler-1;2026-11-23T07:00:00;13\nq2;filler-1;2026-11-23T08:00:00;1\n"
    )
    assert sync.run() == "1 new, 1 changed"
    assert {item.units for item in book.standing.values()} == {13, 1}


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    table = MasterDataTable(name="lab", kind="off_quality", folder=tmp_path / "nowhere")
    with pytest.raises(MasterDataError, match="there is no folder"):
        sync_of(table, Book(), Notes()).run()


def test_all_faults_of_masterdata_toml_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "masterdata.toml"
    path.write_text(
        '[[source]]\nname = "a"\nkind = "ideal_rate"\nquery = "SELECT 1"\n'
        '[[source]]\nname = "a"\nkind = "order"\nfolder = "x"\ncolumns = { rate = "r" }\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    keys = [fault.key for fault in caught.value.faults]
    assert keys == ["source[0]", "source[1].columns.rate", "source[1].name"]


def test_the_example_can_be_read() -> None:
    names = [table.name for table in load(Path(__file__).parents[4] / "config" / "masterdata.example.toml")]
    assert names == ["mes-rates", "lab", "mes-shifts"]
