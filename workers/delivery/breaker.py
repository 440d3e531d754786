"""The circuit breaker of one subscriber, which the partitions of its deliveries share.

It says whether the subscriber may be tried, and in which state it is. A receiver that answered 410
Gone is disabled until its address or its enable mark changes.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from pipeline.types import ns, rfc3339
from workers.delivery.outbox import CircuitBreaker, delay, fingerprint, wait_over
from workers.runtime.status import SubscriberState

MAX_BREAKER_DELAY = 30.0  # s; the longest time a circuit breaker stays open, without Retry-After
OUTAGE_FAILURES = 3  # failures in a row from which a subscriber is failing
GONE = "410 Gone: the receiver wants no more alerts"
UNKNOWN = "the reason was not noted"  # by notes of older versions


def state_of(
    breaker: CircuitBreaker, *, disabled: bool, waiting: int = 0, next_try: float = 0.0
) -> SubscriberState:
    """The state of a subscriber with this circuit breaker; `next_try` is unix s, 0: none."""
    bad = breaker.failures or disabled
    failing = breaker.failures >= OUTAGE_FAILURES
    return SubscriberState(
        state="disabled"
        if disabled
        else "giving up"
        if failing and breaker.dead
        else "failing"
        if failing
        else "taking",
        reason=(breaker.reason or (GONE if disabled else UNKNOWN)) if bad else "",
        attempts=breaker.failures,
        since=_shown(breaker.since) if bad else "",
        next_try=_shown(next_try) if not disabled else "",
        waiting=waiting,
        dead=breaker.dead,
    )


def _shown(moment: float) -> str:
    return f"{rfc3339(ns(int(moment)))[:19]}Z" if moment else ""


class SharedBreaker:
    """The circuit breaker of the subscriber at `address`.

    `value` is what notes keep. `enabled` returns the present enable mark, `random` numbers in
    [0, 1). Times are unix seconds.
    """

    def __init__(
        self, address: str, enabled: Callable[[], str], random: Callable[[], float]
    ) -> None:
        self.value = CircuitBreaker()
        self._address, self._enabled, self._random = address, enabled, random
        self._mark = enabled()
        self._print = fingerprint(address, self._mark)

    @property
    def disabled(self) -> bool:
        """Whether the receiver answered 410 Gone."""
        return self.value.disabled == self._print

    @property
    def outage(self) -> bool:
        """Whether a success now would end an outage."""
        return self.value.failures >= OUTAGE_FAILURES

    def lets(self, now: float) -> bool:
        """Whether an attempt may be made."""
        return wait_over(self.value.until, now)

    def restore(self, noted: CircuitBreaker) -> None:
        """Merges the circuit breaker of a note: the longest wait and the most failures count.

        What a note says of an address that has changed, or was enabled since, does not count.
        """
        if noted.disabled not in (b"", self._print):
            return
        mine = self.value
        worst = max(noted, mine, key=lambda each: (bool(each.disabled), each.failures))
        starts = [each.since for each in (noted, mine) if each.since]
        self.value = replace(
            worst,
            until=max(noted.until, mine.until),
            since=min(starts, default=0.0),
            dead=max(noted.dead, mine.dead),
            reason=worst.reason or noted.reason or mine.reason,
        )

    def failed(self, reason: str, after: float, now: float, *, first: bool) -> None:
        """An attempt failed; the receiver asked for `after` s. `first`: since a success."""
        before = CircuitBreaker() if first else self.value
        failures = before.failures + 1
        wait = max(after, min(delay(failures, self._random()), MAX_BREAKER_DELAY))
        self.value = CircuitBreaker(
            failures=failures,
            until=now + wait,
            since=before.since or now,
            dead=before.dead,
            reason=_clean(reason),
        )

    def gone(self, reason: str, now: float) -> None:
        """The receiver wants no more alerts."""
        self.value = CircuitBreaker(
            failures=self.value.failures + 1,
            disabled=self._print,
            since=now,
            reason=_clean(reason),
        )

    def died(self) -> None:
        """An alert became a dead letter, because the subscriber fails or is disabled."""
        self.value = replace(self.value, dead=self.value.dead + 1)

    def well(self) -> None:
        """The subscriber took an alert."""
        self.value = CircuitBreaker()

    def renew(self) -> bool:
        """Reads the enable mark; a new one enables the subscriber, and lets it be tried now.

        Returns whether it was a new one.
        """
        mark = self._enabled()
        if mark == self._mark:
            return False
        was_disabled = self.disabled
        self._mark, self._print = mark, fingerprint(self._address, mark)
        self.value = CircuitBreaker() if was_disabled else replace(self.value, until=0.0)
        return True


def _clean(reason: str) -> str:
    """The reason without what is no UTF-8, such as a byte of a file's name."""
    return reason.encode(errors="replace").decode()
