"""What was found, for the terminal and for the reliability page."""

import itertools
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import psutil

from tests.chaos.endurance import Measured
from tests.chaos.history import OnceFailed
from tests.chaos.schedule import KINDS
from tests.chaos.trial import Outcome

_ENDURANCE_HEAD: Final = "| row | what | found | promised | holds |\n|---|---|---|---|---|\n"


def one(outcome: Outcome) -> str:
    """Return a few lines about one trial."""
    head = (
        f"seed {outcome.seed} ({', '.join(outcome.kinds) or 'no faults'}): {outcome.moments} moments, "
        f"{outcome.delivered} delivered, {outcome.coalesced} coalesced, {outcome.covered} in gaps, "
        f"{len(outcome.unexplained)} unexplained, {len(outcome.phantoms)} phantoms, "
        f"{len(outcome.duplicates)} duplicates; {outcome.secs:.0f} s"
    )
    recovered = [f"  {kind}: data again after {secs:.2f} s" for kind, secs in outcome.recoveries]
    faults = [f"  WRONG {fault}" for fault in _first(outcome)]
    late = [f"  slow {what}" for what in outcome.slow]
    holes = [f"  hole {what}" for what in outcome.holes]
    return "\n".join([head, *recovered, *late, *holes, *faults]).replace("[", r"\[")


def _first(outcome: Outcome, most: int = 4) -> list[str]:
    kinds = (outcome.unexplained, outcome.phantoms, outcome.duplicates, [*outcome.others, *outcome.busy])
    return [fault for kind in kinds for fault in kind[:most]]


def summary(outcomes: Sequence[Outcome], secs: float) -> str:
    """Return the sums of all trials."""
    return (
        f"{len(outcomes)} schedules in {secs / 60:.1f} min: {sum(o.moments for o in outcomes)} moments, "
        f"{sum(o.delivered for o in outcomes)} delivered, {sum(o.coalesced for o in outcomes)} coalesced, "
        f"{sum(o.covered for o in outcomes)} in recorded gaps; "
        f"unexplained {sum(len(o.unexplained) for o in outcomes)}, "
        f"phantoms {sum(len(o.phantoms) for o in outcomes)}, "
        f"duplicates {sum(len(o.duplicates) for o in outcomes)}, "
        f"other faults {sum(len(o.others) + len(o.busy) for o in outcomes)}, "
        f"later than promised {sum(len(o.slow) for o in outcomes)}, "
        f"holes {sum(len(o.holes) for o in outcomes)}; "
        f"idle alerts: {sum(o.alerts for o in outcomes)} raised, {sum(o.due for o in outcomes)} were due"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _recovery_rows(outcomes: Iterable[Outcome]) -> Iterable[str]:
    played: dict[str, int] = defaultdict(int)
    recovered: dict[str, list[float]] = defaultdict(list)
    wrong: dict[str, int] = defaultdict(int)
    for outcome in outcomes:
        for kind in outcome.kinds:
            played[kind] += 1
            wrong[kind] += bool(outcome.unexplained or outcome.phantoms or outcome.duplicates)
        for kind, secs in outcome.recoveries:
            recovered[kind].append(secs)
    for name, kind in KINDS.items():
        if not played[name]:
            continue
        times = recovered[name]
        median = f"{statistics.median(times):.1f}" if times else ""
        worst = f"{percentile(times, 0.99):.1f}" if times else ""
        promised = f"{kind.promise_secs:g}" if kind.promise_secs is not None else ""
        rows = ", ".join(map(str, kind.rows))
        yield f"| {rows} | {name} | {played[name]} | {wrong[name]} | {len(times)} | {median} | {worst} | {promised} |"


def measured_of(page: str) -> list[Measured]:
    """Return what was measured by itself, as an earlier page tells it; nothing where it tells none."""
    _, _, after = page.partition(_ENDURANCE_HEAD)
    rows = itertools.takewhile(lambda line: line.startswith("|"), after.splitlines())
    found = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    return [
        Measured(row=int(row), what=what, found=said, promised=promised, holds=holds == "yes")
        for row, what, said, promised, holds in found
    ]


def _machine() -> str:
    """Return what this ran on."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores of {platform.machine()}, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def page(
    outcomes: Sequence[Outcome],
    command: str,
    failed: Sequence[OnceFailed],
    measured: Sequence[Measured],
    *,
    jobs: int,
    minutes: float,
) -> str:
    """Return the reliability page.

    jobs, minutes: how many schedules were played at a time, and how long that took in all
    """
    wrong = [outcome for outcome in outcomes if outcome.faults]
    load = os.getloadavg()[2] / (os.cpu_count() or 1)
    sums = {
        "moments that the factory showed": sum(o.moments for o in outcomes),
        "delivered": sum(o.delivered for o in outcomes),
        "coalesced (counters closer than the publish interval)": sum(o.coalesced for o in outcomes),
        "in recorded gaps (nobody could have read them)": sum(o.covered for o in outcomes),
        "**unexplained**": sum(len(o.unexplained) for o in outcomes),
        "**phantoms** (stored, but never true)": sum(len(o.phantoms) for o in outcomes),
        "**duplicates**": sum(len(o.duplicates) for o in outcomes),
        "other faults (figures, needless gaps, false alerts)": sum(
            len(o.others) + len(o.busy) for o in outcomes
        ),
        "later than promised (recoveries, alerts)": sum(len(o.slow) for o in outcomes),
        "in holes (a tag had died without a word, and no look could show it)": sum(
            len(o.holes) for o in outcomes
        ),
        "idle alerts raised": sum(o.alerts for o in outcomes),
        "idle alerts cleared": sum(o.cleared for o in outcomes),
        "idle alerts that were due beyond doubt; one that is missing is a fault": sum(
            o.due for o in outcomes
        ),
        "messages kept as dead letters": sum(o.dead_letters for o in outcomes),
    }
    table = "\n".join(f"| {what} | {count:,} |" for what, count in sums.items())
    recovery = "\n".join(_recovery_rows(outcomes))
    seeds = "\n".join(f"| {one.schedule.seed} | {one.found} | {one.cause} | {one.mended} |" for one in failed)
    late = "\n".join(f"- seed {o.seed}: {_plain(slow)}" for o in outcomes for slow in o.slow)
    holes = "\n".join(f"- seed {o.seed}: {_plain(hole)}" for o in outcomes for hole in o.holes)
    still = "\n".join(f"- seed {o.seed} ({', '.join(o.kinds)}): {_plain(o.faults[0])}" for o in wrong)
    endurance = "\n".join(
        f"| {one.row} | {one.what} | {one.found} | {one.promised} | {'yes' if one.holds else 'NO'} |"
        for one in measured
    )
    return f"""\
# Reliability: what happens when things go wrong

This page is written by the run that it describes: `{command}` makes it again.

## What is promised

- What the edge could read is stored once, as it was, whatever process is killed or stopped, whichever way between
  them breaks, whatever clock jumps and whoever else publishes what.
- What it could not read is told as a gap. What it told of a tag before it noticed that the tag was dead is withdrawn,
  by gaps that begin where each such record begins.
- Figures are those of the factory's own integer arithmetic: units as integers, ratios within 1e-9. Where part of a
  shift is unknown, the truth lies inside the bounds that stand beside the figure.
- A machine that stands idle beyond its threshold raises one alert, no later than 5 s after it; an outage alone raises
  none.

Not promised, in most cases because nobody outside the PLC can know it:

- What a tag did after it had died without a word, where it was back at the value that it told last before two looks,
  5 s apart, had shown another one. A server has to tell when it takes a tag away, and some do not; the gateway then
  learns of it by looking alone. Until it does, the last value stands as if it still held. Such records are counted
  below as *holes*, by the log of faults, and only where no other tag of the record is wrong.
- What a tag told that died so less than 10 s before its PLC did.
- The state at an instant of a machine whose PLC keeps one value per tag and lost some then: that is in a gap.
- Units that were made while a machine's state, or its counter, could not be read, where the counter was set back
  before both could be again: counters of a record of bad quality are not believed.

## How it is judged

Each schedule starts a simulated factory, a broker (mosquitto), the gateway and the cloud side as processes of their
own, with TCP proxies between them, and plays a seeded list of faults. The factory logs each write before it makes it.
When all is quiet again, each write must be *delivered* (one stored record of its instant), *coalesced* (a counter
within the publish interval of the next record) or *covered* by a recorded gap that overlaps a fault which really kept
it from being read; each stored record must be what the tags showed; closed shifts, alerts and what
`oee compute` makes of the stored records are held against the factory's own figures, which share no code with the
product. Machines stand idle beyond their alert's threshold, some of them while the cloud side, the broker or the
gateway is killed just as the alert is raised or cleared: each stand has one alert at most, which comes after the
threshold and is cleared after the stand; and where the cloud side had known of a stand for 5 s, and run, it has one.
A product that was made to err is caught by the same judge (`tests/e2e/test_chaos.py`): one that with each machine
errs in another way (loses, doubles, shifts, invents or miscounts a record, closes a shift with one unit too many,
raises an idle alert twice, never or too late, or never clears it), and two that acknowledge before they commit.

## What was found

{len(outcomes)} schedules in {minutes:.0f} min, {jobs} at a time, on {_machine()}; load {load:.1f} per core in the last
quarter of an hour:

| | |
|---|---:|
{table}

Something was wrong in {len(wrong)} of them{":" if wrong else "."}

{still}

Later than promised{":" if late else " came nothing."}

{late}

In holes{":" if holes else " lay nothing."}

{holes}

## Faults and how soon data flowed again

Counted are the schedules in which a fault was played, those of them in which a record was lost, doubled or invented,
and, where it stood alone, the seconds from its end until something newer was stored by the cloud side: the way from
PLC to disk, publishing interval included, with {jobs} whole factories at a time on the machine above. The numbers are
those of the catalogue in `tests/chaos/schedule.py`.

| row | fault | schedules | with losses | measured | p50 s | p99 s | promised s |
|---|---|---:|---:|---:|---:|---:|---:|
{recovery}

Circumstances of whole trials: servers that take five items per call (6), queues of one value that overflow (6),
counters set back to zero (9), tags that appear three seconds after the port (2), the past played at full speed while
processes are killed (18), and every mixture of these (20).

## Much data, many watchers, long outages, a week late

{_ENDURANCE_HEAD}{endurance}

`python -m tests.chaos.endurance --results FILE` measures these; `--endurance FILE` puts them here, and a run
without it leaves them as they are.

## Play one again

    make chaos SEED=17

plays one schedule and keeps all logs. `python -m tests.chaos --only "kill plc" --seeds 20` plays one kind of fault,
`--tours` the few schedules in which each kind happens once, `--failed` those below.

## Schedules that once failed

Kept whole in `tests/chaos/once_failed.jsonl`. Those in which the product was wrong are played again with every
change, those in which its judge was wrong by `--failed`.

| seed | found | what was wrong | mended by |
|---:|---|---|---|
{seeds}
"""


def _plain(fault: str) -> str:
    """Return the first line of a fault."""
    return fault.splitlines()[0][:160]
