"""What `oee report` does: figures of the store and how they came to be, printed for people or programs."""

from pathlib import Path
from typing import TYPE_CHECKING

from cloud.commands import OK, opened, told
from cloud.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud.oee.rollup import Level, Per
    from cloud.plant import Plant
    from cloud.render import Format
    from cloud.report import Shift


@told
def report(
    config: Path,
    *,
    since: str | None = None,
    until: str | None = None,
    per: "Per" = "shift",
    level: "Level" = "machine",
    form: "Format" = "table",
    revision: int | None = None,
    history: bool = False,
    diff: bool = False,
) -> int:
    """Print figures from the store: by default of yesterday and today.

    since, until: ISO dates or moments
    revision: closed shifts as they were in this revision
    history: all revisions of each closed shift instead, with when and why they were made
    diff: what each revision changed instead
    """
    from cloud.clock import clock_us
    from cloud.compute import instant_us, parse_moment
    from cloud.render import print_figures
    from cloud.report import history as history_of
    from cloud.report import last_days
    from cloud.report import report as report_of

    with opened(config) as (_, the_plant, store):
        first, last = last_days(the_plant, clock_us())
        begin = first if since is None else parse_moment(since)
        end = last if until is None else parse_moment(until)
        if min(instant_us(part, begin) for part in the_plant.by_timezone) >= clock_us():
            raise CloudError(f"nothing is known from {begin} on: it is still to come")
        if history or diff:
            _print_revisions(history_of(the_plant, store, begin, end, level), the_plant, form, diff=diff)
            return OK
        rows = report_of(
            the_plant,
            store,
            since=begin,
            until=end,
            now_us=clock_us(),
            per=per,
            level=level,
            revision=revision,
        )
    if not rows and revision is not None:
        raise CloudError(f"no shift from {begin} until {end} has a revision {revision}: see --history")
    print_figures(rows, form, the_plant)
    return OK


def _print_revisions(shifts: "Iterable[Shift]", plant: "Plant", form: "Format", *, diff: bool) -> None:
    from cloud import revision_report as shown
    from cloud.render import wide_console
    from cloud.report import differences

    rows = shown.difference_rows(differences(shifts)) if diff else shown.history_rows(shifts)
    if form != "table":
        print(shown.render_rows(rows, form), end="")
    elif rows:
        table = shown.difference_table(rows, plant) if diff else shown.history_table(rows, plant)
        wide_console().print(table)
    else:
        print("no closed shift was revised" if diff else "no shift is closed yet")
