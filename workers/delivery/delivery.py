"""Delivers alerts to one subscriber at least once, whichever process is killed at any moment.

It is a consumer of `alerts.v1` with its own group, so that a hung subscriber delays no other. Each
step polls, sends what is due, flushes and commits, in this order. An alert is done after a 2xx or a
dead letter.

- An alert that fails waits for its own retry (`outbox.RETRY_DELAYS`); the alerts behind it go on.
- A failure of the receiver also opens its circuit breaker. Nothing is sent for at most 30 s, or
  longer if Retry-After asks for it. Then the alert with the fewest attempts goes first, so that an
  alert that crashes the receiver does not block the others.
- When a receiver is back after an outage, all waiting alerts are sent at once.
- With `MAX_PENDING` alerts waiting, nothing more is read: the rest waits on disk (back-pressure).
- 410 Gone disables the address. Later alerts go to `dead.v1` until the config has another address,
  or `fusewatch webhooks enable` has written a new enable mark.
- Each change of the state is logged once (`state_log`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from pipeline import codec, topics, trace
from pipeline.errors import DecodeError, OutsideError, Rejected, Retry
from pipeline.ports import Assigned, Bus, Entry, Reader, Revoked, Sink
from pipeline.run import dead_letter, decoded
from pipeline.types import SEVERITIES, Alert, DeadLetter
from workers.delivery.breaker import GONE, SharedBreaker, state_of
from workers.delivery.cloudevent import event_id
from workers.delivery.outbox import (
    MAX_PENDING,
    RETRY_DELAYS,
    CircuitBreaker,
    Outbox,
    Pending,
    delay,
    wait_over,
)
from workers.delivery.state_log import StateLog
from workers.runtime.status import SubscriberState

ALERTS_A_STEP = 32  # alerts a step, at most; a kill repeats no more than these
# s; a step begins no further attempt after this, so that a stop is quick
ATTEMPTS_END_AFTER = 1.0
MAX_REFUSALS = 6  # retries of an alert that the receiver itself refuses: 35 minutes


class Filter(msgspec.Struct, frozen=True):
    """Selects the alerts that a subscriber gets; no sites means all sites."""

    sites: tuple[str, ...] = ()
    min_severity: str = "low"

    def wants(self, alert: Alert) -> bool:
        """Whether the alert's site and severity are selected."""
        rank = SEVERITIES.index
        return (not self.sites or alert.site in self.sites) and (
            rank(alert.severity) >= rank(self.min_severity)
        )


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets alerts; `name` is the consumer group, less `delivery-`, and never changes.

    `flush` makes the alerts that `sink` took durable; `address` is what a 410 disables; `enabled`
    returns the mark of the last enabling by hand; `timeout` is how many seconds one `send` may wait
    for the receiver.
    """

    name: str
    sink: Sink
    wants: Filter = Filter()
    flush: Callable[[], None] = lambda: None
    address: str = ""
    enabled: Callable[[], str] = lambda: ""
    timeout: float = 0.0

    @property
    def group(self) -> str:
        return f"delivery-{self.name}"


class DeliveryEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """The services that delivery needs.

    `clock` returns unix seconds; `random` returns numbers in [0, 1); `pause` waits some seconds (or
    until a stop event); `count` counts by (site, source, what).
    """

    clock: Callable[[], float]
    random: Callable[[], float]
    pause: Callable[[float], object] = lambda seconds: None
    count: Callable[[str, str, str], object] = lambda site, source, what: None


def dead_letter_publisher(bus: Bus) -> Callable[[DeadLetter], None]:
    """Returns a function that publishes to `dead.v1` and is durable when it returns."""

    def publish(letter: DeadLetter) -> None:
        bus.publish(topics.DEAD, topics.key_of(topics.DEAD, letter), codec.encode(letter))
        bus.flush()

    return publish


class Delivery:
    """Delivers to one subscriber; not thread safe. A restart closes it and creates another.

    `dead` must be durable when it returns. An unexpected error of the sink counts as a failure of
    the receiver; its traceback is logged once. `step` raises only errors of the bus.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        reader: Reader,
        dead: Callable[[DeadLetter], None],
        outside: DeliveryEnvironment,
    ) -> None:
        self.name, self.group = subscriber.name, subscriber.group
        self.timeout = subscriber.timeout
        self._subscriber = subscriber
        self._reader = reader
        self._dead = dead
        self._outside = outside
        self._clock = outside.clock
        self._boxes: dict[int, Outbox] = {}
        self._committed: dict[int, tuple[int, CircuitBreaker] | None] = {}
        self._touched: set[int] = set()  # partitions with an attempt since the last commit
        self._breaker = SharedBreaker(subscriber.address, subscriber.enabled, outside.random)
        self._caught_up = False
        self._sent: list[tuple[int, Pending]] = []  # since the last flush
        self._recovered = False  # the last attempt since then was a success
        self._log = StateLog(subscriber.name)
        self.state = SubscriberState()  # as of the last step; any thread may read it
        self.settling = False  # it waits for the bus, not for the receiver

    @property
    def pending(self) -> int:
        """The number of alerts that wait to be delivered."""
        return sum(box.waiting for box in self._boxes.values())

    @property
    def reached(self) -> int:
        """Every alert below this offset is done: the sum of `places` over the partitions."""
        return sum(self.places.values())

    @property
    def places(self) -> dict[int, int]:
        """Partition -> the offset below which every alert is done."""
        return {number: box.safe for number, box in self._boxes.items()}

    @property
    def lost(self) -> int:
        """The number of alerts that retention deleted before they were read."""
        return self._reader.lost

    @property
    def idle(self) -> bool:
        """Whether all alerts have been read and are done."""
        return self._caught_up and self.pending == 0

    def step(self, wait: float = 0.0) -> int:
        """Runs one turn; returns how many alerts were read or tried. Waits at most `wait` s."""
        moved = self._read(min(wait, self._until_due()))
        self._renew()
        moved += self._send()
        self._commit()
        self._tell_state()
        return moved

    def close(self) -> None:
        """Closes the reader; the next Delivery sends again what was not committed."""
        self._reader.close()

    def _read(self, wait: float) -> int:
        room = min(ALERTS_A_STEP, self._room())
        if room <= 0:
            self._caught_up = False
            if wait > 0:
                self._outside.pause(wait)
            return 0
        entries = self._polled(self._reader.poll(room, wait))
        self._caught_up = not entries and bool(self._boxes)
        for entry in entries:
            self._take(entry)
        return len(entries)

    def _room(self) -> int:
        """How many more alerts may wait in memory."""
        return MAX_PENDING - sum(len(box.pending) for box in self._boxes.values())

    def _unread(self) -> int:
        return sum(self._reader.behind(number) for number in self._boxes)

    def _polled(self, events: Sequence[Assigned | Entry | Revoked]) -> list[Entry]:
        entries: list[Entry] = []
        for event in events:
            match event:
                case Assigned():
                    box = Outbox(event.offset, event.note)
                    self._boxes[event.partition] = box
                    known = (event.offset, box.breaker) if event.note else None
                    self._committed[event.partition] = known
                    self._breaker.restore(box.breaker)
                case Revoked():
                    self._boxes.pop(event.partition, None)
                    self._committed.pop(event.partition, None)
                    entries = [e for e in entries if e.partition != event.partition]
                case Entry():
                    entries.append(event)
        return entries

    def _renew(self) -> None:
        """After an enabling by hand all waiting alerts are due."""
        if self._breaker.renew():
            for _, item in self._waiting():
                item.next = 0.0

    def _take(self, entry: Entry) -> None:
        box = self._boxes[entry.partition]
        if not box.wants(entry.offset):
            return
        try:
            alert = decoded(entry, topics.ALERTS)
        except DecodeError as error:
            self._bury(entry, entry.key, str(error))
            box.passed(entry.offset)
            return
        if not isinstance(alert, Alert):
            box.passed(entry.offset)
        elif not self._subscriber.wants.wants(alert):
            box.passed(entry.offset)
            self._tell(alert, "filtered")
        else:
            box.take(entry.offset, entry.value, alert, entry.trace)

    def _send(self) -> int:
        began = self._clock()
        tried = 0
        while tried < ALERTS_A_STEP and (
            tried == 0 or abs(self._clock() - began) < ATTEMPTS_END_AFTER
        ):
            found = self._next(self._clock())
            if found is None:
                break
            partition, item = found
            self._attempt(partition, item)
            tried += 1
        return tried

    def _next(self, now: float) -> tuple[int, Pending] | None:
        disabled = self._breaker.disabled
        if not disabled and not self._breaker.lets(now):
            return None
        return min(
            (found for found in self._waiting() if disabled or found[1].due(now)),
            key=lambda found: (found[1].attempts, found[1].offset, found[0]),
            default=None,
        )

    def _attempt(self, partition: int, item: Pending) -> None:
        self._touched.add(partition)
        if self._breaker.disabled:
            self._breaker.died()
            self._die(partition, item, f"disabled: {GONE}")
            return
        try:
            self._subscriber.sink.send(item.alert, trace.child(item.trace, self._subscriber.group))
        except Retry as retry:
            self._failed(partition, item, retry)
        except Rejected as rejected:
            if rejected.disable:
                self._recovered = False
                self._breaker.gone(str(rejected), self._clock())
                self._breaker.died()
            else:
                self._log.died(event_id(item.alert), str(rejected))
            self._die(partition, item, str(rejected))
        except Exception as error:
            self._failed(partition, item, Retry(self._log.defect(error)))
        else:
            self._boxes[partition].done(item.offset)
            self._sent.append((partition, item))
            self._recovered = True

    def _flush(self) -> bool:
        """Makes what was sent durable; otherwise it is to be sent again. Returns which of both."""
        sent, self._sent = self._sent, []
        try:
            self._subscriber.flush()
        except Exception as error:
            known = isinstance(error, OutsideError)
            retry = Retry(str(error) if known else self._log.defect(error))
            for partition, item in sent:
                if partition in self._boxes:
                    self._boxes[partition].pending[item.offset] = item
                    self._failed(partition, item, retry)
            return False
        for _, item in sent:
            self._tell(item.alert, "delivered")
        if self._recovered:
            self._well()
        return True

    def _failed(self, partition: int, item: Pending, retry: Retry) -> None:
        now = self._clock()
        after = retry.after or 0.0
        item.attempts += 1
        item.alone = retry.alone
        item.next = now + max(after, delay(item.attempts, self._outside.random()))
        self._tell(item.alert, "retried")
        if not retry.alone:
            self._breaker.failed(str(retry), after, now, first=self._recovered)
            self._recovered = False
        if item.attempts > (MAX_REFUSALS if retry.alone else len(RETRY_DELAYS)):
            reason = f"given up after {item.attempts} attempts: {retry}"
            if retry.alone:
                self._log.died(event_id(item.alert), reason)
            else:
                self._breaker.died()
            self._die(partition, item, reason)

    def _well(self) -> None:
        """Closes the circuit breaker after a success; after an outage waiting alerts are due."""
        if self._breaker.outage:
            for _, item in self._waiting():
                item.next = item.next if item.alone else 0.0
        self._recovered = False
        self._breaker.well()

    def _die(self, partition: int, item: Pending, reason: str) -> None:
        entry = Entry(partition, item.offset, item.alert.site, item.value, item.trace)
        self._bury(entry, item.alert.site, reason)
        self._boxes[partition].done(item.offset)
        self._tell(item.alert, "dead")

    def _bury(self, entry: Entry, site: str, reason: str) -> None:
        source = f"delivery/{self.name}"
        self._touched.add(entry.partition)
        with self._settles():
            self._dead(
                dead_letter(
                    site=site, source=source, topic=topics.ALERTS, entry=entry, reason=reason
                )
            )

    def _commit(self) -> None:
        if self._sent and not self._flush():
            return
        # What was only read is read again after a restart: it costs no commit. So a subscriber that
        # hangs does not make the disk of the others busy.
        with self._settles():
            for number, box in self._boxes.items():
                known = (box.safe, self._breaker.value)
                if number in self._touched or known != self._committed[number]:
                    self._reader.commit(number, box.safe, box.note(self._breaker.value))
                    self._committed[number] = known
        self._touched.clear()

    @contextmanager
    def _settles(self) -> Iterator[None]:
        self.settling = True
        try:
            yield
        finally:
            self.settling = False

    def _until_due(self) -> float:
        """Seconds until the next attempt; infinite if nothing waits."""
        now = self._clock()
        nexts = [item.next for _, item in self._waiting()]
        if not nexts:
            return float("inf")
        until = max(min(nexts), self._breaker.value.until)
        return 0.0 if self._breaker.disabled or wait_over(until, now) else until - now

    def _waiting(self) -> Iterator[tuple[int, Pending]]:
        """(partition, alert) of all alerts that are read and not done."""
        for partition, box in self._boxes.items():
            for item in box.pending.values():
                yield partition, item

    def _tell_state(self) -> None:
        """Sets `state`, and logs it if it has changed."""
        breaker, now = self._breaker.value, self._clock()
        nexts = [item.next for _, item in self._waiting() if item.attempts]
        self.state = state_of(
            breaker,
            disabled=self._breaker.disabled,
            waiting=self.pending + (0 if self._room() > 0 else self._unread()),
            next_try=max(min(nexts), breaker.until, now) if nexts else 0.0,
        )
        self._log.saw(self.state, breaker.since, now)

    def _tell(self, alert: Alert, what: str) -> None:
        self._outside.count(alert.site, f"delivery/{self.name}", what)
