"""The simulated factory as a process that takes orders: lively machines, PLCs that misbehave when told to.

Orders come as lines of JSON on stdin, `{"do": NAME, ...}`; each is answered with `done NAME` on stdout.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_subscription import InternalSubscription

from contract.states import MachineState
from simulator import scenarios, server
from simulator.factory import Factory, Forced, Tagged
from simulator.machine import Machine, Stop
from simulator.scenarios import Scenario
from simulator.server import TAG_TYPES, LineServer
from simulator.service import Settings, Simulation, simulate
from simulator.timetable import Shift
from simulator.truth import Row
from tests.chaos.schedule import IDLE_ALERT_SECS

SHIFT_MINUTES = 5
UNCERTAIN = 0x40900000
"""UncertainLastUsableValue."""
BAD = 0x808B0000
"""BadDeviceFailure."""
ODD = 0x80740000
"""BadTypeMismatch in the truth log; the PLC shows a good value of another type, which nobody can use."""
UNSTAMPED = 0x00BA0000
"""GoodLocalOverride in the truth log; the PLC gives no source timestamp, only its own."""
_ODD_VALUES = (
    (float("nan"), ua.VariantType.Double),
    ([1, 2], ua.VariantType.Int32),
    (b"\x00\xff", ua.VariantType.ByteString),
)
"""What no tag of the factory can be read from: not a number, too many, not even text."""
_WATCHED = TAG_TYPES.keys() - {"Speed"}
"""The tags of a machine that the gateway under trial reads."""
_WATCHED_SECS = 20.0
"""How long the past waits for all of them; after a restart some may be found again late."""
_OVERFLOW_BITS = 0x480
"""The value's status tells of data (0x400), and that some were lost before it (0x080)."""


def scenario(seed: int, *, tick_us: int, lines: int, machines: int) -> Scenario:
    """Return a factory in which much happens within a minute."""
    built = scenarios.build("demo", seed=seed, lines=lines, tick_us=tick_us)
    stops = (
        Stop(state=MachineState.FAULTED, weight=3, mean_secs=3, shortest_secs=0.5, codes=(11, 12, 21)),
        Stop(state=MachineState.IDLE, weight=2, mean_secs=2, shortest_secs=0.5, codes=(31,)),
        Stop(state=MachineState.STOPPED, weight=1, mean_secs=4, shortest_secs=0.5),
        Stop(state=MachineState.PLANNED_STOP, weight=0.3, mean_secs=5, shortest_secs=1),
    )

    def lively(machine: Machine) -> Machine:
        return replace(
            machine,
            stops=stops,
            run_mean_secs=9.0,
            changeover_every_secs=60.0,
            changeover_mean_secs=3.0,
            reset_every_secs=90.0,
            startup_rejects=3,
            reject_rate=0.03,
            starved_after_secs=0.0,
            counter_start=0,
        )

    shifts = tuple(
        Shift(name=f"{minute:04}", start=_wall(minute), end=_wall(minute + SHIFT_MINUTES))
        for minute in range(0, 24 * 60, SHIFT_MINUTES)
    )
    factory: Factory = built.factory
    return replace(
        built,
        idle_soon=None,
        idle_alert_secs=IDLE_ALERT_SECS,
        factory=replace(
            factory,
            timetable=replace(factory.timetable, shifts=shifts),
            lines=tuple(
                replace(line, machines=tuple(map(lively, line.machines[:machines]))) for line in factory.lines
            ),
        ),
    )


def long_ago(present: Scenario, days: float, history_secs: float) -> Scenario:
    """Return the factory as it was so many days ago: it plays so much and ends."""
    end_us = round((time.time() - days * 86_400) * 1_000_000)
    end_us -= end_us % present.factory.tick_us
    return replace(present, span_us=(end_us - round(history_secs * 1_000_000), end_us))


def _wall(minute: int) -> str:
    return f"{minute // 60 % 24:02}:{minute % 60:02}"


class UnrulyServer(LineServer):
    """A PLC with the limits and bad habits of real ones."""

    items_per_call = 0
    queue_size = 0
    late_nodes_secs = 0.0
    play_when: Path | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gone: set[tuple[str, str]] = set()
        self._newest: dict[tuple[str, str], Row] = {}
        self._odd: set[tuple[str, str]] = set()

    async def start(self, rows: Any) -> None:
        """Boot, within the limits; the tags may come some seconds after the port."""
        shown = list(rows)
        await super().start([] if self.late_nodes_secs else shown)
        if self.late_nodes_secs:
            await asyncio.sleep(self.late_nodes_secs)
            await super()._lay_out(self._up())
            await self.write(shown)
        limited = self._up().iserver
        if self.queue_size:
            limited.max_monitored_item_queue_size = self.queue_size
        if self.items_per_call:
            await self._limit_items(self.items_per_call)

    async def _lay_out(self, opened: Any) -> None:
        if not self.late_nodes_secs:
            await super()._lay_out(opened)

    async def wait_for_subscriber(self, settle_secs: float = 0.4) -> None:
        """Return when all that the gateway reads is watched, and it knows so: then it is told.

        On a busy machine items may be made without that the answer comes in time, and be made anew. What they
        had shown of the past until then, nobody could know.
        """
        while self.play_when is not None and not self.play_when.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.02)
        until = time.monotonic() + _WATCHED_SECS
        while not self._is_watched():
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.02)
        await super().wait_for_subscriber(settle_secs)

    def _is_watched(self) -> bool:
        gone = sum(tag in _WATCHED for _, tag in self._gone)
        wanted = len(_WATCHED) * len(self._line.machines) - gone
        return any(subscriber.items >= wanted for subscriber in self.subscriptions())

    async def write(self, rows: Any) -> None:
        """Show rows, but for tags that are gone; a strange one as strange as its status asks."""
        self._newest.update({(row.machine, row.tag): row for row in rows})
        for row in rows:
            if (row.machine, row.tag) in self._gone:
                continue
            if row.status in (ODD, UNSTAMPED) or (row.machine, row.tag) in self._odd:
                await self._write_strangely(row)
            else:
                await super().write([row])

    async def _write_strangely(self, row: Row) -> None:
        """Show a value that asyncua's own service would refuse, or without the source's time."""
        shown = server._value(row, None)
        space = self._up().iserver.aspace
        attribute = space._nodes[self._nodes[row.machine, row.tag]].attributes[ua.AttributeIds.Value]
        stamp, good = shown.SourceTimestamp, ua.StatusCode(ua.UInt32(0))
        self._odd.discard((row.machine, row.tag))
        if row.status == ODD:
            self._odd.add((row.machine, row.tag))
            value = ua.Variant(*_ODD_VALUES[row.n % len(_ODD_VALUES)])
            attribute.value = ua.DataValue(value, good, stamp, stamp)
        elif row.status == UNSTAMPED:
            attribute.value = ua.DataValue(shown.Value, good, None, stamp)
        else:
            attribute.value = shown
        for handle, callback in list(attribute.datachange_callbacks.items()):
            await callback(handle, attribute.value)

    async def drop_subscriptions(self) -> None:
        """Forget all subscriptions while every connection lives."""
        service = self._up().iserver.subscription_service
        await service.delete_subscriptions(list(service.subscriptions))

    async def expire_sessions(self) -> None:
        """End all sessions, as if nothing had been heard of them; their subscriptions live on."""
        for session in list(self._up().iserver._external_sessions.values()):
            await session.close_session(delete_subs=False)

    async def delete_tag(self, machine: str, tag: str) -> None:
        """Take a tag away, as a download to the PLC does."""
        opened = self._up()
        self._gone.add((machine, tag))
        await opened.delete_nodes([opened.get_node(self._nodes[machine, tag])])

    async def restore_tag(self, machine: str, tag: str) -> None:
        """Bring a tag back, as a new node with the old name and its newest value."""
        opened = self._up()
        node_id = self._nodes[machine, tag]
        folder = opened.get_node(server._node_id(machine.replace("/", "."), int(node_id.NamespaceIndex)))
        kind = TAG_TYPES[tag]
        newest = self._newest[machine, tag]
        await folder.add_variable(node_id, f"{node_id.NamespaceIndex}:{tag}", newest.value, kind)
        self._gone.discard((machine, tag))
        await super().write([self._newest[machine, tag]])

    async def _limit_items(self, most: int) -> None:
        opened = self._up()
        limit = opened.get_node(
            ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
        )
        await limit.write_value(ua.Variant(most, ua.VariantType.UInt32))
        service = opened.iserver.subscription_service
        create = service.create_monitored_items

        async def within(params: Any) -> Any:
            if len(params.ItemsToCreate) > most:
                raise ServiceError(ua.StatusCodes.BadTooManyOperations)
            return await create(params)

        service.create_monitored_items = within


def tell_of_overflow() -> None:
    """Let asyncua's queues set the overflow bit that the standard asks for, and real PLCs set."""

    async def enqueue(self: Any, mid: int, event: Any, size: int, queue: dict[int, list[Any]]) -> None:
        waiting = queue.setdefault(mid, [])
        if size and len(waiting) >= size:
            del waiting[0]
            marked = waiting[0] if waiting else event
            value = marked.Value
            status = ua.StatusCode(ua.UInt32(value.StatusCode.value | _OVERFLOW_BITS))
            marked.Value = ua.DataValue(value.Value, status, value.SourceTimestamp, value.ServerTimestamp)
        waiting.append(event)
        if len(waiting) == 1:
            await self._trigger_publish()

    InternalSubscription._enqueue_event = enqueue  # type: ignore[method-assign]


class Distortion:
    """What a machine's values look like at the moment."""

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}

    def __call__(self, tagged: Tagged) -> Tagged:
        """Return the moment as the outside sees it."""
        status = self.statuses.get(tagged.machine)
        if status is None:
            return tagged
        return tagged._replace(moment=tagged.moment._replace(status=status))


async def obey(order: dict[str, Any], simulation: Simulation, distortion: Distortion) -> None:
    """Carry out one order."""
    match order:
        case {"do": "drop_subscriptions"}:
            for show in simulation.lines:
                await _unruly(show.server).drop_subscriptions()
        case {"do": "expire_sessions"}:
            for show in simulation.lines:
                await _unruly(show.server).expire_sessions()
        case {"do": "delete_tag", "machine": machine, "tag": tag}:
            await _server_of(simulation, machine).delete_tag(machine, tag)
        case {"do": "restore_tag", "machine": machine, "tag": tag}:
            await _server_of(simulation, machine).restore_tag(machine, tag)
        case {"do": "stand", "machine": machine, "secs": secs}:
            stand(simulation, machine, round(secs * 1_000_000))
        case {"do": "distort", "machine": machine, "status": status}:
            distortion.statuses[machine.partition("/")[2]] = status
        case {"do": "set_right", "machine": machine}:
            distortion.statuses.pop(machine.partition("/")[2], None)
        case _:
            raise ValueError(f"no such order: {order}")


def stand(simulation: Simulation, machine: str, length_us: int) -> None:
    """Let a machine stand idle from the next tick on, also after a restart of the factory."""
    line, _, name = machine.partition("/")
    show = next(show for show in simulation.lines if show.line.name == line)
    tick_us = simulation.run.factory.tick_us
    start_us = max(show._peek_us(), (time.time_ns() // 1000 // tick_us + 1) * tick_us)
    forced = (*show._run.forced, Forced(name, start_us, start_us + length_us // tick_us * tick_us))
    simulation._memory.write({"forced": [list(one) for one in sorted(forced, key=_by_start)]})
    for each in simulation.lines:
        each._run = replace(each._run, forced=tuple(sorted(forced, key=_by_start)))
    show._go_to(show._peek_us())


def _by_start(forced: Forced) -> int:
    return forced.start_us


def _unruly(of_line: LineServer) -> UnrulyServer:
    assert isinstance(of_line, UnrulyServer)
    return of_line


def _server_of(simulation: Simulation, machine: str) -> UnrulyServer:
    line = machine.partition("/")[0]
    return _unruly(next(show.server for show in simulation.lines if show.line.name == line))


async def run(options: argparse.Namespace) -> None:
    """Run until SIGTERM."""
    server.quiet_library()
    if options.queue_size:
        tell_of_overflow()
    UnrulyServer.items_per_call = options.items_per_call
    UnrulyServer.queue_size = options.queue_size
    UnrulyServer.late_nodes_secs = options.late_nodes_secs
    UnrulyServer.play_when = options.play_when
    distortion = Distortion()
    built = scenario(
        options.seed,
        tick_us=round(options.tick_secs * 1_000_000),
        lines=options.lines,
        machines=options.machines,
    )
    if options.days_ago:
        built = long_ago(built, options.days_ago, options.history_secs)
    settings = Settings(
        port=options.port,
        data_dir=options.folder / "factory",
        truth_log=options.folder / "truth.jsonl",
        history_secs=options.history_secs,
        server=UnrulyServer,
        seen_as=distortion,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with simulate(built, settings) as simulation:
        print(f"up {time.time_ns() // 1000}", flush=True)
        told = asyncio.create_task(_tell(simulation))
        ended = asyncio.create_task(stopped.wait())
        over = asyncio.create_task(simulation.wait_until_over())
        obeying = asyncio.create_task(_obey_all(orders, simulation, distortion))
        await asyncio.wait({ended, over}, return_when=asyncio.FIRST_COMPLETED)
        for task in (told, ended, over, obeying):
            task.cancel()


async def _tell(simulation: Simulation) -> None:
    await simulation.wait_until_live()
    print("live", flush=True)


async def _obey_all(orders: asyncio.StreamReader, simulation: Simulation, distortion: Distortion) -> None:
    while line := await orders.readline():
        order = json.loads(line)
        try:
            await obey(order, simulation, distortion)
            print("done", order["do"], flush=True)
        except Exception as error:  # noqa: BLE001 - an order that fails is told, and the factory goes on
            print("failed", order["do"], repr(error), flush=True)


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=1)
    parser.add_argument("--machines", type=int, default=4)
    parser.add_argument("--tick-secs", type=float, default=0.5)
    parser.add_argument("--history-secs", type=float, default=0.0)
    parser.add_argument("--days-ago", type=float, default=0.0)
    parser.add_argument("--items-per-call", type=int, default=0)
    parser.add_argument("--queue-size", type=int, default=0)
    parser.add_argument("--late-nodes-secs", type=float, default=0.0)
    parser.add_argument("--play-when", type=Path, help="play the past once this file is there")
    return parser


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options().parse_args()))
