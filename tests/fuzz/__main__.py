"""Throw damaged messages at every reader for a while; end with 1 and the message that did it.

python -m tests.fuzz --secs 600
python -m tests.fuzz --secs 60 --only json --seed 7
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.fuzz.errors import DisagreementError
from tests.fuzz.json_messages import JsonFuzz
from tests.fuzz.opcua_messages import OpcuaFuzz


class Fuzz(Protocol):
    """One kind of messages."""

    tried: int
    accepted: int
    refused: int

    def round(self) -> None:
        """Try a few messages; raise DisagreementError."""


KINDS: dict[str, type[JsonFuzz] | type[OpcuaFuzz]] = {"json": JsonFuzz, "opcua": OpcuaFuzz}


def play(fuzz: Fuzz, secs: float, name: str) -> None:
    """Try messages for a time, with a bar."""
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(name, total=secs)
        while (gone := time.monotonic() - began) < secs:
            for _ in range(20):
                fuzz.round()
            progress.update(task, completed=gone, description=f"{name}: {fuzz.tried:,} tried")


def main() -> int:
    """Play what was asked for; print what was tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--secs", type=float, default=60, help="how long in all (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed tries the same messages")
    parser.add_argument("--only", choices=sorted(KINDS), help="one kind of messages alone")
    options = parser.parse_args()
    chosen = [options.only] if options.only else list(KINDS)
    for name in chosen:
        fuzz = KINDS[name](options.seed)
        try:
            play(fuzz, options.secs / len(chosen), name)
        except DisagreementError as error:
            path = Path(f"fuzz-{error.kind}.bin")
            path.write_bytes(error.payload)
            sys.stderr.write(f"{error}\nafter {fuzz.tried:,} messages; the message is in {path}\n")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
        sys.stdout.write(
            f"{name}: {fuzz.tried:,} messages tried, {fuzz.accepted:,} accepted, {fuzz.refused:,} refused, "
            "every answer as the judge's, nothing raised\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
