"""The time of what is captured: one clock for all, and a stream's own time laid onto it."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.types import SECOND

STEP = SECOND  # ns; a smaller difference is drift, a larger one a jump


class UtcClock:
    """Nanoseconds UTC that go on evenly and never back; for any thread.

    It is the monotonic clock, set by the wall clock once. Where the wall clock is set forward by
    more than a second (a board without a battery meets its time server) it follows; it does not
    follow backwards, since what was promised cannot be taken back: restart the process then.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()

    def __call__(self) -> int:
        ahead = self._wall() - self._monotonic()
        if ahead - self._ahead > STEP:
            self._ahead = ahead
        return self._monotonic() + self._ahead


class StreamTime:
    """A stream's own time as UTC, anchored when its first frame comes; late by STEP at most.

    A frame is at anchor + its position. The anchor is set anew where that lies in the future (the
    first frames come in a burst), more than STEP in the past (the stream stood still, its clock is
    slow), and where the position goes back (the camera started anew). Times always go forward.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._anchor: int | None = None
        self._position = -1
        self._last = -1
        self.anchored = -1  # how often the anchor was set anew

    def at(self, position: int | None) -> int:
        """Ns UTC of the frame that just came; `position` is its ns in the stream, if it has one."""
        now = self._clock()
        start = now
        if position is not None:
            back = position < self._position
            if self._anchor is None or back or not 0 <= now - self._anchor - position <= STEP:
                self._anchor = now - position
                self.anchored += 1
            start = self._anchor + position
            self._position = position
        self._last = max(start, self._last + 1)
        return self._last
