"""The loss waterfall and the Pareto as rows with bars, each beside its exact number."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from dashboards import words

_TREE: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("Planned production time", ("not_scheduled", "break", "planned_stop"), "planned_production_secs"),
    ("Run time", ("changeover", "breakdown", "other_stop", "idle", "no_data", "unknown"), "run_secs"),
    ("Net run time", ("small_stops", "reduced_speed"), ""),
    ("Value-adding time", ("rejects", "startup_rejects"), "value_adding"),
)
"""What is left after each group of losses."""

KINDS: Final[dict[str, str]] = {
    "not_scheduled": "off-shift",
    "break": "break",
    "planned_stop": "planned-stop",
    "changeover": "changeover",
    "breakdown": "faulted",
    "other_stop": "stopped",
    "idle": "idle",
    "no_data": "unknown",
    "unknown": "unknown",
    "small_stops": "idle",
    "reduced_speed": "slow",
    "rejects": "reject",
    "startup_rejects": "reject",
}
"""The colour class of a bucket."""


class Step(NamedTuple):
    """One row of the waterfall [s]."""

    name: str
    kind: str
    secs: float
    from_secs: float
    """Where its bar begins on an axis of the whole calendar time."""
    is_total: bool
    bucket: str = ""


def waterfall(row: Mapping[str, Any]) -> list[Step]:
    """Return the steps from calendar time down to value-adding time; a bucket without time is left out."""
    losses: Mapping[str, float] = row["losses"]
    left = sum(losses.values())
    steps = [Step("Calendar time", "total", left, 0.0, is_total=True)]
    for name, buckets, key in _TREE:
        cut = False
        for bucket in buckets:
            secs = losses.get(bucket, 0.0)
            if secs:
                left -= secs
                cut = True
                steps.append(
                    Step(words.loss_name(bucket), KINDS[bucket], secs, left, is_total=False, bucket=bucket)
                )
        if key == "value_adding":
            steps.append(Step(name, "running", losses.get(key, left), 0.0, is_total=True))
        elif key:
            steps.append(Step(name, "total", row[key], 0.0, is_total=True))
        elif cut:
            steps.append(Step(name, "total", left, 0.0, is_total=True))
    return steps


class ParetoRow(NamedTuple):
    """One reason, or one group of reasons."""

    name: str
    group: str
    kind: str
    secs: float
    stops: int
    share: float
    """Of all stopped time."""
    running_share: float
    """Of this row and all above it."""
    is_unnamed: bool = False


def pareto(
    stops: Iterable[Mapping[str, Any]], *, by_group: bool = False, by_count: bool = False
) -> list[ParetoRow]:
    """Order the stops of a figures row by what they cost; stops without a reason are a row of their own.

    stops: objects of `reason reason_name group bucket secs count`
    """
    found: dict[str, list[Any]] = {}
    for stop in stops:
        unnamed = stop.get("reason") is None
        name = "No reason" if unnamed else str(stop.get("reason_name") or stop["reason"])
        group = "No reason" if unnamed else str(stop.get("group") or "Other")
        key = group if by_group else name
        entry = found.setdefault(
            key, [key, group, KINDS.get(str(stop["bucket"]), "stopped"), 0.0, 0, unnamed]
        )
        entry[3] += stop["secs"]
        entry[4] += stop["count"]
    order = 4 if by_count else 3
    rows = sorted(found.values(), key=lambda entry: (-entry[order], entry[0]))
    whole = sum(entry[order] for entry in rows) or 1
    above, result = 0.0, []
    for name, group, kind, secs, count, unnamed in rows:
        part = count if by_count else secs
        above += part
        result.append(ParetoRow(name, group, kind, secs, count, part / whole, above / whole, unnamed))
    return result
