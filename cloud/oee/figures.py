"""From sums to figures: every ratio is one division of whole numbers, made here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any, Final, NamedTuple

from cloud.oee.frame import Window
from cloud.oee.losses import BUCKETS, PRODUCING
from cloud.oee.totals import Stops, Totals, Units
from cloud.plant import Reason

NO_REASON: Final = "no reason"
SELF_EXPLAINED: Final = {"changeover": "changeover", "planned_stop": "planned stop"}
"""What a stop without a reason is called where the machine's state says enough, by bucket."""
UNKNOWN_CODE: Final = "unknown code"
_US: Final = 1_000_000
_US_PER_MINUTE: Final = 60 * _US
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A machine, or with less said a line, an area or a site."""

    site: str
    area: str | None = None
    line: str | None = None
    machine: str | None = None


class IdealTime(NamedTuple):
    """What the units of a window would have taken at their ideal rates, exactly: [us / per]."""

    total: int
    off: int
    """Of off quality, start-ups included."""
    startup_off: int
    sure_total: int
    sure_off: int
    per: int = 1

    @property
    def good(self) -> int:
        """Return that of good units."""
        return self.total - self.off

    @classmethod
    def of(cls, units: Mapping[Fraction, Units]) -> "IdealTime":
        """Return the sums over all ideal cycle times."""
        if len(units) == 1:  # as nearly always
            ((cycle, (total, off, startup_off, sure_total, sure_off)),) = units.items()
            us, per = cycle.as_integer_ratio()
            return cls(us * total, us * off, us * startup_off, us * sure_total, us * sure_off, per)
        per = lcm(*(cycle.denominator for cycle in units))
        weights = [(cycle.numerator * (per // cycle.denominator), made) for cycle, made in units.items()]
        return cls(
            sum(weight * made.total for weight, made in weights),
            sum(weight * made.off for weight, made in weights),
            sum(weight * made.startup_off for weight, made in weights),
            sum(weight * made.sure_total for weight, made in weights),
            sum(weight * made.sure_off for weight, made in weights),
            per,
        )


class Ratios(NamedTuple):
    """The figures from 0 to 1; None where one would divide by nothing."""

    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None


@dataclass(frozen=True, eq=False)
class Figures:
    """The figures of one place and window."""

    place: Place
    window: Window
    totals: Totals
    cap_performance: bool = False
    product: str | None = None
    order: str | None = None
    revision: int = 1
    reasons: Mapping[str, Reason] | None = None
    """What the reasons of the totals are called, by their keys."""
    remarks: tuple[str, ...] = ()
    """Warnings of whoever made the totals."""

    @property
    def ideal(self) -> IdealTime:
        """Return the ideal time of what was made."""
        return IdealTime.of(self.totals.units)

    def ratios(self) -> Ratios:
        """Return availability, performance, quality and OEE."""
        return _ratios(self.totals, self.ideal, cap=self.cap_performance)

    def to_dict(self) -> dict[str, Any]:
        """Return the flat object that is printed, stored and published."""
        sums, ideal = self.totals, self.ideal
        ratios = _ratios(sums, ideal, cap=self.cap_performance)
        losses_us = _losses_us(sums, ideal, cap=self.cap_performance)
        made = sums.made
        planned_us, run_us, calendar_us = sums.planned_us, sums.run_us, sums.calendar_us
        running_secs = _secs(sums.running_us)
        breakdown_us = losses_us["breakdown"]
        nee = _nee(ratios, ideal, sums, run_us + losses_us["changeover"])
        return {
            **_where(self.place),
            **self._when(),
            "calendar_secs": _secs(calendar_us),
            "planned_production_secs": _secs(planned_us),
            "run_secs": _secs(run_us),
            "running_secs": running_secs,
            "unknown_secs": _secs(sums.unknown_us),
            "unplanned_running_secs": _secs(sums.unplanned_running_us),
            "losses": {name: time_us / _US for name, time_us in losses_us.items()},
            "total_units": made.total,
            "good_units": made.total - made.off,
            "off_quality_units": made.off,
            "startup_off_quality_units": made.startup_off,
            "unplanned_units": sums.unplanned_total,
            "unplanned_off_quality_units": sums.unplanned_off,
            "ideal_secs": ideal.total / (ideal.per * _US),
            **ratios._asdict(),
            "teep": None if ratios.oee is None else _teep(ratios, ideal, sums),
            "utilisation": _ratio(planned_us, calendar_us),
            "nee": nee,
            "bounds": self._bounds(ideal, ratios),
            "stops": sum(
                stops.times for (bucket, _), stops in sums.stops.items() if bucket != "planned_stop"
            ),
            "failures": sums.failures,
            "mttr_secs": _ratio(breakdown_us, sums.failures * _US),
            "mttf_secs": _ratio(sums.running_us, sums.failures * _US),
            "mtbf_secs": _ratio(sums.running_us + breakdown_us, sums.failures * _US),
            "scrap_ratio": _ratio(made.off, made.total),
            "first_pass_yield": _ratio(made.total - made.off, made.total),
            "throughput_per_min": _ratio(made.total * _US_PER_MINUTE, planned_us),
            "speed_per_min": _ratio(made.total * _US_PER_MINUTE, sums.running_us),
            "six_big_losses": _six_big_losses(losses_us),
            "waterfall": _waterfall(calendar_us, losses_us),
            "pareto": pareto(sums.stops, self.reasons or {}),
            "iso22400": _iso22400(sums, ideal, ratios, nee, losses_us),
            "warnings": [*self._warnings(ideal, ratios), *self.remarks],
            "revision": self.revision,
        }

    def _when(self) -> dict[str, Any]:
        window = self.window
        found: dict[str, Any] = {
            "production_date": window.production_date.isoformat() if window.production_date else None,
            "shift": window.shift,
            "crew": window.crew,
            "start": iso_utc(window.start_us),
            "end": iso_utc(window.end_us),
        }
        if window.hour is not None:
            found["hour"] = window.hour
        if self.product is not None:
            found["product"] = self.product
        if self.order is not None:
            found["order"] = self.order
        return found

    def _warnings(self, ideal: IdealTime, ratios: Ratios) -> list[str]:
        sums, made, found = self.totals, self.totals.made, []
        if sums.run_us and ideal.total > sums.run_us * ideal.per:
            unknown = " or it made units in the unknown time" if sums.unknown_us else ""
            percent = ideal.total / (sums.run_us * ideal.per) * 100
            found.append(f"performance is {percent:.1f} %: the ideal rate is too low{unknown}")
        elif not sums.run_us and made.total and not sums.unknown_us:
            found.append(f"{made.total} units were made without any run time")
        if made.off < 0:
            found.append(
                f"off-quality units are negative: {made.off};"
                " the counters contradict each other, or corrections take away more than there were"
            )
        if made.off > made.total:
            found.append(f"{made.off} off-quality units are more than the {made.total} units made")
        if ratios.oee is None and sums.unplanned_total:
            found.append(f"{sums.unplanned_total} units were made in unplanned time only")
        return found

    def _bounds(self, ideal: IdealTime, ratios: Ratios) -> dict[str, list[float | None]] | None:
        """Return [least, most] of each ratio, whatever the machine did in the unknown time; None without any.

        While nothing is known it may have stood, or run at no more than its ideal rate.
        """
        sums = self.totals
        if not sums.unknown_us:
            return None
        unknown, planned, run = (
            time_us * ideal.per for time_us in (sums.unknown_us, sums.planned_us, sums.run_us)
        )
        sure_good = ideal.sure_total - ideal.sure_off
        unsure_off = ideal.off - ideal.sure_off
        more = unknown + sums.believed_us * ideal.per
        elsewhere = (sums.last_unknown_us + sums.believed_us) * ideal.per
        most_good = min(ideal.good + more, max(planned, ideal.good))
        running = _ratio(ideal.total + more, run + unknown)
        fastest = max(min(1.0, running or 0.0), ratios.performance or 0.0)
        bounds: dict[str, list[float | None]] = {
            "availability": [_ratio(run, planned), _ratio(run + unknown, planned)],
            "performance": [_ratio(ideal.sure_total, run + unknown), fastest],
            "quality": [
                _ratio(sure_good, ideal.sure_total + unsure_off + elsewhere),
                _ratio(ideal.good + elsewhere, ideal.total - unsure_off + elsewhere),
            ],
            "oee": [_ratio(sure_good, planned), _ratio(most_good, planned)],
        }
        return _capped(bounds, ratios.oee) if self.cap_performance else bounds


def pareto(
    stops: Mapping[tuple[str, str | None], Stops], reasons: Mapping[str, Reason]
) -> list[dict[str, Any]]:
    """Return the stops by group and, within each, by reason, longest first.

    No reason is its own group, and so is what the machine's state explains by itself, such as a changeover.
    """
    groups: dict[str, dict[tuple[str, str | None], Stops]] = {}
    for (bucket, reason), stood in stops.items():
        known = reasons.get(reason) if reason is not None else None
        group = known.group or known.name if known else _unnamed(bucket) if reason is None else UNKNOWN_CODE
        groups.setdefault(group, {})[bucket, reason] = stood
    found = [_bar(group, members, reasons) for group, members in groups.items()]
    return sorted(found, key=_longest_first) if len(found) > 1 else found


def _bar(
    group: str, members: Mapping[tuple[str, str | None], Stops], reasons: Mapping[str, Reason]
) -> dict[str, Any]:
    bars = [
        {
            "bucket": bucket,
            "reason": reason,
            "name": _reason_name(bucket, reason, reasons),
            "secs": _secs(stood.time_us),
            "count": stood.times,
        }
        for (bucket, reason), stood in members.items()
    ]
    return {
        "group": group,
        "secs": _secs(sum(stood.time_us for stood in members.values())),
        "count": sum(stood.times for stood in members.values()),
        "reasons": sorted(bars, key=_longest_first) if len(bars) > 1 else bars,
    }


def _unnamed(bucket: str) -> str:
    """Return what a stop without a reason is called."""
    return SELF_EXPLAINED.get(bucket, NO_REASON)


def _reason_name(bucket: str, reason: str | None, reasons: Mapping[str, Reason]) -> str:
    if reason is None:
        return _unnamed(bucket)
    return reasons[reason].name if reason in reasons else reason


def _longest_first(bar: Mapping[str, Any]) -> tuple[float, str]:
    return -bar["secs"], str(bar.get("bucket", "")) + str(bar.get("reason", bar.get("group")))


@lru_cache(maxsize=4096)
def iso_utc(instant_us: int) -> str:
    """Return `2021-06-30T04:00:00Z`, with microseconds only where there are any."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat().replace("+00:00", "Z")


def _where(place: Place) -> dict[str, str]:
    return {level: name for level, name in place._asdict().items() if name is not None}


def _secs(time_us: int) -> float:
    return time_us / _US


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rounded(part: int, whole: int) -> int:
    """Return part / whole as a whole number, halves upwards."""
    return (2 * part + whole) // (2 * whole)


def _ratios(sums: Totals, ideal: IdealTime, *, cap: bool) -> Ratios:
    """Return the ratios; a line's, or a mixture of products', is weighted by ideal time throughout."""
    planned_us, run_us, per = sums.planned_us, sums.run_us, ideal.per
    quality = _ratio(ideal.good, ideal.total)
    if not planned_us:
        return Ratios(None, None, quality, None)
    performance = _ratio(ideal.total, run_us * per)
    oee = _ratio(ideal.good, planned_us * per)
    if cap and performance is not None and performance > 1:
        performance, oee = 1.0, _ratio(run_us * ideal.good, planned_us * ideal.total)
    if not run_us and not sums.unknown_us:
        oee = 0.0
    return Ratios(_ratio(run_us, planned_us), performance, quality, oee)


def _is_capped(ratios: Ratios, ideal: IdealTime, sums: Totals) -> bool:
    return ratios.performance == 1.0 and ideal.total > sums.run_us * ideal.per


def _capped(bounds: dict[str, list[float | None]], oee: float | None) -> dict[str, list[float | None]]:
    """Return the bounds of figures whose performance is at most 1.

    OEE is then the lesser of what good units come to and of availability x quality.

    oee: as it is shown; without any run time it has no performance that could be capped
    """
    performance = [_lesser(each, 1.0) for each in bounds["performance"]]
    ends = zip(bounds["oee"], bounds["availability"], bounds["quality"], strict=True)
    least, most = (
        good if availability is None or quality is None else _lesser(good, availability * quality)
        for good, availability, quality in ends
    )
    if most is not None and oee is not None:
        most = max(most, oee)
    return {**bounds, "performance": performance, "oee": [least, most]}


def _lesser(one: float | None, other: float) -> float | None:
    return None if one is None else min(one, other)


def _teep(ratios: Ratios, ideal: IdealTime, sums: Totals) -> float | None:
    if ratios.oee == 0.0:
        return _ratio(0, sums.calendar_us)
    if _is_capped(ratios, ideal, sums):
        return _ratio(sums.run_us * ideal.good, sums.calendar_us * ideal.total)
    return _ratio(ideal.good, sums.calendar_us * ideal.per)


def _nee(ratios: Ratios, ideal: IdealTime, sums: Totals, busy_us: int) -> float | None:
    """Return the net equipment effectiveness of ISO 22400-2, in which set-up counts as busy."""
    if ratios.performance is None or ratios.quality is None:
        return ratios.oee
    run = ideal.total if _is_capped(ratios, ideal, sums) else sums.run_us * ideal.per
    return _ratio(busy_us * ideal.good, sums.planned_us * run)


def _losses_us(sums: Totals, ideal: IdealTime, *, cap: bool) -> dict[str, int]:
    """Return the whole time-loss tree [us]; it sums to the calendar time exactly."""
    running_us = sums.running_us
    part, whole = 1, ideal.per
    if cap and ideal.total > running_us * ideal.per:
        part, whole = running_us, ideal.total  # ideal time is shrunk to the running time
    rejects = _rounded((ideal.off - ideal.startup_off) * part, whole)
    startup = _rounded(ideal.startup_off * part, whole)
    value = _rounded(ideal.good * part, whole)
    found = dict(zip(BUCKETS[:PRODUCING], sums.buckets_us, strict=False))
    found["reduced_speed"] = running_us - rejects - startup - value
    found |= {"rejects": rejects, "startup_rejects": startup, "value_adding": value}
    return found


def _six_big_losses(losses_us: Mapping[str, int]) -> dict[str, float]:
    return {
        "breakdowns": _secs(losses_us["breakdown"] + losses_us["other_stop"]),
        "setup_and_adjustments": _secs(losses_us["changeover"]),
        "idling_and_small_stops": _secs(losses_us["idle"] + losses_us["small_stops"]),
        "reduced_speed": _secs(losses_us["reduced_speed"]),
        "process_defects": _secs(losses_us["rejects"]),
        "reduced_yield": _secs(losses_us["startup_rejects"]),
    }


def _waterfall(calendar_us: int, losses_us: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the steps from all time down to value-adding time, with what is left after each."""
    left_us, steps = calendar_us, []
    for name, time_us in losses_us.items():
        if name != "value_adding":
            left_us -= time_us
            steps.append({"loss": name, "secs": time_us / _US, "left_secs": left_us / _US})
    return steps


def _iso22400(
    sums: Totals, ideal: IdealTime, ratios: Ratios, nee: float | None, losses_us: Mapping[str, int]
) -> dict[str, Any]:
    """Return the same figures under the names of ISO 22400-2."""
    made = sums.made
    busy_us = sums.run_us + losses_us["changeover"]
    return {
        "planned_busy_time_secs": _secs(sums.planned_us),
        "actual_production_time_secs": _secs(sums.run_us),
        "actual_unit_setup_time_secs": _secs(losses_us["changeover"]),
        "actual_unit_processing_time_secs": _secs(busy_us),
        "actual_unit_down_time_secs": _secs(losses_us["breakdown"]),
        "actual_unit_delay_time_secs": _secs(losses_us["other_stop"] + losses_us["idle"]),
        "produced_quantity": made.total,
        "good_quantity": made.total - made.off,
        "scrap_quantity": made.off,
        "planned_run_time_per_item_secs": _ratio(ideal.total, made.total * ideal.per * _US),
        "availability": ratios.availability,
        "effectiveness": ratios.performance,
        "quality_ratio": ratios.quality,
        "oee_index": ratios.oee,
        "nee_index": nee,
        "technical_efficiency": _ratio(sums.run_us, sums.run_us + losses_us["breakdown"]),
        "setup_ratio": _ratio(losses_us["changeover"], busy_us),
        "scrap_ratio": _ratio(made.off, made.total),
        "first_pass_yield": _ratio(made.total - made.off, made.total),
        "throughput_rate_per_min": _ratio(made.total * _US_PER_MINUTE, sums.planned_us),
        "mean_operating_time_between_failures_secs": _ratio(sums.running_us, sums.failures * _US),
        "mean_time_to_restoration_secs": _ratio(losses_us["breakdown"], sums.failures * _US),
    }
