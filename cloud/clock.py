"""What time it is: read here, handed on as an argument."""

import time


def clock_us() -> int:
    """Return this machine's clock [us since 1970 UTC]."""
    return time.time_ns() // 1000


def thread_cpu_us() -> int:
    """Return how much processor time the calling thread has used [us]."""
    return time.thread_time_ns() // 1000
