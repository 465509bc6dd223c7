"""The command line: what can be typed, and its help. Every command's work is imported when it runs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from oee.errors import require

_CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _group(summary: str) -> typer.Typer:
    """Return an empty group of commands; plain help, because importing a pretty one takes longer than reading it."""
    return typer.Typer(
        help=summary,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings=_CONTEXT,
    )


def _examples(*lines: str) -> str:
    """Return an epilog that keeps its lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _leave(code: int) -> None:
    """End the command with the exit code of the function that did the work."""
    if code:
        raise typer.Exit(code)


app = _group(
    "Overall equipment effectiveness from PLC to shift report: OPC UA tags in, exact figures out.\n\n"
    "New here? `oee demo` runs a whole factory on this machine."
)
gateway = _group("The edge daemon: reads PLCs over OPC UA, keeps every record on disk until it is stored.")
trust = _group("Certificates of PLCs: which are trusted, which were rejected and wait for a decision.")
cloud = _group("The analysis side: stores telemetry, keeps figures live, closes shifts, raises alerts.")
config = _group("Example configuration files: every option, explained, its default commented out.")
gateway.add_typer(trust, name="trust")


class Window(StrEnum):
    """What one row of figures covers."""

    SHIFT = "shift"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Level(StrEnum):
    """What one row of figures is of."""

    MACHINE = "machine"
    LINE = "line"
    AREA = "area"
    SITE = "site"


class Format(StrEnum):
    """How figures are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


From = Annotated[
    str | None,
    typer.Option("--from", metavar="ISO", help="Begin here: 2021-06-30 or 2021-06-30T06:00+02:00."),
]
To = Annotated[str | None, typer.Option("--to", metavar="ISO", help="End here (exclusive).")]
PlantFile = Annotated[
    Path, typer.Option("--plant", metavar="PATH", help="plant.toml, or a folder with one per site.")
]
GatewayFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The edge's configuration.")
]
CloudFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The cloud side's configuration.")
]


@app.command(
    epilog=_examples(
        "oee demo                          everything on this machine, until Ctrl-C",
        "oee demo --scenario small_stops   another day in the factory",
        "oee demo --speed 10               time runs ten times as fast",
        "oee demo --broker mqtt://10.0.0.5:1883",
        "oee demo --fresh                  forget the stored factory and begin anew",
    )
)
def demo(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the factory keeps configuration, records and logs. [default: ./.oee-demo in a clone, "
            "else the user's state folder]",
        ),
    ] = None,
    board_port: Annotated[
        int | None, typer.Option(help="Port of the board. [default: 8000 or the next free]")
    ] = None,
    opcua_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the first line's PLC, the second has the next. [default: 4840 or the next free]"
        ),
    ] = None,
    broker_port: Annotated[
        int | None, typer.Option(help="Port of the demo's own MQTT broker. [default: 1883 or the next free]")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Use this MQTT broker instead: mqtt://HOST:PORT.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same factory.")] = 1,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="How fast the factory's time runs.")] = 1.0,
    scenario: Annotated[
        str, typer.Option(help="What kind of day it is; `oee simulate --list` names all.")
    ] = "good_day",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what this demo stored before and begin anew.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the board in the web browser.")
    ] = True,
) -> None:
    """Run a whole factory on this machine: two lines, eight machines, broker, gateway, cloud side, board."""
    from oee import demo as factory

    _leave(
        factory.run(
            factory.Options(
                data_dir=data_dir,
                board_port=board_port,
                opcua_port=opcua_port,
                broker_port=broker_port,
                broker=broker,
                seed=seed,
                speed=speed,
                scenario=scenario,
                fresh=fresh,
                browser=browser,
            )
        )
    )


@app.command(
    epilog=_examples(
        "oee simulate                              two lines on opc.tcp://127.0.0.1:4840 and :4841",
        "oee simulate --list                       what kinds of day there are",
        "oee simulate --seed 7 --history-hours 8   eight hours of past first, then live",
    )
)
def simulate(
    *,
    port: Annotated[
        int, typer.Option(help="Port of the first line; each further line has the next one.")
    ] = 4840,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same factory.")] = 1,
    speed: Annotated[float, typer.Option(min=0.1, help="How fast time runs.")] = 1.0,
    scenario: Annotated[str, typer.Option(help="What kind of day it is.")] = "good_day",
    history_hours: Annotated[
        float, typer.Option(min=0, help="Play this much past first, as fast as it goes.")
    ] = 0.0,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the truth log and the place in time here.")
    ] = None,
    list_scenarios: Annotated[bool, typer.Option("--list", help="List the scenarios and leave.")] = False,
) -> None:
    """Run a simulated factory behind real OPC UA servers."""
    require("simulator")
    from simulator import commands

    _leave(commands.run())


@gateway.command("run", epilog=_examples("oee gateway run --config /etc/oee/gateway.toml"))
def gateway_run(config: GatewayFile = Path("gateway.toml")) -> None:
    """Read the PLCs and publish, until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    from gateway import commands

    _leave(commands.run(config))


@gateway.command("check", epilog=_examples("oee gateway check --config gateway.toml"))
def gateway_check(config: GatewayFile = Path("gateway.toml")) -> None:
    """Test configuration, certificates, every PLC, every node and every broker; say what to do about each fault."""
    from gateway import commands

    _leave(commands.check(config))


@app.command(
    "compute",
    epilog=_examples(
        "oee compute --plant plant.toml --telemetry day.jsonl",
        "oee compute --plant plant.toml --telemetry day.jsonl.gz --by hour --level line --format csv",
        "oee compute --plant plant.toml --telemetry a.jsonl --telemetry b.jsonl --format json | jq '.[].oee'",
    ),
)
def compute(
    plant: PlantFile,
    telemetry: Annotated[
        list[Path],
        typer.Option(
            "--telemetry", metavar="FILE", help="JSON lines, also .gz; may be given more than once."
        ),
    ],
    *,
    since: From = None,
    until: To = None,
    by: Annotated[Window, typer.Option(help="What one row covers.")] = Window.SHIFT,
    level: Annotated[Level, typer.Option(help="What one row is of.")] = Level.MACHINE,
    form: Annotated[
        Format, typer.Option("--format", help="JSON gives every figure and loss, unrounded.")
    ] = Format.TABLE,
) -> None:
    """Compute figures from files alone, with no server: the way to check any number."""
    require("cloud")
    from cloud import commands

    _leave(commands.compute())


@config.command("list")
def config_list() -> None:
    """List the example files."""
    from oee import examples

    for path in examples.paths():
        typer.echo(f"{path.name:28} {path.read_text().partition(chr(10))[0].lstrip('# ')}")


@config.command("show", epilog=_examples("oee config show gateway", "oee config show plant > plant.toml"))
def config_show(name: Annotated[str, typer.Argument(help="gateway, cloud, plant, ...")]) -> None:
    """Print one example file."""
    from oee import examples

    typer.echo(examples.text(name), nl=False)


@config.command("write", epilog=_examples("oee config write /etc/oee", "oee config write . --replace"))
def config_write(
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite files that are there.")] = False,
) -> None:
    """Copy the example files into a folder, ready to be edited."""
    from oee import examples

    for path in examples.write(folder, replace=replace):
        typer.echo(f"wrote {path}")


@app.command()
def version() -> None:
    """Print the version."""
    from oee.versions import described

    typer.echo(described())


app.add_typer(gateway, name="gateway")
app.add_typer(cloud, name="cloud")
app.add_typer(config, name="config")
