"""Gives memory back to the system that models and pictures do not use any more.

The allocator of glibc raises two thresholds while a program runs: the first time it frees a tensor
of 20 MB, it begins to keep free memory of that size. A process that loads models then holds more
free memory than used memory. `bound` fixes both thresholds; `trim` gives back what is free between
blocks in use. Other C libraries keep less, and have neither call.
https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

# As in <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Larger blocks are mapped on their own and go back to the system when they are freed. A picture of
# 1280 x 720 is smaller: to map each picture anew would cost more time than it saves memory.
MAPPED_BYTES = 1 << 20
KEPT_BYTES = 1 << 20  # free memory that is kept at the end of the heap
ARENAS = 1  # heaps; each keeps free memory of its own


def bound() -> bool:
    """Fixes the thresholds of this process; returns whether its C library has them.

    The variables of glibc for the same thresholds (`MALLOC_ARENA_MAX` and so on) are obeyed. MKL,
    which runs Whisper, keeps no freed buffers either, unless its variable says otherwise.
    """
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    for name, key, value in (
        ("MALLOC_MMAP_THRESHOLD_", _MMAP_THRESHOLD, MAPPED_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD, KEPT_BYTES),
        ("MALLOC_ARENA_MAX", _ARENA_MAX, ARENAS),
    ):
        if name not in os.environ:
            mallopt(key, value)
    return True


def trim() -> bool:
    """Gives all free pages back; returns whether the C library can. Takes some milliseconds."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


class Trimmer:
    """Calls `trim` every `every` seconds at most; `now` is a monotonic time in seconds."""

    def __init__(self, every: float = 10.0, give_back: Callable[[], object] = trim) -> None:
        self._every, self._give_back, self._due = every, give_back, 0.0

    def look(self, now: float) -> None:
        """Trims if it is time."""
        if now >= self._due:
            self._due = now + self._every
            self._give_back()
