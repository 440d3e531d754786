"""Does independent work of a replay at the same time, so that every core has something to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

THREADS = 3  # beside the calling one: of the stages, four read what was captured or reported


class AtOnce:
    """Calls functions at the same time: the first in the calling thread, the others in its own.

    A call returns when all are done, and raises the error of the first that failed. `close` ends
    the threads.
    """

    def __init__(self) -> None:
        self._others = ThreadPoolExecutor(THREADS, "stage")

    def __call__(self, works: Sequence[Callable[[], None]]) -> None:
        others = [self._others.submit(work) for work in works[1:]]
        try:
            for work in works[:1]:
                work()
        finally:
            wait(others)
        for other in others:
            other.result()

    def close(self) -> None:
        """Ends the threads."""
        self._others.shutdown()
