"""A machine as a seeded stochastic process: stretches of one state, and the moments at which its tags change.

Pure: the same machine, seed and origin give the same moments for ever, and any moment can be reached without
playing what lies before it second by second. All instants lie on the tick.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from contract.states import MachineState
from simulator.dice import Dice
from simulator.timetable import US_PER_SEC, Timetable, windows_from

PLC_STATES: Final[dict[MachineState, int]] = {
    MachineState.STOPPED: 0,
    MachineState.RUNNING: 1,
    MachineState.IDLE: 2,
    MachineState.FAULTED: 3,
    MachineState.CHANGEOVER: 4,
    MachineState.PLANNED_STOP: 5,
}
"""What the tag `State` shows."""

BAD_DEVICE_FAILURE: Final = 0x808B0000
"""The OPC UA status while a machine's values cannot be had."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What a machine makes, and its ideal rate [units/min]."""

    name: str
    ideal_run_rate: float


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A way in which a machine stands: how often beside the others, for how long, with which codes."""

    state: MachineState
    weight: float
    mean_secs: float
    shortest_secs: float = 1.0
    codes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How one machine behaves.

    run_mean_secs: mean time between stops
    slowest: the lowest speed as a share of the ideal one; each run draws its own between this and 1
    reject_rate: share of units that are off quality
    startup_rejects: units that are off quality after each changeover
    changeover_every_secs: mean time on one product; 0: never changes
    counter_start: what the total counter shows at the origin
    counter_bits: width at which the counters roll over
    reset_every_secs: mean time between resets of both counters to 0; 0: never
    works_breaks: goes on through breaks and outside shifts
    starved_after_secs: stands idle when the machine before it has stood for longer; 0: not coupled
    bad_every_secs, bad_secs: mean time between losses of its values, and their mean length; 0: never
    """

    name: str
    products: tuple[Product, ...] = (Product(name="SKU-1", ideal_run_rate=203.0),)
    run_mean_secs: float = 420.0
    stops: tuple[Stop, ...] = ()
    slowest: float = 0.88
    reject_rate: float = 0.012
    startup_rejects: int = 0
    changeover_every_secs: float = 0.0
    changeover_mean_secs: float = 600.0
    counter_start: int = 0
    counter_bits: int = 32
    reset_every_secs: float = 0.0
    works_breaks: bool = False
    starved_after_secs: float = 0.0
    bad_every_secs: float = 0.0
    bad_secs: float = 0.0


class Stretch(NamedTuple):
    """A time in one state [us]; while running, one unit leaves every `cycle_us`."""

    start_us: int
    end_us: int
    state: MachineState
    fault_code: int = 0
    product: str = ""
    cycle_us: int = 0


class Moment(NamedTuple):
    """All of a machine's tags at an instant, and the truth behind its counters.

    speed: [units/min]
    made, spoiled: units really counted since the origin, whatever the counters show
    status: OPC UA status of state and counters, 0 is good
    """

    at_us: int
    state: MachineState
    fault_code: int
    product: str
    speed: float
    total_units: int
    off_quality_units: int
    made: int
    spoiled: int
    status: int = 0


def stretches(machine: Machine, seed: object, origin_us: int, tick_us: int) -> Iterator[Stretch]:
    """Yield what the machine would do by itself, for ever."""
    dice = Dice(seed, machine.name, "stretches")
    weights = [stop.weight for stop in machine.stops]
    product = 0
    at_us = origin_us
    next_changeover_us = _after(at_us, dice, machine.changeover_every_secs)
    while True:
        made = machine.products[product]
        speed = made.ideal_run_rate * dice.between(machine.slowest, 1.0)
        end_us = at_us + _ticks(dice.exponential(machine.run_mean_secs), tick_us)
        cycle_us = round(60 * US_PER_SEC / speed)
        yield Stretch(at_us, end_us, MachineState.RUNNING, 0, made.name, cycle_us)
        at_us = end_us
        if next_changeover_us is not None and at_us >= next_changeover_us:
            product = (product + 1) % len(machine.products)
            end_us = at_us + _ticks(machine.changeover_mean_secs * dice.between(0.6, 1.4), tick_us)
            yield Stretch(at_us, end_us, MachineState.CHANGEOVER, 0, machine.products[product].name)
            next_changeover_us = _after(end_us, dice, machine.changeover_every_secs)
        elif machine.stops:
            stop = machine.stops[dice.weighted(weights)]
            length_secs = max(stop.shortest_secs, dice.exponential(stop.mean_secs))
            code = stop.codes[dice.bits() % len(stop.codes)] if stop.codes else 0
            end_us = at_us + _ticks(length_secs, tick_us)
            yield Stretch(at_us, end_us, stop.state, code, made.name)
        at_us = end_us


def overlay(
    own: Iterable[Stretch], above: Iterable[Stretch], hides: Callable[[Stretch], bool] = lambda _: True
) -> Iterator[Stretch]:
    """Lay windows over a machine's own stretches, where `hides` allows; the product stays.

    above: sorted, without overlap; an empty window only says that nothing lies before it
    """
    windows = iter(above)
    window = next(windows, None)
    for stretch in own:
        start_us = stretch.start_us
        while start_us < stretch.end_us:
            while window is not None and (
                window.end_us <= start_us
                or (window.start_us == window.end_us and window.start_us < stretch.end_us)
            ):
                window = next(windows, None)
            if window is None or window.start_us >= stretch.end_us or not hides(stretch):
                yield stretch._replace(start_us=start_us)
                break
            if window.start_us > start_us:
                yield stretch._replace(start_us=start_us, end_us=window.start_us)
                start_us = window.start_us
            end_us = min(window.end_us, stretch.end_us)
            yield Stretch(start_us, end_us, window.state, window.fault_code, stretch.product)
            start_us = end_us


def closed(timetable: Timetable, origin_us: int) -> Iterator[Stretch]:
    """Yield when a machine stands because nobody works: between shifts, in breaks and planned stops."""
    at_us = origin_us
    for window in windows_from(timetable, origin_us):
        if window.start_us > at_us:
            yield Stretch(at_us, window.start_us, MachineState.STOPPED)
        pauses = [Stretch(a, b, MachineState.STOPPED) for a, b in window.breaks]
        pauses += [Stretch(a, b, MachineState.PLANNED_STOP) for a, b in window.planned_stops]
        at_us = max(at_us, window.start_us)
        for pause in sorted(pauses):
            if pause.end_us > at_us:
                yield pause._replace(start_us=max(pause.start_us, at_us))
                at_us = pause.end_us
        yield Stretch(window.end_us, window.end_us, MachineState.STOPPED)
        at_us = max(at_us, window.end_us)


def starved(upstream: Iterable[Stretch], after_us: int) -> Iterator[Stretch]:
    """Yield when nothing arrives from the machine before, which has stood for longer than after_us."""
    stands_since_us: int | None = None
    for stretch in upstream:
        if stretch.state is MachineState.RUNNING:
            stands_since_us = None
        else:
            if stands_since_us is None:
                stands_since_us = stretch.start_us
            start_us = max(stretch.start_us, stands_since_us + after_us)
            if start_us < stretch.end_us:
                yield Stretch(start_us, stretch.end_us, MachineState.IDLE)
        yield Stretch(stretch.end_us, stretch.end_us, MachineState.IDLE)


def is_running(stretch: Stretch) -> bool:
    """Tell whether units leave the machine."""
    return stretch.state is MachineState.RUNNING


def moments(
    machine: Machine,
    behaviour: Iterable[Stretch],
    seed: object,
    origin_us: int,
    tick_us: int,
    *,
    from_us: int | None = None,
) -> Iterator[Moment]:
    """Yield the instants at which a tag changes; units show on the tick by which they were complete.

    from_us: [us] on the tick; begin with a moment at this instant, as if watched since the origin
    """
    watched_us = origin_us if from_us is None else from_us
    counters = _Counters(machine, seed)
    dice = Dice(seed, machine.name, "resets")
    reset_us = _after(origin_us, dice, machine.reset_every_secs)
    was_changeover = False
    for stretch in behaviour:
        running = is_running(stretch)
        if running and was_changeover:
            counters.startup_left = machine.startup_rejects
        was_changeover = stretch.state is MachineState.CHANGEOVER or (was_changeover and not running)
        if stretch.start_us >= watched_us:
            yield counters.moment(stretch, stretch.start_us)
        if not running:
            if stretch.start_us < watched_us < stretch.end_us:
                yield counters.moment(stretch, watched_us)
            continue
        counted = 0
        at_us = stretch.start_us
        while at_us < stretch.end_us:
            at_us = _next_tick(at_us, stretch.end_us, watched_us, reset_us, tick_us)
            resets = reset_us is not None and reset_us <= at_us < stretch.end_us
            complete = (at_us - stretch.start_us) // stretch.cycle_us
            if resets:
                # The units of this very tick show on the next one, so that the counters are seen at 0.
                complete = max(counted, (at_us - tick_us - stretch.start_us) // stretch.cycle_us)
                counters.count(complete - counted)
                counters.reset()
                # Never twice in a row: what was made in between would never be shown.
                reset_us = _after(at_us + 2 * tick_us, dice, machine.reset_every_secs)
            elif complete > counted:
                counters.count(complete - counted)
            elif at_us != watched_us:
                continue
            counted = complete
            if watched_us <= at_us < stretch.end_us:
                yield counters.moment(stretch, at_us)


def unreadable(
    machine: Machine, shown: Iterable[Moment], seed: object, origin_us: int, tick_us: int
) -> Iterator[Moment]:
    """Let the machine's values be bad for a while now and then."""
    dice = Dice(seed, machine.name, "quality")
    start_us = _after(origin_us, dice, machine.bad_every_secs)
    if start_us is None:
        yield from shown
        return
    end_us = start_us + _ticks(dice.exponential(machine.bad_secs), tick_us)
    last: Moment | None = None
    for moment in shown:
        while end_us <= moment.at_us:
            if last is not None and last.at_us < start_us:
                yield last._replace(at_us=start_us, status=BAD_DEVICE_FAILURE)
            if last is not None and last.at_us < end_us < moment.at_us:
                yield last._replace(at_us=end_us)
            start_us = _after(end_us, dice, machine.bad_every_secs) or end_us
            start_us += -(start_us - origin_us) % tick_us
            end_us = start_us + _ticks(dice.exponential(machine.bad_secs), tick_us)
        if last is not None and last.at_us < start_us < moment.at_us:
            yield last._replace(at_us=start_us, status=BAD_DEVICE_FAILURE)
        last = moment
        yield moment._replace(status=BAD_DEVICE_FAILURE) if start_us <= moment.at_us < end_us else moment


class _Counters:
    """What the machine has made, and what its counters show of it."""

    def __init__(self, machine: Machine, seed: object) -> None:
        self._machine = machine
        self._dice = Dice(seed, machine.name, "rejects")
        self._made = self._spoiled = 0
        self._made_at_reset = -machine.counter_start
        self._spoiled_at_reset = 0
        self._wrap = 2**machine.counter_bits
        self._until_reject = self._wait()
        self.startup_left = 0

    def count(self, units: int) -> None:
        """Count so many more units, some of them off quality."""
        self._made += units
        startup = min(units, self.startup_left)
        self.startup_left -= startup
        self._spoiled += startup
        self._until_reject -= units - startup
        while self._until_reject <= 0:
            self._spoiled += 1
            self._until_reject += self._wait()

    def reset(self) -> None:
        """Show 0 from now on."""
        self._made_at_reset, self._spoiled_at_reset = self._made, self._spoiled

    def moment(self, stretch: Stretch, at_us: int) -> Moment:
        """Return what the tags show."""
        return Moment(
            at_us,
            stretch.state,
            stretch.fault_code,
            stretch.product,
            round(60 * US_PER_SEC / stretch.cycle_us, 3) if stretch.cycle_us else 0.0,
            (self._made - self._made_at_reset) % self._wrap,
            (self._spoiled - self._spoiled_at_reset) % self._wrap,
            self._made,
            self._spoiled,
        )

    def _wait(self) -> int:
        rate = self._machine.reject_rate
        return self._dice.waiting(rate) if rate > 0 else 2**62


def _next_tick(at_us: int, end_us: int, watched_us: int, reset_us: int | None, tick_us: int) -> int:
    """Return the next instant to look at: each tick when watched, else only what changes the course."""
    if at_us >= watched_us:
        return min(at_us + tick_us, end_us)
    target_us = min(end_us, watched_us)
    if reset_us is not None and at_us < reset_us < target_us:
        due_us = reset_us + -(reset_us - at_us) % tick_us
        target_us = min(target_us, due_us)
    elif reset_us is not None and reset_us <= at_us:
        target_us = min(target_us, at_us + tick_us)
    return target_us


def _ticks(length_secs: float, tick_us: int) -> int:
    return max(1, round(length_secs * US_PER_SEC / tick_us)) * tick_us


def _after(at_us: int, dice: Dice, mean_secs: float) -> int | None:
    return at_us + _ticks(dice.exponential(mean_secs), 1_000_000) if mean_secs > 0 else None
