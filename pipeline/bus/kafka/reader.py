"""One member of a consumer group; `poll` returns rebalances as events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka

from pipeline.bus.kafka.connection import Connector, passing
from pipeline.bus.kafka.group_member import CLOSE, Member
from pipeline.bus.kafka.record import entry
from pipeline.errors import OutsideError
from pipeline.ports import Assigned, Entry, Revoked

PATIENCE = 300.0  # s; longest wait of a commit for brokers that do not answer
ANSWER = 5.0  # s; limit for the brokers' answer to one question
AGAIN = 0.1  # s between retries
LOOK = 2.0  # s between requests for the end offsets of idle partitions
STALE = 5.0  # s; age after which known end offsets are not used

Event = Assigned | Entry | Revoked


class KafkaReader:
    """Reads `topic` (its name on the brokers) for one group. Not thread-safe.

    `make` opens a consumer of the group. `release` allows another reader of the group.

    `lost` counts records that retention deleted before they were read. A commit during a rebalance
    is not an error: it is made after the rebalance if this member still owns the partition.
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
        self._placing: set[int] = set()  # assigned, start offset not known yet
        self._next: dict[int, int] = {}  # partition -> offset to read next
        self._commits: dict[int, tuple[int, bytes]] = {}
        self._owed: set[int] = set()  # partitions whose commit is still to be made
        self._ends: dict[int, int] = {}
        self._look_at = 0.0
        self._answered = self._committed = -1e9  # monotonic seconds

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Event]:
        """Returns at most `limit` entries, and none while the brokers do not answer.

        Raises OutsideError for errors that need an operator, and when no broker was ever reached.
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
        """Commits, durably on return; raises OutsideError when brokers stay away or refuse the
        note.

        Nothing is committed for a partition that this member no longer owns: the next `poll`
        reports it.
        """
        self._check_open()
        if partition in self._next:
            self._commits[partition] = (offset, note)
            until = time.monotonic() + PATIENCE
            while (error := self._commit(partition)) is not None:
                if time.monotonic() > until:
                    doing = f"commit {self._topic}/{partition}"
                    raise self._link.outside(error, doing) from error
                time.sleep(AGAIN)

    def behind(self, partition: int) -> int:
        """Returns the number of entries not polled yet; at least 1 after 5 s without an answer."""
        known = partition in self._ends and time.monotonic() - self._answered < STALE
        if not known:
            return 1
        return max(0, self._ends[partition] - self._next.get(partition, 0))

    def close(self) -> None:
        """Leaves the group within seconds; entries that were not committed are read again.

        A member with an instance id keeps its partitions until it returns or its session times out.
        """
        if self._closed:
            return
        self._closed = True
        if self._member is not None:
            end = Thread(target=self._member.close, name="kafka-close", daemon=True)
            end.start()
            end.join(2 * CLOSE)
        self._release()

    def _opened(self) -> Member:
        if self._member is None:
            if not self._exists(self._topic):  # otherwise kafka-python waits for ever
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
        """Returns the new partitions' start offsets; those unknown now stay for the next poll."""
        placed: list[Event] = []
        for number in sorted(self._placing):
            try:
                placed.append(self._place(number))
            except kafka.KafkaError as error:
                self._endure(error, "learn where to begin", 0.0)
                break
        return placed

    def _place(self, number: int) -> Assigned:
        part, wait = self._part(number), int(ANSWER * 1000)
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
        self._commits[number] = (offset, note.encode())  # a note may depend on its offset
        self._committed = time.monotonic()
        return Assigned(number, offset, note.encode())

    def _forget(self, number: int) -> None:
        self._placing.discard(number)
        self._owed.discard(number)
        for known in (self._next, self._commits, self._ends):
            known.pop(number, None)

    def _commit(self, number: int) -> kafka.KafkaError | None:
        """Tries once and returns a transient error. The commit stays owed until it succeeds."""
        offset, note = self._commits[number]
        what = {self._part(number): OffsetAndMetadata(offset, note.decode("ascii"), -1)}
        self._owed.add(number)
        try:
            self._consumer.commit(what, timeout_ms=int(ANSWER * 1000))
        except (kafka.CommitFailedError, kafka.RebalanceInProgressError):
            return None  # `poll` commits after the rebalance, or reports the partition as revoked
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
                return  # the brokers do not answer: one attempt per poll is enough

    def _look(self) -> None:
        """Asks the partitions' leaders for the end offsets; this also shows whether they answer."""
        self._look_at = time.monotonic() + LOOK
        parts = [self._part(number) for number in self._next]
        if not parts:
            return
        try:
            ends = self._consumer.end_offsets(parts, timeout_ms=1000)
        except kafka.KafkaError as error:
            self._look_at = time.monotonic() + STALE
            self._endure(error, "look at its end", 0.0)
            return
        self._answered = time.monotonic()
        self._ends.update({part.partition: end for part, end in ends.items()})
        if self._answered - self._committed > 5 * LOOK:
            # Only a commit tells an idle member that another one took over its instance id
            self._commit(next(iter(self._next)))

    def _out_of_range(self, error: Any) -> None:
        """Continues at the oldest record if retention deleted ours; raises beyond the end
        offset."""
        wait = int(ANSWER * 1000)
        for part, offset in error.args[0].items():
            try:
                first = self._consumer.beginning_offsets([part], timeout_ms=wait)[part]
                end = self._consumer.end_offsets([part], timeout_ms=wait)[part]
            except kafka.KafkaError as away:
                self._endure(away, "learn where it begins", 0.0)
                return  # the next poll raises the same error and tries again
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
        """Waits when the brokers do not answer; raises for any other error."""
        if not passing(error):
            raise self._link.outside(error, f"{doing} ({self._topic})") from error
        time.sleep(min(AGAIN, max(0.0, until - time.monotonic())))

    def _part(self, number: int) -> Any:
        return TopicPartition(self._topic, number)

    def _check_open(self) -> None:
        if self._closed:
            msg = f"the reader of {self._topic} is closed"
            raise RuntimeError(msg)
