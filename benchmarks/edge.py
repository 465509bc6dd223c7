"""The edge: bytes of OPC UA in, machine records stored.

A PLC of 200 machines (bool, int16, uint32, double and string of each, now and then a state; 1,000 values in a
message, ten messages in a second of its own time) is a process that plays recorded publish responses over a
real OPC UA session, as fast as whoever listens asks for them. Each listener is a process on one core of its
own; PLC, broker and store run on the other.

1. decoding alone, in this process: ours beside stock asyncua's, for three mixes
2. receiving: processor time for a value, from the socket to what a program can use. Beside ours: asyncua's
   handler and iterator, node-opcua's own client
3. the whole path: `oee gateway run`, from the socket to the store's receipt over mosquitto, each record on
   disk before its values are acknowledged. Beside it the naive path: asyncua's handler, JSON and an MQTT
   message for each value, nothing on disk; and thingsboard-gateway up to the broker, nothing on disk either.
   That one is played to after the others: it is never at rest, and would take the processor from them

Those that cost more are given fewer messages; all figures are per value, medians of the rounds.

    python -m benchmarks.edge [--messages 300] [--rounds 5]
"""

import contextlib
import datetime as dt
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from benchmarks.edge_parts import thingsboard
from benchmarks.edge_parts.parts import Part
from benchmarks.edge_parts.plant import (
    ALL_TAGS,
    MACHINES,
    STATES,
    STEP_US,
    TAGS,
    Encoded,
    Tag,
    encode,
    gateway_toml,
    response,
    state_at,
)
from benchmarks.edge_parts.store import Store
from benchmarks.harness import alternate, arguments, conclude, cpu_timed, machine, table, versions
from gateway.sources import stock
from gateway.sources.decoder import Decoder
from tests.support.foreign_server import NodeMissingError, installed
from tests.support.mosquitto import Mosquitto
from tests.support.ports import free_port

FEW: Final = 20
RESTLESS_SECS: Final = 20
"""So often each machine changes its state where no two messages are to look alike."""
GOAL_PER_SEC: Final = 400_000
GOAL_STOCK: Final = 15
GOAL_NODE: Final = 3
GOAL_DECODE: Final = 15
SHARE: Final = {"handler": 0.08, "iterator": 0.08, "naive": 0.03, "node-opcua": 0.35, "thingsboard": 0.07}
"""Of the messages that ours get, what the others get."""
SETTLE_SECS: Final = 3.0
HERE: Final = Path(__file__).parent / "edge_parts"
NOT_MEASURED: Final = {
    "gopcua": "a Go library; no Go toolchain is assumed",
}


class Message(NamedTuple):
    """A publish response and how many values it holds."""

    body: bytes
    values: int


# --- decoding alone ---


def steady(count: int, state_secs: int = 300) -> list[Message]:
    """Return messages in which nearly every tag changes, each time."""
    handles = _handles()
    return [_message(encode(number, _at_us(number), handles, state_secs), number) for number in range(count)]


def restless(count: int) -> list[Message]:
    """Return messages of which no two neighbours are alike: each tells a machine's state as well."""
    return steady(count, RESTLESS_SECS)


def scattered(count: int) -> list[Message]:
    """Return messages of a random half of the tags, in random order of machines, with texts of any length."""
    dice = random.Random(4)
    handles = _handles()
    made = []
    for number in range(count):
        parts: list[Encoded] = []
        for one in dice.sample(range(MACHINES), MACHINES):
            chosen = {(one, tag.name): handles[one, tag.name] for tag in TAGS if dice.random() < 0.5}
            parts.append(encode(dice.randrange(10**6), _at_us(number), chosen, machines=(one,)))
        whole = Encoded(b"".join(part.items for part in parts), sum(part.values for part in parts))
        made.append(_message(whole, number))
    return made


def _at_us(number: int) -> int:
    return 1_790_000_000_000_000 + number * STEP_US


def _handles() -> dict[tuple[int, str], int]:
    return {
        (index, tag.name): index * len(ALL_TAGS) + place
        for index in range(MACHINES)
        for place, tag in enumerate(ALL_TAGS, 1)
    }


def _message(encoded: Encoded, number: int) -> Message:
    body = response(encoded, request=1, subscription=1, sequence=number + 1, at_us=_at_us(number), more=False)
    return Message(body, encoded.values)


def check_encoding() -> None:
    """Compare what the player sends with what asyncua writes; raise SystemExit where they differ."""
    at_us = _at_us(7)
    stamp = dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC)
    change = ua.DataChangeNotification()
    change.MonitoredItems = [
        ua.MonitoredItemNotification(
            ua.UInt32(handle),
            ua.DataValue(ua.Variant(_value(tag, 7, index), tag.kind), None, stamp, stamp),  # type: ignore[arg-type]
        )
        for (index, name), handle in _handles().items()
        for tag in TAGS
        if tag.name == name
    ]
    theirs = ua.PublishResponse()
    theirs.Parameters.SubscriptionId = ua.UInt32(1)
    theirs.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(8)
    theirs.Parameters.NotificationMessage.PublishTime = stamp
    theirs.Parameters.NotificationMessage.NotificationData = [change]
    wanted = stock.decode(struct_to_binary(theirs))
    (ours,) = (stock.decode(one.body) for one in steady(8)[7:])
    if (ours.columns, ours.sequence, ours.published_us) != (
        wanted.columns,
        wanted.sequence,
        wanted.published_us,
    ):
        raise SystemExit("the player does not write what asyncua writes")


def _value(tag: Tag, number: int, index: int) -> Any:
    return tag.value(number, index)


def decoding(messages: list[Message], decode: Callable[[bytes], Any]) -> float:
    """Decode all; return processor time per value [us]."""

    def run() -> None:
        for message in messages:
            decode(message.body)

    return cpu_timed(run) / sum(message.values for message in messages) * 1e6


def _decoded_by_ours(messages: list[Message]) -> Callable[[], float]:
    return lambda: decoding(messages, Decoder().decode)


def decoding_sides(count: int) -> dict[str, Callable[[], float]]:
    """Return the two decoders for each mix, after they have agreed on all of it."""
    sides: dict[str, Callable[[], float]] = {}
    for name, mix in (("steady", steady), ("restless", restless), ("scattered", scattered)):
        messages = mix(count)
        decoder = Decoder()
        if any(decoder.decode(one.body).columns != stock.decode(one.body).columns for one in messages[:FEW]):
            raise SystemExit("the two decoders do not agree")
        sides[f"{name}, ours"] = _decoded_by_ours(messages)
        sides[f"{name}, stock"] = partial(decoding, messages[:FEW], stock.decode)
    return sides


# --- over the wire ---


class Listener:
    """Someone who reads the player, and what was played so far.

    subscription: on the player
    started: [values] that had come before the first message
    """

    def __init__(self, name: str, part: Part, player: Part, messages: int) -> None:
        self.name = name
        self.part = part
        self._player = player
        self._messages = max(3, messages)
        part.answer()
        self.subscription = newest_subscription(player)
        self._started = part.ask(do="count")["values"]
        self._next = 1
        self.played = 0
        self.walls: list[float] = []

    def run(self) -> float:
        """Play; return processor time per value [us]."""
        before = self.part.quiet_cpu_secs()
        done = self._player.ask(
            do="play", subscription=self.subscription, first=self._next, messages=self._messages
        )
        self._next += self._messages
        self.played += done["values"]
        self.walls.append(done["values"] / done["secs"])
        return (self.part.quiet_cpu_secs() - before) / int(done["values"]) * 1e6

    @property
    def lost(self) -> int:
        """Return how many values were played and did not come."""
        return int(self._started + self.played - self.part.ask(do="count")["values"])


def newest_subscription(player: Part) -> int:
    """Return the player's youngest subscription."""
    return int(player.ask(do="subscriptions")[-1][0])


class Gateway:
    """The real daemon, from the socket to the store's receipt.

    records: that the store has, without those of before the first message
    """

    def __init__(self, part: Part, player: Part, store: Store, messages: int, start_us: int) -> None:
        self.part = part
        self._player = player
        self._store = store
        self._messages = messages
        self._start_us = start_us
        deadline = time.monotonic() + 60
        while len({one.machine for one in store.records.values()}) < MACHINES:
            if time.monotonic() > deadline:
                raise SystemExit("the gateway has sent nothing")
            time.sleep(0.1)
        self.subscription = newest_subscription(player)
        self.next = 1
        self.played = 0
        self.walls: list[float] = []

    def run(self) -> float:
        """Play; return processor time per value [us]."""
        before = self.part.quiet_cpu_secs()
        arrived = len(self._store.arrivals)
        done = self._player.ask(
            do="play", subscription=self.subscription, first=self.next, messages=self._messages
        )
        cpu = self.part.quiet_cpu_secs() - before
        self.next += self._messages
        self.played += done["values"]
        # The last interval's records wait for its end, which comes by the clock: they are not of this round.
        whole_secs = (self._start_us + (self.next - 1) * STEP_US) // 1_000_000
        last = max(
            (one.at for one in self._store.arrivals[arrived:] if one.record.epochtime <= whole_secs),
            default=done["began"],
        )
        # from the first message, not from when the player was told to make them
        self.walls.append(done["values"] / max(done["secs"], last - done["began"]))
        return cpu / int(done["values"]) * 1e6

    def lost(self) -> int:
        """Return how many states that were entered, and last totals, the store does not have."""
        time.sleep(SETTLE_SECS)
        there = {(one.machine, one.epoch_us, str(one.state)) for one in self._store.records.values()}
        newest = {
            one.machine: one.total_units
            for one in sorted(self._store.records.values(), key=lambda one: one.epoch_us)
        }
        missing = 0
        for index in range(MACHINES):
            for number, state in self._entered(index):
                at_us = self._start_us + number * STEP_US
                missing += (f"machine-{index}", at_us, STATES[state]) not in there
            missing += newest[f"machine-{index}"] != TAGS[2].value(self.next - 1, index)
        return missing

    def _entered(self, index: int) -> Iterator[tuple[int, int]]:
        for number in range(1, self.next):
            state = state_at(number, index)
            if state != state_at(number - 1, index):
                yield number, state


def node_modules() -> tuple[Path | None, str]:
    """Return where node-opcua's client lies, and why not when it does not."""
    try:
        return installed(), ""
    except (NodeMissingError, subprocess.SubprocessError, OSError) as error:
        return None, str(error)


def cores() -> tuple[int | None, int | None]:
    """Return the core of who is measured, and of all the rest."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (allowed[0], allowed[0])


class Wire(NamedTuple):
    """What the rounds over the wire showed."""

    cost: dict[str, float]
    walls: dict[str, list[float]]
    gateway: Gateway
    lost: int
    records: int


def over_the_wire(folder: Path, messages: int, rounds: int, missing: dict[str, str]) -> Wire:
    """Start everyone, play to each in turn, and end all."""
    measured, rest = cores()
    if rest is not None:
        os.sched_setaffinity(0, {rest})
    start_us = (int(time.time()) - 3600) * 1_000_000
    port = free_port()
    url = f"opc.tcp://127.0.0.1:{port}"
    python = [sys.executable, "-m"]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        os.sched_setaffinity(broker.pid, {rest} if rest is not None else os.sched_getaffinity(0))
        player = Part(
            [*python, "benchmarks.edge_parts.player", str(port), str(start_us)], core=rest, folder=folder
        )
        stack.enter_context(player)
        player.answer()
        listeners: dict[str, Listener] = {}

        def listen(name: str, command: list[str], **environment: str) -> None:
            part = Part(command, core=measured, folder=folder, environment=environment)
            stack.enter_context(part)
            listeners[name] = Listener(name, part, player, round(messages * SHARE.get(name, 1.0)))

        listener = [*python, "benchmarks.edge_parts.listener"]
        for name in ("ours", "handler", "iterator"):
            listen(name, [*listener, name, url])
        listen("naive", [*listener, "naive", url, str(broker.port)])
        modules, why = node_modules()
        if modules is None:
            missing["node-opcua"] = why
        else:
            script = folder / "node_opcua_client.js"
            shutil.copy(HERE / script.name, script)
            (folder / "node_modules").symlink_to(modules)
            tags = ",".join(tag.name for tag in ALL_TAGS)
            listen("node-opcua", ["node", str(script), url, str(MACHINES), tags])
        path = folder / "gateway.toml"
        path.write_text(gateway_toml(str(folder / "data"), url, broker.port))
        store = stack.enter_context(Store(broker.port))
        part = Part([*python, "oee", "gateway", "run", "--config", str(path)], core=measured, folder=folder)
        stack.enter_context(part)
        gateway = Gateway(part, player, store, messages, start_us)
        before = len(store.records)
        sides = {"gateway": gateway.run, **{name: one.run for name, one in listeners.items()}}
        cost = alternate(sides, rounds)
        walls = {"gateway": gateway.walls, **{name: one.walls for name, one in listeners.items()}}
        try:
            few = max(3, round(messages * SHARE["thingsboard"]))
            with thingsboard.reading(url, player, folder, measured, few) as peer:
                cost |= alternate({"thingsboard": peer.run}, rounds)
                walls["thingsboard"] = peer.walls
        except thingsboard.NotInstalledError as error:
            missing["thingsboard-gateway"] = str(error)
        lost = gateway.lost() + listeners["ours"].lost
        return Wire(cost, walls, gateway, lost, len(store.records) - before)


def in_a_folder(messages: int, rounds: int, missing: dict[str, str]) -> Wire:
    """Do all that in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as name:
        return over_the_wire(Path(name), messages, rounds, missing)


def median(values: list[float]) -> float:
    """Return the middle one."""
    return sorted(values)[len(values) // 2]


def show(decoded: dict[str, float], wire: Wire, missing: dict[str, str]) -> None:
    """Print the table."""
    rows = {f"decode, {name}": f"{cost:>8.2f} us CPU/value" for name, cost in decoded.items()}
    names = {
        "ours": "receive, ours",
        "handler": "receive, asyncua's handler",
        "iterator": "receive, asyncua's iterator",
        "node-opcua": "receive, node-opcua's client",
        "naive": "whole path, naive",
        "thingsboard": "whole path, thingsboard-gateway",
        "gateway": "whole path, ours",
    }
    for side, title in names.items():
        if side in wire.cost:
            rows[title] = f"{wire.cost[side]:>8.2f} us CPU/value, {median(wire.walls[side]):>9,.0f} values/s"
    rows["whole path, ours, by its own clock"] = f"{1e6 / wire.cost['gateway']:>8,.0f} values/CPU s"
    rows["values in, records stored, lost"] = f"{wire.gateway.played:,}, {wire.records:,}, {wire.lost:,}"
    rows |= {f"not measured: {name}": why for name, why in missing.items()}
    table(rows)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(f"edge: {machine()}; {versions('asyncua', 'paho-mqtt')}")
    missing = dict(NOT_MEASURED)
    check_encoding()
    decoded = alternate(decoding_sides(100), chosen.rounds)
    try:
        wire = in_a_folder(chosen.messages, chosen.rounds, missing)
    except (
        SystemExit
    ) as error:  # asyncua's server, which the player stands on, at times leaves a client waiting
        print(f"once more, because: {error}", file=sys.stderr)
        wire = in_a_folder(chosen.messages, chosen.rounds, missing)
    show(decoded, wire, missing)
    per_sec = median(wire.walls["gateway"])
    receive = wire.cost["ours"]
    ratios = {
        "stock_asyncua_receive": wire.cost["handler"] / receive,
        "stock_asyncua_iterator_receive": wire.cost["iterator"] / receive,
        "stock_asyncua_decode_worst_mix": min(
            decoded[f"{mix}, stock"] / decoded[f"{mix}, ours"] for mix in ("steady", "restless", "scattered")
        ),
        "naive": per_sec / median(wire.walls["naive"]),
    }
    goals: dict[str, float] = {
        "values_per_sec": GOAL_PER_SEC,
        "stock_asyncua_receive": GOAL_STOCK,
        "stock_asyncua_decode_worst_mix": GOAL_DECODE,
    }
    if "node-opcua" in wire.cost:
        ratios["node_opcua_receive"] = wire.cost["node-opcua"] / receive
        goals["node_opcua_receive"] = GOAL_NODE
    if "thingsboard" in wire.cost:
        ratios["thingsboard_gateway"] = wire.cost["thingsboard"] / wire.cost["gateway"]
    reached = {"values_per_sec": per_sec, **ratios}
    goals_met = {name: reached[name] >= goal for name, goal in goals.items()} | {"lost": not wire.lost}
    conclude(
        "edge",
        per_sec,
        "values/s",
        ratios,
        goals | {"lost": 0},
        met=all(goals_met.values()),
        goals_met=goals_met,
        decode_us_per_value={name: round(cost, 3) for name, cost in decoded.items()},
        values_per_cpu_sec=round(1e6 / wire.cost["gateway"]),
        us_per_value={name: round(cost, 3) for name, cost in wire.cost.items()},
        lost=wire.lost,
        not_measured=sorted(missing),
    )


if __name__ == "__main__":
    main()
