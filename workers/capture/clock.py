"""The time of what is captured: one clock for all, and a stream's own time laid onto it."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.types import SECOND

MAX_DRIFT = SECOND  # ns; a smaller difference is drift, a larger one a jump
MAX_WAITED_JUMP = 60 * SECOND  # ns; a recording whose times go further at once is not waited for

Clock = Callable[[], int]  # ns UTC, never back


class UtcClock:
    """Nanoseconds UTC that go on evenly and never back; for any thread.

    It is the monotonic clock, set by the wall clock once. Where the wall clock is set forward by
    more than a second (a board without a battery meets its time server) it follows; it does not
    follow backwards, since what was promised cannot be taken back.

    Nor is it ever before `floor`, the ns that the log has reached: where the wall clock was set
    back over a restart this one begins at `floor` and runs ahead of the wall until that catches up.
    `ahead` says by how much. Only another state folder, with an empty log, brings it back at once.
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
        """Ns that the wall clock is behind; below zero where it drifted the other way."""
        return self() - self._wall()


class StreamTime:
    """A stream's own time as UTC, anchored when its first frame comes; late by MAX_DRIFT at most.

    A frame is at anchor + its position. The anchor is set anew where that lies in the future (the
    first frames come in a burst), more than MAX_DRIFT in the past (the stream stood still, its
    clock is slow), and where a position does not go forward (the camera started anew). The tracks
    of one stream (picture and sound) share the anchor; the times of each always go forward.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: int | None = None
        self._positions: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def at(self, position: int | None, track: str = "") -> int:
        """Ns UTC of what just came; `position` is its ns in the stream, if it has one."""
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


class OwnSpeed:
    """Holds a recording back to its own speed; its times may jump or go back, and begin anew then.

    A wait is MAX_WAITED_JUMP at most, so that a file that lies about its times does not stop for
    weeks.
    """

    def __init__(self, clock: Clock, wait: Callable[[float], None]) -> None:
        self._clock = clock
        self._wait = wait
        self._last: dict[str, int] = {}
        self._began: int | None = None

    def hold(self, position: int, track: str = "") -> None:
        """Wait until what is at `position` (ns in the file) is due; a track's own go forward."""
        now = self._clock()
        back = position <= self._last.get(track, position - 1)
        if self._began is None or back or self._began + position - now > MAX_WAITED_JUMP:
            self._began = now - position
        self._last[track] = position
        while (ahead := self._began + position - self._clock()) > 0:
            self._wait(min(ahead / SECOND, 1.0))


class FrameRateLimiter:
    """Which of the frames that come are wanted, for `fps` on average whatever their jitter."""

    def __init__(self, fps: float) -> None:
        self.period = round(SECOND / fps)
        self._due = -1

    def wants(self, start: int) -> bool:
        """Whether the frame at `start` (ns) is one; a quarter of a period early is in time."""
        if start < self._due - self.period // 4:
            return False
        self._due = (self._due if start - self._due < self.period else start) + self.period
        return True
