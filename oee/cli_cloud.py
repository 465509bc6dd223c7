"""Commands of the analysis side."""

from pathlib import Path
from typing import Annotated

import typer

from oee.cli_parts import (
    ByName,
    CloudFile,
    alerts,
    app,
    cloud,
    command,
    leave,
    login_name,
    masterdata,
    results,
)
from oee.errors import require


@command(
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

    leave(commands.run(config, serve if pages else None, printer))


@command(
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

    leave(of_cloud.acl(config, user, commands=commands))


@command(
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

    leave(commands.import_telemetry(files, config, data_dir=data_dir))


@command(
    app,
    "jobs",
    "Show the service's jobs: last and next runs, durations, failures.",
    "oee jobs --config cloud.toml",
)
def jobs(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Show the service's jobs: last and next runs, durations, failures."""
    require("cloud", "numpy", "apscheduler")
    from cloud import commands_work

    leave(commands_work.jobs(config))


@command(
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

    leave(commands_alerts.try_channels(config, channel))


@command(
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

    leave(commands_alerts.show(config, past=past))


@command(
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

    leave(commands_alerts.acknowledge(config, alert, by=by or login_name(), note=note))


@command(
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

    leave(
        commands_alerts.mute(
            config,
            place,
            until=until,
            minutes=minutes,
            why=why,
            by=by or login_name(),
            rules=rule or (),
        )
    )


@command(alerts, "unmute", "End a mute.", "oee alerts unmute 3")
def alerts_unmute(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As `oee alerts list` shows it.")],
    *,
    config: CloudFile = Path("cloud.toml"),
    by: ByName = None,
) -> None:
    """End a mute; what is still wrong there is raised at once."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    leave(commands_alerts.unmute(config, number, by=by or login_name()))


@command(
    alerts, "status", "Check alerts.toml; show rules and the outbox of each channel.", "oee alerts status"
)
def alerts_status(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Check alerts.toml; show its rules, and what each channel has sent, still waits for, and why."""
    require("cloud", "numpy")
    from cloud import commands_alerts

    leave(commands_alerts.status(config))


@command(
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

    leave(commands_work.results_test(config, name))


@command(
    results,
    "list",
    "Show who is sent results, and how much waits for them.",
    "oee results list --config cloud.toml",
)
def results_list(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Show who is sent results, and how much waits for them."""
    require("cloud", "numpy", "apprise")
    from cloud import commands_work

    leave(commands_work.results_list(config))


@command(
    masterdata,
    "check",
    "Read every source and show what it would change, without changing anything.",
    "oee masterdata check --config cloud.toml",
)
def masterdata_check(*, config: CloudFile = Path("cloud.toml")) -> None:
    """Read every source and show what it would change, without changing anything."""
    require("cloud", "numpy", "sqlalchemy")
    from cloud import commands_work

    leave(commands_work.masterdata_check(config))


@command(
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

    leave(commands_work.back_up(config, target))


@command(
    app,
    "restore",
    "Restore a backup where no store is, while the service is stopped.",
    "oee restore oee.tar --config cloud.toml",
)
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="What `oee backup` wrote.")],
    *,
    config: CloudFile = Path("cloud.toml"),
) -> None:
    """Restore a backup where no store is, while the service is stopped."""
    require("cloud", "numpy")
    from cloud import commands_work

    leave(commands_work.restore(config, source))
