"""What `oee simulate` does."""

import asyncio
import ipaddress
import json
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import OptionError, SimulatorError
from simulator.timetable import US_PER_SEC

if TYPE_CHECKING:
    from simulator.scenarios import Scenario
    from simulator.service import Simulation


@dataclass(frozen=True, kw_only=True)
class Options:
    """How `oee simulate` was called.

    speed: how many times as fast everything in the factory happens
    history_hours: past that is played at the first start; None: as the scenario has it
    history_pace: simulated seconds per second while there is past to play; 0: as fast as it is read
    wait: play no past before somebody reads it
    replay_missed: play what was missed since the last run
    truth_log: log each write here before it is made; None: truth.jsonl under data_dir where that is given
    duration_secs: leave after so long in the present; None: never
    write_configs: folder to write matching gateway.toml and plant.toml to; they name the ports that it then
        serves
    broker_url: for the gateway.toml
    allow_insecure: serve beyond this machine, although the servers take everybody
    telemetry: write the past as telemetry to this file, with no servers, and leave
    truth: write the true figures of that past to this file
    until_us: [us] where that past ends; None: now
    """

    host: str = "127.0.0.1"
    port: int = 4840
    seed: int = 1
    speed: float = 1.0
    scenario: str = "good-day"
    timezone: str | None = None
    history_hours: float | None = None
    history_pace: float = 0.0
    wait: bool = True
    replay_missed: bool = False
    data_dir: Path | None = None
    truth_log: Path | None = None
    fsync: bool = False
    duration_secs: float | None = None
    secure: bool = False
    allow_insecure: bool = False
    write_configs: Path | None = None
    broker_url: str = "mqtt://127.0.0.1:1883"
    telemetry: Path | None = None
    truth: Path | None = None
    until_us: int | None = None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def list_scenarios() -> int:
    """Print the scenarios; returns the exit code."""
    from rich.console import Console
    from rich.table import Table

    from simulator import scenarios

    table = Table(show_header=False, box=None)
    for name, summary in scenarios.summaries().items():
        table.add_row(name, summary)
    Console().print(table)
    return 0


def run(options: Options) -> int:
    """Run the simulated factory until it is interrupted; returns the exit code."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    try:
        if options.telemetry is not None or options.truth is not None:
            return _write_files(options)
        return asyncio.run(_serve(options))
    except (SimulatorError, ValueError) as error:
        console.print(f"[red]simulate:[/] {error}", markup=True)
        return 2


async def _serve(options: Options) -> int:
    from simulator import server, service

    if not _is_loopback(options.host):
        if not options.allow_insecure:
            raise OptionError(
                f"--host {options.host} serves a network, and these servers let everybody read and write; "
                "say --allow-insecure if that is meant, or leave --host out"
            )
        print(f"warning: anybody who reaches {options.host} can read and write this factory", file=sys.stderr)
    server.quiet_library()
    scenario = _scenario(options)
    folder = options.data_dir
    certificate = private_key = None
    if options.secure:
        from simulator import certificates

        certificate, private_key = await certificates.own(folder, options.host)
    settings = service.Settings(
        host=options.host,
        port=options.port,
        certificate=certificate,
        private_key=private_key,
        data_dir=folder,
        truth_log=options.truth_log or (folder / "truth.jsonl" if folder else None),
        fsync=options.fsync,
        history_secs=None if options.history_hours is None else options.history_hours * 3600,
        history_pace=options.history_pace,
        wait_for_subscriber=options.wait,
        replay_missed=options.replay_missed,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with service.simulate(scenario, settings) as simulation:
        if options.write_configs is not None:
            _write_configs(options, scenario, simulation.endpoints)
            where = options.write_configs
            print(
                f"wrote {where / 'gateway.toml'} and {where / 'plant.toml'}; serving until Ctrl-C",
                file=sys.stderr,
                flush=True,
            )
        for line, url in simulation.endpoints.items():
            print(f"{line} {url}", flush=True)
        async with asyncio.TaskGroup() as tasks:
            waiting = [
                tasks.create_task(_tell(simulation, scenario), name="simulator.tell"),
                tasks.create_task(stopped.wait(), name="simulator.wait_until_stopped"),
            ]
            if scenario.span_us is None:
                waiting.append(
                    tasks.create_task(simulation.wait_until_over(), name="simulator.wait_until_over")
                )
            await _first_of(waiting, options.duration_secs)
    return 0


async def _tell(simulation: "Simulation", scenario: "Scenario") -> None:
    """Say when the past is played, then wait for ever."""
    await simulation.wait_until_live()
    print("live" if scenario.span_us is None else "played", flush=True)
    await asyncio.Event().wait()


async def _first_of(waiting: "list[asyncio.Task[Any]]", timeout_secs: float | None) -> None:
    """Return when one of the tasks has ended, or the time is over; then end all."""
    await asyncio.wait(waiting, timeout=timeout_secs, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _scenario(options: Options) -> "Scenario":
    from simulator import scenarios
    from simulator.service import quicken

    scenario = scenarios.build(options.scenario, seed=options.seed, timezone=options.timezone)
    return replace(scenario, factory=quicken(scenario.factory, options.speed))


def _write_configs(options: Options, scenario: "Scenario", endpoints: dict[str, str]) -> None:
    from simulator import configuration

    assert options.write_configs is not None
    options.write_configs.mkdir(parents=True, exist_ok=True)
    (options.write_configs / "plant.toml").write_text(configuration.plant_toml(scenario))
    text = configuration.gateway_toml(
        scenario.factory,
        endpoints,
        broker_url=options.broker_url,
        data_dir=(options.write_configs / "gateway").resolve(),
    )
    (options.write_configs / "gateway.toml").write_text(text)


def _write_files(options: Options) -> int:
    """Write telemetry and truth of the past, straight from the model."""
    import msgspec

    from simulator import offline
    from simulator.factory import Run
    from simulator.truth import Truth

    scenario = _scenario(options)
    factory = scenario.factory
    if scenario.span_us is not None:
        origin_us, until_us = scenario.span_us
    else:
        until_us = time.time_ns() // 1000 if options.until_us is None else options.until_us
        until_us -= until_us % factory.tick_us
        hours = scenario.history_secs / 3600 if options.history_hours is None else options.history_hours
        origin_us = until_us - round(hours * 3600) * US_PER_SEC
        origin_us -= origin_us % factory.tick_us
    past = Run(factory=factory, origin_us=origin_us)
    if options.telemetry is not None:
        encoder = msgspec.json.Encoder()
        options.telemetry.parent.mkdir(parents=True, exist_ok=True)
        with options.telemetry.open("wb") as file:
            for record in offline.telemetry(past, until_us):
                file.write(encoder.encode(record) + b"\n")
    if options.truth is not None:
        truth = Truth.from_moments(factory, offline.moments(past, until_us))
        options.truth.parent.mkdir(parents=True, exist_ok=True)
        figures = [found.to_dict() for found in truth.figures(origin_us, until_us)]
        options.truth.write_text(json.dumps(figures, indent=1) + "\n")
    if options.write_configs is not None:
        _write_configs(options, scenario, {})
    return 0
