"""Stamps captured data: one UTC clock for all sources, and stream times mapped onto it."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.types import SECOND

MAX_DRIFT = SECOND  # ns; a smaller difference is drift, a larger one a jump
MAX_WAITED_JUMP = 60 * SECOND  # ns; a larger step in a recording's times is not waited for

Clock = Callable[[], int]  # ns UTC, never back


class UtcClock:
    """A monotonic UTC clock in nanoseconds; thread safe.

    It runs on the monotonic clock, set once from the wall clock. If the wall clock is set forward
    by more than a second (a board without a battery reaches its time server), this clock follows.
    It never follows backwards, because published progress cannot be withdrawn.

    It is never before `floor`, the ns that the log has reached. If the wall clock was set back over
    a restart, this clock begins at `floor` and stays ahead of the wall clock until that catches up;
    `ahead` is the difference. Only another state folder, with an empty log, resets it at once.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
        *,
        floor: int = 0,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = max(wall(), floor) - monotonic()

    def __call__(self) -> int:
        ahead = self._wall() - self._monotonic()
        if ahead - self._ahead > MAX_DRIFT:
            self._ahead = ahead
        return self._monotonic() + self._ahead

    @property
    def ahead(self) -> int:
        """Ns that this clock is ahead of the wall clock; negative if the wall clock is ahead."""
        return self() - self._wall()


class StreamClock:
    """Maps a stream's own time to UTC, anchored at its first frame; the error is at most MAX_DRIFT.

    The time of a frame is anchor + position. The anchor is set again if that time lies in the
    future (the first frames came in a burst) or more than MAX_DRIFT in the past (the stream paused
    or its clock is slow), or if a position does not increase (the camera restarted). The tracks of
    one stream (video and audio) share the anchor; the times of each track always increase.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: int | None = None
        self._positions: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def at(self, position: int | None, track: str = "") -> int:
        """Ns UTC of the frame that just arrived; `position` is its ns in the stream, if any."""
        now = start = self._clock()
        if position is not None:
            stuck = position <= self._positions.get(track, position - 1)
            if self._anchor is None or stuck or not 0 <= now - self._anchor - position <= MAX_DRIFT:
                self._anchor = now - position
            start = self._anchor + position
            self._positions[track] = position
        start = max(start, self._last.get(track, -1) + 1)
        self._last[track] = start
        return start

    def expected(self, position: int) -> int | None:
        """Ns UTC of the frame at this position if the stream goes on as it did; None at first."""
        return None if self._anchor is None else self._anchor + position


class PlaybackPacer:
    """Delays a recording to its own speed; a jump or a step back in its times sets a new start.

    A wait is at most MAX_WAITED_JUMP, so that a file with false times does not block for weeks.
    """

    def __init__(self, clock: Clock, wait: Callable[[float], None]) -> None:
        self._clock = clock
        self._wait = wait
        self._last: dict[str, int] = {}
        self._began: int | None = None

    def hold(self, position: int, track: str = "") -> None:
        """Waits until `position` (ns in the file) is due; positions of one track increase."""
        now = self._clock()
        back = position <= self._last.get(track, position - 1)
        if self._began is None or back or self._began + position - now > MAX_WAITED_JUMP:
            self._began = now - position
        self._last[track] = position
        while (ahead := self._began + position - self._clock()) > 0:
            self._wait(min(ahead / SECOND, 1.0))


class FrameRateLimiter:
    """Selects frames so that `fps` remain on average, whatever their jitter."""

    def __init__(self, fps: float) -> None:
        self.period = round(SECOND / fps)
        self._due = -1

    def wants(self, start: int) -> bool:
        """Whether the frame at `start` (ns) is selected; a quarter period early still counts."""
        if not self.would(start):
            return False
        self._due = (self._due if start - self._due < self.period else start) + self.period
        return True

    def would(self, start: int) -> bool:
        """Whether the frame at `start` (ns) would be selected now; if not, it never will be."""
        return start >= self._due - self.period // 4
