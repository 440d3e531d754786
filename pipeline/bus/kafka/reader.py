"""One member of a consumer group: rebalances come out of `poll` as data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka

from pipeline.bus.kafka.connection import (
    ANSWER_TIMEOUT,
    RETRY_AFTER,
    STALE_AFTER,
    Connector,
    passing,
)
from pipeline.bus.kafka.group_member import CLOSE_TIMEOUT, Member
from pipeline.bus.kafka.record import entry
from pipeline.errors import OutsideError
from pipeline.ports import Assigned, Entry, Revoked

COMMIT_TIMEOUT = 300.0  # s that a commit waits for brokers that are away
ENDS_ASKED_EVERY = 2.0  # s between looks at the ends of partitions that are silent

Event = Assigned | Entry | Revoked


class KafkaReader:
    """Reads `topic` (its name on the wire) for one group; for one thread.

    `make` opens a consumer of the group, `release` lets another reader of it be made.

    `lost` counts records that retention deleted before they were read. A commit that comes amid a
    rebalance is made after it, if the partition is still ours: that is no error.
    """

    def __init__(
        self,
        link: Connector,
        topic: str,
        make: Callable[[], Any],
        exists: Callable[[str], bool],
        release: Callable[[], object],
    ) -> None:
        self.lost = 0
        self._link = link
        self._topic = topic
        self._make = make
        self._exists = exists
        self._release = release
        self._closed = False
        self._consumer: Any = None
        self._member: Member | None = None
        self._placing: set[int] = set()  # assigned, and where to begin is not known yet
        self._next: dict[int, int] = {}  # partition -> offset that is read next
        self._commits: dict[int, tuple[int, bytes]] = {}
        self._owed: set[int] = set()  # partitions whose commit is still to be made
        self._ends: dict[int, int] = {}
        self._look_at = 0.0
        self._answered = self._committed = -1e9  # monotonic seconds

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Event]:
        """At most `limit` entries; nothing while the brokers are away.

        Raises OutsideError for what only a person can mend, and when no broker was ever reached.
        """
        self._check_open()
        member = self._opened()
        until = time.monotonic() + wait
        polled: dict[Any, list[Any]] = {}
        try:
            polled = member.poll(limit, wait)
        except kafka.OffsetOutOfRangeError as error:
            self._out_of_range(error)
        except kafka.KafkaError as error:
            self._endure(error, "read", until)
        events = self._rebalanced(member)
        for part, records in polled.items():
            number = part.partition
            events += [entry(number, record) for record in records]
            self._next[number] = records[-1].offset + 1
            self._ends[number] = max(self._ends[number], member.consumer.highwater(part) or 0)
        if self._owed:
            self._settle()
        if time.monotonic() > self._look_at:
            self._look()
        return events

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """Durable on return; raises OutsideError when the brokers stay away, or refuse the note.

        Of a partition that is not ours any longer nothing is committed: `poll` says so next.
        """
        self._check_open()
        if partition in self._next:
            self._commits[partition] = (offset, note)
            until = time.monotonic() + COMMIT_TIMEOUT
            while (error := self._commit(partition)) is not None:
                if time.monotonic() > until:
                    doing = f"commit {self._topic}/{partition}"
                    raise self._link.outside(error, doing) from error
                time.sleep(RETRY_AFTER)

    def behind(self, partition: int) -> int:
        """Entries that wait to be polled; at least 1 while the brokers have not said for 5 s."""
        known = partition in self._ends and time.monotonic() - self._answered < STALE_AFTER
        if not known:
            return 1
        return max(0, self._ends[partition] - self._next.get(partition, 0))

    def close(self) -> None:
        """Leaves the group, within seconds; what was not committed will be read again.

        A member with an instance id keeps its partitions until it comes back, or its session ends.
        """
        if self._closed:
            return
        self._closed = True
        if self._member is not None:
            end = Thread(target=self._member.close, name="kafka-close", daemon=True)
            end.start()
            end.join(2 * CLOSE_TIMEOUT)
        self._release()

    def _opened(self) -> Member:
        if self._member is None:
            if not self._exists(self._topic):  # kafka-python would wait for ever
                error = kafka.UnknownTopicOrPartitionError(self._topic)
                raise self._link.outside(error, f"read {self._topic}")
            self._member = Member(self._make(), self._topic)
            self._consumer = self._member.consumer
        return self._member

    def _rebalanced(self, member: Member) -> list[Event]:
        events: list[Event] = []
        while member.moves:
            assigned, partitions = member.moves.popleft()
            if assigned:
                self._placing.update(partitions)
                continue
            for number in partitions:
                if number in self._next:
                    events.append(Revoked(number))
                self._forget(number)
        return events + self._placed() if self._placing else events

    def _placed(self) -> list[Event]:
        """Where the new partitions begin; those that cannot be told now stay for the next poll."""
        placed: list[Event] = []
        for number in sorted(self._placing):
            try:
                placed.append(self._place(number))
            except kafka.KafkaError as error:
                self._endure(error, "learn where to begin", 0.0)
                break
        return placed

    def _place(self, number: int) -> Assigned:
        part, wait = self._part(number), int(ANSWER_TIMEOUT * 1000)
        found = self._consumer.committed(part, metadata=True, timeout_ms=wait)
        first = self._consumer.beginning_offsets([part], timeout_ms=wait)[part]
        end = self._consumer.end_offsets([part], timeout_ms=wait)[part]
        offset, note = (found.offset, found.metadata or "") if found else (first, "")
        if offset > end:
            raise self._beyond(number, offset, end)
        self.lost += max(0, first - offset)
        self._consumer.seek(part, max(first, offset))
        self._consumer.resume(part)
        self._placing.discard(number)
        self._next[number] = max(first, offset)
        self._ends[number] = end
        self._commits[number] = (offset, note.encode())  # a pair: a note may count from its offset
        self._committed = time.monotonic()
        return Assigned(number, offset, note.encode())

    def _forget(self, number: int) -> None:
        self._placing.discard(number)
        self._owed.discard(number)
        for known in (self._next, self._commits, self._ends):
            known.pop(number, None)

    def _commit(self, number: int) -> kafka.KafkaError | None:
        """Tries once; what stands in the way, if that may pass. Until it is made it is owed."""
        offset, note = self._commits[number]
        what = {self._part(number): OffsetAndMetadata(offset, note.decode("ascii"), -1)}
        self._owed.add(number)
        try:
            self._consumer.commit(what, timeout_ms=int(ANSWER_TIMEOUT * 1000))
        except (kafka.CommitFailedError, kafka.RebalanceInProgressError):
            return None  # `poll` makes it after the rebalance, or says that the partition is gone
        except kafka.KafkaError as error:
            if not passing(error):
                raise self._link.outside(error, f"commit {self._topic}/{number}") from error
            return error
        self._owed.discard(number)
        self._committed = time.monotonic()
        return None

    def _settle(self) -> None:
        for number in list(self._owed):
            if self._commit(number) is not None:
                return  # the brokers are away: one attempt a poll is enough

    def _look(self) -> None:
        """Whether our partitions' leaders answer, and what lies there that did not come yet."""
        self._look_at = time.monotonic() + ENDS_ASKED_EVERY
        parts = [self._part(number) for number in self._next]
        if not parts:
            return
        try:
            ends = self._consumer.end_offsets(parts, timeout_ms=1000)
        except kafka.KafkaError as error:
            self._look_at = time.monotonic() + STALE_AFTER
            self._endure(error, "look at its end", 0.0)
            return
        self._answered = time.monotonic()
        self._ends.update({part.partition: end for part, end in ends.items()})
        if self._answered - self._committed > 5 * ENDS_ASKED_EVERY:
            # An idle member that was replaced by another of its instance id is told only here
            self._commit(next(iter(self._next)))

    def _out_of_range(self, error: Any) -> None:
        """Retention overtook us: goes on at the oldest record. Beyond the end is another matter."""
        wait = int(ANSWER_TIMEOUT * 1000)
        for part, offset in error.args[0].items():
            try:
                first = self._consumer.beginning_offsets([part], timeout_ms=wait)[part]
                end = self._consumer.end_offsets([part], timeout_ms=wait)[part]
            except kafka.KafkaError as away:
                self._endure(away, "learn where it begins", 0.0)
                return  # the next poll stumbles over it again
            if offset > end:
                raise self._beyond(part.partition, offset, end)
            if offset < first:
                self.lost += first - offset
                self._consumer.seek(part, first)
                self._next[part.partition] = first

    def _beyond(self, number: int, offset: int, end: int) -> OutsideError:
        msg = (
            f"Kafka: the group goes on at offset {offset} of {self._topic}/{number}, which ends at "
            f"{end}: the topic was made anew, or has lost its newest records. Delete the offsets "
            "of the group (kafka-consumer-groups --delete-offsets) to read it from its beginning"
        )
        return OutsideError(msg)

    def _endure(self, error: kafka.KafkaError, doing: str, until: float) -> None:
        """Waits where the brokers are away; raises for anything else."""
        if not passing(error):
            raise self._link.outside(error, f"{doing} ({self._topic})") from error
        time.sleep(min(RETRY_AFTER, max(0.0, until - time.monotonic())))

    def _part(self, number: int) -> Any:
        return TopicPartition(self._topic, number)

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the reader of {self._topic} is closed"
            raise RuntimeError(msg)
