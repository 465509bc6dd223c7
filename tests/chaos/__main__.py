"""`python -m tests.chaos`: play schedules of faults, judge them, and write the reliability page."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.chaos import report
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.trial import Outcome, play

_FAILED_SEEDS = Path(__file__).with_name("failed_seeds.txt")


def one(seed: int, only: str | None, folder: str) -> Outcome:
    """Play one seed; runs in a process of its own."""
    return play(schedule(seed, only=only), Path(folder) / f"seed-{seed}")


def main() -> int:
    """Play what was asked for; returns 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many schedules (default 10)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--seed", type=int, help="play this one only, and keep its logs")
    parser.add_argument("--only", choices=sorted(KINDS), help="take the faults of one kind alone")
    parser.add_argument("--jobs", type=int, default=1, help="so many at a time (default 1)")
    parser.add_argument("--folder", type=Path, help="where logs of failed trials stay")
    parser.add_argument("--report", type=Path, help="write the page here, such as docs/reliability.md")
    parser.add_argument("--results", type=Path, help="add each outcome to this file, one line of JSON")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    console = Console()
    if options.seed is not None:
        outcome = play(schedule(options.seed, only=options.only), folder / f"seed-{options.seed}", keep=True)
        console.print(report.one(outcome))
        console.print(f"logs: {folder}/seed-{options.seed}")
        return int(bool(outcome.faults))
    begun = time.monotonic()
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("schedules", total=options.seeds)
        for outcome in _all(options, folder):
            outcomes.append(outcome)
            progress.advance(bar)
            if options.results is not None:
                with options.results.open("ab") as file:
                    file.write(msgspec.json.encode(outcome) + b"\n")
            if outcome.faults:
                progress.console.print(report.one(outcome))
    console.print(report.summary(outcomes, time.monotonic() - begun))
    if options.report is not None:
        command = " ".join(["make", "chaos", f"SEEDS={options.seeds}"])
        options.report.write_text(report.page(outcomes, command, _failed_seeds()))
        console.print(f"written: {options.report}")
    wrong = [outcome.seed for outcome in outcomes if outcome.faults]
    if wrong:
        console.print(f"seeds with faults: {wrong}; logs: {folder}")
    return int(bool(wrong))


def _all(options: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    seeds = range(options.first, options.first + options.seeds)
    if options.jobs == 1:
        for seed in seeds:
            yield one(seed, options.only, str(folder))
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(one, seed, options.only, str(folder)) for seed in seeds]
        for done in as_completed(waiting):
            yield done.result()


def _failed_seeds() -> list[str]:
    lines = _FAILED_SEEDS.read_text().splitlines() if _FAILED_SEEDS.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


if __name__ == "__main__":
    sys.exit(main())
