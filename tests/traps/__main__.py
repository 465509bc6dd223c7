"""Take each remedy away in a copy of the tree and see its test fail.

python -m tests.traps            all of them, which takes minutes
python -m tests.traps browse     those in which the word stands
python -m tests.traps --page     write docs/traps.md
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.traps import TRAPS, Trap
from tests.traps.page import PAGE, render

ROOT = Path(__file__).parents[2]
_TIMEOUT_SECS = 300


def copied(folder: Path) -> None:
    """Copy what git tracks, as it stands now."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, names.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def fails_without(trap: Trap, folder: Path) -> bool:
    """Run a trap's test on a copy without its remedy; tell whether it fails."""
    file = folder / trap.file
    whole = file.read_text()
    assert whole.count(trap.has) == 1, f"{trap.file} does not have, once: {trap.has}"
    file.write_text(whole.replace(trap.has, trap.without))
    try:
        return _run(trap.test, folder) == 1
    finally:
        file.write_text(whole)


def _run(test: str, folder: Path) -> int:
    try:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return 1  # it hangs, where with the remedy it ends


def main(words: list[str]) -> int:
    if words == ["--page"]:
        PAGE.write_text(render())
        return 0
    chosen = [trap for trap in TRAPS if all(word in repr(trap) for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        copied(Path(name))
        for trap in chosen:
            fails = fails_without(trap, Path(name))
            missed += not fails
            print(
                f"{'fails' if fails else 'PASSES'}  {trap.test.rpartition('::')[2]}  without: {trap.remedy}",
                flush=True,
            )
    print(f"{len(chosen) - missed} of {len(chosen)} tests fail without their remedy")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
