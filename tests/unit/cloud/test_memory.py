"""How large a process stays that has freed what it had, in one of its own."""

import subprocess
import sys
from typing import Final

import pytest

_PROGRAM: Final = """
import threading
from pathlib import Path
from cloud import memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def work():
    for _ in range(2):  # what is freed once lets the library keep the next in a heap
        buffers = []
        for _ in range(64 * 2**20 // SIZE):
            buffers.append(bytes(b"x" * SIZE))
            kept.append(bytes(1000))
        del buffers

kept = []
BEFORE
begun = resident_mib()
thread = threading.Thread(target=work)
thread.start()
thread.join()
AFTER
print(resident_mib() - begun)
"""


def grown_mib(size: int, *, before: str = "", after: str = "") -> float:
    """Return how much larger a process is once a thread of it has freed 64 MiB of buffers."""
    program = _PROGRAM.replace("SIZE", str(size)).replace("BEFORE", before).replace("AFTER", after)
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(found.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library is another one")
def test_large_buffers_go_back_at_once_and_small_ones_when_asked() -> None:
    large, small = 300_000, 50_000
    assert grown_mib(large, before="memory.bound()") < 16 < grown_mib(large)
    assert grown_mib(small, after="memory.give_back()") < 16 < grown_mib(small)
