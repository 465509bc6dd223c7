"""Commands of what people say of the past: reasons, rejects found later, planned stops entered afterwards."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from oee.cli_parts import ByName, CloudFile, Format, From, To, command, corrections, leave, login_name
from oee.errors import require


class Says(StrEnum):
    """What a correction says."""

    CLASSIFY = "classify"
    MOVE = "move"
    COMMENT = "comment"
    OFF_QUALITY = "off_quality"
    PLANNED_STOP = "planned_stop"
    IDEAL_RATE = "ideal_rate"
    ORDER = "order"


@command(
    corrections,
    "list",
    "Show what people said of the past: who, when and why.",
    "oee corrections list --from 2021-06-28 --at berlin/packaging/line-1",
    "oee corrections list --past --format json > said.json     for oee compute --corrections",
)
def corrections_list(
    *,
    config: CloudFile = Path("cloud.toml"),
    at: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Only of site/area/line/machine, or its beginning.")
    ] = None,
    since: From = None,
    until: To = None,
    past: Annotated[bool, typer.Option("--past", help="Also those that were taken back.")] = False,
    form: Annotated[
        Format, typer.Option("--format", help="JSON is what `oee compute --corrections` reads.")
    ] = Format.TABLE,
) -> None:
    """Show the corrections in force, as the store has them: what they say, who made them, when and why."""
    require("cloud", "numpy")
    from cloud import commands_corrections

    leave(commands_corrections.show(config, place=at, since=since, until=until, past=past, form=form.value))


@command(
    corrections,
    "add",
    "Say what happened: a reason, rejects found later, a planned stop.",
    "oee corrections add classify berlin/packaging/line-1/filler-1 --reason jam \\",
    "    --from 2021-06-30T10:00 --to 2021-06-30T10:20 --why 'bottle across the infeed'",
    "oee corrections add off_quality berlin/packaging/line-1/filler-1 --units 120 \\",
    "    --shift 2021-06-30/2 --why 'lab: caps leak' --by ana",
    "oee corrections add planned_stop berlin/packaging/line-1/filler-1 --reason cleaning \\",
    "    --from 2021-06-30T06:00 --to 2021-06-30T06:30 --why 'forgotten in the plan'",
)
def corrections_add(
    kind: Annotated[Says, typer.Argument(help="What is said.")],
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="site/area/line/machine.")],
    *,
    why: Annotated[str, typer.Option(help="Why; it is kept, with who and when.")],
    config: CloudFile = Path("cloud.toml"),
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="ISO", help="Such as 2021-06-30T10:00, in the site's time."),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="ISO", help="Exclusive.")] = None,
    shift: Annotated[
        str | None, typer.Option(metavar="DATE/NAME", help="A whole shift, such as 2021-06-30/1, instead.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="KEY", help="A reason of plant.toml: why it stood.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(help="Off-quality units to add; below zero to take away what is there.")
    ] = None,
    product: Annotated[str | None, typer.Option(metavar="NAME", help="What was made.")] = None,
    order: Annotated[str | None, typer.Option(metavar="NAME", help="Which order ran.")] = None,
    rate: Annotated[float | None, typer.Option(help="Ideal run rate [units/min].")] = None,
    by: ByName = None,
) -> None:
    """Say what happened to a machine in the past.

    classify gives a stop its reason, or a part of it, which splits it; move changes the reason that was given
    before; comment only says something; off_quality adds units found bad later to the time in which they were
    made; planned_stop makes time planned; ideal_rate and order say what could be made and was.

    Nothing that was measured is changed, and every shift that it touches gets a new revision. What would say
    two things of the same time is refused with exit code 2, and so is what lies in a locked period or outside
    all shifts, or takes away more off-quality units than a shift has.
    """
    require("cloud", "numpy")
    from cloud import commands_corrections

    leave(
        commands_corrections.add(
            config,
            kind.value,
            machine,
            commands_corrections.Span(since, until, shift),
            commands_corrections.Amounts(reason, units, product, order, rate),
            why=why,
            by=by or login_name(),
        )
    )


@command(
    corrections,
    "undo",
    "Take a correction back.",
    "oee corrections undo 7 --why 'it was the capper'",
)
def corrections_undo(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `oee corrections list` shows it.")],
    *,
    why: Annotated[str, typer.Option(help="Why; both stay on record.")],
    config: CloudFile = Path("cloud.toml"),
    by: ByName = None,
) -> None:
    """Take a correction back: both stay on record, and the shifts get a new revision without it."""
    require("cloud", "numpy")
    from cloud import commands_corrections

    leave(commands_corrections.take_back(config, number, why=why, by=by or login_name()))
