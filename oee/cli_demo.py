"""Commands that play a factory."""

from pathlib import Path
from typing import Annotated

import typer

from oee.cli_parts import app, command, leave, leave_at_once
from oee.errors import require


@command(
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

    leave(
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


@command(
    app,
    "simulate",
    "Run a simulated factory behind real OPC UA servers.",
    "oee simulate                               two lines at opc.tcp://127.0.0.1:4840 and :4841",
    "oee simulate --list                        the kinds of day there are",
    "oee simulate --write-configs .             a gateway.toml and a plant.toml that fit, and serves on",
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
    allow_insecure: Annotated[
        bool,
        typer.Option("--allow-insecure", help="Serve beyond this machine, although everybody may write."),
    ] = False,
    duration_secs: Annotated[
        float | None, typer.Option(min=0, help="Leave after so long in the present.")
    ] = None,
    write_configs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write gateway.toml and plant.toml that fit there, and go on."),
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
        leave(commands.list_scenarios())
        return
    leave_at_once(
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
                allow_insecure=allow_insecure,
                write_configs=write_configs,
                broker_url=broker_url,
                telemetry=telemetry,
                truth=truth,
            )
        )
    )
