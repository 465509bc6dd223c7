"""The edge daemon: one TaskGroup of sources, outbox, forwarders and health."""

import asyncio
import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
import time
from asyncio import Task, TaskGroup
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from contract import topics
from contract.delivery import Command, ConnectionStatus, Status, decode_command
from contract.telemetry import Refusal
from gateway import config
from gateway.config import Configuration, Connection
from gateway.control import Control, stop_cause
from gateway.errors import ConfigError, GatewayError, OutboxError
from gateway.forward import Forwarder
from gateway.health import ConnectionHealth, Health, OutboxHealth, UplinkHealth, problems
from gateway.health_server import HealthServer
from gateway.outbox.sqlite import SqliteOutbox
from gateway.pipeline import Lane, Pipeline
from gateway.sources.port import Source, SourceCounters
from gateway.steady_clock import SteadyClock
from gateway.systemd import Notifier
from gateway.telling import Pace, by_turns, encode_status
from gateway.turns import let_in
from gateway.uplinks.build import build
from gateway.uplinks.port import Limits, Listener, Uplink, Will

_US: Final = 1_000_000
_TICK_SECS: Final = 0.2
_KEEP_SECS: Final = 1.0
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
class _Reading:
    """A running connection."""

    settings: Connection
    source: Source
    task: Task[None]
    pace: Pace


@dataclass(frozen=True, slots=True)
class _Sending:
    """A running uplink."""

    settings: config.Uplink
    uplink: Uplink
    forwarder: Forwarder
    tasks: tuple[Task[None], ...]


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
        self._version = product_version()
        self._started = time.monotonic()
        self._stopping = asyncio.Event()
        self._readings: dict[str, _Reading] = {}
        self._sendings: dict[str, _Sending] = {}
        self._changing = asyncio.Lock()
        self._commands: asyncio.Queue[Command] = asyncio.Queue(_MAX_COMMANDS)
        self._last_error: str | None = None
        self.health_url: str | None = None
        self.started = asyncio.Event()

    def stop(self) -> None:
        """Ask for a clean end."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until asked to stop; raises StartError when this machine does not let it start."""
        settings = self._configuration.gateway
        if clock_us() < _EARLIEST_US:
            self._log.error("the clock of this machine is not set", clock=time.ctime())
        self._outbox = SqliteOutbox(
            settings.data_dir,
            gateway=settings.name,
            uplinks=[uplink.name for uplink in self._configuration.uplink],
            clock_us=clock_us,
            running_us=running_us,
            max_bytes=self._configuration.outbox.max_bytes,
            max_age_us=round(self._configuration.outbox.max_age_days * 86_400 * _US),
        )
        try:
            self._control = Control(settings.data_dir, is_open=settings.accept_commands)
            absent = dict(self._control.causes())
            self._pipeline = Pipeline(self._configuration, self._outbox, clock_us, absent)
            with self._signals():
                await self._serve()
        finally:
            self._outbox.close()
        self._log.info("gateway stopped")

    def health(self) -> Health:
        """Return the state of everything, as of now."""
        connections = [self._connection_health(one) for one in self._configuration.connection]
        uplinks = [self._uplink_health(sending) for sending in self._sendings.values()]
        outbox = self._outbox_health()
        return Health(
            site=self._configuration.gateway.site,
            gateway=self._configuration.gateway.name,
            version=self._version,
            pid=os.getpid(),
            running_secs=time.monotonic() - self._started,
            resident_bytes=_resident_bytes(),
            records=self._outbox.statistics().appended,
            problems=list(problems(connections, uplinks, outbox)),
            connections=connections,
            uplinks=uplinks,
            outbox=outbox,
        )

    # Life

    async def _serve(self) -> None:
        async with TaskGroup() as group:
            self._group = group
            for uplink in self._configuration.uplink:
                self._start_uplink(uplink)
            for connection in self._configuration.connection:
                if (stop := self._control.stopped(connection.name)) is None:
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
                gateway=self._configuration.gateway.name,
                connections=len(self._readings),
                uplinks=len(self._sendings),
                backlog_records=self._outbox.statistics().records,
            )
            gc.collect()
            gc.freeze()  # what stands now stands for ever: no collection need walk through it again
            _trim_memory()
            self.started.set()
            self._notifier.tell("READY=1", f"STATUS={len(self._readings)} connections")
            await self._stopping.wait()
            self._notifier.tell("STOPPING=1")
            await self._end(chores)

    async def _end(self, chores: Iterable[Task[None]]) -> None:
        """Stop reading, send what is quickly sent, say goodbye; what is left stands in the outbox."""
        await _cancelled([reading.task for reading in self._readings.values()], _SOURCES_END_SECS)
        self._pipeline.tick()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECS):
                for sending in self._sendings.values():
                    if sending.uplink.connected:
                        await sending.forwarder.drained()
        senders = [task for sending in self._sendings.values() for task in sending.tasks]
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
            self._pipeline.tick()

    async def _keep(self) -> None:
        """Keep the outbox and the memory small, and systemd assured."""
        since_trim_secs = 0.0
        while True:
            await asyncio.sleep(_KEEP_SECS)
            self._notifier.assure(time.monotonic())
            self._note_pace()
            since_trim_secs += _KEEP_SECS
            if since_trim_secs >= _TRIM_SECS:
                _trim_memory()
                since_trim_secs = 0.0
            while self._outbox.flush():
                self._notifier.assure(time.monotonic())
                await asyncio.sleep(0)

    async def _serve_health(self) -> None:
        settings = self._configuration.health
        server = HealthServer(self.health)
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
            (self._configuration.gateway.data_dir / "health.url").write_text(url)

    async def _supervise(self, subject: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part for ever: a fault of one PLC or broker must not end the others."""
        while True:
            try:
                await run()
            except GatewayError as error:
                self._log.error("part stopped; it starts again", part=subject, reason=str(error))
                self._last_error = f"{subject}: {error}"
            except Exception as error:  # noqa: BLE001 - the one supervisor
                self._log.exception("part failed; it starts again", part=subject)
                self._last_error = f"{subject}: {error!r}"
            await asyncio.sleep(_RESTART_SECS)

    # Connections and uplinks, started and stopped one by one

    def _start_connection(self, settings: Connection) -> None:
        lane = self._pipeline.lanes.get(settings.name)
        if lane is None:
            lane = Lane(self._configuration, settings, self._outbox, clock_us)
            self._pipeline.lanes[settings.name] = lane
        source = self._make_source(self._configuration, settings, lane)
        task = self._group.create_task(
            self._supervise(f"connection {settings.name}", source.run), name=f"source[{settings.name}].run"
        )
        self._readings[settings.name] = _Reading(settings, source, task, Pace())

    def _start_uplink(self, settings: config.Uplink) -> None:
        gateway = self._configuration.gateway
        uplink = build(self._configuration, settings, self._offline)
        forwarder = Forwarder(
            self._outbox,
            uplink,
            site=gateway.site,
            gateway=gateway.name,
            monotonic=time.monotonic,
            acknowledge=settings.acknowledge,
            receipt_timeout_secs=settings.receipt_timeout_secs,
            status=lambda: self._status(settings.name),
        )
        listener = _Hearing(forwarder, self._topic("command"), self._hear)
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
        self._sendings[settings.name] = _Sending(settings, uplink, forwarder, tasks)

    def _reload(self) -> None:
        """Take up what changed in the configuration file; all else goes on undisturbed."""
        if self._path is None:
            return
        try:
            fresh = config.load(self._path)
        except ConfigError as error:
            self._log.error("configuration not reloaded; the old one stays", faults=error.faults)
            return
        old, self._configuration = self._configuration, fresh
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
        for name in list(self._readings):
            await self._written_down(name)  # until then they are read as before
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={running_us()}")
        connections = {item.name: item for item in fresh.connection}
        uplinks = {item.name: item for item in fresh.uplink}
        everything = _of_machines(old.gateway) != _of_machines(fresh.gateway) or (
            old.certificates != fresh.certificates
        )
        hears_otherwise = old.gateway.accept_commands != fresh.gateway.accept_commands
        if hears_otherwise:
            self._control.turn(is_open=fresh.gateway.accept_commands)
        gone = [
            reading
            for name, reading in self._readings.items()
            if everything
            or connections.get(name) != reading.settings
            or self._control.stopped(name) is not None
        ]
        for reading in gone:
            if reading.settings.name not in connections:
                reading.source.leave()
        left = [
            sending
            for name, sending in self._sendings.items()
            if hears_otherwise or uplinks.get(name) != sending.settings
        ]
        await _cancelled(
            [*(r.task for r in gone), *(task for s in left for task in s.tasks)],
            _SOURCES_END_SECS + _GOODBYE_SECS,
        )
        for reading in gone:
            del self._readings[reading.settings.name]
        stopped = dict(self._control.causes())
        for name in {*stopped, *(reading.settings.name for reading in gone)}:
            await self._written_down(name)
            self._pipeline.lanes.pop(name, None)
            if name in connections and name in stopped:
                lane = Lane(fresh, connections[name], self._outbox, clock_us, stopped[name])
                self._pipeline.lanes[name] = lane
        for sending in left:
            del self._sendings[sending.settings.name]
            sending.forwarder.close()
        self._outbox.use_uplinks(list(uplinks))
        started = [
            item
            for name, item in connections.items()
            if name not in self._readings and self._control.stopped(name) is None
        ]
        for connection in started:
            self._start_connection(connection)
        begun = [item for name, item in uplinks.items() if name not in self._sendings]
        for uplink in begun:
            self._start_uplink(uplink)
        for sending in self._sendings.values():
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
        lane = self._pipeline.lanes.get(connection)
        if lane is not None and lane.held_drafts:
            self._log.warning("this connection changes once the outbox takes records", connection=connection)
            while lane.held_drafts:  # noqa: ASYNC110 - the pipeline's tick tries again and again
                await asyncio.sleep(_TICK_SECS)

    # Commands of the cloud side

    def _hear(self, payload: bytes) -> None:
        """Take a command from a broker: whatever a network could bring."""
        command = decode_command(self._topic("command"), payload)
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
            if not self._control.is_answered(command):
                reason = self._control.refusal(command, self._connections_by_name(), clock_us())
                if reason is None:
                    async with self._changing:
                        reason = await self._carry_out(command)
                self._control.answer(command, clock_us(), reason)
                self._log.warning(
                    "command carried out" if reason is None else "command refused",
                    action=command.action,
                    connection=command.connection,
                    by=command.requested_by,
                    id=command.id,
                    reason=reason,
                )
            for sending in self._sendings.values():
                sending.forwarder.announce()

    async def _carry_out(self, command: Command) -> str | None:
        """Start or stop a connection; return why not where that cannot be done."""
        try:
            self._control.decide(command, clock_us())
        except OSError as error:
            return f"it cannot be kept on disk: {error.strerror or error}"
        settings = self._connections_by_name()[command.connection]
        reading = self._readings.get(settings.name)
        if command.action == "start" and reading is None:
            self._start_connection(settings)
        elif command.action == "stop" and reading is not None:
            reading.source.leave()
            del self._readings[settings.name]
            await _cancelled([reading.task], _SOURCES_END_SECS)
            with contextlib.suppress(OutboxError):  # the record waits in memory for the outbox
                self._pipeline.lanes[settings.name].on_stopped(stop_cause(command.requested_by))
        return None

    def _connections_by_name(self) -> dict[str, Connection]:
        return {connection.name: connection for connection in self._configuration.connection}

    # What is told to others

    def _note_pace(self) -> None:
        at_secs = time.monotonic()
        for reading in self._readings.values():
            counters = reading.source.counters
            reading.pace.note(at_secs, counters.notifications + counters.keepalives, counters.values)

    def _connection_status(self, settings: Connection) -> ConnectionStatus:
        """Return what is told of one connection, read or stopped."""
        reading = self._readings.get(settings.name)
        lane = self._pipeline.lanes.get(settings.name)
        heard = lane.heard_us / _US if lane is not None and lane.heard_us else msgspec.UNSET
        if reading is not None:
            messages, values = reading.pace.per_sec()
            return msgspec.structs.replace(
                reading.source.status,
                messages_per_sec=messages,
                values_per_sec=values,
                last_value_epochtime=heard,
            )
        stop = self._control.stopped(settings.name)
        return ConnectionStatus(
            name=settings.name,
            endpoint=settings.endpoint,
            state="stopped",
            since_epochtime=(clock_us() if stop is None else stop.since_us) / _US,
            items_wanted=0 if lane is None else len(lane.bindings),
            stopped_by=msgspec.UNSET if stop is None else stop.by,
            last_value_epochtime=heard,
        )

    def _status(self, uplink: str) -> Will:
        most = self._configuration.gateway.status_values
        lanes = [self._pipeline.lanes[name] for name in self._readings]
        statistics = self._outbox.statistics()
        problem = statistics.alarm or self._last_error
        free_bytes, total_bytes = _disk_bytes(self._configuration.gateway.data_dir)
        status = Status(
            gateway=self._configuration.gateway.name,
            site=self._configuration.gateway.site,
            online=True,
            epochtime=clock_us() / _US,
            version=self._version,
            first_sequence=statistics.first_sequence,
            connections=[self._connection_status(one) for one in self._configuration.connection],
            backlog_records=self._outbox.pending(uplink),
            backlog_bytes=statistics.bytes,
            oldest_epochtime=msgspec.UNSET if statistics.oldest_us is None else statistics.oldest_us / _US,
            dropped_records=sum(statistics.dropped.values()),
            backlog_limit_bytes=self._configuration.outbox.max_bytes,
            disk_free_bytes=free_bytes,
            disk_total_bytes=total_bytes,
            last_error=msgspec.UNSET if problem is None else problem[:256],
            accepts_commands=self._control.is_open,
            answers=list(self._control.answers),
            faults=sorted(
                (fault for lane in lanes for fault in lane.faults), key=lambda fault: fault.epochtime
            )[-_MAX_STATUS_FAULTS:],
            values=by_turns([list(lane.live_values(most)) for lane in lanes]),
        )
        return Will(self._topic("status"), encode_status(status))

    def _offline(self) -> Will:
        """Return what is said when the session ends, by us or by the broker."""
        status = Status(
            gateway=self._configuration.gateway.name,
            site=self._configuration.gateway.site,
            online=False,
            epochtime=clock_us() / _US,
            version=self._version,
        )
        return Will(self._topic("status"), msgspec.json.encode(status))

    def _topic(self, channel: topics.GatewayChannel) -> str:
        settings = self._configuration.gateway
        return topics.gateway_topic(settings.site, settings.name, channel)

    def _connection_health(self, settings: Connection) -> ConnectionHealth:
        reading = self._readings.get(settings.name)
        lane = self._pipeline.lanes.get(settings.name)
        counters = reading.source.counters if reading is not None else SourceCounters()
        return ConnectionHealth(
            status=self._connection_status(settings),
            held_records=0 if lane is None else lane.held_drafts,
            **msgspec.structs.asdict(counters),
        )

    def _uplink_health(self, sending: _Sending) -> UplinkHealth:
        counters, uplink = sending.forwarder.counters, sending.uplink
        return UplinkHealth(
            name=uplink.name,
            kind=sending.settings.kind,
            connected=uplink.connected,
            store_silent=sending.forwarder.store_silent,
            last_error=uplink.last_error,
            reconnects=uplink.reconnects,
            backlog_records=self._outbox.pending(uplink.name),
            **msgspec.structs.asdict(counters),
        )

    def _outbox_health(self) -> OutboxHealth:
        statistics = self._outbox.statistics()
        oldest_us = statistics.oldest_us
        return OutboxHealth(
            records=statistics.records,
            bytes=statistics.bytes,
            oldest_age_secs=None if oldest_us is None else max(0.0, (clock_us() - oldest_us) / _US),
            next_sequence=statistics.next_sequence,
            dropped={str(cause): amount for cause, amount in statistics.dropped.items()},
            quarantined=statistics.quarantined,
            damaged_files=statistics.damaged_files,
            alarm=statistics.alarm,
        )


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
    )


def _trim_memory() -> None:
    """Give back to the system what a burst (a backlog, a reconnect) has left in the C heap."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int:
    """Return the memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0


def _disk_bytes(folder: Path) -> tuple[int | msgspec.UnsetType, int | msgspec.UnsetType]:
    """Return the free and the whole space of a folder's disk; nothing where the system does not tell."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return msgspec.UNSET, msgspec.UNSET
    return usage.free, usage.total
