"""Where rows come from: any database that SQLAlchemy reaches, or files in a folder."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from cloud.errors import MasterDataError
from cloud.masterdata.config import MasterDataTable
from cloud.masterdata.rows import Row

_DATETIME: Final = "datetime"
_DECIMAL: Final = "decimal"
_BYTES: Final = "bytes"
_TEXT_OF_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:")


class Found(NamedTuple):
    """A row, and what of the source it stands in: a file's name; '' for a query."""

    origin: str
    row: Row


class Batch(NamedTuple):
    """What a source had to say, and where to go on once it is worked in."""

    rows: list[Found]
    mark: str
    """JSON; opaque to all but the source."""
    whole: frozenset[str]
    """Origins of which these are all rows that there are."""


class Source(Protocol):
    """A system that is read again and again."""

    def read(self, mark: str | None) -> Batch:
        """Return what is new since a mark, or everything; raise MasterDataError when it cannot be read."""
        ...


def source_of(table: MasterDataTable) -> Source:
    """Return the source that a table names."""
    return DatabaseSource(table) if table.folder is None else FolderSource(table)


class DatabaseSource:
    """Rows of a query, those at or beyond the highest watermark seen, and some before it.

    These are read again: a transaction that began before the one which set that watermark may have been
    committed since, with a lower one.
    """

    def __init__(self, table: MasterDataTable) -> None:
        self._table = table

    def read(self, mark: str | None) -> Batch:
        """Return the rows beyond a mark; see Source.read."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.pool import NullPool

        column = self._table.watermark
        reached = self._table.start if mark is None else from_json(mark)
        begin = reached if mark is None else before(reached, self._table.overlap)
        parameters = {} if column is None else {"watermark": begin}
        try:
            engine = create_engine(self._table.address(), poolclass=NullPool)
            with engine.connect() as connection:
                found = connection.execute(text(self._table.query or ""), parameters)
                rows = [Found("", dict(row)) for row in found.mappings()]
        except (SQLAlchemyError, ImportError) as error:
            raise MasterDataError(f"{self._table.name}: cannot be read: {_first_line(error)}") from error
        if column is not None and rows:
            if column not in rows[0].row:
                raise MasterDataError(f"{self._table.name}: the query returns no column {column}")
            marked = sorted(
                (item for item in rows if item.row[column] is not None), key=lambda item: item.row[column]
            )
            # Of several rows of one ref the one that was changed last is worked in last.
            rows = [*(item for item in rows if item.row[column] is None), *marked]
            if marked:
                newest = marked[-1].row[column]
                reached = newest if mark is None else max(reached, newest)
        return Batch(rows, to_json(reached), frozenset() if column is not None else frozenset({""}))


class FolderSource:
    """Rows of CSV and XLSX files whose names fit a pattern; a file that changes is read again whole."""

    def __init__(self, table: MasterDataTable) -> None:
        self._table = table

    def read(self, mark: str | None) -> Batch:
        """Return the rows of the files that changed since a mark; see Source.read."""
        folder = self._table.folder or Path()
        seen: Mapping[str, Any] = json.loads(mark) if mark else {}
        try:
            files = sorted(path for path in folder.glob(self._table.pattern) if path.is_file())
            stamps = {path.name: [path.stat().st_mtime_ns, path.stat().st_size] for path in files}
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {folder}")
            changed = [path for path in files if seen.get(path.name) != stamps[path.name]]
            rows = [Found(path.name, row) for path in changed for row in _file_rows(path)]
        except (OSError, ValueError, csv.Error) as error:
            raise MasterDataError(f"{self._table.name}: cannot be read: {_first_line(error)}") from error
        gone = seen.keys() - stamps.keys()
        return Batch(rows, json.dumps(stamps), frozenset({*gone, *(path.name for path in changed)}))


def _file_rows(path: Path) -> Iterator[Row]:
    if path.suffix.lower() == ".xlsx":
        import pandas as pd

        yield from pd.read_excel(path, dtype=object).to_dict("records")
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        sample = file.readline()
        file.seek(0)
        yield from csv.DictReader(file, delimiter=";" if sample.count(";") > sample.count(",") else ",")


def to_json(value: Any) -> str:
    """Write a value of a row, so that `from_json` returns one that says the same."""
    if isinstance(value, datetime | date):
        return json.dumps({_DATETIME: value.isoformat()})
    if isinstance(value, Decimal):
        return json.dumps({_DECIMAL: str(value)})
    if isinstance(value, bytes | bytearray | memoryview):
        return json.dumps({_BYTES: bytes(value).hex()})
    if not isinstance(value, str | int | float | bool | None):
        value = str(value)
    return json.dumps(value)


def from_json(mark: str) -> Any:
    """Read what `to_json` wrote."""
    value = json.loads(mark)
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        return _READ[kind](text)
    return value


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    _DATETIME: datetime.fromisoformat,
    _DECIMAL: Decimal,
    _BYTES: bytes.fromhex,
}


def before(mark: Any, overlap: float) -> Any:
    """Return a watermark that lies before another one: seconds of a time, so many of a number.

    What is neither, such as a row version in bytes, is returned as it is.
    """
    match mark:
        case datetime():
            return mark - timedelta(seconds=overlap)
        case int():
            return mark - round(overlap)
        case float():
            return mark - overlap
        case Decimal():
            return mark - Decimal(str(overlap))
        case str():
            return _text_before(mark, overlap)
    return mark


def _text_before(mark: str, overlap: float) -> str:
    """Return a time before another one as a database writes it that has no type for it."""
    if not _TEXT_OF_TIME.match(mark):  # written otherwise, the earlier one would not stand before it
        return mark
    try:
        return (datetime.fromisoformat(mark) - timedelta(seconds=overlap)).isoformat(sep=mark[10])
    except (ValueError, OverflowError):
        return mark


def _first_line(error: Exception) -> str:
    """Return what went wrong without what a driver appends; a URL's password never is in it."""
    return str(error).split("\n", 1)[0] or type(error).__name__
