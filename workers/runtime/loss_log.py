"""Logs what a reader lost: one warning when it begins to lose entries, and one when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("fusewatch")

OVER_AFTER = 60.0  # s without a further lost entry


class LossLog:
    """The log lines of one reader; `monotonic` returns seconds."""

    def __init__(self, group: str, topic: str, monotonic: Callable[[], float]) -> None:
        self._group, self._topic = group, topic
        self._monotonic = monotonic
        self._lost = 0
        self._before = 0  # lost when the present loss began
        self._began: float | None = None
        self._last = 0.0

    def saw(self, lost: int) -> None:
        """Notes how many entries the reader has lost since the start of the process."""
        now = self._monotonic()
        if lost > self._lost:
            if self._began is None:
                self._began, self._before = now, self._lost
                said = "%s loses entries: retention took %d entries of %s before they were read"
                log.warning(said, self._group, lost - self._lost, self._topic)
            self._lost, self._last = lost, now
        elif self._began is not None and now - self._last >= OVER_AFTER:
            said = "%s loses no more entries: it lost %d of %s in %.0f s, %d since the start"
            count, seconds = self._lost - self._before, self._last - self._began
            log.warning(said, self._group, count, self._topic, seconds, self._lost)
            self._began = None
