"""How each kind of fault is done to a running system, and undone."""

import json
import random
import resource
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.factory import BAD, ODD, UNCERTAIN, UNSTAMPED
from tests.chaos.listener import Listener
from tests.chaos.proxies import Mode, Proxies
from tests.chaos.schedule import KINDS, Fault, Stand
from tests.support.judge import Span
from tests.support.kept import US
from tests.support.whole_system import Part, WholeSystem

WAYS: Final = {"plc way": "plc", "gateway uplink": "uplink", "cloud downlink": "downlink"}
_MODES: Final[dict[str, Mode]] = {
    "refuse": "refuse",
    "hang": "hang",
    "one-way": "one_way",
    "delay": "delay",
    "trickle": "trickle",
}
_REPLAYED: Final = 150
_IDLE_SOCKETS: Final = 60


@dataclass
class Ground:
    """What faults are done to."""

    system: WholeSystem
    proxies: Proxies
    listener: Listener
    dice: random.Random
    spans: list[Span] = field(default_factory=list)
    malformed: int = 0
    over_us: int = 0
    """When the factory was asked to end."""
    _sockets: list[socket.socket] = field(default_factory=list)

    @property
    def machines(self) -> list[str]:
        """Return `line/machine` of every machine."""
        return [
            f"{line.name}/{machine.name}"
            for line in self.system.scenario.factory.lines
            for machine in line.machines
        ]

    def part(self, name: str) -> Part:
        """Return a process by the name that schedules use."""
        return {"gateway": self.system.gateway, "cloud": self.system.cloud, "plc": self.system.simulator}[
            name
        ]

    def order(self, **order: object) -> None:
        """Tell the factory to do something."""
        if self.system.simulator.is_running:
            self.system.simulator.tell(json.dumps(order))

    def hold_sockets(self, count: int, port: int) -> None:
        """Open connections that ask for something and never read the answer."""
        for _ in range(count):
            try:
                opened = socket.create_connection(("127.0.0.1", port), timeout=2)
                opened.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
            except OSError:
                continue
            self._sockets.append(opened)

    def drop_sockets(self) -> None:
        """Close them."""
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()


class Doing(NamedTuple):
    """A fault under way: how to end it."""

    fault: Fault
    begun_us: int
    end: Callable[[], None]


def now_us() -> int:
    """Return the time [us since 1970]."""
    return time.time_ns() // 1000


def begin(fault: Fault, ground: Ground) -> Doing:
    """Do a fault; `finish` undoes it."""
    begun_us = now_us()
    return Doing(fault, begun_us, _begin(fault, ground))


def finish(doing: Doing, ground: Ground) -> Span:
    """Undo a fault; returns when it was."""
    doing.end()
    about = (
        (_machine_of(doing.fault, ground), _tag_of(doing.fault)) if doing.fault.kind == "delete tag" else ()
    )
    span = Span(doing.begun_us, now_us(), doing.fault.kind, *about)
    ground.spans.append(span)
    return span


def let_stand(stand: Stand, ground: Ground) -> None:
    """Let a machine stand idle."""
    ground.order(do="stand", machine=_machine_of(stand, ground), secs=stand.secs)


def _nothing() -> None:
    pass


def _begin(fault: Fault, ground: Ground) -> Callable[[], None]:
    what, _, whom = fault.kind.partition(" ")
    match what:
        case "kill":
            return _kill(whom, ground)
        case "stop":
            return _stop(whom, ground)
        case "reset":
            ground.proxies.reset(WAYS[whom])
        case "truncate":
            ground.proxies.truncate(WAYS[whom], round(fault.detail * 200))
        case "refuse" | "hang" | "one-way" | "delay" | "trickle":
            ground.proxies.turn(WAYS[whom], _MODES[what])
            return lambda: ground.proxies.turn(WAYS[whom], "pass")
        case "disk":
            return _fill_disk(ground.part(whom.rpartition(" ")[2]))
        case "clock":
            return _turn_clock(fault.kind, ground)
        case _:
            return _SPECIAL[fault.kind](fault, ground)
    return _nothing


def _kill(whom: str, ground: Ground) -> Callable[[], None]:
    if whom == "broker":
        ground.system.broker.kill()
        return ground.system.broker.start
    part = ground.part(whom)
    part.kill()
    return part.start


def _stop(whom: str, ground: Ground) -> Callable[[], None]:
    if whom == "broker":
        ground.system.broker.freeze()
        return ground.system.broker.thaw
    part = ground.part(whom)
    part.signal(signal.SIGSTOP)
    return lambda: part.signal(signal.SIGCONT)


def _fill_disk(part: Part) -> Callable[[], None]:
    """Let a process write no byte to any file."""
    if not part.is_running:
        return _nothing
    _, hard = resource.prlimit(part.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(part.pid, resource.RLIMIT_FSIZE, (0, hard))

    def free() -> None:
        if part.is_running:
            resource.prlimit(part.pid, resource.RLIMIT_FSIZE, (hard, hard))

    return free


CLOCK_LIBRARY: Final = next(
    (found for base in ("/usr/lib", "/usr/lib64") for found in Path(base).glob("**/libfaketimeMT.so.1")), None
)
"""Debian's libfaketime: lets a process read another time than the machine's."""
_TURNS: Final = {"hour": 3600, "year": 365 * 86_400}


def clock_environment(clock: Path) -> dict[str, str]:
    """Return the environment of a process whose clock is turned by writing into a file."""
    assert CLOCK_LIBRARY is not None, "clock faults need libfaketime: packaging/system-packages faketime"
    clock.write_text("+0")
    return {
        "LD_PRELOAD": str(CLOCK_LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _turn_clock(kind: str, ground: Ground) -> Callable[[], None]:
    """Let a process's clock jump, and jump back in the end."""
    _, _, span, way, _, whom = kind.split()
    clock = ground.system.folder / f"{whom}.clock"
    clock.write_text(f"{'+' if way == 'ahead' else '-'}{_TURNS[span]}")

    def set_right() -> None:
        clock.write_text("+0")

    return set_right


def _expire_sessions(_fault: Fault, ground: Ground) -> Callable[[], None]:
    ground.order(do="expire_sessions")
    return _nothing


def _drop_subscriptions(_fault: Fault, ground: Ground) -> Callable[[], None]:
    ground.order(do="drop_subscriptions")
    return _nothing


def _machine_of(chosen: Fault | Stand, ground: Ground) -> str:
    """Return the machine that a fault, or a stand, is about."""
    return ground.machines[int(chosen.detail * len(ground.machines))]


def _tag_of(fault: Fault) -> str:
    """Return the tag that is taken away."""
    return ("State", "TotalUnits", "OffQualityUnits", "Product")[int(fault.detail * 97) % 4]


def _delete_tag(fault: Fault, ground: Ground) -> Callable[[], None]:
    machine, tag = _machine_of(fault, ground), _tag_of(fault)
    ground.order(do="delete_tag", machine=machine, tag=tag)
    return lambda: ground.order(do="restore_tag", machine=machine, tag=tag)


def _distort(status: int) -> Callable[[Fault, Ground], Callable[[], None]]:
    def begin_it(fault: Fault, ground: Ground) -> Callable[[], None]:
        machine = _machine_of(fault, ground)
        ground.order(do="distort", machine=machine, status=status)
        return lambda: ground.order(do="set_right", machine=machine)

    return begin_it


def _replay(_fault: Fault, ground: Ground) -> Callable[[], None]:
    for topic, payload in ground.listener.some_messages(ground.dice, _REPLAYED):
        ground.listener.publish(topic, payload)
    return _nothing


def _malformed(_fault: Fault, ground: Ground) -> Callable[[], None]:
    site, area = ground.system.scenario.factory.site, ground.system.scenario.factory.area
    line, machine = ground.machines[0].split("/")
    topic = f"oee/v1/{site}/{area}/{line}/{machine}/telemetry"
    for payload in malformed_payloads(site, area, line, machine):
        ground.listener.publish(topic, payload)
        ground.malformed += 1
    return _nothing


def malformed_payloads(site: str, area: str, line: str, machine: str) -> list[bytes]:
    """Return what the contract refuses, each for another reason."""
    good = {
        "epochtime": time.time(),
        "site": site,
        "area": area,
        "line": line,
        "machine": machine,
        "state": "running",
        "total_units": 1,
        "off_quality_units": 0,
        "gateway": "intruder",
        "sequence": 1,
    }

    def changed(**changes: object) -> bytes:
        return json.dumps({**good, **changes}).encode()

    text = json.dumps(good)
    return [
        b"",
        b"not json",
        b"\xff\xfe{}",
        text[:-20].encode(),
        changed(total_units=float("nan")),
        changed(epochtime=float("inf")),
        changed(total_units="17"),
        changed(total_units=True),
        changed(total_units=2**60),
        changed(state="flying"),
        changed(machine="another"),
        changed(epochtime=time.time() + 86_400),
        changed(extra={"a": {"b": {"c": {"d": {"e": 1}}}}}),
        text.replace('"state"', '"machine": "x", "state"').encode(),
        changed(tags={"t": "x" * 200_000}),
    ]


def _slow_dashboards(_fault: Fault, ground: Ground) -> Callable[[], None]:
    ground.hold_sockets(_IDLE_SOCKETS, ground.system.web_port)
    return ground.drop_sockets


_SPECIAL: Final[dict[str, Callable[[Fault, Ground], Callable[[], None]]]] = {
    "expire sessions": _expire_sessions,
    "drop subscriptions": _drop_subscriptions,
    "delete tag": _delete_tag,
    "bad values": _distort(BAD),
    "uncertain values": _distort(UNCERTAIN),
    "odd values": _distort(ODD),
    "unstamped values": _distort(UNSTAMPED),
    "replay messages": _replay,
    "malformed messages": _malformed,
    "slow dashboards": _slow_dashboards,
}


def unknown_kinds() -> list[str]:
    """Return kinds that a schedule may draw and nobody can do; a test holds this empty."""
    verbs = {"kill", "stop", "reset", "truncate", "disk", "clock", *_MODES}
    return [name for name in KINDS if name.partition(" ")[0] not in verbs and name not in _SPECIAL]


def wait_us(until_us: int) -> None:
    """Sleep until a time."""
    while (left_us := until_us - now_us()) > 0:
        time.sleep(min(left_us / US, 0.05))
