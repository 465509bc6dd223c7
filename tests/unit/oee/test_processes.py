"""Children end with their parent, whatever ends it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oee.processes import Child, stop_all
from tests.support.patience import PATIENCE

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
FAMILY = (
    "import subprocess, sys, time; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); time.sleep(60)"
)
PARENT = """
import asyncio, sys, time
from pathlib import Path
from oee.processes import Child
async def main():
    child = Child('sleeper', [sys.executable, '-c', 'import time; time.sleep(60)'], Path(sys.argv[1]))
    await child.start()
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _gone(pid: int, within_secs: float = 3.0) -> bool:
    deadline = time.monotonic() + within_secs
    while time.monotonic() < deadline:
        if not _runs(pid):
            return True
        time.sleep(0.02)
    return False


async def _line(child: Child) -> str:
    for _ in range(500):
        if lines := child.last_lines():
            return lines[0]
        await asyncio.sleep(0.02)
    raise AssertionError("the child said nothing")


async def test_a_child_is_asked_to_end_and_does(tmp_path: Path) -> None:
    child = Child("sleeper", [sys.executable, "-c", SLEEP], tmp_path / "log")
    await child.start()
    assert await _line(child) == "up"
    assert await stop_all([child]) == []
    assert await child.wait() == -signal.SIGTERM
    assert child.pid is None


async def test_a_child_that_ignores_the_request_is_killed_and_named(tmp_path: Path) -> None:
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log")
    await child.start()
    await _line(child)
    began = time.monotonic()
    assert await stop_all([child], within_secs=0.2) == ["stubborn"]
    assert time.monotonic() - began < PATIENCE * 2
    assert await child.wait() == -signal.SIGKILL


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    child = Child("family", [sys.executable, "-c", FAMILY], tmp_path / "log")
    await child.start()
    grandchild = int(await _line(child))
    await stop_all([child])
    assert _gone(grandchild)


async def test_ctrl_c_in_the_terminal_does_not_reach_a_child_directly(tmp_path: Path) -> None:
    child = Child("sleeper", [sys.executable, "-c", SLEEP], tmp_path / "log")
    await child.start()
    assert child.pid is not None
    assert os.getpgid(child.pid) != os.getpgrp()
    await stop_all([child])


async def test_the_log_of_the_run_before_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        child = Child("speaker", [sys.executable, "-c", f"print('{word}')"], tmp_path / "a.log")
        await child.start()
        assert await child.wait() == 0
    assert (tmp_path / "a.log").read_text() == "second\n"
    assert (tmp_path / "a.log.1").read_text() == "first\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")
def test_a_parent_killed_without_warning_takes_its_children_along(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()
    assert _gone(child)
