"""A factory's telemetry straight from the model, with no servers and no clock."""

import heapq
import itertools
from collections.abc import Iterable, Iterator

from msgspec import UNSET

from contract.states import MachineState
from contract.telemetry import Telemetry
from simulator.factory import Factory, Line, Run, Tagged
from simulator.timetable import US_PER_SEC


def telemetry(
    run: Run,
    to_us: int,
    *,
    gateway: str = "gw-packaging",
    heartbeat_secs: float = 10.0,
    first_sequence: int = 1,
) -> Iterator[Telemetry]:
    """Yield what a perfect gateway would have sent until to_us [us]: each change, and heartbeats."""
    shown = moments(run, to_us)
    yield from told(
        run.factory,
        shown,
        to_us,
        gateway=gateway,
        heartbeat_secs=heartbeat_secs,
        first_sequence=first_sequence,
    )


def told(
    factory: Factory,
    shown: Iterable[Tagged],
    to_us: int,
    *,
    gateway: str = "gw-packaging",
    heartbeat_secs: float = 10.0,
    first_sequence: int = 1,
) -> Iterator[Telemetry]:
    """Yield what a perfect gateway would have sent of moments before to_us [us], and its heartbeats."""
    sequences = itertools.count(first_sequence)
    for tagged in _with_heartbeats(shown, to_us, round(heartbeat_secs * US_PER_SEC)):
        yield record(factory, tagged, gateway, next(sequences))


def moments(run: Run, to_us: int) -> Iterator[Tagged]:
    """Yield the moments of all machines before to_us, in order of time."""

    def of(line: Line) -> Iterator[Tagged]:
        return itertools.takewhile(lambda tagged: tagged.moment.at_us < to_us, run.line_moments(line))

    return heapq.merge(*map(of, run.factory.lines), key=lambda tagged: tagged.moment.at_us)


def record(factory: Factory, tagged: Tagged, gateway: str, sequence: int) -> Telemetry:
    """Return a moment as the contract has it."""
    moment = tagged.moment
    bad = moment.status != 0
    return Telemetry(
        epochtime=moment.at_us / US_PER_SEC,
        site=factory.site,
        area=factory.area,
        line=tagged.line,
        machine=tagged.machine,
        state=MachineState.UNKNOWN if bad else moment.state,
        total_units=UNSET if bad else moment.total_units,
        off_quality_units=UNSET if bad else moment.off_quality_units,
        reason_code=moment.fault_code or UNSET,
        product=moment.product,
        gateway=gateway,
        sequence=sequence,
        data_quality="bad" if bad else "good",
        status="BadDeviceFailure" if bad else UNSET,
    )


def _with_heartbeats(shown: Iterable[Tagged], to_us: int, every_us: int) -> Iterator[Tagged]:
    """Repeat each machine's last moment so often that silence means something."""
    last: dict[str, Tagged] = {}
    for tagged in itertools.chain(shown, [None]):
        now_us = to_us if tagged is None else tagged.moment.at_us
        due = [item for item in last.values() if item.moment.at_us + every_us < now_us]
        while due:
            due.sort(key=lambda item: item.moment.at_us)
            again = due[0]._replace(moment=due[0].moment._replace(at_us=due[0].moment.at_us + every_us))
            last[f"{again.line}/{again.machine}"] = again
            yield again
            due = [again, *due[1:]] if again.moment.at_us + every_us < now_us else due[1:]
        if tagged is not None:
            last[f"{tagged.line}/{tagged.machine}"] = tagged
            yield tagged
