"""How fast a replay goes: at a multiple of real time, or as fast as it can; and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pipeline.types import SECOND

T = TypeVar("T")
Heard = Callable[[int, int], None]  # the finished and the total event time, ns

SLICE = SECOND // 2  # ns of event time that is judged at a time
MOST = 500  # items that are judged at a time


class Pace:
    """Waits so that event time goes on at `speed` times real time (None: never), from `since` on.

    `heard` is called with the event time that is reached, in ns from `since`, and with all of it.
    What lies before `since`, the run-up, is not waited for.
    """

    def __init__(self, since: int, until: int, speed: float | None, heard: Heard) -> None:
        self._since, self._until, self._speed, self._heard = since, until, speed, heard
        self._began: float | None = None

    @property
    def waits(self) -> bool:
        """Whether there is a speed to keep."""
        return bool(self._speed)

    def batches(self, items: Iterable[T], time_of: Callable[[T], int | None]) -> Iterator[list[T]]:
        """Groups items of at most `SLICE` of event time, and yields each group when it is due."""
        held: list[T] = []
        end = 0
        for item in items:
            at = time_of(item)
            if held and (len(held) >= MOST or (at is not None and at >= end)):
                self.reached(end)
                yield held
                held = []
            if not held and at is not None:
                end = at // SLICE * SLICE + SLICE
            held.append(item)
        if held:
            self.reached(end)
            yield held

    def reached(self, upto: int) -> None:
        """Says that event time `upto` (ns) comes next, and waits until it is due."""
        done = upto - self._since
        self._heard(min(max(done, 0), self._until - self._since), self._until - self._since)
        if not self._speed or done <= 0:
            return
        if self._began is None:
            self._began = time.monotonic() - min(done, SLICE) / SECOND / self._speed
        time.sleep(max(0.0, self._began + done / SECOND / self._speed - time.monotonic()))
