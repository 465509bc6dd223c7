"""What was found, for the terminal and for the reliability page."""

import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.chaos.history import OnceFailed
from tests.chaos.schedule import KINDS
from tests.chaos.trial import Outcome


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
    return "\n".join([head, *recovered, *faults]).replace("[", r"\[")


def _first(outcome: Outcome, most: int = 4) -> list[str]:
    kinds = (outcome.unexplained, outcome.phantoms, outcome.duplicates, outcome.others)
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
        f"other faults {sum(len(o.others) for o in outcomes)}"
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


def page(outcomes: Sequence[Outcome], command: str, failed: Sequence[OnceFailed]) -> str:
    """Return the reliability page."""
    total = len(outcomes)
    sums = {
        "moments that the factory showed": sum(o.moments for o in outcomes),
        "delivered": sum(o.delivered for o in outcomes),
        "coalesced (counters closer than the publish interval)": sum(o.coalesced for o in outcomes),
        "in recorded gaps (nobody could have read them)": sum(o.covered for o in outcomes),
        "unexplained": sum(len(o.unexplained) for o in outcomes),
        "phantoms (stored, but never true)": sum(len(o.phantoms) for o in outcomes),
        "duplicates": sum(len(o.duplicates) for o in outcomes),
        "other faults (figures, needless gaps, promises)": sum(len(o.others) for o in outcomes),
        "malformed messages kept as dead letters": sum(o.dead_letters for o in outcomes),
    }
    table = "\n".join(f"| {what} | {count:,} |" for what, count in sums.items())
    recovery = "\n".join(_recovery_rows(outcomes))
    seeds = "\n".join(f"| {one.schedule.seed} | {one.found} | {one.cause} | {one.mended} |" for one in failed)
    return f"""\
# Reliability: what happens when things go wrong

This page is written by the run that it describes: `{command}` makes it again. Each schedule starts a simulated
factory, a broker, the gateway and the cloud side as processes of their own, with TCP proxies between them, and plays
a seeded list of faults. The factory logs each write before it makes it; when all is quiet again, everything that is
stored is held against that log, and every figure against the factory's own integer arithmetic.

{total} schedules on {platform.machine()}, {platform.system()}, Python {platform.python_version()}:

| | |
|---|---:|
{table}

## Faults and how soon data flowed again

Counted are the schedules in which a fault was played, those of them in which a record was lost, doubled or invented,
and, where it stood alone, the seconds from its end until something newer was stored by the cloud side: the way from
PLC to disk, publishing interval included. The numbers are those of the catalogue in `tests/chaos/schedule.py`.

| row | fault | schedules | with losses | measured | p50 s | p99 s | promised s |
|---|---|---:|---:|---:|---:|---:|---:|
{recovery}

Circumstances of whole trials: servers that take five items per call (6), queues of one value that overflow (6),
counters set back to zero (9), tags that appear three seconds after the port (2), the past played at full speed while
processes are killed (18), and every mixture of these (20).

## Play one again

    python -m tests.chaos --seed 17

plays one schedule and keeps all logs. `python -m tests.chaos --only "kill plc" --seeds 20` plays one kind of fault.

## Schedules that once failed

Kept whole in `tests/chaos/once_failed.jsonl`, and played again with every change (`python -m tests.chaos --failed`).

| seed | found | what was wrong | mended by |
|---:|---|---|---|
{seeds}
"""
