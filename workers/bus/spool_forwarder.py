"""Forwards the spool to the brokers in order, a bounded batch at a time, and never gives up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from pipeline.errors import OutsideError
from pipeline.limits import MAX_BYTES
from workers.bus.spool import KEPT, Spool, Waiting
from workers.runtime.rate_limited_log import RateLimitedLog
from workers.runtime.status import Status

LIMIT, BYTES = 500, 4 << 20  # of one batch
TURN = 0.5  # s between looks at the stop event
QUIET = 5.0  # s that a batch may be on its way before a word is said
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # s between attempts
LAST = 5.0  # s that a forwarder which was stopped may take to empty the spool


class ForwardTarget(Protocol):
    """The methods of a Kafka bus that the forwarder uses.

    `settled` waits at most `wait` s and returns whether all records that this thread published are
    acknowledged; it raises OutsideError for a record that failed. `discard` drops the others: none
    of them can arrive after the next published record, so that the order of a key holds.
    """

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None: ...
    def settled(self, wait: float) -> bool: ...
    def discard(self) -> None: ...


class Forwarder:
    """Publishes the records of the spool; not thread safe.

    It never gives up: while the brokers are away, captured records wait on the disk. A record stays
    in the spool until it is acknowledged, so a kill repeats at most one batch. Only a record that
    no broker would take is dropped: one with more than `largest` bytes (spooled before the setting
    was lowered, or of a scene) is counted as `dropped.too-large`.
    """

    def __init__(
        self,
        spool: Spool,
        brokers: ForwardTarget,
        status: Status,
        largest: int = MAX_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool, self._brokers, self._status = spool, brokers, status
        self._largest = largest
        self._monotonic = monotonic
        self._away = RateLimitedLog("what was captured waits in the spool for the brokers: %s")

    def loop(self, stop: threading.Event) -> None:
        """Forward until `stop`, and then what is left, if the brokers are quick."""
        wait, until = FIRST_WAIT, float("inf")

        def over() -> bool:
            nonlocal until
            if stop.is_set():
                until = min(until, self._monotonic() + LAST)
            return self._monotonic() >= until

        while not over() and not (stop.is_set() and not self._spool.waiting):
            if self.turn(over):
                wait = FIRST_WAIT
            elif stop.wait(wait):
                break
            else:
                wait = min(wait * 2, LONGEST_WAIT)
        self._gauge()

    def turn(self, over: Callable[[], bool]) -> bool:
        """Forwards one batch, or waits `TURN` s for one; returns whether the brokers have it all.

        While they do not answer, `over` is called; when it returns true, the wait ends.
        """
        self._gauge()
        if not self._spool.wait(TURN):
            return True
        batch = self._spool.take(LIMIT, BYTES)
        try:
            if not self._sent(batch, over):
                return False
        except OutsideError as error:
            self._brokers.discard()
            self._away.warn(error)
            return False
        self._spool.done(batch)
        self._count(batch)
        return True

    def _sent(self, batch: Sequence[Waiting], over: Callable[[], bool]) -> bool:
        began = self._monotonic()
        for each in batch:
            if self._fits(each):
                self._brokers.publish(each.topic, each.key, each.value, each.trace)
        while not self._brokers.settled(TURN):
            self._gauge()
            if over():
                return False
            if (quiet := self._monotonic() - began) > QUIET:
                self._away.warn(OutsideError(f"they have not answered for {quiet:.0f} s"))
        return True

    def _count(self, batch: Sequence[Waiting]) -> None:
        counted = Counter[tuple[str, str]]()
        for each in batch:
            if not self._fits(each):
                counted[each.key, "dropped.too-large"] += 1
            elif each.kind < KEPT:
                counted[each.key, "forwarded"] += 1
        for (key, what), n in counted.items():
            site, _, source = key.partition("/")
            self._status.count(site, source, what, n)

    def _fits(self, each: Waiting) -> bool:
        return len(each.value) <= self._largest

    def _gauge(self) -> None:
        self._status.gauge("spool.waiting", self._spool.waiting)
        self._status.gauge("spool.bytes", self._spool.size)
