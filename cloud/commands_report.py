"""What `oee report` does: figures of the store and how they came to be, printed for people or programs."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.commands import OK, opened, told
from cloud.errors import AskedError

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
    place: str | None = None,
    shift: str | None = None,
) -> int:
    """Print figures from the store: by default of yesterday and today.

    since, until: ISO dates or moments
    revision: closed shifts as they were in this revision
    history: all revisions of each closed shift instead, with when and why they were made
    diff: what each revision changed instead
    place: only of what lies below, `site/area/line/machine` from the left
    shift: only this one, `DATE/NAME`, in place of since and until
    """
    from cloud.clock import clock_us
    from cloud.compute import instant_us, parse_moment
    from cloud.render import print_figures
    from cloud.report import history as history_of
    from cloud.report import last_days, scope_of, scopes
    from cloud.report import report as report_of

    _check_together(per, revision, history=history, diff=diff)
    day, name = (None, None) if shift is None else _of_one_shift(shift, since, until, per)
    with opened(config) as (_, the_plant, store):
        below = "" if place is None else _checked_place(scopes(the_plant, store, "machine"), place, level)
        first, last = last_days(the_plant, clock_us()) if day is None else (day, day + timedelta(days=1))
        begin = first if since is None else parse_moment(since)
        end = last if until is None else parse_moment(until)
        if min(instant_us(part, begin) for part in the_plant.by_timezone) >= clock_us():
            raise AskedError(f"nothing is known from {begin} on: it is still to come")
        if history or diff:
            shifts = [
                each
                for each in history_of(the_plant, store, begin, end, level)
                if f"{each.scope}/".startswith(below) and name in (None, each.revisions[-1].figures["shift"])
            ]
            if shift is not None and not shifts:
                raise AskedError(f"no shift {shift} is closed{_there(place)}")
            _print_revisions(shifts, the_plant, form, diff=diff)
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
    rows = [row for row in rows if f"{scope_of(row)}/".startswith(below)]
    names = dict.fromkeys(row.window.shift for row in rows if row.window.shift is not None)
    if name is not None and revision is None and name not in names:
        raise AskedError(
            f"{day} has no shift {name!r}{_there(place)}; there are: {', '.join(names) or 'none'}"
        )
    rows = [row for row in rows if name in (None, row.window.shift)]
    if not rows and revision is not None:
        which = f"no shift from {begin} until {end}" if shift is None else f"no shift {shift}"
        raise AskedError(f"{which} has a revision {revision}{_there(place)}: see --history")
    print_figures(rows, form, the_plant)
    return OK


def _check_together(per: "Per", revision: int | None, *, history: bool, diff: bool) -> None:
    """Raise AskedError for options that say two things of what is to be printed."""
    if history and diff:
        raise AskedError("say either --history or --diff")
    if history or diff:
        option = "--history" if history else "--diff"
        if per != "shift":
            raise AskedError(f"only shifts are revised: {option} goes with --by shift")
        if revision is not None:
            raise AskedError(f"{option} shows all revisions: leave --revision out")


def _of_one_shift(shift: str, since: str | None, until: str | None, per: "Per") -> tuple[date, str]:
    """Return the production date and the name of a shift, `DATE/NAME`."""
    from cloud.compute import parse_moment

    if since is not None or until is not None:
        raise AskedError("say either --shift or --from and --to")
    if per != "shift":
        raise AskedError("--shift goes with --by shift")
    text, _, name = shift.partition("/")
    day = parse_moment(text)
    if isinstance(day, datetime) or not name:
        raise AskedError(f"{shift!r} names no shift: such as 2021-06-30/1")
    return day, name


def _checked_place(machines: "Iterable[str]", place: str, level: "Level") -> str:
    """Return how the scopes in a place begin; raise AskedError for a place that no machine is of."""
    from contract.machine_key import MachineKey

    keys = [MachineKey.parse(machine) for machine in machines]
    parts = tuple(place.strip("/").split("/"))
    for depth, part in enumerate(parts):
        known = dict.fromkeys(key[depth] for key in keys if key[:depth] == parts[:depth] and depth < len(key))
        if part not in known:
            there = f"{'/'.join(parts[:depth])} has" if depth else "there is"
            raise AskedError(f"{place} is not in the plant; {there}: {', '.join(known) or 'nothing below'}")
    if len(parts) > MachineKey._fields.index(level) + 1:
        raise AskedError(f"{place} lies below a {level}: use --level {MachineKey._fields[len(parts) - 1]}")
    return "/".join(parts) + "/"


def _there(place: str | None) -> str:
    return "" if place is None else f" at {place}"


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
