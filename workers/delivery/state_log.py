"""Logs each change of a subscriber's state once; one that is disabled is logged again each hour.

`sentence` says a state in words, for the log and `fusewatch doctor`; `line` does so for the
terminal view, which has little room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import asdict

from pipeline.errors import Rejected
from workers.runtime.rate_limited_log import RateLimitedLog
from workers.runtime.status import SubscriberState

DISABLED_AGAIN_EVERY = 3600.0  # s between two errors about a subscriber that is disabled

log = logging.getLogger("fusewatch.delivery")


def sentence(name: str, state: SubscriberState) -> str:
    """What is wrong with a subscriber, how it goes on and what to do; empty if it takes alerts."""
    since = f" since {state.since}" if state.since else ""
    again = f"; it is tried again at {state.next_try}" if state.next_try else ""
    waits = f"; {alerts(state.waiting)} for it" if state.waiting else ""
    waits = waits.replace("alert for", "alert waits for").replace("alerts for", "alerts wait for")
    failed = f"{state.attempts} attempt{'s' if state.attempts != 1 else ''} in a row failed{since}"
    match state.state:
        case "disabled":
            return (
                f"{name} is disabled{since}: {state.reason}; its alerts become dead letters "
                f"({state.dead} so far); to send to it again: fusewatch webhooks enable CONFIG "
                f"{name}"
            )
        case "giving up":
            return (
                f"{name} is given up: {state.reason}; {failed}; {dead_letters(state.dead)}, as "
                f"they waited for the longest time{again}{waits}"
            )
        case "failing":
            return f"{name} fails: {state.reason}; {failed}{again}{waits}"
        case "taking":
            return ""


def line(name: str, state: SubscriberState, clock: Callable[[str], str]) -> str:
    """What is wrong with a subscriber, the reason last; `clock` shows a time (RFC 3339)."""
    again = f", next try {clock(state.next_try)}" if state.next_try else ""
    waits = f", {state.waiting} wait" if state.waiting else ""
    dead = f", {dead_letters(state.dead)}" if state.dead else ""
    tried = f" (attempt {state.attempts + 1})" if again else ""
    match state.state:
        case "disabled":
            return f"{name} is disabled{dead}; fusewatch webhooks enable CONFIG {name}"
        case "giving up" | "failing":
            verb = "fails" if state.state == "failing" else "is given up"
            return f"{name} {verb}{dead}{waits}{again}{tried}: {state.reason}"
        case "taking":
            return ""


def alerts(count: int) -> str:
    """`1 alert`, `2 alerts`."""
    return f"{count} alert{'s' if count != 1 else ''}"


def dead_letters(count: int) -> str:
    """How many alerts became dead letters."""
    return f"{alerts(count)} became {'a dead letter' if count == 1 else 'dead letters'}"


class StateLog:
    """The log lines of one subscriber; times are unix seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = SubscriberState()
        self._since = 0.0  # when it began to fail
        self._said = 0.0  # when the last line about a disabled subscriber was logged
        self._defects: set[str] = set()
        self._died = RateLimitedLog(
            f"{name} did not take an alert, which became a dead letter: %s; "
            "fusewatch dead list CONFIG shows all"
        )

    def saw(self, state: SubscriberState, since: float, now: float) -> None:
        """Logs `state` if it is another one, or if a disabled subscriber is to be told again.

        `since` is the time of the first failure in a row.
        """
        before, self._state = self._state, state
        changed = state.state != before.state
        if state.state == "disabled":
            if changed or not 0 <= now - self._said < DISABLED_AGAIN_EVERY:
                self._said = now
                self._log(logging.ERROR, sentence(self._name, state), state)
        elif changed and state.well:
            self._log(logging.WARNING, self._well(before, state, now), state)
        elif changed:
            level = logging.ERROR if state.state == "giving up" else logging.WARNING
            self._log(level, sentence(self._name, state), state)
        self._since = since

    def died(self, ident: str, reason: str) -> None:
        """An alert became a dead letter, and others are delivered; logs it once a minute."""
        self._died.warn(Rejected(f"{ident}: {reason}"))

    def defect(self, error: Exception) -> str:
        """An error that no sink should raise; logs its traceback once, and returns its name."""
        kind = f"unexpected {type(error).__name__}"
        if kind not in self._defects:
            self._defects.add(kind)
            log.error("%s: %s in its sink", self._name, kind, exc_info=error)
        return kind

    def _well(self, before: SubscriberState, state: SubscriberState, now: float) -> str:
        if before.state == "disabled":
            lost = f"; {dead_letters(before.dead)} meanwhile" if before.dead else ""
            return f"{self._name} is enabled again: the alerts that come are sent to it{lost}"
        return (
            f"{self._name} takes alerts again, after {max(0.0, now - self._since):.0f} s; "
            f"{alerts(state.waiting)} still to be sent"
        )

    def _log(self, level: int, message: str, state: SubscriberState) -> None:
        data = {"subscriber": self._name, **asdict(state)}
        log.log(level, "%s", message, extra={"data": data})
