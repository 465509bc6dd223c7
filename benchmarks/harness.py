"""What benchmarks do alike: state the machine, alternate the sides, print a table and one JSON line."""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Side = Callable[[], float]
"""One run of one side; returns its figure, in the benchmark's unit or in what the table's column says."""


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the benchmark's own description."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def machine() -> str:
    """Return one line about where this runs."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown processor",
    )
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def versions(*packages: str) -> str:
    """Return the versions of packages; one that is not installed is said to be so."""
    return ", ".join(f"{name} {_version(name)}" for name in packages)


def alternate(sides: Mapping[str, Side], rounds: int = 5) -> dict[str, float]:
    """Run each side in turn, round after round, and return each one's median."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in order:
            found[name].append(sides[name]())
            print(f"\r  round {number + 1}/{rounds}: {name:<24}", end="", file=sys.stderr, flush=True)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return {name: statistics.median(values) for name, values in found.items()}


def timed(work: Callable[[], Any]) -> float:
    """Return how long a call takes [s, wall clock]."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_timed(work: Callable[[], Any]) -> float:
    """Return how much processor time a call takes [s, all threads of this process]."""
    began = time.process_time()
    work()
    return time.process_time() - began


def peak_mb() -> float:
    """Return the largest resident memory of this process so far [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def table(rows: Mapping[str, str]) -> None:
    """Print names and figures in two columns."""
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"  {name:<{width}}  {text}")


def conclude(
    benchmark: str,
    value: float,
    unit: str,
    baselines: Mapping[str, float],
    goals: Mapping[str, float],
    *,
    met: bool,
    **more: Any,
) -> None:
    """Print the last line: one JSON object. Each baseline is the ratio ours / theirs."""
    line = {
        "benchmark": benchmark,
        "value": round(value, 4),
        "unit": unit,
        "baselines": {name: round(ratio, 3) for name, ratio in baselines.items()},
        "goals": dict(goals),
        "met": met,
        **more,
    }
    print(json.dumps(line))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123  a file of the kernel's
            return file.readlines()
    except OSError:
        return []
