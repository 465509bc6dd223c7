"""`python -m tests.chaos`: play schedules of faults, judge them, and write the reliability page."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.chaos import report
from tests.chaos.endurance import Measured
from tests.chaos.history import once_failed
from tests.chaos.schedule import KINDS, Schedule, schedule, tours
from tests.chaos.trial import Outcome, play_all


def main() -> int:
    """Play what was asked for; returns 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many schedules (default 10)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--seed", type=int, help="play this one only, and keep its logs")
    parser.add_argument("--schedule", type=Path, help="play the schedule in this file, and keep its logs")
    parser.add_argument("--tours", action="store_true", help="play the few in which each fault happens once")
    parser.add_argument("--failed", action="store_true", help="play all schedules that once failed")
    parser.add_argument("--only", choices=sorted(KINDS), help="take the faults of one kind alone")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time (default 1)")
    parser.add_argument("--folder", type=Path, help="where logs of failed trials stay")
    parser.add_argument("--report", type=Path, help="write the page here, such as docs/reliability.md")
    parser.add_argument("--endurance", type=Path, help="what `python -m tests.chaos.endurance` wrote")
    parser.add_argument("--results", type=Path, help="add each outcome to this file, one line of JSON")
    parser.add_argument("--resume", action="store_true", help="take what --results has instead of playing it")
    options = parser.parse_args()
    if options.resume and options.results is None:
        parser.error("--resume needs --results")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    console = Console(soft_wrap=True)
    planned = _asked_for(options)
    keep = options.seed is not None or options.schedule is not None
    measured = _measured(options.endurance, options.report)
    begun = time.monotonic()
    outcomes = _played_before(options.results, planned) if options.resume else []
    earlier_secs = sum(outcome.secs for outcome in outcomes) / options.jobs
    known = {outcome.seed for outcome in outcomes}
    planned = [one for one in planned if one.seed not in known]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("schedules", total=len(planned))
        for outcome in play_all(planned, folder, jobs=options.jobs, keep=keep):
            outcomes.append(outcome)
            progress.advance(bar)
            if options.results is not None:
                with options.results.open("ab") as file:
                    file.write(msgspec.json.encode(outcome) + b"\n")
            if outcome.faults or keep:
                progress.console.print(report.one(outcome))
    if keep:
        console.print(f"logs: {folder}/seed-{planned[0].seed}")
        return int(bool(outcomes[0].faults))
    secs = earlier_secs + time.monotonic() - begun
    console.print(report.summary(outcomes, secs))
    if options.report is not None:
        command = f"make chaos SEEDS={options.seeds} JOBS={options.jobs} ARGS='--report {options.report}'"
        options.report.write_text(
            report.page(
                outcomes,
                command,
                once_failed(),
                measured,
                jobs=options.jobs,
                minutes=secs / 60,
            )
        )
        console.print(f"written: {options.report}")
    wrong = [outcome.seed for outcome in outcomes if outcome.faults]
    if wrong:
        console.print(f"seeds with faults: {wrong}; logs: {folder}")
    return int(bool(wrong))


def _played_before(results: Path, planned: Sequence[Schedule]) -> list[Outcome]:
    """Return the last outcome of each of these schedules that a run before this one has noted."""
    if not results.exists():
        return []
    noted = [msgspec.json.decode(line, type=Outcome) for line in results.read_bytes().splitlines()]
    last = {outcome.seed: outcome for outcome in noted}
    return [last[one.seed] for one in planned if one.seed in last]


def _measured(endurance: Path | None, page: Path | None) -> list[Measured]:
    """Return what was measured by itself: just now, or as the page has it that is to be written anew."""
    if endurance is not None:
        return msgspec.json.decode(endurance.read_bytes(), type=list[Measured])
    return report.measured_of(page.read_text()) if page is not None and page.exists() else []


def _asked_for(options: argparse.Namespace) -> list[Schedule]:
    """Return the schedules to play."""
    if options.schedule is not None:
        return [msgspec.json.decode(options.schedule.read_bytes(), type=Schedule)]
    if options.failed:
        return [one.schedule for one in once_failed()]
    if options.tours:
        return tours()
    if options.seed is not None:
        return [schedule(options.seed, only=options.only)]
    seeds = range(options.first, options.first + options.seeds)
    return [schedule(seed, only=options.only) for seed in seeds]


if __name__ == "__main__":
    sys.exit(main())
