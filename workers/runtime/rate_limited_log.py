"""Logs a frequent warning or error at most once a minute."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("fusewatch")


class RateLimitedLog:
    """A message that is logged at most once a minute; thread safe."""

    def __init__(self, message: str) -> None:
        self._message = message
        self._lock = threading.Lock()
        self._due = 0.0

    def warn(self, error: BaseException) -> None:
        """Logs the warning with `error`, if the last one was a minute ago or more."""
        if self._is_due():
            log.warning(self._message, error)

    def defect(self, error: BaseException) -> None:
        """Logs an error with its traceback, if the last one was a minute ago or more."""
        if self._is_due():
            log.error(self._message, error, exc_info=error)

    def _is_due(self) -> bool:
        with self._lock:
            due = time.monotonic() >= self._due
            if due:
                self._due = time.monotonic() + 60.0
        return due
