"""What a trial is judged by beside the records: blind times, figures, recovery times."""

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from cloud import compute, plant
from cloud.views import AlertView
from simulator.timetable import windows
from simulator.truth import SMALL_STOP_SECS, History, Truth, read_log
from tests.chaos import alerting
from tests.chaos.listener import Heard
from tests.chaos.schedule import KINDS
from tests.support import judge
from tests.support.judge import Moment, Span
from tests.support.kept import US, Stored

EDGE_US: Final = 1_000_000
"""How far a gap's edges may be off, and a heartbeat may lag behind what was just written."""
_CLOSING_US: Final = 15 * US
"""So long after it may be closed a shift is, and revised by what came late."""
_LOOK_US: Final = 10 * US
"""Between two looks at a tag that has nothing new to tell, machines that are busy with much else included."""
_HEALING_US: Final = 12 * US
"""So long after a blinding fault a gap may still have its cause in it."""


def boots_us(log: Path) -> list[int]:
    """Return when the factory's ports were open with all tags behind them, each time that it was started."""
    words = (line.split() for line in log.read_text(errors="replace").splitlines())
    return [int(said[1]) for said in words if len(said) == 2 and said[0] == "up"]


def until_boot(span: Span, booted_us: Sequence[int]) -> Span:
    """Return a fault with the end that counts: a PLC is back once it can be asked, not switched on."""
    if span.what != "kill plc":
        return span
    return span._replace(to_us=min((at_us for at_us in booted_us if at_us >= span.to_us), default=span.to_us))


def blind_spans(spans: Sequence[Span], *, always: bool) -> list[Span]:
    """Return the times in which values could really not be read.

    always: the server loses values by itself
    """
    # a tag that is back with the value that it had is found dead only when it changes, however late that is;
    # and it is doubted from when it was last looked at, before it went
    found = [
        Span(
            span.from_us - (_LOOK_US if span.machine else EDGE_US),
            2**62 if span.machine else span.to_us + _HEALING_US,
            span.what,
            span.machine,
        )
        for span in spans
        if KINDS[span.what].blinds
    ]
    return [*found, Span(0, 2**62, "queue of one")] if always else found


def export(stored: Iterable[Stored], site: str, area: str, path: Path) -> None:
    """Write records and gaps as the telemetry files that `oee compute` reads."""
    with path.open("wb") as file:
        for record in stored:
            line, machine = record.machine.split("/")
            place = {"site": site, "area": area, "line": line, "machine": machine}
            said: dict[str, Any] = {**place, "gateway": record.gateway, "sequence": record.sequence}
            if record.gap_until_us is not None:
                said |= {
                    "from_epochtime": record.at_us / US,
                    "to_epochtime": record.gap_until_us / US,
                    "cause": record.cause,
                }
            else:
                shown = {key: value for key, value in record.shown._asdict().items() if value is not None}
                said |= {"epochtime": record.at_us / US, "data_quality": record.quality, **shown}
            file.write(msgspec.json.encode(said) + b"\n")


def figures(folder: Path, stored: Sequence[Stored], moments: Mapping[str, Sequence[Moment]]) -> list[str]:
    """Return where the figures of what is stored are not those of the truth."""
    truth = Truth.from_log(folder / "truth.jsonl")
    header = next(read_log(folder / "truth.jsonl"))
    export(stored, header["site"], header["area"], folder / "stored.jsonl")
    found = compute.compute(plant.load(folder / "plant.toml"), [folder / "stored.jsonl"])
    faults = [f"not read back: {refusal}" for refusal in found.refused[:3]]
    computed = [one.to_dict() for one in found.figures]
    from_us, to_us = truth.span_us()
    whole = {
        (shift.start_us, shift.end_us)
        for shift in windows(truth.timetable, from_us, to_us)
        if shift.start_us >= from_us and shift.end_us < to_us
    }
    true = {
        (one.machine, one.to_dict()["start"]): one
        for one in truth.figures(from_us, to_us)
        if (one.start_us, one.end_us) in whole
        and not is_undecided(truth.histories[f"{one.line}/{one.machine}"], stored, one.end_us)
    }
    for row in computed:
        if (one := true.get((row["machine"], row["start"]))) is not None:
            faults += _shift(row, one.to_dict())
    resets = _resets(folder / "truth.jsonl")
    for machine, history in truth.histories.items():
        rows = [row for row in computed if f"{row['line']}/{row['machine']}" == machine]
        total = sum(row["total_units"] + row["unplanned_units"] for row in rows)
        off = sum(row["off_quality_units"] + row["unplanned_off_quality_units"] for row in rows)
        first_us = moments[machine][0].at_us if moments[machine] else 0
        counts = [count for count in history.counts if count.at_us > first_us]
        made = sum(count.total for count in counts)
        spoiled = sum(count.off_quality for count in counts)
        if (total, off) == (made, spoiled):
            continue
        if not was_reset_in_the_dark(resets[machine], stored, machine) or total > made or off > spoiled:
            faults.append(f"{machine}: counted {total} units, {off} off quality; true are {made}, {spoiled}")
    return faults


def is_undecided(history: History, stored: Iterable[Stored], end_us: int) -> bool:
    """Tell whether a shift ends within a stop of which nobody can know yet whether it is a small one.

    That is one which was not over when the log ended, and not longer than a small one as far as was told.
    """
    since_us = history.stands_since_us
    if since_us is None or since_us >= end_us:
        return False
    machine = f"{history.line}/{history.machine}"
    known_us = max((record.at_us for record in stored if record.machine == machine), default=0)
    return known_us - since_us < SMALL_STOP_SECS * US


def closed_shifts(folder: Path, closed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where closed shifts, as they stand in the store, are not those of the truth."""
    truth = Truth.from_log(folder / "truth.jsonl")
    from_us, to_us = truth.span_us()
    known = {(row["machine"], row["start"]): row for row in closed if row.get("machine")}
    machines = plant.load(folder / "plant.toml").machines.values()
    waits_us = max(one.definitions.small_stop_us + one.definitions.max_gap_us for one in machines)
    whole = {
        (shift.start_us, shift.end_us)
        for shift in windows(truth.timetable, from_us, to_us)
        if shift.start_us >= from_us and shift.end_us < to_us - waits_us - _CLOSING_US
    }
    faults = []
    for one in truth.figures(from_us, to_us):
        if (one.start_us, one.end_us) in whole:
            true = one.to_dict()
            row = known.get((one.machine, true["start"]))
            faults += (
                [f"{one.machine} shift {true['shift']} was not closed"] if row is None else _shift(row, true)
            )
    return faults


def alerts(
    folder: Path,
    raised: Sequence[AlertView],
    told: Sequence[bytes],
    stored: Sequence[Stored],
    receipts: Sequence[Heard],
    spans: Sequence[Span],
    over_us: int,
) -> alerting.Judged:
    """Hold the idle alerts of a store against how the factory's machines stood."""
    return alerting.judge(
        Truth.from_log(folder / "truth.jsonl").histories,
        raised,
        told,
        alerting.Evidence(
            stored=stored,
            news=alerting.news(receipts),
            faults=spans,
            blinding=[span for span in spans if KINDS[span.what].blinds],
            live_us=_live_since_us(folder / "truth.jsonl"),
            over_us=over_us,
        ),
    )


def _live_since_us(log: Path) -> int:
    """Return since when the factory shows the present."""
    return next((int(row["at_us"]) for row in read_log(log) if "logged_us" in row), 2**62)


def _shift(row: Mapping[str, Any], true: Mapping[str, Any]) -> list[str]:
    """Return how one shift differs: not at all, or within the bounds where part of it is unknown."""
    where = f"{row['machine']} shift {row['shift']}"
    unknown_secs = row["unknown_secs"]
    if unknown_secs == 0:
        return judge.compare_figures([row], [true], tolerance_secs=0.0)
    if not true["running_secs"] - unknown_secs - 1e-6 <= row["running_secs"] <= true["running_secs"] + 1e-6:
        return [
            f"{where}: ran {row['running_secs']} s, true {true['running_secs']} s, unknown {unknown_secs} s"
        ]
    bounds = row["bounds"]
    return [
        f"{where}: true {key} {true[key]} is outside {bounds[key]}"
        for key in ("availability", "oee")
        if true[key] is not None
        and bounds[key][0] is not None
        and not bounds[key][0] - 1e-9 <= true[key] <= bounds[key][1] + 1e-9
    ]


def _resets(log: Path) -> dict[str, list[int]]:
    """Return when each machine's counters were set back, seen or not [us]."""
    last: dict[str, int] = {}
    found: dict[str, list[int]] = defaultdict(list)
    for row in read_log(log):
        if "kind" in row or row["tag"] != "TotalUnits":
            continue
        shown = row["value"] if row["value"] is not None else row.get("actual")
        if shown is not None:
            if shown < last.get(row["machine"], 0):
                found[row["machine"]].append(int(row["at_us"]))
            last[row["machine"]] = shown
    return found


def was_reset_in_the_dark(resets_us: Iterable[int], stored: Iterable[Stored], machine: str) -> bool:
    """Tell whether a counter may have been set back where nobody could see what it had reached.

    That is around a gap, or while it could not be read, or not be believed because the state could not be:
    between the last record that tells a total and the next.
    """
    records = sorted((one for one in stored if one.machine == machine), key=lambda one: one.at_us)
    gaps = [
        (one.at_us - 2 * US, one.gap_until_us + 2 * US) for one in records if one.gap_until_us is not None
    ]
    known = [one for one in records if one.gap_until_us is None]
    unread: list[tuple[int, int]] = []
    for before, after in itertools.pairwise(known):
        if not _tells_a_total(after):
            if _tells_a_total(before):
                unread.append((before.at_us, after.at_us))
        elif not _tells_a_total(before) and unread:
            unread[-1] = (unread[-1][0], after.at_us)
    return any(begin <= at_us <= end for at_us in resets_us for begin, end in (*gaps, *unread))


def _tells_a_total(record: Stored) -> bool:
    """Tell whether a record has a total that counts: those of one of bad quality are not believed."""
    return record.shown.total_units is not None and record.quality != "bad"


def recoveries(
    spans: Sequence[Span],
    receipts: Sequence[Heard],
    stored: Sequence[Stored],
    moments: Mapping[str, Sequence[Moment]],
) -> list[tuple[str, float]]:
    """Return how long after the end of each fault that stood alone something newer was stored [s].

    Counted from the first write after its end: before that there was nothing to deliver.
    """
    epochs = sorted((record.sequence, record.at_us) for record in stored)
    sequences = [sequence for sequence, _ in epochs]
    newest = 0
    best: list[int] = []
    for _, at_us in epochs:
        newest = max(newest, at_us)
        best.append(newest)

    def newest_stored(heard: Heard) -> int:
        ends = [heard.receipt.stored_through, *(last for _, last in heard.receipt.stored_beyond)]
        index = bisect_right(sequences, max(ends)) - 1
        return best[index] if index >= 0 else 0

    known = [(heard.at_us, newest_stored(heard)) for heard in receipts]
    writes = sorted(moment.at_us for machine in moments.values() for moment in machine if moment.changed)
    found = []
    for span in spans:
        if KINDS[span.what].promise_secs is None:
            continue
        after = bisect_right(writes, span.to_us)
        if after >= len(writes):
            continue
        first_us = writes[after]
        back_us = next(
            (at_us for at_us, epoch_us in known if at_us >= span.to_us and epoch_us >= first_us), None
        )
        if back_us is None:
            continue
        alone = not any(
            other is not span and other.from_us <= back_us and other.to_us >= span.from_us - 5 * US
            for other in spans
        )
        if alone:
            found.append((span.what, (back_us - max(first_us, span.to_us)) / US))
    return found
