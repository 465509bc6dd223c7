"""Each row once, changed rows anew, from real databases and real files."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from cloud.errors import ConfigError, CorrectionError, MasterDataError
from cloud.masterdata.config import MasterDataTable, load
from cloud.masterdata.sync import Marks, Sync, preview
from cloud.oee.corrections import Correction, in_force
from tests.support.plants import plant

PLANT = plant(machines=("filler-1", "capper-1"))


class Book:
    """Corrections as the service keeps them, but for its checks."""

    def __init__(self) -> None:
        self.made: list[Correction] = []
        self.refused = ""

    def correct(self, correction: Correction) -> int:
        if correction.machine == self.refused:
            raise CorrectionError("locked")
        self.made.append(structs.replace(correction, number=len(self.made) + 1, when_us=1))
        return len(self.made)

    @property
    def standing(self) -> dict[str | None, Correction]:
        return {item.ref: item for item in in_force(self.made)}


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


def sync_of(table: MasterDataTable, book: Book, folder: Path) -> Sync:
    return Sync(
        table,
        Marks(folder / "marks.json"),
        plant=lambda: PLANT,
        corrections=lambda: book.made,
        correct=book.correct,
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


def test_rows_are_worked_in_once_and_only_changed_ones_again(mes: Mes, tmp_path: Path) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, tmp_path)
    mes.say("a", 60, 1)
    mes.say("b", 90, 2, machine="capper-1")
    assert sync.run() == "2 new"
    assert sync.run() == ""
    mes.say("b", 95, 3, machine="capper-1")
    assert sync.run() == "1 changed"
    assert book.standing["b"].rate == 95
    assert book.standing["a"].rate == 60
    assert [item.kind for item in book.made] == ["ideal_rate", "ideal_rate", "void", "ideal_rate"]


def test_a_row_that_commits_late_at_the_watermark_is_not_lost(mes: Mes, tmp_path: Path) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, tmp_path)
    mes.say("a", 60, 5)
    sync.run()
    mes.say("b", 70, 5, machine="capper-1")
    assert sync.run() == "1 new"


def test_a_restart_goes_on_and_a_lost_mark_repeats_nothing(mes: Mes, tmp_path: Path) -> None:
    book = Book()
    mes.say("a", 60, 1)
    sync_of(rates(mes), book, tmp_path).run()
    assert sync_of(rates(mes), book, tmp_path).run() == ""
    (tmp_path / "marks.json").unlink()
    assert sync_of(rates(mes), book, tmp_path).run() == ""
    assert len(book.made) == 1


def test_a_deleted_row_is_taken_back(mes: Mes, tmp_path: Path) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, tmp_path)
    mes.say("a", 60, 1)
    sync.run()
    mes.say("a", 60, 2, deleted=1)
    assert sync.run() == "1 taken back"
    assert not book.standing


def test_a_bad_row_is_skipped_alone(mes: Mes, tmp_path: Path) -> None:
    book = Book()
    sync = sync_of(rates(mes), book, tmp_path)
    mes.say("a", -1, 1)
    mes.say("b", 70, 1)
    mes.say("c", 70, 1, machine="mixer")
    book.refused = "plant/packaging/line-1/capper-1"
    mes.say("d", 70, 1, machine="capper-1")
    assert sync.run() == "1 new, 3 refused"
    assert set(book.standing) == {"b"}


def test_a_preview_changes_nothing(mes: Mes) -> None:
    mes.say("a", 60, 1)
    outcome = preview(rates(mes), PLANT, [])
    assert [change.ref for change in outcome.changes] == ["a"]


def test_a_database_that_cannot_be_read_is_named_without_its_password(tmp_path: Path) -> None:
    table = rates(Mes(tmp_path / "mes.sqlite3")).model_copy(update={"query": "SELECT * FROM missing"})
    with pytest.raises(MasterDataError, match="mes: cannot be read"):
        sync_of(table, Book(), tmp_path).run()


def test_files_of_a_folder_are_read_when_they_change(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    table = MasterDataTable(name="lab", kind="off_quality", folder=folder)
    book = Book()
    sync = sync_of(table, book, tmp_path)
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
        sync_of(table, Book(), tmp_path).run()


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
    assert names == ["mes-rates", "lab"]
