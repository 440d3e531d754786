"""Logs a frequent warning at most once a minute."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("fusewatch")


class RateLimitedLog:
    """A warning that is logged at most once a minute; thread safe."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._lock = threading.Lock()
        self._due = 0.0

    def warn(self, error: Exception) -> None:
        """Logs the warning with `error`, if the last one was a minute ago or more."""
        with self._lock:
            due = time.monotonic() >= self._due
            if due:
                self._due = time.monotonic() + 60.0
        if due:
            log.warning(self._message, error)
