"""What people say of the past after the fact, kept as records and applied when figures are made.

Nothing that was measured is changed: a correction is one more record, which a later one may void. They apply
in the order of their numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct

from cloud.errors import CorrectionError
from cloud.oee.calendar import ShiftWindow, StopWindow, shifts_between
from cloud.oee.columns import Flags, Floats, Ints
from cloud.oee.pieces import NEVER, Counts, Segments, merged_counts, merged_segments
from cloud.oee.records import ABSENT, NO_RATE, RUNNING, STOPPED, UNKNOWN, Names
from cloud.plant import Plant
from contract.machine_key import MachineKey

Kind = Literal["classify", "move", "comment", "off_quality", "planned_stop", "ideal_rate", "order", "void"]
_CLASSIFYING: Final = ("classify", "move")
_PLANNING: Final = ("planned_stop", "ideal_rate", "order")
"""Kinds that may speak of the future."""
_CUTTING: Final = (*_CLASSIFYING, "ideal_rate", "order")
_SAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "classify": ("reason",),
    "move": ("reason",),
    "off_quality": ("units", "product"),
    "planned_stop": ("reason",),
    "ideal_rate": ("rate", "product"),
    "order": ("order", "product"),
}
"""What each kind may say beside why; it would have no effect on the others."""
MAX_UNITS: Final = 1_000_000_000
"""More than any machine makes in the time of one correction, and few enough that sums stay exact."""
_DAY_US: Final = 86_400_000_000
_LATER: Final = 1

Text = Annotated[str, Meta(max_length=1024)]


class Correction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One correction of one machine's past over [from_us, to_us)."""

    machine: str
    """`site/area/line/machine`."""
    kind: Kind
    """What is corrected: `classify` gives the stops in the range a reason, or a part of one, which splits it;
    `move` does so where one was given before; `comment` says something; `off_quality` adds units found bad
    later; `planned_stop` makes the range planned; `ideal_rate` says what the machine could make in it;
    `order` says which order and product ran; `void` takes another correction back."""
    from_us: int
    to_us: int
    who: Text
    when_us: int
    """[us since 1970] when it was made."""
    why: Text = ""
    reason: Annotated[str, Meta(max_length=256)] | None = None
    """Key of a reason of the plant."""
    units: Annotated[int, Meta(ge=-MAX_UNITS, le=MAX_UNITS)] | None = None
    """Off-quality units to add; negative when fewer were bad than counted."""
    product: Annotated[str, Meta(max_length=256)] | None = None
    """What the units were, where it is not what the machine made in the range."""
    rate: Annotated[float, Meta(gt=0, lt=1e9)] | None = None
    """[units/min] ideal run rate; of one product where that is named."""
    order: Annotated[str, Meta(max_length=256)] | None = None
    ref: Annotated[str, Meta(max_length=256)] | None = None
    """What the system that said it calls it, so that it is known again when it changes there."""
    voids: int | None = None
    """Number of the correction that is taken back."""
    number: int = 0
    """Given by the store, ascending."""

    @property
    def machine_key(self) -> MachineKey:
        """Return the machine; raise ValueError for an ill-formed one."""
        return MachineKey.parse(self.machine)


class Touched(NamedTuple):
    """What a correction changes the figures of."""

    machine: MachineKey
    from_us: int
    to_us: int


def encode(correction: Correction) -> bytes:
    """Write a correction as JSON."""
    return msgspec.json.encode(correction)


def decode(text: bytes, number: int) -> Correction:
    """Read a correction; raise CorrectionError for anything else."""
    try:
        found = msgspec.json.decode(text, type=Correction)
    except ValueError as error:
        raise CorrectionError(f"not a correction: {error}") from error
    return msgspec.structs.replace(found, number=number)


def in_force(corrections: Iterable[Correction]) -> list[Correction]:
    """Return the corrections that are not void, by their numbers."""
    every = sorted(corrections, key=lambda correction: correction.number)
    void = {correction.voids for correction in every if correction.kind == "void"}
    return [item for item in every if item.kind != "void" and item.number not in void]


def touched(correction: Correction, others: Iterable[Correction]) -> Touched:
    """Return what a correction changes; a void changes what the one that it takes back had changed."""
    what = _what(correction, others)
    return Touched(what.machine_key, what.from_us, max(what.to_us, what.from_us + _LATER))


def check(correction: Correction, others: Sequence[Correction], plant: Plant, *, now_us: int) -> None:
    """Raise CorrectionError when a correction may not be made beside the others.

    now_us: [us since 1970] by it a period is judged to be locked, or still to come
    """
    machine = plant.machines.get(_machine(correction))
    if machine is None:
        raise CorrectionError(f"{correction.machine} is not in the plant")
    if not correction.who:
        raise CorrectionError("a correction says who makes it: `who` is empty")
    if correction.kind == "void":
        _check_void(correction, others)
    else:
        _check_fields(correction, machine.site.reasons)
    changed = touched(correction, others)
    if _what(correction, others).kind in _PLANNING and changed.to_us > now_us:
        _check_overlaps(correction, in_force(others))
        return
    if changed.from_us >= now_us:
        raise CorrectionError("a correction is of the past: its range has not begun yet")
    shifts = shifts_between(machine, changed.from_us, min(changed.to_us, now_us))
    if not shifts:
        raise CorrectionError(
            f"{correction.machine} has no shift in this range, so there are no figures to correct"
        )
    _check_lock(shifts, machine.definitions.lock_after_days, now_us)
    _check_overlaps(correction, in_force(others))


def cuts(corrections: Iterable[Correction]) -> dict[MachineKey, list[int]]:
    """Return by machine where its time has to be cut so that corrections apply to whole intervals."""
    found: dict[MachineKey, list[int]] = {}
    for correction in corrections:
        if correction.kind in _CUTTING:
            found.setdefault(correction.machine_key, []).extend((correction.from_us, correction.to_us))
    return found


def planned_stops(corrections: Iterable[Correction]) -> dict[MachineKey, list[StopWindow]]:
    """Return by machine the planned stops that were entered afterwards."""
    found: dict[MachineKey, list[StopWindow]] = {}
    for correction in corrections:
        if correction.kind == "planned_stop":
            stop = StopWindow(correction.from_us, correction.to_us, correction.reason or "")
            found.setdefault(correction.machine_key, []).append(stop)
    return found


def classified(segments: Segments, corrections: Iterable[Correction], names: Names) -> Segments:
    """Return the segments with the reasons that were given to stops, and to unknown time as to a stop.

    Running time within a range stays what it is.
    """
    for correction in corrections:
        if correction.kind in _CLASSIFYING and correction.reason is not None:
            segments = _with_reason(segments, correction, names)
    return segments


def counts_classified(counts: Counts, corrections: Iterable[Correction], names: Names) -> Counts:
    """Return the counts with the reasons of the stops in which they were made."""
    for correction in corrections:
        if correction.kind in _CLASSIFYING and correction.reason is not None:
            inside = counts.machine == names.machine(correction.machine_key)
            inside &= (counts.at_us >= correction.from_us) & (counts.at_us < correction.to_us)
            inside &= (counts.state != RUNNING) & (counts.state != UNKNOWN)
            counts = replace(
                counts, reason=np.where(inside, np.int32(names.text(correction.reason)), counts.reason)
            )
    return counts


def with_orders(segments: Segments, corrections: Iterable[Correction], names: Names) -> Segments:
    """Return the segments with the orders and products that a planning system said."""
    for correction in corrections:
        if correction.kind == "order":
            segments = _with_order(segments, correction, names)
    return segments


def counts_planned(counts: Counts, corrections: Iterable[Correction], names: Names) -> Counts:
    """Return the counts with the orders, products and ideal rates that a planning system said."""
    ordered = sorted(
        corrections, key=lambda correction: correction.kind == "ideal_rate"
    )  # these ask for products
    for correction in ordered:
        if correction.kind not in ("order", "ideal_rate"):
            continue
        inside = counts.machine == names.machine(correction.machine_key)
        inside &= (counts.at_us >= correction.from_us) & (counts.at_us < correction.to_us)
        if correction.kind == "order":
            product, order = _texts(correction, names)
            counts = replace(
                counts,
                product=np.where(inside & (product != ABSENT), product, counts.product),
                order=np.where(inside & (order != ABSENT), order, counts.order),
            )
        else:
            if correction.product is not None:
                inside &= counts.product == names.text(correction.product)
            counts = replace(counts, rate=np.where(inside, correction.rate or NO_RATE, counts.rate))
    return counts


def with_off_quality(
    counts: Counts, planned: Flags, segments: Segments, corrections: Iterable[Correction], names: Names
) -> Counts:
    """Return the counts with the off quality that was found later, where the units were made.

    planned: which counts were made in planned production time; found later is among these if there are any
    """
    found = [
        _found_later(counts, planned, segments, correction, names)
        for correction in corrections
        if correction.kind == "off_quality"
    ]
    return merged_counts([counts, *found]) if found else counts


def _machine(correction: Correction) -> MachineKey:
    try:
        return correction.machine_key
    except ValueError as error:
        raise CorrectionError(str(error)) from error


def _what(correction: Correction, others: Iterable[Correction]) -> Correction:
    """Return what is said or taken back."""
    if correction.kind != "void":
        return correction
    return next(other for other in others if other.number == correction.voids)


def _check_void(correction: Correction, others: Sequence[Correction]) -> None:
    taken = next((other for other in others if other.number == correction.voids), None)
    if taken is None or taken.kind == "void":
        raise CorrectionError(f"there is no correction {correction.voids} to take back")
    if taken.machine != correction.machine:
        raise CorrectionError(f"correction {correction.voids} is of {taken.machine}")
    if taken not in in_force(others):
        raise CorrectionError(f"correction {correction.voids} was taken back before")


def _check_fields(correction: Correction, reasons: Mapping[str, object]) -> None:
    kind = correction.kind
    if correction.to_us <= correction.from_us and kind != "off_quality":
        raise CorrectionError("the range ends before it begins")
    if correction.to_us < correction.from_us:
        raise CorrectionError("the range ends before it begins")
    if kind in _CLASSIFYING and correction.reason is None:
        raise CorrectionError(f"{kind} needs a reason")
    if correction.reason is not None and correction.reason not in reasons:
        known = ", ".join(reasons) or "it names none"
        raise CorrectionError(f"{correction.reason!r} is not a reason of the plant: {known}")
    if kind == "off_quality" and not correction.units:
        raise CorrectionError("off_quality needs the number of units to add")
    if kind == "ideal_rate" and correction.rate is None:
        raise CorrectionError("ideal_rate needs the rate [units/min]")
    if kind == "order" and correction.order is None and correction.product is None:
        raise CorrectionError("order needs an order, a product or both")
    for field in ("reason", "units", "product", "rate", "order"):
        if getattr(correction, field) is not None and field not in _SAYS.get(kind, ()):
            raise CorrectionError(f"{kind} has no {field}: {_words(_SAYS.get(kind, ('why',)))}")
    if kind == "comment" and not correction.why:
        raise CorrectionError("a comment needs its text in `why`")


def _words(fields: Sequence[str]) -> str:
    return f"it says {' and '.join(fields)} alone"


def _check_lock(shifts: Sequence[ShiftWindow], lock_after_days: int, now_us: int) -> None:
    if not lock_after_days:
        return
    for shift in shifts:
        if shift.end_us + lock_after_days * _DAY_US <= now_us:
            raise CorrectionError(
                f"shift {shift.name} of {shift.production_date} is locked: it ended more than"
                f" {lock_after_days} days ago"
            )


def _check_overlaps(correction: Correction, others: Iterable[Correction]) -> None:
    """Refuse what would say two things of the same time."""
    alike = {"classify": _CLASSIFYING} | {kind: (kind,) for kind in _PLANNING}
    for other in others:
        if (
            other.machine == correction.machine
            and other.kind in alike.get(correction.kind, ())
            and (correction.kind != "ideal_rate" or other.product == correction.product)
            and other.from_us < correction.to_us
            and correction.from_us < other.to_us
        ):
            remedy = "move it instead, or take" if correction.kind == "classify" else "take"
            which = f"correction {other.number}" if other.number else f"row {other.ref}"
            raise CorrectionError(
                f"the range overlaps {which} ({other.kind}"
                f"{f' as {other.reason}' if other.reason else ''} by {other.who}): {remedy} that back first"
            )


def _with_reason(segments: Segments, correction: Correction, names: Names) -> Segments:
    mine = segments.machine == names.machine(correction.machine_key)
    hit = mine & (segments.end_us > correction.from_us) & (segments.start_us < correction.to_us)
    hit &= segments.state != RUNNING
    if not hit.any():
        return segments
    concerned = segments.take(hit)
    before, within, after = _parted(concerned, correction)
    within = replace(
        within,
        state=np.where(concerned.state == UNKNOWN, np.int8(STOPPED), concerned.state),
        reason=np.full(len(concerned), names.text(correction.reason or ""), dtype=np.int32),
    )
    return merged_segments([segments.take(~hit), before, within, after])


def _texts(correction: Correction, names: Names) -> tuple[np.int32, np.int32]:
    """Return the indexes of the product and the order, ABSENT where none is said."""
    product, order = (
        np.int32(ABSENT if text is None else names.text(text))
        for text in (correction.product, correction.order)
    )
    return product, order


def _with_order(segments: Segments, correction: Correction, names: Names) -> Segments:
    mine = segments.machine == names.machine(correction.machine_key)
    hit = mine & (segments.end_us > correction.from_us) & (segments.start_us < correction.to_us)
    if not hit.any():
        return segments
    before, within, after = _parted(segments.take(hit), correction)
    product, order = _texts(correction, names)
    within = replace(
        within,
        product=within.product if product == ABSENT else np.full(len(within), product),
        order=within.order if order == ABSENT else np.full(len(within), order),
    )
    return merged_segments([segments.take(~hit), before, within, after])


def _parted(concerned: Segments, correction: Correction) -> tuple[Segments, Segments, Segments]:
    """Return what of the segments lies before, within and after a correction's range."""
    return (
        replace(concerned, end_us=np.minimum(concerned.end_us, correction.from_us)),
        replace(
            concerned,
            start_us=np.maximum(concerned.start_us, correction.from_us),
            end_us=np.minimum(concerned.end_us, correction.to_us),
        ),
        replace(concerned, start_us=np.maximum(concerned.start_us, correction.to_us)),
    )


def _rate_at(counts: Counts, machine: int, product: int, at_us: int) -> Floats:
    """Return the ideal rate of the units of a product that were made last before an instant, else next."""
    made = counts.take((counts.machine == machine) & (counts.total > 0) & (counts.product == product))
    if not len(made):
        return np.array([NO_RATE])
    nearest = np.lexsort((np.abs(made.at_us - at_us), made.at_us > at_us))[:1]
    return made.rate[nearest]


def _found_later(
    counts: Counts, planned: Flags, segments: Segments, correction: Correction, names: Names
) -> Counts:
    """Return one row of off quality: with the last units of the range, or without any at its start."""
    machine = names.machine(correction.machine_key)
    product = None if correction.product is None else names.text(correction.product)
    inside: Flags = (counts.machine == machine) & (counts.total > 0)
    inside &= (counts.at_us >= correction.from_us) & (counts.at_us < correction.to_us)
    if product is not None:
        inside &= counts.product == product
    made: Ints = np.flatnonzero(inside & planned if (inside & planned).any() else inside)
    if len(made):
        row = counts.take(made[[np.argmax(counts.at_us[made])]])
        rate, order, at_us, shown = row.rate, row.order, row.at_us, row.product
    else:
        here = segments.take(
            (segments.machine == machine)
            & (segments.start_us <= correction.from_us)
            & (segments.end_us > correction.from_us)
        )
        shown = here.product if len(here) else np.array([ABSENT], dtype=np.int32)
        order = here.order if len(here) else np.array([ABSENT], dtype=np.int32)
        rate = _rate_at(counts, machine, int(shown[0]) if product is None else product, correction.from_us)
        at_us = np.array([correction.from_us], dtype=np.int64)
    return Counts(
        machine=np.array([machine], dtype=np.int32),
        at_us=at_us,
        state=np.array([RUNNING], dtype=np.int8),
        reason=np.array([ABSENT], dtype=np.int32),
        product=shown if product is None else np.array([product], dtype=np.int32),
        order=order,
        rate=rate,
        startup=np.array([False]),
        since_us=np.array([NEVER], dtype=np.int64),
        until_us=np.array([NEVER], dtype=np.int64),
        spread=np.array([False]),
        total=np.array([0], dtype=np.int64),
        off=np.array([correction.units or 0], dtype=np.int64),
    )
