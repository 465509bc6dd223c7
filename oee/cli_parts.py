"""What commands are made of: the groups, their help, and the options that several share."""

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from oee.errors import UsageError
from oee.quick_help import QuickCommand, QuickGroup

_CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def group(summary: str) -> typer.Typer:
    """Return an empty group of commands with plain help: a pretty one takes longer to load than to read."""
    return typer.Typer(
        help=summary,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings=_CONTEXT,
        cls=QuickGroup,
    )


def command(
    group: typer.Typer, name: str, summary: str, *examples: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator of one command.

    summary: its line in the group's list of commands; the function's docstring is its full help
    examples: lines shown under the help, as typed
    """
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
    return group.command(name, cls=QuickCommand, short_help=summary, epilog=epilog)


def login_name() -> str:
    """Return who is logged in, where the system knows."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("say who you are: --by NAME") from error


def leave(code: int) -> None:
    """End the command with the exit code of the function that did the work."""
    if code:
        raise typer.Exit(code)


def leave_at_once(code: int) -> None:
    """End the process without taking its memory apart, which takes OPC UA more than a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tell_version(asked: bool) -> None:  # noqa: FBT001 - how typer hands a flag to its callback
    """Print the version and end, where it is asked for."""
    if asked:
        from oee.versions import described

        typer.echo(described())
        raise typer.Exit


app = group(
    "Overall equipment effectiveness from PLC to shift report: OPC UA tags in, exact figures out.\n\n"
    "New here? `oee demo` runs a whole factory on this machine.\n\n"
    "Exit codes: 0 done; 1 it did not work this time; 2 something must be changed first: an option, what was "
    "asked for, a file, a missing package."
)
gateway = group("The edge daemon: reads PLCs over OPC UA and keeps every record on disk until it is stored.")
trust = group("Certificates of PLCs: which are trusted, and which were rejected and wait for a decision.")
cloud = group("The analysis side: stores telemetry, keeps figures live, closes shifts, raises alerts.")
masterdata = group("Shifts, ideal rates, orders, planned stops and late rejects from other systems.")
results = group("Where results go: shift reports by mail, webhooks, and databases for BI tools.")
alerts = group("Alerts: who looks after them, what is muted, who is told and how.")
corrections = group(
    "What people say of the past: reasons, rejects found later, planned stops; who, when, why."
)
config = group("Example configuration files: every option explained, its default commented out.")
app.add_typer(gateway, name="gateway", short_help="The edge daemon: PLCs over OPC UA to MQTT.")
app.add_typer(cloud, name="cloud", short_help="The analysis side: records to figures, alerts, board.")
app.add_typer(masterdata, name="masterdata", short_help="Shifts, rates, orders, rejects of other systems.")
app.add_typer(results, name="results", short_help="Reports by mail, webhooks, exports of closed shifts.")
app.add_typer(alerts, name="alerts", short_help="Alerts: list, acknowledge, mute; channels.")
app.add_typer(corrections, name="corrections", short_help="What people say of the past: list, add, undo.")
app.add_typer(config, name="config", short_help="Example configuration files.")
gateway.add_typer(trust, name="trust", short_help="Trusted and rejected certificates of PLCs.")


@app.callback()
def before_any_command(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=tell_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take what stands before a command's name."""


class Window(StrEnum):
    """What one row of figures covers."""

    SHIFT = "shift"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    RANGE = "range"
    CREW = "crew"
    PRODUCT = "product"
    ORDER = "order"


class Level(StrEnum):
    """What one row of figures is of."""

    MACHINE = "machine"
    LINE = "line"
    AREA = "area"
    SITE = "site"


class Engine(StrEnum):
    """What reads a history."""

    LOCAL = "local"
    SPARK = "spark"


class Format(StrEnum):
    """How figures are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


From = Annotated[
    str | None,
    typer.Option("--from", metavar="ISO", help="Begin here: 2021-06-30 or 2021-06-30T06:00+02:00."),
]
To = Annotated[str | None, typer.Option("--to", metavar="ISO", help="End here, exclusive.")]
PlantFile = Annotated[
    Path, typer.Option("--plant", metavar="PATH", help="plant.toml, or a folder with one file per site.")
]
By = Annotated[Window, typer.Option("--by", help="What one row covers.")]
Of = Annotated[Level, typer.Option("--level", help="What one row is of.")]
Form = Annotated[Format, typer.Option("--format", help="JSON gives every figure and loss, unrounded.")]
GatewayFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The edge's configuration.")
]
ByName = Annotated[
    str | None, typer.Option("--by", metavar="WHO", help="Who says so; your login name when left out.")
]
CloudFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The cloud side's configuration.")
]
