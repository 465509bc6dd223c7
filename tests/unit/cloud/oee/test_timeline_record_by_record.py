"""The timeline against a slow one that walks from record to record and shares no code with it."""

from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from math import floor

from hypothesis import given, settings

from cloud.oee.records import Names
from cloud.oee.timeline import build
from contract.delivery import Gap
from contract.states import MachineState
from tests.support.telemetry import MACHINES, SEC, any_rules, as_records, cuts, histories, rules, whole

EDGES = list(range(0, 1000, 20))
UNKNOWN = MachineState.UNKNOWN


def walked(items, how, until):
    """Return (time in each state by interval and machine, units and off quality by interval and machine)."""
    times, units = defaultdict(Fraction), defaultdict(lambda: [0, 0])
    for machine, key in enumerate(MACHINES):
        mine = [item for item in items if item.machine_key == key]
        mine.sort(key=lambda item: (moment(item), item.gateway, item.sequence))
        walk_states(machine, mine, how, until, times)
        walk_counters(machine, mine, how, units)
    return times, units


def moment(item):
    return Fraction(item.from_epochtime if isinstance(item, Gap) else item.epochtime)


def is_blind(item):
    return isinstance(item, Gap) or item.data_quality == "bad"


def walk_states(machine, items, how, until, times):
    gap = Fraction(how["max_gap_us"], SEC)
    at, state, believed_until = Fraction(0), UNKNOWN, Fraction(until)
    for item in [*items, None]:
        time = min(moment(item), until) if item else Fraction(until)
        spend(machine, at, min(time, believed_until), state, times)
        spend(machine, min(time, max(at, believed_until)), time, UNKNOWN, times)
        if item:
            told = UNKNOWN if is_blind(item) else item.state
            state = state if how["hold"] and told is UNKNOWN else told
            at = time
            believed_until = Fraction(until) if how["hold"] else time + gap


def spend(machine, start, end, state, times):
    for low, high in pairwise(EDGES):
        if (share := min(end, high) - max(start, low)) > 0:
            times[machine, low, state] += share


def walk_counters(machine, items, how, units):
    seen: dict = {}
    for item in items:
        if is_blind(item):
            continue
        told = {
            name: value
            for name in ("total_units", "off_quality_units", "good_units")
            if isinstance(value := getattr(item, name), int)
        }
        pairs = dict(told)
        if "total_units" in told and "good_units" in told:
            pairs["total beside good"] = told["total_units"]
        made = {}
        for name, value in pairs.items():
            since, highest = seen.get(name, (moment(item), value))
            made[name] = (since, *step(highest, value, how))
            seen[name] = (moment(item), made[name][2])
        for name, (since, count, _) in made.items():
            total, off = 0, 0
            if name == "total_units":
                total = count
            elif name == "off_quality_units":
                total, off = (0 if "total_units" in told else count), count
            elif name == "good_units":
                total = 0 if "total_units" in told else count
                off = -count if "total_units" in told and "off_quality_units" not in told else 0
            elif "off_quality_units" not in told:
                off = count
            seen.setdefault("parts", {}).setdefault((since, moment(item)), []).append((total, off))
    for (since, until), parts in seen.get("parts", {}).items():
        total, off = sum(part[0] for part in parts), sum(part[1] for part in parts)
        for low, (more, bad) in shared(since, until, total, off, how):
            units[machine, low][0] += more
            units[machine, low][1] += bad


def step(highest, value, how):
    if value >= highest:
        return value - highest, value
    if highest - value <= how["jitter"]:
        return 0, highest
    width = how["modulus"]
    if width and width * 3 <= highest * 4 < width * 4 and value + width - highest < width / 2:
        return value + width - highest, value
    return value, value


def shared(since, until, total, off, how):
    """Yield (edge, (total, off)) for each interval that the units belong to."""
    if not how["proportional"] or since == until:
        yield max(edge for edge in EDGES if edge < until), (total, off)
        return
    for low, high in pairwise(EDGES):
        if low < until and high > since:
            begin = (max(Fraction(low), since) - since) / (until - since)
            end = (min(Fraction(high), until) - since) / (until - since)
            good = floor((total - off) * end) - floor((total - off) * begin)
            bad = floor(off * end) - floor(off * begin)
            yield low, (good + bad, bad)


@settings(max_examples=150, deadline=None)
@given(histories(), any_rules())
def test_the_timeline_is_that_of_a_walk(items, how):
    names = Names()
    every, edges = as_records(items, names), cuts(*EDGES)
    segments, counts = whole(build(every, rules(names, **how), edges), 0, 900, rules(names, **how), edges)
    times, units = walked(items, how, 900)
    found = defaultdict(Fraction)
    for machine, start, end, state, *_ in segments:
        spend(machine, Fraction(start, SEC), Fraction(end, SEC), list(MachineState)[state], found)
    assert found == times
    made = defaultdict(lambda: [0, 0])
    for machine, at_us, *_, total, off in counts:
        made[machine, at_us // SEC][0] += total
        made[machine, at_us // SEC][1] += off
    assert {key: pair for key, pair in made.items() if pair != [0, 0]} == {
        key: pair for key, pair in units.items() if pair != [0, 0]
    }
