"""The command line: what can be typed, and its help. Every command's work is imported when it runs."""

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from oee.errors import UsageError, require
from oee.quick_help import QuickCommand, QuickGroup

_CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _group(summary: str) -> typer.Typer:
    """Return an empty group of commands with plain help: a pretty one takes longer to load than to read."""
    return typer.Typer(
        help=summary,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings=_CONTEXT,
        cls=QuickGroup,
    )


def _command(
    group: typer.Typer, name: str, summary: str, *examples: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator of one command.

    summary: its line in the group's list of commands; the function's docstring is its full help
    examples: lines shown under the help, as typed
    """
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
    return group.command(name, cls=QuickCommand, short_help=summary, epilog=epilog)


def _login_name() -> str:
    """Return who is logged in, where the system knows."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("say who you are: --by NAME") from error


def _leave(code: int) -> None:
    """End the command with the exit code of the function that did the work."""
    if code:
        raise typer.Exit(code)


def _leave_at_once(code: int) -> None:
    """End the process without taking its memory apart, which takes OPC UA more than a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


app = _group(
    "Overall equipment effectiveness from PLC to shift report: OPC UA tags in, exact figures out.\n\n"
    "New here? `oee demo` runs a whole factory on this machine."
)
gateway = _group("The edge daemon: reads PLCs over OPC UA and keeps every record on disk until it is stored.")
trust = _group("Certificates of PLCs: which are trusted, and which were rejected and wait for a decision.")
cloud = _group("The analysis side: stores telemetry, keeps figures live, closes shifts, raises alerts.")
masterdata = _group("Ideal rates, orders, planned stops and late rejects from MES and quality systems.")
results = _group("Where results go: shift reports by mail, webhooks, and databases for BI tools.")
alerts = _group("Alerts: who looks after them, what is muted, who is told and how.")
config = _group("Example configuration files: every option explained, its default commented out.")
app.add_typer(gateway, name="gateway", short_help="The edge daemon: PLCs over OPC UA to MQTT.")
app.add_typer(cloud, name="cloud", short_help="The analysis side: records to figures, alerts, board.")
app.add_typer(masterdata, name="masterdata", short_help="Rates, orders and rejects from other systems.")
app.add_typer(results, name="results", short_help="Reports by mail, webhooks, exports of closed shifts.")
app.add_typer(alerts, name="alerts", short_help="Alerts: list, acknowledge, mute; channels.")
app.add_typer(config, name="config", short_help="Example configuration files.")
gateway.add_typer(trust, name="trust", short_help="Trusted and rejected certificates of PLCs.")


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


@_command(
    app,
    "demo",
    "Run a whole factory on this machine, until Ctrl-C.",
    "oee demo                          until Ctrl-C; the next start goes on from what is stored",
    "oee demo --scenario small-stops   another kind of day",
    "oee demo --broker mqtt://10.0.0.5:1883",
    "oee demo --fresh                  forget the stored factory and begin anew",
)
def demo(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Configuration, records and logs of the factory. "
            "[default: ./.oee-demo in a clone, else in the user's state folder]",
        ),
    ] = None,
    board_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the board. [default: 8080 or the next free]")
    ] = None,
    opcua_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65534, help="Port of the first line's PLC; the next line has the next. [default: 4840]"
        ),
    ] = None,
    broker_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the demo's MQTT broker. [default: 1883]")
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Use this MQTT broker instead: mqtt://HOST:PORT.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same factory.")] = 1,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="How fast the factory's time runs.")] = 1.0,
    scenario: Annotated[
        str, typer.Option(help="What kind of day; `oee simulate --list` names all.")
    ] = "demo",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what this demo stored and begin anew.")
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


@_command(
    app,
    "simulate",
    "Run a simulated factory behind real OPC UA servers.",
    "oee simulate                               two lines at opc.tcp://127.0.0.1:4840 and :4841",
    "oee simulate --list                        the kinds of day there are",
    "oee simulate --write-configs .             a gateway.toml and a plant.toml that fit",
    "oee simulate --telemetry day.jsonl --truth day.json --history-hours 24     files, no servers",
)
def simulate(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the first line; each further line has the next.")
    ] = 4840,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same factory.")] = 1,
    speed: Annotated[float, typer.Option(min=0.01, help="How fast everything in it happens.")] = 1.0,
    scenario: Annotated[str, typer.Option(help="What kind of day it is.")] = "good-day",
    list_scenarios: Annotated[bool, typer.Option("--list", help="List the scenarios and leave.")] = False,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="Of its shifts, such as Europe/Berlin.")
    ] = None,
    history_hours: Annotated[
        float | None, typer.Option(min=0, help="Past that is played first. [default: as the scenario has it]")
    ] = None,
    history_pace: Annotated[
        float, typer.Option(min=0, help="Seconds of past per second; 0: as fast as it is read.")
    ] = 0.0,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Play no past before somebody reads it.")
    ] = True,
    replay_missed: Annotated[
        bool, typer.Option("--replay-missed", help="After a restart play what was missed, too.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Remember here where the factory is in time.")
    ] = None,
    truth_log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Log each write here before it is made.")
    ] = None,
    fsync: Annotated[bool, typer.Option("--fsync", help="Force each log row to disk.")] = False,
    secure: Annotated[
        bool, typer.Option("--secure", help="Offer signed and encrypted connections, too.")
    ] = False,
    duration_secs: Annotated[
        float | None, typer.Option(min=0, help="Leave after so long in the present.")
    ] = None,
    write_configs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write matching gateway.toml and plant.toml there.")
    ] = None,
    broker_url: Annotated[
        str, typer.Option(metavar="URL", help="For that gateway.toml.")
    ] = "mqtt://127.0.0.1:1883",
    telemetry: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the past as telemetry, with no servers, and leave."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the true figures of that past.")
    ] = None,
) -> None:
    """Run a simulated factory: seeded machines behind real OPC UA servers, with their own truth log."""
    require("simulator")
    from simulator import commands

    if list_scenarios:
        _leave(commands.list_scenarios())
        return
    _leave_at_once(
        commands.run(
            commands.Options(
                host=host,
                port=port,
                seed=seed,
                speed=speed,
                scenario=scenario,
                timezone=timezone,
                history_hours=history_hours,
                history_pace=history_pace,
                wait=wait,
                replay_missed=replay_missed,
                data_dir=data_dir,
                truth_log=truth_log,
                fsync=fsync,
                duration_secs=duration_secs,
                secure=secure,
                write_configs=write_configs,
                broker_url=broker_url,
                telemetry=telemetry,
                truth=truth,
            )
        )
    )


@app.command("broker", cls=QuickCommand, hidden=True)
def broker(port: Annotated[int, typer.Option(min=1, max=65535, help="Port of loopback.")] = 1883) -> None:
    """Run the demo's MQTT broker alone: loopback, no security, MQTT 3.1.1."""
    from oee import broker as mqtt

    _leave(mqtt.run(port))


@_command(
    gateway,
    "run",
    "Read the PLCs and publish, until SIGTERM or Ctrl-C.",
    "oee gateway run --config /etc/oee/gateway.toml",
)
def gateway_run(config: GatewayFile = Path("gateway.toml")) -> None:
    """Read the PLCs and publish, until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    from gateway import commands

    _leave_at_once(commands.run(config))


@_command(
    gateway,
    "check",
    "Try configuration, certificates, PLCs, tags and broker.",
    "oee gateway check --config gateway.toml",
)
def gateway_check(config: GatewayFile = Path("gateway.toml")) -> None:
    """Try everything that the configuration names, and print what to do about each fault."""
    from gateway import commands_opcua

    _leave(commands_opcua.check(config))


@_command(
    gateway,
    "status",
    "Show what the running daemon reads, sends and keeps.",
    "oee gateway status --config /etc/oee/gateway.toml",
)
def gateway_status(config: GatewayFile = Path("gateway.toml")) -> None:
    """Ask the running daemon how it is. Exit code 0: all well, 1: problems, 3: not running."""
    from gateway import commands

    _leave(commands.status(config))


@_command(
    gateway,
    "provision",
    "Prepare a thing of AWS IoT Core: key, request, policy.",
    "oee gateway provision gw-packaging -c gateway.toml            files to be signed by your own hands",
    "oee gateway provision gw-packaging -c gateway.toml --register with the AWS credentials found here",
)
def gateway_provision(
    thing: Annotated[str, typer.Argument(help="Name of the thing, and of its session.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="A gateway.toml: site, name and machines."),
    ] = None,
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = Path("aws"),
    site: Annotated[str, typer.Option(help="Site, where no gateway.toml tells it.")] = "",
    gateway_name: Annotated[
        str, typer.Option("--gateway", help="The gateway's name, where no gateway.toml tells it.")
    ] = "",
    endpoint: Annotated[str, typer.Option(help="The account's data endpoint, where AWS is not asked.")] = "",
    region: Annotated[str | None, typer.Option(help="AWS region; else the environment's.")] = None,
    *,
    register: Annotated[
        bool, typer.Option("--register", help="Make thing, certificate and policy known to AWS.")
    ] = False,
) -> None:
    """Write a thing's private key, certificate request, least-privilege policy and [[uplink]] table.

    Safe to repeat: a key or certificate that is there stays.
    """
    from gateway import commands

    _leave(
        commands.provision(
            folder,
            thing,
            path=config,
            site=site,
            gateway=gateway_name,
            endpoint=endpoint,
            region=region,
            register=register,
        )
    )


@_command(
    gateway,
    "browse",
    "List a PLC's tags, or draft gateway.toml from them.",
    "oee gateway browse opc.tcp://plc:4840",
    "oee gateway browse opc.tcp://plc:4840 'Factory/*/filler-*/**'",
    "oee gateway browse opc.tcp://plc:4840 'Factory/**' --draft >> gateway.toml",
)
def gateway_browse(
    endpoint: Annotated[
        str, typer.Argument(help="opc.tcp://HOST:PORT, or a connection's name with --config.")
    ],
    pattern: Annotated[
        str, typer.Argument(help="Browse names below Objects: * and ? in a name, ** for any folders.")
    ] = "",
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Take security and user from here.")
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Print gateway.toml entries, one machine per folder.")
    ] = False,
    allow_insecure: Annotated[
        bool, typer.Option("--allow-insecure", help="Connect without any protection.")
    ] = False,
    username: Annotated[str, typer.Option(help="Who we are to the PLC.")] = "",
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The user's password.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many tags; 0 for all.")] = 0,
) -> None:
    """List the tags that match a pattern with value, type and quality."""
    from gateway import commands_opcua

    _leave(
        commands_opcua.browse(
            endpoint,
            pattern,
            draft=draft,
            path=config,
            allow_insecure=allow_insecure,
            username=username,
            password_file=password_file,
            limit=limit,
        )
    )


TrustFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The edge's configuration.")
]
Certificate = Annotated[str, typer.Argument(help="Six digits or more of the thumbprint, or a file.")]


@_command(trust, "list", "List trusted and rejected certificates.", "oee gateway trust list -c gateway.toml")
def trust_list(config: TrustFile = None) -> None:
    """List the certificates that are trusted, and those that wait for a decision."""
    from gateway import commands_opcua

    _leave(commands_opcua.trust_list(config))


@_command(trust, "add", "Trust a PLC's certificate.", "oee gateway trust add 3f2a91 -c gateway.toml")
def trust_add(certificate: Certificate, config: TrustFile = None) -> None:
    """Trust a rejected certificate, or one in a file."""
    from gateway import commands_opcua

    _leave(commands_opcua.trust_add(certificate, config))


@_command(trust, "reject", "Trust a certificate no more.", "oee gateway trust reject 3f2a91 -c gateway.toml")
def trust_reject(certificate: Certificate, config: TrustFile = None) -> None:
    """Trust a certificate no more, or forget a rejected one."""
    from gateway import commands_opcua

    _leave(commands_opcua.trust_reject(certificate, config))


@_command(
    cloud,
    "run",
    "Store, compute, alert, and show the board, until Ctrl-C.",
    "oee cloud run --config /etc/oee/cloud.toml",
    "oee cloud run --no-pages",
)
def cloud_run(
    *,
    config: CloudFile = Path("cloud.toml"),
    pages: Annotated[bool, typer.Option("--pages/--no-pages", help="Serve the board, too.")] = True,
) -> None:
    """Store telemetry, keep figures live, close shifts, raise alerts and serve the board, until Ctrl-C."""
    require("cloud", "numpy", *(("dashboards", "fastapi", "uvicorn") if pages else ()))
    from cloud import commands
    from oee.pages import printer, serve

    _leave(commands.run(config, serve if pages else None, printer))


@_command(
    cloud,
    "acl",
    "Print the broker's access list: each gateway may speak for its machines alone.",
    "oee cloud acl --config cloud.toml > /etc/mosquitto/oee.acl",
)
def cloud_acl(
    *,
    config: CloudFile = Path("cloud.toml"),
    user: Annotated[
        str, typer.Option(metavar="NAME", help="The cloud side's user, unless mqtt.username names it.")
    ] = "cloud",
    commands: Annotated[
        bool, typer.Option("--commands/--no-commands", help="Let pages stop and start connections.")
    ] = False,
) -> None:
    """Print mosquitto's access control list for the gateways that cloud.toml names under [ingest]."""
    require("cloud", "numpy")
    from cloud import commands as of_cloud

    _leave(of_cloud.acl(config, user, commands=commands))


@_command(
    app,
    "import",
    "Load telemetry files into the store.",
    "oee import day.jsonl --config cloud.toml",
    "oee import 2021-*.jsonl.gz",
)
def import_telemetry(
    files: Annotated[list[Path], typer.Argument(help="JSON lines, also gzipped.")],
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Whose store.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The store's folder, instead of the configured one.")
    ] = None,
) -> None:
    """Load telemetry files into the store; what is there stays, lines that cannot be used are refused."""
    require("cloud", "numpy")
    from cloud import commands

    _leave(commands.import_telemetry(files, config, data_dir=data_dir))


@_command(
    app,
    "compute",
    "Compute figures from files alone: the way to check any number.",
    "oee compute --plant plant.toml --telemetry day.jsonl",
    "oee compute --plant plant.toml --telemetry day.jsonl.gz --by hour --level line",
    "oee compute --plant plant.toml --telemetry a.jsonl --telemetry b.jsonl --format json | jq '.[].oee'",
    "oee compute --plant plant.toml --history /var/lib/oee-cloud/history --by week --format csv",
    "oee compute --plant plant.toml --telemetry day.jsonl --corrections said.json   from /api/v1/corrections",
)
def compute(
    *,
    plant: PlantFile,
    telemetry: Annotated[
        list[Path] | None,
        typer.Option("--telemetry", metavar="FILE", help="JSON lines, also gzipped; may be given again."),
    ] = None,
    history: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Parquet files of closed days, instead.")
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What people said of that time, as /api/v1/corrections gives it."),
    ] = None,
    since: From = None,
    until: To = None,
    by: By = Window.SHIFT,
    level: Of = Level.MACHINE,
    form: Form = Format.TABLE,
    engine: Annotated[Engine, typer.Option(help="What reads a history.")] = Engine.LOCAL,
    master: Annotated[str, typer.Option(help="The Spark cluster: local[2], spark://HOST:7077.")] = "local[2]",
) -> None:
    """Compute figures from files alone, with no server: the way to check any number."""
    require(
        "cloud", "numpy", *(("pyarrow",) if history else ()), *(("pyspark",) if engine == "spark" else ())
    )
    from cloud import commands_files

    _leave(
        commands_files.compute(
            plant,
            telemetry or (),
            history=history,
            corrections=corrections,
            since=since,
            until=until,
            per=by.value,
            level=level.value,
            form=form.value,
            engine=engine.value,
            master=master,
        )
    )


@_command(
    app,
    "jobs",
    "Show the service's jobs: last and next runs, durations, failures.",
    "oee jobs --config cloud.toml",
)
def jobs(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Show the service's jobs: last and next runs, durations, failures."""
    require("cloud", "numpy", "apscheduler")
    from cloud import commands_work

    _leave(commands_work.jobs(config))


@_command(
    alerts,
    "test",
    "Send a test message over every channel, and show what became of it.",
    "oee alerts test --config cloud.toml",
    "oee alerts test --config cloud.toml --channel technicians",
)
def alerts_test(
    *,
    config: CloudFile = Path("cloud.toml"),
    channel: Annotated[str | None, typer.Option("--channel", metavar="NAME", help="Only this one.")] = None,
) -> None:
    """Send a test message over every channel of alerts.toml, and show what became of it."""
    require("cloud", "apprise")
    from cloud import commands_alerts

    _leave(commands_alerts.try_channels(config, channel))


@_command(
    alerts,
    "list",
    "Show open alerts and mutes.",
    "oee alerts list",
    "oee alerts list --past",
)
def alerts_list(
    *,
    config: CloudFile = Path("cloud.toml"),
    past: Annotated[bool, typer.Option("--past", help="Also those that are over.")] = False,
) -> None:
    """Show open alerts and mutes, as the store has them."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    _leave(commands_alerts.show(config, past=past))


@_command(
    alerts,
    "ack",
    "Say that somebody looks after an open alert.",
    "oee alerts ack filler-1 --note 'on my way'",
)
def alerts_ack(
    alert: Annotated[str, typer.Argument(metavar="ID", help="Its id, or a part that no other open one has.")],
    *,
    config: CloudFile = Path("cloud.toml"),
    note: Annotated[str, typer.Option(help="What to tell the others.")] = "",
    by: ByName = None,
) -> None:
    """Say that somebody looks after an open alert: it escalates no further."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    _leave(commands_alerts.acknowledge(config, alert, by=by or _login_name(), note=note))


@_command(
    alerts,
    "mute",
    "Let a place wake nobody while somebody works there.",
    "oee alerts mute berlin/packaging/line-1 --minutes 90 --why 'belt change'",
    "oee alerts mute berlin/packaging/line-1/filler-1 --until 2021-06-30T14:00 --why overhaul",
)
def alerts_mute(
    place: Annotated[
        str,
        typer.Argument(metavar="PLACE", help="site/area/line/machine, or its beginning."),
    ],
    *,
    why: Annotated[str, typer.Option(help="What is done there.")],
    config: CloudFile = Path("cloud.toml"),
    until: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="Such as 2021-06-30T14:00, in the plant's time.")
    ] = None,
    minutes: Annotated[int | None, typer.Option(min=1, help="Or for so long.")] = None,
    rule: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this rule.")] = None,
    by: ByName = None,
) -> None:
    """Let alerts of a place and of all below it wake nobody, for planned work."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    _leave(
        commands_alerts.mute(
            config,
            place,
            until=until,
            minutes=minutes,
            why=why,
            by=by or _login_name(),
            rules=rule or (),
        )
    )


@_command(alerts, "unmute", "End a mute.", "oee alerts unmute 3")
def alerts_unmute(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `oee alerts list` shows it.")],
    *,
    config: CloudFile = Path("cloud.toml"),
    by: ByName = None,
) -> None:
    """End a mute; what is still wrong there is raised at once."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    _leave(commands_alerts.unmute(config, number, by=by or _login_name()))


@_command(
    alerts, "status", "Check alerts.toml; show rules and the outbox of each channel.", "oee alerts status"
)
def alerts_status(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Check alerts.toml; show its rules, and what each channel has sent, still waits for, and why."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    _leave(commands_alerts.status(config))


@_command(
    results,
    "test",
    "Send a test to every receiver of results.toml, and show what became of it.",
    "oee results test --config cloud.toml",
    "oee results test --config cloud.toml --name shift-leads",
)
def results_test(
    *,
    config: CloudFile = Path("cloud.toml"),
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only this one.")] = None,
) -> None:
    """Send a test mail, a signed test message, and make an export's tables, wherever results.toml says."""
    require("cloud", "apprise")
    from cloud import commands_work

    _leave(commands_work.results_test(config, name))


@_command(
    results,
    "list",
    "Show who is sent results, and how much waits for them.",
    "oee results list --config cloud.toml",
)
def results_list(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Show who is sent results, and how much waits for them."""
    require("cloud", "numpy", "apprise")
    from cloud import commands_work

    _leave(commands_work.results_list(config))


@_command(
    masterdata,
    "check",
    "Read every source and show what it would change, without changing anything.",
    "oee masterdata check --config cloud.toml",
)
def masterdata_check(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Read every source and show what it would change, without changing anything."""
    require("cloud", "numpy", "sqlalchemy")
    from cloud import commands_work

    _leave(commands_work.masterdata_check(config))


@_command(
    app,
    "backup",
    "Write store and history to one file, also while the service runs.",
    "oee backup oee.tar --config cloud.toml",
)
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write.")],
    *,
    config: CloudFile = Path("cloud.toml"),
) -> None:
    """Write store and history to one file, also while the service runs."""
    require("cloud", "numpy")
    from cloud import commands_work

    _leave(commands_work.back_up(config, target))


@_command(
    app,
    "restore",
    "Put a backup in place of nothing, while the service does not run.",
    "oee restore oee.tar --config cloud.toml",
)
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `oee backup` wrote.")],
    *,
    config: CloudFile = Path("cloud.toml"),
) -> None:
    """Put a backup in place of nothing, while the service does not run."""
    require("cloud", "numpy")
    from cloud import commands_work

    _leave(commands_work.restore(config, source))


@_command(
    app,
    "report",
    "Print figures, revisions and what they changed, from the store.",
    "oee report                                   yesterday's and today's shifts",
    "oee report --from 2021-06-01 --by week --level line",
    "oee report --from 2021-06-30 --to 2021-07-01 --diff     what each revision changed",
    "oee report --pdf shift.pdf --at berlin/packaging/line-1   sheets of the last closed shift",
)
def report(
    *,
    config: CloudFile = Path("cloud.toml"),
    since: From = None,
    until: To = None,
    by: By = Window.SHIFT,
    level: Of = Level.MACHINE,
    form: Form = Format.TABLE,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Closed shifts as they were in this revision.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="All revisions: when and why they were made.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="What each revision changed.")] = False,
    sheet: Annotated[
        Path | None,
        typer.Option("--pdf", "--write", metavar="FILE", help="A report file: .pdf .xlsx .csv .json .html"),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="PLACE", help="Of that file: site/area/line/machine or less.")
    ] = None,
    shift: Annotated[
        str | None, typer.Option(metavar="DATE/NAME", help="Of that file; the last closed one.")
    ] = None,
) -> None:
    """Print figures from the store: the same numbers as on the board."""
    require("cloud", "numpy")
    if sheet is not None:
        require("dashboards", "jinja2")
        from dashboards.commands import write_report

        _leave(write_report(config, sheet, place=at, shift=shift))
        return
    from cloud import commands_report

    _leave(
        commands_report.report(
            config,
            since=since,
            until=until,
            per=by.value,
            level=level.value,
            form=form.value,
            revision=revision,
            history=history,
            diff=diff,
        )
    )


@_command(
    app,
    "calendar",
    "Print the shifts that a plant's calendars come to.",
    "oee calendar --plant plant.toml                       the next seven days",
    "oee calendar --plant plant.toml --from 2021-10-30 --to 2021-11-01",
)
def calendar(
    *,
    plant: PlantFile,
    since: From = None,
    until: To = None,
    machine: Annotated[
        str | None, typer.Option(metavar="KEY", help="Of this one alone: site/area/line/machine.")
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Print the shifts that a plant's calendars come to, with crew, breaks and planned minutes."""
    require("cloud", "numpy")
    from cloud import commands_files

    _leave(commands_files.calendar(plant, since=since, until=until, machine=machine, form=form.value))


@_command(config, "list", "List the example files.")
def config_list() -> None:
    """List the example files."""
    from oee import examples

    for path in examples.paths():
        typer.echo(f"{path.name:28} {path.read_text().partition(chr(10))[0].lstrip('# ')}")


@_command(
    config, "show", "Print one example file.", "oee config show gateway", "oee config show plant > plant.toml"
)
def config_show(name: Annotated[str, typer.Argument(help="gateway, cloud, plant, ...")]) -> None:
    """Print one example file."""
    from oee import examples

    typer.echo(examples.text(name), nl=False)


@_command(
    config,
    "write",
    "Copy the example files into a folder, ready to be edited.",
    "oee config write /etc/oee",
    "oee config write . --replace",
)
def config_write(
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite files that are there.")] = False,
) -> None:
    """Copy the example files into a folder, ready to be edited."""
    from oee import examples

    for path in examples.write(folder, replace=replace):
        typer.echo(f"wrote {path}")


@_command(app, "version", "Print the version.")
def version() -> None:
    """Print the version."""
    from oee.versions import described

    typer.echo(described())
