"""The loss waterfall and the Pareto as rows with bars, each beside its exact number."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from cloud.oee.figures import NO_REASON
from dashboards import words

_STAGES: Final[tuple[tuple[str, frozenset[str], str], ...]] = (
    (
        "Planned production time",
        frozenset({"not_scheduled", "break", "planned_stop"}),
        "planned_production_secs",
    ),
    ("Run time", frozenset({"changeover", "breakdown", "other_stop", "idle", "no_data"}), "run_secs"),
    ("Net run time", frozenset({"small_stops", "reduced_speed"}), ""),
    ("Value-adding time", frozenset({"rejects", "startup_rejects"}), ""),
)
"""What is left after each group of losses, and the figure that says it."""

KINDS: Final[dict[str, str]] = {
    "not_scheduled": "off-shift",
    "break": "break",
    "planned_stop": "planned-stop",
    "changeover": "changeover",
    "breakdown": "faulted",
    "other_stop": "stopped",
    "idle": "idle",
    "no_data": "unknown",
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
    loss: str = ""
    """The bucket, where it is one."""


def waterfall(row: Mapping[str, Any]) -> list[Step]:
    """Return the steps from calendar time down to value-adding time; a bucket without time is left out."""
    left = row["calendar_secs"]
    steps = [Step("Calendar time", "total", left, 0.0, is_total=True)]
    told = [entry for entry in row["waterfall"] if entry["secs"]]
    for name, buckets, key in _STAGES:
        for entry in told:
            if entry["loss"] in buckets:
                left -= entry["secs"]
                loss = entry["loss"]
                steps.append(
                    Step(words.loss_name(loss), KINDS[loss], entry["secs"], left, is_total=False, loss=loss)
                )
        kind = "running" if name.startswith("Value") else "total"
        steps.append(Step(name, kind, row[key] if key else left, 0.0, is_total=True))
    return steps


class ParetoRow(NamedTuple):
    """One reason, or one group of reasons."""

    name: str
    group: str
    secs: float
    stops: int
    share: float
    """Of all stopped time."""
    running_share: float
    """Of this row and all above it."""
    is_unnamed: bool = False
    sought: Mapping[str, str] = {}
    """What an address says to find these stops: `why`, the reason's name or `-` for none, `group`, `loss`."""


def pareto(row: Mapping[str, Any], *, by_group: bool = False, by_count: bool = False) -> list[ParetoRow]:
    """Return a figures row's stops by what they cost; stops without a reason are a row of their own.

    by_group: groups of reasons instead of reasons
    by_count: ordered by how often instead of how long
    """
    bars: list[ParetoRow] = []
    for group in row.get("pareto") or ():
        if all(reason["reason"] is None for reason in group["reasons"]):
            name = group["group"].capitalize()  # a word of ours, such as a changeover, not of plant.toml
            is_unnamed = group["group"] == NO_REASON
            sought = {"why": "-"} if is_unnamed else {"why": "-", "loss": group["reasons"][0]["bucket"]}
            bars.append(_bar(name, name, group, sought, is_unnamed=is_unnamed))
        elif by_group:
            bars.append(_bar(group["group"], group["group"], group, {"group": group["group"]}))
        else:
            bars += [
                _bar(reason["name"], group["group"], reason, {"why": reason["name"], "group": group["group"]})
                for reason in group["reasons"]
            ]
    bars = _same_names_joined(bars)
    bars.sort(key=lambda bar: (-bar.stops, -bar.secs, bar.name) if by_count else (-bar.secs, 0.0, bar.name))
    whole = sum(bar.stops if by_count else bar.secs for bar in bars) or 1
    above, result = 0.0, []
    for bar in bars:
        part = bar.stops if by_count else bar.secs
        above += part
        result.append(bar._replace(share=part / whole, running_share=above / whole))
    return result


def _bar(
    name: str, group: str, told: Mapping[str, Any], sought: Mapping[str, str], *, is_unnamed: bool = False
) -> ParetoRow:
    return ParetoRow(name, group, told["secs"], told["count"], 0.0, 0.0, is_unnamed, sought)


def _same_names_joined(bars: Iterable[ParetoRow]) -> list[ParetoRow]:
    """Make one bar of a reason that stands in several buckets, such as long and small stops."""
    found: dict[tuple[str, str], ParetoRow] = {}
    for bar in bars:
        key = (bar.group, bar.name)
        before = found.get(key)
        found[key] = (
            bar
            if before is None
            else before._replace(secs=before.secs + bar.secs, stops=before.stops + bar.stops)
        )
    return list(found.values())
