"""Holds what is stored against the truth log: every row is delivered, coalesced or covered by a gap."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from simulator.machine import PLC_STATES
from simulator.truth import read_log
from tests.support.kept import US, Shown, Stored

STATE_NAMES = {code: state.value for state, code in PLC_STATES.items()}
_TAGS = ("State", "TotalUnits", "OffQualityUnits", "FaultCode", "Product")
_COUNTERS = frozenset({"TotalUnits", "OffQualityUnits"})
FIELDS = dict(
    zip(_TAGS, ("state", "total_units", "off_quality_units", "reason_code", "product"), strict=True)
)
TWO_LOOKS_US = 12 * US
"""Within so long a gateway looks twice at a tag that has nothing new to tell, busy as its machine may be."""
_FOR_EVER_US = 2**62
_UNITS = ("total_units", "good_units", "off_quality_units", "unplanned_units")
_TIMES = ("planned_production_secs", "running_secs", "run_secs")
_RATIOS = ("availability", "performance", "quality", "oee")


class Moment(NamedTuple):
    """The writes of one machine at one instant; in the present also when they were made [us]."""

    at_us: int
    shown: Shown
    changed: frozenset[str]
    written_us: int | None = None


class Span(NamedTuple):
    """A time [us] in which something was wrong on purpose, and what; machine, tag: only with this one."""

    from_us: int
    to_us: int
    what: str
    machine: str = ""
    tag: str = ""


@dataclass
class Verdict:
    """What became of every truth row, and what should not be there."""

    moments: int = 0
    delivered: int = 0
    coalesced: int = 0
    covered: int = 0
    heartbeats: int = 0
    holes: list[str] = field(default_factory=list)
    """What nobody could know: a tag died without a word, and never showed long enough that it had."""
    unexplained: list[str] = field(default_factory=list)
    phantoms: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    needless_gaps: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """Return everything that may not be."""
        return [*self.unexplained, *self.phantoms, *self.duplicates, *self.needless_gaps]

    def __str__(self) -> str:
        """Return the counts and the first faults."""
        counts = (
            f"{self.moments} moments: {self.delivered} delivered, {self.coalesced} coalesced, "
            f"{self.covered} in gaps, {len(self.holes)} in holes, {len(self.unexplained)} unexplained; "
            f"{self.heartbeats} heartbeats, "
            f"{len(self.phantoms)} phantoms, {len(self.duplicates)} duplicates, "
            f"{len(self.needless_gaps)} needless gaps"
        )
        kinds = (self.unexplained, self.phantoms, self.duplicates, self.needless_gaps)
        return "\n  ".join([counts, *(fault for kind in kinds for fault in kind[:5])])


def read_moments(truth_log: Path) -> dict[str, list[Moment]]:
    """Return what each machine was made to show, one entry per instant, in order of time."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_log(truth_log):
        if "kind" not in row and row["tag"] in _TAGS and row.get("served", True):
            rows[row["machine"]].append(row)
    return {machine: _moments(found) for machine, found in rows.items()}


def _moments(rows: Sequence[Mapping[str, Any]]) -> list[Moment]:
    known: dict[str, Any] = {}
    found: dict[int, Moment] = {}
    for row in sorted(rows, key=lambda row: int(row["at_us"])):
        value = None if row["status"] >> 31 else row["value"]
        before = known.get(row["tag"], "nothing")
        known[row["tag"]] = value
        at_us = int(row["at_us"])
        changed = found[at_us].changed if at_us in found else frozenset()
        if value != before:
            changed |= {row["tag"]}
        shown = Shown(
            STATE_NAMES.get(known.get("State", -1)),
            known.get("TotalUnits"),
            known.get("OffQualityUnits"),
            known.get("FaultCode") or None,
            known.get("Product"),
        )
        found[at_us] = Moment(at_us, shown, changed, row.get("logged_us"))
    return list(found.values())


def since_first_read(
    truth: Mapping[str, Sequence[Moment]], stored: Iterable[Stored]
) -> dict[str, list[Moment]]:
    """Return the moments since each machine was first read: some factories wait for nobody."""
    first: dict[str, int] = {}
    for record in stored:
        first[record.machine] = min(first.get(record.machine, _FOR_EVER_US), record.at_us)
    return {
        machine: [moment for moment in moments if moment.at_us >= first.get(machine, 0)]
        for machine, moments in truth.items()
    }


def judge(
    truth: Mapping[str, Sequence[Moment]],
    stored: Iterable[Stored],
    *,
    publish_interval_us: int = US,
    edge_us: int = 0,
    faults: Sequence[Span] = (),
    overflows: bool = False,
    silences: Sequence[Span] = (),
) -> Verdict:
    """Hold the store against the truth.

    publish_interval_us: [us] changes of a counter that are closer to each other may be one record
    edge_us: [us] how far a gap may be off at its edges, and a record behind what was just written
    faults: gaps are accepted only where one of these overlaps
    overflows: the PLC keeps one value of a tag: what a record counts may lie behind its state by an interval
    silences: when tags were taken from under their subscriptions without a word, and without one when back
    """
    verdict = Verdict()
    by_machine: dict[str, list[Stored]] = defaultdict(list)
    sequences: Counter[tuple[str, int]] = Counter()
    for record in stored:
        by_machine[record.machine].append(record)
        sequences[record.gateway, record.sequence] += 1
    verdict.duplicates += [f"{key} is stored {times} times" for key, times in sequences.items() if times > 1]
    for machine in by_machine.keys() - truth.keys():
        verdict.phantoms.append(f"{machine} does not exist")
    end_us = max((moments[-1].at_us for moments in truth.values() if moments), default=0)
    for machine, moments in truth.items():
        records = sorted(by_machine[machine], key=lambda record: (record.at_us, record.sequence))
        agrees = _agrees_but_for_late_counts if overflows else _agrees
        mute = [Mute(span, moments, end_us) for span in silences if span.machine == machine]
        _judge_records(machine, moments, records, verdict, edge_us, agrees, mute)
        _judge_gaps(machine, records, verdict, edge_us, faults)
        _judge_moments(machine, moments, records, verdict, publish_interval_us, edge_us, mute)
    return verdict


class Mute:
    """One tag of a machine that tells nothing more since it was taken away, back or not.

    A client learns of it by looking at the tag now and then: two looks in a row that show another value than
    was told. What has changed and changed back between looks leaves no trace.

    end_us: [us] until when the factory could be looked at
    """

    def __init__(self, span: Span, moments: Sequence[Moment], end_us: int) -> None:
        self._end_us = end_us
        self._tag = span.tag
        self._field = FIELDS[span.tag]
        self._from_us = span.from_us
        self._moments = moments

    def hides(self, moment: Moment) -> bool:
        """Tell whether a change may have gone by unseen."""
        is_of_it = moment.changed <= {self._tag} and moment.at_us >= self._from_us
        return is_of_it and not self._was_seen(self._told_last())

    def excuses(self, record: Stored, candidates: Sequence[Moment], edge_us: int) -> bool:
        """Tell whether a record is wrong in nothing but this tag, and nobody could have noticed."""
        if record.at_us < self._from_us - edge_us:
            return False
        told = getattr(record.shown, self._field)
        but_for_it = [one._replace(shown=one.shown._replace(**{self._field: told})) for one in candidates]
        return _agrees(record, but_for_it) and not self._was_seen(told)

    def seen_by_us(self) -> int:
        """Return by when two looks show that it is dead; 0 where it shows what it told last."""
        other_us = [since_us for since_us, until_us in self._others(self._told_last()) if until_us is None]
        return other_us[0] + TWO_LOOKS_US if other_us else 0

    def _told_last(self) -> Any:
        before = [moment for moment in self._moments if moment.at_us < self._from_us]
        return getattr((before or self._moments)[-1 if before else 0].shown, self._field)

    def _was_seen(self, told: Any) -> bool:
        """Tell whether the tag showed another value than was told of it for as long as two looks take."""
        return any(
            (self._end_us if until_us is None else until_us) - since_us >= TWO_LOOKS_US
            for since_us, until_us in self._others(told)
        )

    def _others(self, told: Any) -> Iterator[tuple[int, int | None]]:
        """Yield from when until when it showed another value than was told; None: to the end [us]."""
        since_us: int | None = None
        for moment in self._moments:
            if moment.at_us < self._from_us:
                continue
            is_other = getattr(moment.shown, self._field) != told
            if is_other and since_us is None:
                since_us = moment.at_us
            elif not is_other and since_us is not None:
                yield since_us, moment.at_us
                since_us = None
        if since_us is not None:
            yield since_us, None


def _judge_records(
    machine: str,
    moments: Sequence[Moment],
    records: Sequence[Stored],
    verdict: Verdict,
    edge_us: int,
    agrees: Callable[[Stored, Sequence[Moment]], bool],
    mute: Sequence[Mute],
) -> None:
    """Every record must tell what the tags showed at its instant, or just before, unless it was withdrawn.

    A record is withdrawn by a later gap that begins at its instant: the state is unknown from there on.
    """
    instants = [moment.at_us for moment in moments]
    withdrawn: dict[tuple[str, int], int] = {}
    for record in records:
        if record.gap_until_us is not None:
            key = record.gateway, record.at_us
            withdrawn[key] = max(withdrawn.get(key, 0), record.sequence)
    seen: set[tuple[int, Shown]] = set()
    for record in records:
        if record.gap_until_us is not None:
            continue
        last = bisect_right(instants, record.at_us)
        candidates = _in_force(moments, last, record.at_us - edge_us)
        is_withdrawn = record.sequence < withdrawn.get((record.gateway, record.at_us), 0)
        if not agrees(record, candidates) and not is_withdrawn:
            expected = candidates[-1].shown if candidates else "nothing"
            is_hole = any(one.excuses(record, candidates, edge_us) for one in mute)
            (verdict.holes if is_hole else verdict.phantoms).append(
                f"{machine} at {record.at_us}: stored {record.shown} ({record.quality}), true is {expected}"
            )
        if (record.at_us, record.shown) in seen:
            verdict.duplicates.append(f"{machine} at {record.at_us}: {record.shown} is stored twice")
        seen.add((record.at_us, record.shown))
        if not candidates or candidates[-1].at_us != record.at_us:
            verdict.heartbeats += 1


def _in_force(moments: Sequence[Moment], end: int, since_us: int) -> Sequence[Moment]:
    """Return what a client may have believed: the last of moments[:end], and those before it until since_us.

    What was written late, because the PLC stood still, could not be known before.
    """
    first = end
    while first > 0:
        first -= 1
        moment = moments[first]
        if max(moment.at_us, moment.written_us or 0) <= since_us:
            break
    return moments[first:end]


def _agrees(record: Stored, candidates: Sequence[Moment]) -> bool:
    """Tell whether a record is what a client may have believed."""
    if record.shown.state == "unknown":
        return bool(candidates) and (
            record.quality == "bad" or any(moment.shown.state is None for moment in candidates)
        )
    if record.quality == "good":
        return any(record.shown == moment.shown for moment in candidates)
    # one of the tags could not be read, and is left out
    return any(
        all(said is None or said == true for said, true in zip(record.shown, moment.shown, strict=True))
        for moment in candidates
    )


def _agrees_but_for_late_counts(record: Stored, candidates: Sequence[Moment]) -> bool:
    """Tell the same, where each counter may be that of another moment just before."""
    if _agrees(record, candidates):
        return True

    def facts(shown: Shown) -> Shown:
        return shown._replace(total_units=None, off_quality_units=None)

    return (
        any(facts(record.shown) == facts(moment.shown) for moment in candidates)
        and record.shown.total_units in {moment.shown.total_units for moment in candidates}
        and record.shown.off_quality_units in {moment.shown.off_quality_units for moment in candidates}
    )


def _judge_gaps(
    machine: str, records: Sequence[Stored], verdict: Verdict, edge_us: int, faults: Sequence[Span]
) -> None:
    """A gap is fine only where something was wrong."""
    for record in records:
        until_us = record.gap_until_us
        if until_us is None:
            continue
        if not any(
            fault.from_us - edge_us <= until_us and fault.to_us + edge_us >= record.at_us
            for fault in faults
            if fault.machine in ("", machine)
        ):
            verdict.needless_gaps.append(
                f"{machine}: gap {record.at_us} to {until_us} ({record.cause}) without a fault"
            )


def _judge_moments(
    machine: str,
    moments: Sequence[Moment],
    records: Sequence[Stored],
    verdict: Verdict,
    publish_interval_us: int,
    edge_us: int,
    mute: Sequence[Mute],
) -> None:
    """Every write must have arrived, or have been followed at once by one that did, or lie in a gap.

    At once after it could be known: a PLC that stood still writes late, and with the times of then.
    """
    instants = [record.at_us for record in records if record.gap_until_us is None]
    at_instants = set(instants)
    gaps = [(record.at_us, record.gap_until_us) for record in records if record.gap_until_us is not None]
    for moment in moments:
        if not moment.changed:
            continue
        verdict.moments += 1
        after = bisect_right(instants, moment.at_us)
        known_us = max(moment.at_us, moment.written_us or 0)
        soon = after < len(instants) and instants[after] <= known_us + publish_interval_us
        if moment.at_us in at_instants:
            verdict.delivered += 1
        elif soon and moment.changed <= _COUNTERS:
            verdict.coalesced += 1
        elif any(begin - edge_us <= moment.at_us <= end + edge_us for begin, end in gaps):
            verdict.covered += 1
        else:
            is_hole = any(one.hides(moment) for one in mute)
            (verdict.holes if is_hole else verdict.unexplained).append(
                f"{machine} at {moment.at_us}: {sorted(moment.changed)} -> {moment.shown} is nowhere"
            )


def compare_figures(
    computed: Sequence[Mapping[str, Any]], true: Sequence[Mapping[str, Any]], *, tolerance_secs: float = 0.0
) -> list[str]:
    """Return where figures differ: units as integers, times within the tolerance, ratios accordingly.

    computed: as `oee compute --format json` prints them
    true: as the simulator's truth tells them
    """
    found = {(row["machine"], row["start"]): row for row in computed if row.get("machine")}
    faults = []
    for row in true:
        where = f"{row['machine']} shift {row['shift']} of {row['production_date']}"
        other = found.get((row["machine"], row["start"]))
        if other is None:
            faults.append(f"{where}: no figures")
            continue
        near = dict.fromkeys(_UNITS, 0.0) | dict.fromkeys(_TIMES, tolerance_secs)
        near |= dict.fromkeys(_RATIOS, 1e-9 + 2 * tolerance_secs / max(row["run_secs"], 1))
        faults += [
            f"{where}: {key} is {other[key]}, true is {row[key]}"
            for key, difference in near.items()
            if not _is_near(other[key], row[key], difference)
        ]
    return faults


def _is_near(one: float | None, other: float | None, difference: float) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= difference
