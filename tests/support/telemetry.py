"""Records, rules and random telemetry for tests of the calculations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cloud.oee import records
from cloud.oee.columns import Columns
from cloud.oee.pieces import Cuts, Piece, Rules
from cloud.oee.records import Names, Records
from cloud.oee.timeline import build, close, join
from contract.delivery import Gap
from contract.machine_key import MachineKey
from contract.states import MachineState
from contract.telemetry import Telemetry

SEC = 1_000_000
MACHINES = [MachineKey("berlin", "packaging", "line-1", name) for name in ("filler", "capper", "packer")]


def telemetry(sequence: int, epochtime: float, state: str = "running", **said: Any) -> Telemetry:
    """Return one record of the first machine, unless `machine` says which."""
    key: MachineKey = said.pop("machine", MACHINES[0])
    return Telemetry(
        epochtime=epochtime,
        site=key.site,
        area=key.area,
        line=key.line,
        machine=key.machine,
        state=MachineState(state),
        gateway=said.pop("gateway", "gw"),
        sequence=sequence,
        **said,
    )


def rules(names: Names, **changed: Any) -> Rules:
    """Return the same rules for all machines of the names: the defaults but for what is said."""
    count = max(len(names.machines), len(MACHINES))
    defaults = {
        "max_gap_us": 30 * SEC,
        "hold": False,
        "jitter": 0,
        "modulus": 2**32,
        "proportional": False,
        "startup_us": 0,
        "startup_stop_us": 120 * SEC,
    } | changed
    kinds = {"hold": np.bool_, "proportional": np.bool_}
    return Rules(
        **{name: np.full(count, value, dtype=kinds.get(name, np.int64)) for name, value in defaults.items()}
    )


def cuts(*edges_secs: float) -> Cuts:
    """Return the same edges for all machines."""
    return Cuts.same(np.array([round(edge * SEC) for edge in edges_secs], dtype=np.int64), len(MACHINES))


def whole(
    piece: Piece, from_secs: float, until_secs: float, how: Rules, edges: Cuts
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the closed timeline of all machines as rows that compare."""
    machines = np.arange(len(MACHINES), dtype=np.int32)
    segments, counts = close(piece, machines, round(from_secs * SEC), round(until_secs * SEC), how, edges)
    return rows(segments), rows(counts)


def rows(table: Columns) -> list[tuple[Any, ...]]:
    """Return a table's rows as tuples."""
    return list(zip(*(column.tolist() for _, column in table.columns()), strict=True))


def joined(parts: Sequence[Records], how: Rules, edges: Cuts, order: Sequence[int]) -> Piece:
    """Return the pieces of successive parts, joined two neighbours at a time in any order."""
    pieces = [build(part, how, edges) for part in parts]
    for choice in order:
        if len(pieces) == 1:
            break
        place = choice % (len(pieces) - 1)
        pieces[place : place + 2] = [join(pieces[place], pieces[place + 1], how, edges)]
    while len(pieces) > 1:
        pieces[:2] = [join(pieces[0], pieces[1], how, edges)]
    return pieces[0]


def as_records(items: Sequence[Telemetry | Gap], names: Names) -> Records:
    """Return the records, with every machine of these tests at its index."""
    for key in MACHINES:
        names.machine(key)
    return records.from_telemetry(items, names)


@st.composite
def histories(draw: st.DrawFn) -> list[Telemetry | Gap]:
    """Draw what up to three machines tell: states, resets, rollovers, silences, bad readings, gaps."""
    items: list[Telemetry | Gap] = []
    sequence = 0
    for key in MACHINES[: draw(st.integers(1, 3))]:
        time = draw(st.integers(0, 100)) / 4
        counters = {
            "total_units": draw(st.sampled_from([0, 90, 65_530])),
            "off_quality_units": 3,
            "good_units": 50,
        }
        has = draw(
            st.sampled_from(
                [
                    ("total_units",),
                    ("total_units", "off_quality_units"),
                    ("total_units", "good_units"),
                    ("good_units", "off_quality_units"),
                    ("total_units", "off_quality_units", "good_units"),
                    (),
                ]
            )
        )
        alike = draw(st.booleans())
        for _ in range(draw(st.integers(1, 14))):
            sequence += 1
            if draw(st.integers(0, 9)) == 0:
                items.append(
                    Gap(
                        site=key.site,
                        area=key.area,
                        line=key.line,
                        machine=key.machine,
                        gateway="gw",
                        sequence=sequence,
                        from_epochtime=max(time, 0.25),
                        to_epochtime=time + 5,
                        cause="x",
                    )
                )
            else:
                for name in has:
                    step = draw(st.sampled_from([0, 1, 1, 2, 3, 10, -1, -2, -40_000]))
                    counters[name] = max(
                        0, (counters[name] + step) % 65_536 if step > 0 else counters[name] + step
                    )
                told = has if alike else [name for name in has if draw(st.booleans())]
                said: dict[str, Any] = {name: counters[name] for name in told}
                if draw(st.booleans()):
                    said["product"] = draw(st.sampled_from(["A", "B"]))
                if draw(st.integers(0, 3)) == 0:
                    said["reason_code"] = draw(st.sampled_from([17, "E1"]))
                if draw(st.integers(0, 5)) == 0:
                    said["data_quality"] = "bad"
                if draw(st.integers(0, 5)) == 0:
                    said["ideal_run_rate"] = 120.0
                items.append(
                    telemetry(
                        sequence,
                        max(time, 0.25),
                        draw(st.sampled_from(list(MachineState))).value,
                        machine=key,
                        **said,
                    )
                )
            time += draw(st.sampled_from([0, 0.25, 1, 1, 5, 10, 29.75, 30, 30.25, 90]))
    return items


@st.composite
def any_rules(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the rules of reading records."""
    return {
        "max_gap_us": draw(st.sampled_from([5, 30])) * SEC,
        "hold": draw(st.booleans()),
        "jitter": draw(st.sampled_from([0, 1, 3])),
        "modulus": draw(st.sampled_from([0, 2**16])),
        "proportional": draw(st.booleans()),
        "startup_us": draw(st.sampled_from([0, 10])) * SEC,
        "startup_stop_us": draw(st.sampled_from([0, 5])) * SEC,
    }
