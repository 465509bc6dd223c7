"""The edge daemon: one TaskGroup of sources, outbox, forwarders and health."""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import time
from asyncio import Task, TaskGroup
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Protocol

import structlog

from contract.delivery import Command, decode_command
from contract.telemetry import Refusal
from gateway import config
from gateway.config import Configuration, Connection
from gateway.control import Control, stop_cause
from gateway.errors import ConfigError, GatewayError, OutboxError
from gateway.forward import Forwarder
from gateway.health import Health
from gateway.health_server import HealthServer
from gateway.outbox.sqlite import SqliteOutbox
from gateway.pipeline import Lane, Pipeline
from gateway.running import Reading, Running, Sending
from gateway.sources.port import Source
from gateway.steady_clock import SteadyClock
from gateway.systemd import Notifier
from gateway.teller import Teller
from gateway.telling import Pace
from gateway.turns import let_in
from gateway.uplinks.build import build
from gateway.uplinks.port import Limits, Listener

_US: Final = 1_000_000
_TICK_SECS: Final = 0.2
_KEEP_SECS: Final = 1.0
_BREATH_SECS: Final = 0.02
"""Between two steps of keeping the outbox small, so that many of them hold nothing up."""
_TRIM_SECS: Final = 60.0
_RESTART_SECS: Final = 5.0
_HEALTH_RETRY_SECS: Final = 30.0
_SOURCES_END_SECS: Final = 0.8
_DRAIN_SECS: Final = 0.4
_GOODBYE_SECS: Final = 0.7
_MAX_COMMANDS: Final = 20
"""Commands that wait their turn; more at once are no person's doing, and are not heard."""
_MAX_STATUS_FAULTS: Final = 20
_FIXED: Final = ("name", "site", "data_dir")
"""Of the gateway: what holds until it is started again."""
_EARLIEST_US: Final = 1_735_689_600 * _US
"""2025-01-01: a clock before it was never set."""


class MakeSource(Protocol):
    """Builds the source of a connection, speaking to its lane."""

    def __call__(self, configuration: Configuration, connection: Connection, lane: Lane) -> Source:
        """Return a source that has not started."""
        ...


def _elapsed_us() -> int:
    """Return microseconds since the machine began, those of its sleep included where it tells of them."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000


clock_us: Final = SteadyClock(lambda: time.time_ns() // 1_000, _elapsed_us)
"""Microseconds since 1970."""


def running_us() -> int:
    """Return microseconds of the monotonic clock."""
    return time.monotonic_ns() // 1_000


def product_version() -> str:
    """Return the version of the installed package: the whole product, or the edge alone."""
    for package in ("oee-gateway", "oee-gateway-edge"):
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return "unknown"


@dataclass(frozen=True, slots=True)
class _Hearing:
    """Hears commands on an uplink, and passes on everything else.

    topic: of commands
    """

    inner: Listener
    topic: str
    take: Callable[[bytes], None]

    def on_connected(self, limits: Limits) -> None:
        self.inner.on_connected(limits)

    def on_lost(self, reason: str, *, silent: bool) -> None:
        self.inner.on_lost(reason, silent=silent)

    def on_message(self, topic: str, payload: bytes) -> None:
        if topic == self.topic:
            self.take(payload)
        else:
            self.inner.on_message(topic, payload)


class Daemon:
    """The gateway of one configuration.

    path: where the configuration came from, to be read again at SIGHUP; None when it cannot be
    make_source: builds the OPC UA source when None
    """

    def __init__(
        self, configuration: Configuration, *, path: Path | None = None, make_source: MakeSource | None = None
    ) -> None:
        self._configuration = configuration
        self._path = path
        self._make_source = make_source or _opcua_source
        self._log = structlog.get_logger("gateway")
        self._notifier = Notifier(os.environ)
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()
        self._commands: asyncio.Queue[Command] = asyncio.Queue(_MAX_COMMANDS)
        self.health_url: str | None = None
        self.started = asyncio.Event()

    def stop(self) -> None:
        """Ask for a clean end."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until asked to stop; raises StartError when this machine does not let it start."""
        settings, kept = self._configuration.gateway, self._configuration.outbox
        if clock_us() < _EARLIEST_US:
            self._log.error("the clock of this machine is not set", clock=time.ctime())
        outbox = SqliteOutbox(
            settings.data_dir,
            gateway=settings.name,
            uplinks=[uplink.name for uplink in self._configuration.uplink],
            clock_us=clock_us,
            running_us=running_us,
            max_bytes=kept.max_bytes,
            max_age_us=round(kept.max_age_days * 86_400 * _US),
        )
        try:
            control = Control(settings.data_dir, is_open=settings.accept_commands)
            pipeline = Pipeline(self._configuration, outbox, clock_us, dict(control.causes()))
            self._running = Running(self._configuration, product_version(), outbox, control, pipeline)
            self._teller = Teller(self._running, clock_us, time.monotonic)
            with self._signals():
                await self._serve()
        finally:
            outbox.close()
        self._log.info("gateway stopped")

    def health(self) -> Health:
        """Return the state of everything, as of now."""
        return self._teller.health()

    # Life

    async def _serve(self) -> None:
        async with TaskGroup() as group:
            self._group = group
            for uplink in self._running.configuration.uplink:
                self._start_uplink(uplink)
            for connection in self._running.configuration.connection:
                if (stop := self._running.control.stopped(connection.name)) is None:
                    self._start_connection(connection)
                else:
                    self._log.warning("connection stays stopped", connection=connection.name, by=stop.by)
            chores = [
                group.create_task(self._obey(), name="gateway.obey"),
                group.create_task(self._tick(), name="pipeline.tick"),
                group.create_task(self._keep(), name="outbox.keep"),
                group.create_task(self._serve_health(), name="health.serve"),
            ]
            self._log.info(
                "gateway started",
                gateway=self._running.configuration.gateway.name,
                connections=len(self._running.readings),
                uplinks=len(self._running.sendings),
                backlog_records=self._running.outbox.statistics().records,
            )
            gc.collect()
            gc.freeze()  # what stands now stands for ever: no collection need walk through it again
            _trim_memory()
            self.started.set()
            self._notifier.tell("READY=1", f"STATUS={len(self._running.readings)} connections")
            await self._stopping.wait()
            self._notifier.tell("STOPPING=1")
            await self._end(chores)

    async def _end(self, chores: Iterable[Task[None]]) -> None:
        """Stop reading, send what is quickly sent, say goodbye; what is left stands in the outbox."""
        await _cancelled([reading.task for reading in self._running.readings.values()], _SOURCES_END_SECS)
        self._running.pipeline.tick()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECS):
                for sending in self._running.sendings.values():
                    if sending.uplink.connected:
                        await sending.forwarder.drained()
        senders = [task for sending in self._running.sendings.values() for task in sending.tasks]
        await _cancelled([*senders, *chores], _GOODBYE_SECS)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _tick(self) -> None:
        """Let time pass for machines that say nothing."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_SECS
            await asyncio.sleep(_TICK_SECS)
            if loop.time() - due > _TICK_SECS:
                await let_in()
            self._running.pipeline.tick()

    async def _keep(self) -> None:
        """Keep the outbox and the memory small, and systemd assured."""
        since_trim_secs = 0.0
        while True:
            await asyncio.sleep(_KEEP_SECS)
            self._notifier.assure(time.monotonic())
            self._teller.note_pace()
            since_trim_secs += _KEEP_SECS
            if since_trim_secs >= _TRIM_SECS:
                _trim_memory()
                since_trim_secs = 0.0
            while self._running.outbox.flush():
                self._notifier.assure(time.monotonic())
                await asyncio.sleep(_BREATH_SECS)

    async def _serve_health(self) -> None:
        settings = self._running.configuration.health
        server = HealthServer(self._teller.health)
        said = False
        while True:
            try:
                await server.run(settings.host, settings.port, self._listening)
            except OSError as error:
                if not said:
                    place = f"{settings.host}:{settings.port}"
                    self._log.error("health cannot be served there", place=place, reason=str(error))
                    said = True
            await asyncio.sleep(_HEALTH_RETRY_SECS)

    def _listening(self, url: str) -> None:
        self.health_url = url
        self._log.info("health is served", url=url)
        with contextlib.suppress(OSError):
            (self._running.configuration.gateway.data_dir / "health.url").write_text(url)

    async def _supervise(self, subject: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part for ever: a fault of one PLC or broker must not end the others."""
        while True:
            try:
                await run()
            except GatewayError as error:
                self._log.error("part stopped; it starts again", part=subject, reason=str(error))
                self._running.last_error = f"{subject}: {error}"
            except Exception as error:  # noqa: BLE001 - the one supervisor
                self._log.exception("part failed; it starts again", part=subject)
                self._running.last_error = f"{subject}: {error!r}"
            await asyncio.sleep(_RESTART_SECS)

    # Connections and uplinks, started and stopped one by one

    def _start_connection(self, settings: Connection) -> None:
        lane = self._running.pipeline.lanes.get(settings.name)
        if lane is None:
            lane = Lane(self._running.configuration, settings, self._running.outbox, clock_us)
            self._running.pipeline.lanes[settings.name] = lane
        source = self._make_source(self._running.configuration, settings, lane)
        task = self._group.create_task(
            self._supervise(f"connection {settings.name}", source.run), name=f"source[{settings.name}].run"
        )
        self._running.readings[settings.name] = Reading(settings, source, task, Pace())

    def _start_uplink(self, settings: config.Uplink) -> None:
        gateway = self._running.configuration.gateway
        uplink = build(self._running.configuration, settings, self._teller.offline)
        forwarder = Forwarder(
            self._running.outbox,
            uplink,
            site=gateway.site,
            gateway=gateway.name,
            monotonic=time.monotonic,
            acknowledge=settings.acknowledge,
            receipt_timeout_secs=settings.receipt_timeout_secs,
            status=lambda: self._teller.status(settings.name),
        )
        listener = _Hearing(forwarder, self._running.topic("command"), self._hear)
        tasks = (
            self._group.create_task(
                self._supervise(f"uplink {settings.name}", lambda: uplink.run(listener)),
                name=f"uplink[{settings.name}].run",
            ),
            self._group.create_task(
                self._supervise(f"forwarder {settings.name}", forwarder.run),
                name=f"forwarder[{settings.name}].run",
            ),
        )
        self._running.sendings[settings.name] = Sending(settings, uplink, forwarder, tasks)

    def _reload(self) -> None:
        """Take up what changed in the configuration file; all else goes on undisturbed."""
        if self._path is None:
            return
        try:
            fresh = config.load(self._path)
        except ConfigError as error:
            self._log.error("configuration not reloaded; the old one stays", faults=error.faults)
            return
        old, self._running.configuration = self._running.configuration, fresh
        fixed = [name for name in ("outbox", "health", "log") if getattr(old, name) != getattr(fresh, name)]
        if any(getattr(old.gateway, name) != getattr(fresh.gateway, name) for name in _FIXED):
            fixed.append("gateway")
        if fixed:
            self._log.warning("these changes need a restart", tables=fixed)
        self._group.create_task(self._change_in_turn(old, fresh), name="gateway.reload")

    async def _change_in_turn(self, old: Configuration, fresh: Configuration) -> None:
        async with self._changing:
            await self._change(old, fresh)

    async def _change(self, old: Configuration, fresh: Configuration) -> None:
        for name in list(self._running.readings):
            await self._written_down(name)  # until then they are read as before
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={running_us()}")
        connections = {item.name: item for item in fresh.connection}
        uplinks = {item.name: item for item in fresh.uplink}
        everything = _of_machines(old.gateway) != _of_machines(fresh.gateway) or (
            old.certificates != fresh.certificates
        )
        hears_otherwise = old.gateway.accept_commands != fresh.gateway.accept_commands
        if hears_otherwise:
            self._running.control.turn(is_open=fresh.gateway.accept_commands)
        gone = [
            reading
            for name, reading in self._running.readings.items()
            if everything
            or connections.get(name) != reading.settings
            or self._running.control.stopped(name) is not None
        ]
        for reading in gone:
            if reading.settings.name not in connections:
                reading.source.leave()
        left = [
            sending
            for name, sending in self._running.sendings.items()
            if hears_otherwise or uplinks.get(name) != sending.settings
        ]
        await _cancelled(
            [*(r.task for r in gone), *(task for s in left for task in s.tasks)],
            _SOURCES_END_SECS + _GOODBYE_SECS,
        )
        for reading in gone:
            del self._running.readings[reading.settings.name]
        stopped = dict(self._running.control.causes())
        for name in {*stopped, *(reading.settings.name for reading in gone)}:
            await self._written_down(name)
            self._running.pipeline.lanes.pop(name, None)
            if name in connections and name in stopped:
                lane = Lane(fresh, connections[name], self._running.outbox, clock_us, stopped[name])
                self._running.pipeline.lanes[name] = lane
        for sending in left:
            del self._running.sendings[sending.settings.name]
            sending.forwarder.close()
        self._running.outbox.use_uplinks(list(uplinks))
        started = [
            item
            for name, item in connections.items()
            if name not in self._running.readings and self._running.control.stopped(name) is None
        ]
        for connection in started:
            self._start_connection(connection)
        begun = [item for name, item in uplinks.items() if name not in self._running.sendings]
        for uplink in begun:
            self._start_uplink(uplink)
        for sending in self._running.sendings.values():
            sending.forwarder.announce()
        self._log.info(
            "configuration reloaded",
            connections_stopped=[reading.settings.name for reading in gone],
            connections_started=[item.name for item in started],
            uplinks_stopped=[sending.settings.name for sending in left],
            uplinks_started=[item.name for item in begun],
        )
        self._notifier.tell("READY=1")

    async def _written_down(self, connection: str) -> None:
        """Wait until all that was told of a connection is on disk: what comes after it goes on from there."""
        lane = self._running.pipeline.lanes.get(connection)
        if lane is not None and lane.held_drafts:
            self._log.warning("this connection changes once the outbox takes records", connection=connection)
            while lane.held_drafts:  # noqa: ASYNC110 - the pipeline's tick tries again and again
                await asyncio.sleep(_TICK_SECS)

    # Commands of the cloud side

    def _hear(self, payload: bytes) -> None:
        """Take a command from a broker: whatever a network could bring."""
        command = decode_command(self._running.topic("command"), payload)
        if isinstance(command, Refusal):
            self._log.warning("a command that is none", reason=command.reason)
        elif self._commands.full():
            self._log.warning("too many commands at once", id=command.id, by=command.requested_by)
        else:
            self._commands.put_nowait(command)

    async def _obey(self) -> None:
        """Carry out commands, one after the other."""
        while True:
            command = await self._commands.get()
            if not self._running.control.is_answered(command):
                reason = self._running.control.refusal(command, self._connections_by_name(), clock_us())
                if reason is None:
                    async with self._changing:
                        reason = await self._carry_out(command)
                self._running.control.answer(command, clock_us(), reason)
                self._log.warning(
                    "command carried out" if reason is None else "command refused",
                    action=command.action,
                    connection=command.connection,
                    by=command.requested_by,
                    id=command.id,
                    reason=reason,
                )
            for sending in self._running.sendings.values():
                sending.forwarder.announce()

    async def _carry_out(self, command: Command) -> str | None:
        """Start or stop a connection; return why not where that cannot be done."""
        try:
            self._running.control.decide(command, clock_us())
        except OSError as error:
            return f"it cannot be kept on disk: {error.strerror or error}"
        settings = self._connections_by_name()[command.connection]
        reading = self._running.readings.get(settings.name)
        if command.action == "start" and reading is None:
            self._start_connection(settings)
        elif command.action == "stop" and reading is not None:
            reading.source.leave()
            del self._running.readings[settings.name]
            await _cancelled([reading.task], _SOURCES_END_SECS)
            with contextlib.suppress(OutboxError):  # the record waits in memory for the outbox
                self._running.pipeline.lanes[settings.name].on_stopped(stop_cause(command.requested_by))
        return None

    def _connections_by_name(self) -> dict[str, Connection]:
        return {connection.name: connection for connection in self._running.configuration.connection}


def _of_machines(settings: config.Gateway) -> dict[str, object]:
    """Return what a change of lets every machine be read anew."""
    return settings.model_dump(exclude={"accept_commands", "status_values"})


async def _cancelled(tasks: Iterable[Task[None]], timeout_secs: float) -> None:
    """Cancel tasks and wait for their goodbyes, though not for ever."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending, timeout=timeout_secs)


def _opcua_source(configuration: Configuration, connection: Connection, lane: Lane) -> Source:
    from gateway.sources.opcua import OpcUaSource, identity

    return OpcUaSource(
        connection,
        identity=identity(configuration),
        bindings=lane.bindings,
        receiver=lane,
        clock_us=clock_us,
        saved=lane.saved,
        told_us=lane.told_us,
    )


def _trim_memory() -> None:
    """Give back to the system what a burst (a backlog, a reconnect) has left in the C heap."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
