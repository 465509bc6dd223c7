"""What the C library keeps of freed memory: bounded, and given back to the system.

Its own rules suit short programs: one heap per thread, and buffers of ever more size within heaps, which
then shrink only from their end. A service that reads a day's records now and then would stay as large as
its largest moment.
"""

import ctypes
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_OWN_PAGES_BYTES: Final = 256 * 1024
"""Buffers of this size or more have pages of their own, which go back to the system with them."""
_HEAPS: Final = 2


def bound() -> None:
    """Keep the heaps of all threads that are still to come few and small; nothing where that is not glibc."""
    library = _library()
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)
        library.mallopt(_M_ARENA_MAX, _HEAPS)


def give_back() -> None:
    """Give all whole pages that are free back to the system; nothing where the library is not glibc."""
    library = _library()
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
