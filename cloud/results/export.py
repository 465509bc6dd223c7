"""Writes closed shifts to a database for BI tools: each revision once, the newest marked, made on demand."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from cloud.errors import ResultsError
from cloud.results.config import ExportTable
from cloud.results.follower import Follower
from cloud.store.port import ClosedShift, LoggedShift, Store

_AT_ONCE: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WHY_LENGTH: Final = 1024
_TEXT_LENGTH: Final = 256
_UNITS: Final = (
    "total_units",
    "good_units",
    "off_quality_units",
    "startup_off_quality_units",
    "unplanned_units",
    "stops",
    "failures",
)
_TIMES: Final = (
    "calendar_secs",
    "planned_production_secs",
    "run_secs",
    "running_secs",
    "unknown_secs",
    "ideal_secs",
    "mttr_secs",
    "mttf_secs",
    "mtbf_secs",
)
_RATIOS: Final = (
    "availability",
    "performance",
    "quality",
    "oee",
    "teep",
    "utilisation",
    "nee",
    "scrap_ratio",
    "throughput_per_min",
)


class Tables:
    """The three tables of an export."""

    def __init__(self, name: str, schema: str | None) -> None:
        self.metadata = sql.MetaData(schema=schema)
        self.shift = sql.Table(
            name,
            self.metadata,
            *_key(),
            sql.Column("level", sql.String(8), nullable=False),
            sql.Column("site", sql.String(64), nullable=False),
            sql.Column("area", sql.String(64), nullable=False),
            sql.Column("line", sql.String(64), nullable=False),
            sql.Column("machine", sql.String(64)),
            sql.Column("production_date", sql.Date),
            sql.Column("shift", sql.String(64)),
            sql.Column("crew", sql.String(_TEXT_LENGTH)),
            sql.Column("shift_end", sql.DateTime(timezone=True), nullable=False),
            sql.Column("is_newest", sql.Boolean, nullable=False, index=True),
            sql.Column("revised_at", sql.DateTime(timezone=True), nullable=False),
            sql.Column("revised_why", sql.String(_WHY_LENGTH), nullable=False),
            *(sql.Column(column, sql.BigInteger) for column in _UNITS),
            *(sql.Column(column, sql.Double) for column in (*_TIMES, *_RATIOS)),
        )
        self.loss = sql.Table(
            f"{name}_loss",
            self.metadata,
            *_key(),
            sql.Column("loss", sql.String(64), primary_key=True),
            sql.Column("secs", sql.Double, nullable=False),
        )
        self.stop = sql.Table(
            f"{name}_stop",
            self.metadata,
            *_key(),
            sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
            sql.Column("bucket", sql.String(64), nullable=False),
            sql.Column("reason", sql.String(_TEXT_LENGTH)),
            sql.Column("reason_name", sql.String(_TEXT_LENGTH)),
            sql.Column("reason_group", sql.String(_TEXT_LENGTH)),
            sql.Column("secs", sql.Double, nullable=False),
            sql.Column("stops", sql.BigInteger, nullable=False),
        )

    def make(self, engine: sql.Engine) -> None:
        """Make the tables that are missing."""
        self.metadata.create_all(engine)

    def write(self, connection: sql.Connection, shifts: Iterable[ClosedShift]) -> None:
        """Write revisions; one that is there already is replaced."""
        for shift in shifts:
            key = _key_of(shift)
            for table in (self.stop, self.loss, self.shift):
                connection.execute(sql.delete(table).where(*_is(table, key)))
            whole = _is(self.shift, {name: key[name] for name in ("scope", "shift_start")})
            later = connection.scalar(
                sql.select(sql.func.count())
                .select_from(self.shift)
                .where(*whole, self.shift.c.revision > key["revision"])
            )
            connection.execute(
                sql.update(self.shift)
                .where(*whole, self.shift.c.revision < key["revision"])
                .values(is_newest=False)
            )
            connection.execute(sql.insert(self.shift), [_row(shift) | key | {"is_newest": not later}])
            for table, rows in ((self.loss, _losses(shift)), (self.stop, _stops(shift))):
                if found := [row | key for row in rows]:
                    connection.execute(sql.insert(table), found)


def try_out(table: ExportTable) -> None:
    """Make the tables where they are missing; raise ResultsError or AddressError when that cannot be."""
    with _mapped(table):
        Tables(table.table, table.db_schema).make(sql.create_engine(table.address(), poolclass=NullPool))


class Export(Follower[Sequence[LoggedShift]]):
    """Writes the revisions of one export; where it has got to is noted in the store."""

    def __init__(self, table: ExportTable, store: Store) -> None:
        super().__init__(
            f"export:{table.name}", store, from_start=table.history, retry_max_secs=table.retry_max_secs
        )
        self.table: ExportTable = table
        self._tables = Tables(table.table, table.db_schema)
        self._made: sql.Engine | None = None

    def waiting(self) -> Sequence[Sequence[LoggedShift]]:
        """Return the next revisions, which are written in one transaction."""
        found = self.next(_AT_ONCE)
        return [found] if found else []

    def done(self, item: Sequence[LoggedShift]) -> None:
        """Note that some revisions are written."""
        self.reach(item[-1].position)

    def carry(self, item: Sequence[LoggedShift]) -> bool:
        """Write some revisions; raise ResultsError when the database does not take them."""
        wanted = [logged.shift for logged in item if self.table.wants(logged.shift.scope)]
        if wanted:
            with self._engine() as engine, engine.begin() as connection:
                self._tables.write(connection, wanted)
            self._note_sent()
        return True

    @contextlib.contextmanager
    def _engine(self) -> Iterator[sql.Engine]:
        """Lend the engine; after a fault it is made anew, and tables where another database stands now."""
        try:
            with _mapped(self.table):
                if self._made is None:
                    engine = sql.create_engine(self.table.address(), poolclass=NullPool)
                    self._tables.make(engine)
                    self._made = engine
                yield self._made
        except ResultsError:
            self._made = None
            raise


@contextlib.contextmanager
def _mapped(table: ExportTable) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise ResultsError(f"{table.name}: the database takes nothing: {reason}") from error


def _key() -> list[sql.Column[Any]]:
    return [
        sql.Column("scope", sql.String(260), primary_key=True),
        sql.Column("shift_start", sql.DateTime(timezone=True), primary_key=True),
        sql.Column("revision", sql.Integer, primary_key=True, autoincrement=False),
    ]


def _key_of(shift: ClosedShift) -> dict[str, Any]:
    return {"scope": shift.scope, "shift_start": _moment(shift.start_us), "revision": shift.revision.revision}


def _is(table: sql.Table, key: dict[str, Any]) -> list[sql.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key.items()]


def _row(shift: ClosedShift) -> dict[str, Any]:
    figures, revision = shift.revision.figures, shift.revision
    day = figures.get("production_date")
    return {
        "level": "machine" if figures.get("machine") else "line",
        **{name: _text(figures.get(name)) for name in ("site", "area", "line", "machine", "shift", "crew")},
        "production_date": None if day is None else date.fromisoformat(day),
        "shift_end": _moment(shift.end_us),
        "revised_at": _moment(round(revision.made_epochtime * 1e6)),
        "revised_why": _text(revision.why, _WHY_LENGTH),
        **{name: figures.get(name) for name in (*_UNITS, *_TIMES, *_RATIOS)},
    }


def _losses(shift: ClosedShift) -> Iterator[dict[str, Any]]:
    for loss, secs in shift.revision.figures["losses"].items():
        yield {"loss": loss, "secs": secs}


def _stops(shift: ClosedShift) -> Iterator[dict[str, Any]]:
    reasons = [
        (group["group"], reason) for group in shift.revision.figures["pareto"] for reason in group["reasons"]
    ]
    for number, (group, reason) in enumerate(reasons):
        yield {
            "number": number,
            "bucket": reason["bucket"],
            "reason": _text(reason["reason"]),
            "reason_name": _text(reason["name"]),
            "reason_group": _text(group),
            "secs": reason["secs"],
            "stops": reason["count"],
        }


def _text(value: str | None, length: int = _TEXT_LENGTH) -> str | None:
    """Return a text as every database takes it: PLCs may say anything."""
    return None if value is None else value.replace("\0", "")[:length]


def _moment(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)
