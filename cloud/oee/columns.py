"""Tables as equally long numpy columns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Indexes = npt.NDArray[np.int32]
Codes = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_SMALL: Final = 2**15
Rows = slice | npt.NDArray[np.intp] | npt.NDArray[np.int64] | Flags


@dataclass(frozen=True, eq=False)
class Columns:
    """Base of tables whose fields are all columns of the same length."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, rows: Rows) -> Self:
        """Return the rows that a slice, a mask or positions name."""
        return replace(self, **{name: column[rows] for name, column in self.columns()})

    def columns(self) -> list[tuple[str, npt.NDArray[Any]]]:
        """Return (name, column) in the order of the fields."""
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    @classmethod
    def concatenate(cls, tables: Sequence[Self]) -> Self:
        """Return the rows of one table after the other's; at least one table is needed."""
        if len(tables) == 1:
            return tables[0]
        return cls(
            **{
                field.name: np.concatenate([getattr(table, field.name) for table in tables])
                for field in fields(cls)
            }
        )


def firsts(machine: Indexes) -> Flags:
    """Return which rows begin a machine, of rows that are sorted by machine."""
    first = np.empty(len(machine), dtype=np.bool_)
    first[:1] = True
    np.not_equal(machine[1:], machine[:-1], out=first[1:])
    return first


def lasts(machine: Indexes) -> Flags:
    """Return which rows end a machine, of rows that are sorted by machine."""
    last = np.empty(len(machine), dtype=np.bool_)
    last[-1:] = True
    np.not_equal(machine[1:], machine[:-1], out=last[:-1])
    return last


def by_machine_and_time(machine: Indexes, time_us: Ints) -> npt.NDArray[np.intp] | None:
    """Return what sorts rows by machine and time; None where two of a machine share a moment, or go back.

    Most tables hold each machine's rows by time already, and few machines: small numbers sort fastest.
    """
    is_small = bool(len(machine)) and machine.max() < _SMALL
    order = np.argsort(machine.astype(np.int16) if is_small else machine, kind="stable")
    by_machine, by_time = machine[order], time_us[order]
    if ((by_machine[1:] != by_machine[:-1]) | (by_time[1:] > by_time[:-1])).all():
        return order
    return None


def held(marks: Flags) -> Ints:
    """Return for each row the last marked row at or before it; the first row must be marked."""
    return np.maximum.accumulate(np.where(marks, np.arange(len(marks)), 0))


def ranges(starts: Ints, stops: Ints) -> Ints:
    """Return all positions of ranges, one range after the other."""
    length = stops - starts
    return np.repeat(stops - np.cumsum(length), length) + np.arange(int(length.sum()))
