"""Waits for something outside that will pass: another program's lock, or a full disk.

A wait is logged when it begins and when it ends, however many threads share it.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import OutsideError

PAUSE = 0.25  # s between two attempts

log = logging.getLogger("fusewatch.log")
T = TypeVar("T")


class Waits:
    """The waits of one process; thread safe. All of them end when `stop` is set."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[int, float]] = {}  # what -> threads, since when

    def retried(
        self,
        work: Callable[[], T],
        on: type[OutsideError],
        what: str,
        longest: float = math.inf,
    ) -> T:
        """The result of `work`, which is tried again after an error of the type `on`.

        Raises the last one after `longest` seconds, or when the process is to stop. `what`
        names the state that is waited for, for the log.
        """
        began: float | None = None
        over = False
        try:
            while True:
                try:
                    result = work()
                except on as error:
                    if began is None:
                        began = time.monotonic()
                        self._begins(what, error, began)
                    if time.monotonic() - began >= longest or self._stop.wait(PAUSE):
                        raise
                else:
                    over = True
                    return result
        finally:
            if began is not None or (over and what in self._waiting):
                self._ends(what, 1 if began is not None else 0, over=over)

    def _begins(self, what: str, error: OutsideError, now: float) -> None:
        with self._lock:
            known = what in self._waiting
            threads, since = self._waiting.get(what, (0, now))
            self._waiting[what] = (threads + 1, since)
        if not known:
            log.warning("%s; what is to be written waits", error)

    def _ends(self, what: str, threads: int, *, over: bool) -> None:
        """Fewer threads wait; who gave up has not seen the end of it, and the next one will."""
        with self._lock:
            waiting, since = self._waiting.get(what, (0, 0.0))
            left = waiting - threads
            if left > 0 or not over:
                self._waiting[what] = (left, since)
                return
            if self._waiting.pop(what, None) is None:
                return
        log.warning("%s no longer, after %.0f s: all goes on", what, time.monotonic() - since)
