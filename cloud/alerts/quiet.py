"""What came and went while nobody was to be disturbed: told in one message, or not at all. Pure."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Final

from contract.delivery import Alert

_MOST_LINES: Final = 20
_LINE_CHARACTERS: Final = 160


def over(held: Iterable[Alert], open_ids: Collection[str]) -> set[str]:
    """Return the ids of alerts whose raising was held back and that are open no longer.

    Whoever heard of an alert before the quiet hours hears of its end as always.
    """
    return {alert.id for alert in held if alert.event == "raised" and alert.id not in open_ids}


def summary(held: Sequence[Alert], zone: tzinfo) -> tuple[str, Alert] | None:
    """Return title and message of alerts that came and went; None when each was told of its end meanwhile.

    held: all messages of these alerts that were held back, oldest first
    """
    ends = [alert for alert in held if alert.event == "cleared"]
    if not ends:
        return None
    lines = [
        f"{datetime.fromtimestamp(end.since_epochtime, zone):%a %H:%M} {end.place} {end.rule}: {end.message}"
        for end in ends
    ]
    shown = [line[:_LINE_CHARACTERS] for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"and {len(lines) - _MOST_LINES} more")
    title = f"{len(ends)} alert{'' if len(ends) == 1 else 's'} came and went in quiet hours"
    return title, Alert(
        id=f"quiet|{ends[0].id}"[:256],
        event="cleared",
        rule="quiet hours",
        kind="summary",
        site=ends[0].site,
        epochtime=max(end.epochtime for end in ends),
        since_epochtime=min(end.since_epochtime for end in ends),
        message="\n".join(shown),
        level=max(end.level for end in ends),
    )
