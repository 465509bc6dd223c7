"""Figures from the history on a Spark cluster: the same functions per machine and day, beside the data.

Spark reads the Parquet files, hands each machine's day to `timeline.build`, and sends back its piece of
timeline, which is small. The pieces are joined and judged here as everywhere else, so the figures are the
same to the last integer.
"""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from pyspark.errors import PySparkException, PythonException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sql

from cloud.compute import Moment, PieceSource, figures_from
from cloud.errors import EngineError
from cloud.history import joined
from cloud.oee import timeline
from cloud.oee.columns import Columns, Indexes
from cloud.oee.figures import Figures
from cloud.oee.frame import Frame
from cloud.oee.losses import reach_us
from cloud.oee.pieces import Cuts, Piece, Rules
from cloud.oee.records import ABSENT, Names, empty
from cloud.oee.rollup import Level, Per
from cloud.plant import Plant
from cloud.store.parquet import US_PER_DAY, day_of
from cloud.store.parquet_columns import FOR_FIGURES, IDENTITY, records_of
from contract.machine_key import MachineKey

_LEVELS: Final = ("site", "area", "line", "machine")
_COUNTERS: Final = ("total_units", "off_quality_units", "good_units")
_TEXT_COLUMNS: Final = frozenset({"reason", "product", "order", "gateway"})
_LOOK_DAYS: Final = 2
"""How far before and after a range the nearest readings are looked for first."""
_PIECE: Final = (*_LEVELS, "day", "piece")
_SCHEMA: Final = "site string, area string, line string, machine string, day string, piece binary"
_SETTINGS: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
Table = TypeVar("Table", bound=Columns)


class _Task(NamedTuple):
    """What every worker needs to know."""

    machines: list[MachineKey]
    rules: Rules
    cuts: Cuts


class _Packed(msgspec.Struct):
    """A piece on its way: by table and column (numpy type, bytes); texts by their index."""

    tables: dict[str, dict[str, tuple[str, bytes]]]
    texts: list[str]


@contextmanager
def session(master: str, settings: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """Lend a session of a cluster; raise EngineError when it cannot be started.

    master: such as local[2] or spark://host:7077; its workers need this package, and PYSPARK_PYTHON says
        which Python they run, by default this one's path
    settings: Spark's own, which go before ours
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark's default is whatever python3 is
    builder = SparkSession.builder.master(master).appName("oee compute")
    for key, value in (_SETTINGS | dict(settings or {})).items():
        builder = builder.config(key, value)
    with _mapped(master):
        spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def figures_on_spark(
    plant: Plant,
    history: str,
    spark: SparkSession,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    per: Per = "shift",
    level: Level = "machine",
) -> list[Figures]:
    """Return the figures of a history: the same as `cloud.history.figures_of_history`.

    history: a path or URL that the workers can read; since, until: as in cloud.compute
    """
    names = Names(list(plant.machines))
    with _mapped(history):
        records = _records(spark, history, plant)
        first_us, last_us = records.agg(sql.min("time_us"), sql.max("time_us")).first() or (None, None)
        return figures_from(
            _source(records, names, reach_us(plant)),
            plant,
            names,
            (first_us, last_us),
            since=since,
            until=until,
            per=per,
            level=level,
        )


@contextmanager
def _mapped(subject: str) -> Iterator[None]:
    try:
        yield
    except PySparkException as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        is_ours = isinstance(error, PythonException)  # whose last line says what a worker ran into
        raise EngineError(f"{subject}: {lines[-1 if is_ours else 0]}") from error


def _records(spark: SparkSession, history: str, plant: Plant) -> DataFrame:
    """Return the records of the plant's machines."""
    machines = spark.createDataFrame([tuple(key) for key in plant.machines], list(_LEVELS))
    return (
        spark.read.parquet(history)
        .join(sql.broadcast(machines), list(_LEVELS), "left_semi")
        .select("site", "day", *FOR_FIGURES, *IDENTITY, sql.unix_micros("time").alias("time_us"))
    )


def _source(records: DataFrame, names: Names, margin_us: int) -> PieceSource:
    def build(frame: Frame, rules: Rules) -> Piece:
        begin_us, end_us = frame.from_us - margin_us, frame.to_us + margin_us
        inside = _between(records, begin_us, end_us)
        wanted = inside.unionByName(_before(records, begin_us)).unionByName(_after(records, end_us))
        task = _Task(list(names.machines), rules, frame.cuts)
        with warnings.catch_warnings():  # of an untried version of pandas, which nothing here uses
            warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
            pieces = wanted.groupBy(*_LEVELS, "day").applyInArrow(_builder(task), _SCHEMA).collect()
        found = sorted(pieces, key=lambda row: (row["day"], *row[:4]))
        model = timeline.build(empty(), rules, frame.cuts)
        return joined([_unpacked(row["piece"], model, names) for row in found], rules, frame.cuts)

    return build


def _between(records: DataFrame, from_us: int, to_us: int) -> DataFrame:
    time, day = sql.col("time_us"), sql.col("day")
    first, last = day_of(from_us).isoformat(), day_of(to_us - 1).isoformat()
    return records.where((day >= first) & (day <= last) & (time >= from_us) & (time < to_us))


def _before(records: DataFrame, at_us: int) -> DataFrame:
    """Return each machine's records before an instant, from its last reading of every counter on."""
    early = _between(records, 0, at_us)
    recent = _last_counts(_between(early, at_us - _LOOK_DAYS * US_PER_DAY, at_us))
    since = recent.unionByName(_last_counts(early.join(recent, list(_LEVELS), "left_anti")))
    found = early.join(sql.broadcast(since), list(_LEVELS))
    never = early.join(since, list(_LEVELS), "left_anti")
    last_days = never.groupBy(*_LEVELS).agg(sql.max("day").alias("day"))
    return (
        found.where(sql.col("time_us") >= sql.col("since_us"))
        .drop("since_us")
        .unionByName(never.join(last_days, [*_LEVELS, "day"], "left_semi"))
    )


def _after(records: DataFrame, at_us: int) -> DataFrame:
    """Return each machine's records from an instant on, up to its first reading of every counter."""
    late = records.where((sql.col("day") >= day_of(at_us).isoformat()) & (sql.col("time_us") >= at_us))
    soon = _first_counts(_between(late, at_us, at_us + _LOOK_DAYS * US_PER_DAY))
    until = soon.unionByName(_first_counts(late.join(soon, list(_LEVELS), "left_anti")))
    found = late.join(sql.broadcast(until), list(_LEVELS))
    return found.where(sql.col("time_us") <= sql.col("until_us")).drop("until_us")


def _last_counts(records: DataFrame) -> DataFrame:
    """Return per machine when each counter was told last, on the last day that has any: the earliest."""
    last = (sql.max(_told_us(name)) for name in _COUNTERS)
    by_day = records.groupBy(*_LEVELS, "day").agg(sql.least(*last).alias("us")).where("us IS NOT NULL")
    return by_day.groupBy(*_LEVELS).agg(sql.max_by("us", "day").alias("since_us"))


def _first_counts(records: DataFrame) -> DataFrame:
    """Return per machine when each counter was told first, on the first day that has any: the latest."""
    first = (sql.min(_told_us(name)) for name in _COUNTERS)
    by_day = records.groupBy(*_LEVELS, "day").agg(sql.greatest(*first).alias("us")).where("us IS NOT NULL")
    return by_day.groupBy(*_LEVELS).agg(sql.min_by("us", "day").alias("until_us"))


def _told_us(counter: str) -> Column:
    return sql.when(sql.col(counter).isNotNull(), sql.col("time_us"))


def _builder(task: _Task) -> Any:
    """Return what Spark runs per machine and day, in its workers."""

    def build(key: tuple[pa.Scalar, ...], day: pa.Table) -> pa.Table:
        names = Names(list(task.machines))
        records = records_of(day, key[0].as_py(), names)
        piece = _packed(timeline.build(records, task.rules, task.cuts), names)
        values = [*(part.as_py() for part in key), piece]
        return pa.table({name: [value] for name, value in zip(_PIECE, values, strict=True)})

    return build


def _packed(piece: Piece, names: Names) -> bytes:
    tables = {
        table.name: {
            name: (column.dtype.str, column.tobytes())
            for name, column in getattr(piece, table.name).columns()
        }
        for table in fields(piece)
    }
    return msgspec.msgpack.encode(_Packed(tables, names.texts))


def _unpacked(packed: bytes, model: Piece, names: Names) -> Piece:
    """Return a piece with its texts as the names have them; model: any piece."""
    found = msgspec.msgpack.decode(packed, type=_Packed)
    texts = np.array([*map(names.text, found.texts), ABSENT], dtype=np.int32)
    return replace(
        model,
        **{
            table.name: _table(type(getattr(model, table.name)), found.tables[table.name], texts)
            for table in fields(model)
        },
    )


def _table(kind: type[Table], columns: Mapping[str, tuple[str, bytes]], texts: Indexes) -> Table:
    arrays = {name: np.frombuffer(raw, dtype=dtype) for name, (dtype, raw) in columns.items()}
    return kind(**{name: texts[array] if name in _TEXT_COLUMNS else array for name, array in arrays.items()})
