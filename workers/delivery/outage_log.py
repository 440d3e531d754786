"""Logs the outages of one subscriber: one warning when an outage begins, and one when it ends."""

from __future__ import annotations

import logging

log = logging.getLogger("fusewatch.delivery")


class OutageLog:
    """The log lines of one subscriber; times are unix seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began: float | None = None
        self._defects: set[str] = set()

    def fails(self, reason: str, waiting: int, now: float) -> None:
        """The subscriber is failing, with its last `reason`; `waiting` alerts wait for it."""
        if self._began is None:
            self._began = now
            log.warning(
                "%s fails: %s; %d alerts wait for it, and it is tried again",
                self._name,
                reason,
                waiting,
            )

    def well(self, waiting: int, now: float) -> None:
        """The subscriber has taken an alert."""
        if self._began is not None:
            log.warning(
                "%s takes alerts again, after %.0f s; %d alerts wait for it",
                self._name,
                max(0.0, now - self._began),
                waiting,
            )
            self._began = None

    def gone(self, reason: str) -> None:
        """The subscriber wants no more alerts."""
        log.warning(
            "%s: %s; its alerts go to the dead letters until the config has another address for it",
            self._name,
            reason,
        )

    def defect(self, error: Exception) -> str:
        """An error that no sink should raise; logs its traceback once, and returns its name."""
        kind = f"unexpected {type(error).__name__}"
        if kind not in self._defects:
            self._defects.add(kind)
            log.error("%s: %s in its sink", self._name, kind, exc_info=error)
        return kind
