"""Reads Kafka from outside the consumer groups: end offsets, commits, records by append time.

It uses connections of its own, so a hung reader or producer does not block it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka
from kafka.admin import KafkaAdminClient
from kafka.protocol.consumer import OffsetSpec

from pipeline import codec
from pipeline.bus.kafka.connection import ANSWER_TIMEOUT, RETRY_AFTER, Connector
from pipeline.bus.kafka.record import entry
from pipeline.ports import Entry

# ms; a record is appended at most this long before its event time ends
APPENDED_EARLIER_MS = 60_000
MAX_FETCH_BYTES = 256 << 20  # bytes; limit of one `fetch`
FETCH_TIMEOUT = 20.0  # s; limit of one `fetch`
MAX_HELD = 500  # records of one partition that wait for those of others

T = TypeVar("T")


class Monitor:
    """Answers questions about topics and groups, by their names on the brokers. Thread-safe."""

    def __init__(self, link: Connector) -> None:
        self._link = link
        self._lock = Lock()
        self._admin: Any = None

    def exists(self, topic: str) -> bool:
        """Returns whether the topic exists; waits up to 5 s for a topic that is being created."""
        until = time.monotonic() + ANSWER_TIMEOUT
        while self._ask(lambda admin: _count(admin, topic), f"look at {topic}") is None:
            if time.monotonic() > until:
                return False
            time.sleep(RETRY_AFTER)
        return True

    def partitions(self, topic: str) -> int:
        """Returns the number of partitions of a topic."""
        return self._ask(lambda admin: _known(admin, topic), f"look at {topic}")

    def ends(self, topic: str, *, oldest: bool = False) -> dict[int, int]:
        """Returns the end offset of each partition, or with `oldest` its oldest stored offset."""
        spec = OffsetSpec.EARLIEST if oldest else OffsetSpec.LATEST
        return self._ask(lambda admin: _offsets(admin, topic, spec), f"look at {topic}")

    def committed(self, topic: str, group: str) -> dict[int, tuple[int, bytes]]:
        """Returns the offset and the note that the group has committed, by partition."""

        def ask(admin: Any) -> dict[int, tuple[int, bytes]]:
            found = admin.list_group_offsets({group: None})[group]
            return {
                at.partition: (commit.offset, (commit.metadata or "").encode())
                for at, commit in found.items()
                if at.topic == topic and commit.offset >= 0
            }

        return self._ask(ask, f"look at the group {group}")

    def appended(self, topic: str, start: int, end: int) -> Iterator[tuple[int, Entry]]:
        """Yields (append time in ns, entry) for `[start, end)` ns, in order within each
        partition."""
        from_, to = max(0, start // 1_000_000), max(0, -(-end // 1_000_000))
        parts = [TopicPartition(topic, n) for n in self.ends(topic)]
        consumer = self._consumer()
        try:
            for record in _records(consumer, parts, from_, to):
                yield record.timestamp * 1_000_000, entry(record.partition, record)
        except kafka.KafkaError as error:
            raise self._link.outside(error, f"read {topic}") from error
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)

    def fetch(
        self, topic: str, partition: int, key: bytes, span: tuple[int, int]
    ) -> Sequence[bytes]:
        """Returns the stored values of `key` that overlap the span (ns); for evidence only."""
        start, end = span
        found: list[bytes] = []
        left, until = MAX_FETCH_BYTES, time.monotonic() + FETCH_TIMEOUT
        consumer = self._consumer()
        try:
            parts = [TopicPartition(topic, partition)]
            for record in _records(
                consumer, parts, max(0, start // 1_000_000 - APPENDED_EARLIER_MS), None
            ):
                left -= len(record.value or b"")
                if left < 0 or time.monotonic() > until:
                    break
                if record.key != key or record.value is None:
                    continue
                seen = codec.span(record.value)
                if seen is None:
                    continue
                if seen[0] >= end:
                    break
                if seen[1] > start:
                    found.append(record.value)
        except kafka.KafkaError as error:
            raise self._link.outside(error, f"read {topic}") from error
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)
        return found

    def close(self) -> None:
        """Closes the admin connection; the next question opens another."""
        with self._lock:
            self._drop()

    def _ask(self, question: Callable[[Any], T], doing: str) -> T:
        until = time.monotonic() + ANSWER_TIMEOUT
        with self._lock:
            while True:
                try:
                    if self._admin is None:
                        self._admin = self._link.open(
                            KafkaAdminClient, request_timeout_ms=int(ANSWER_TIMEOUT * 1000)
                        )
                    return question(self._admin)
                except kafka.KafkaError as error:
                    # A client caches the coordinator of a group, and may ask a broker that does not
                    # know a new topic yet: retry with a new client
                    if not isinstance(error, kafka.KafkaConnectionError | kafka.NodeNotReadyError):
                        self._drop()
                    if time.monotonic() > until:
                        raise self._link.outside(error, doing) from error
                time.sleep(RETRY_AFTER)

    def _drop(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _consumer(self) -> Any:
        return self._link.open(
            KafkaConsumer,
            metrics_enabled=False,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_partition_fetch_bytes=8 << 20,
        )


def _count(admin: Any, topic: str) -> int | None:
    (found,) = admin.describe_topics([topic])
    if found["error_code"] == kafka.UnknownTopicOrPartitionError.errno:
        return None
    if found["error_code"]:
        raise kafka.for_code(found["error_code"])(topic)
    return len(found["partitions"])


def _known(admin: Any, topic: str) -> int:
    count = _count(admin, topic)
    if count is None:
        raise kafka.UnknownTopicOrPartitionError(topic)
    return count


def _offsets(admin: Any, topic: str, spec: OffsetSpec) -> dict[int, int]:
    asked = {TopicPartition(topic, n): spec for n in range(_known(admin, topic))}
    return {at.partition: said.offset for at, said in admin.list_partition_offsets(asked).items()}


def _records(consumer: Any, parts: list[Any], start: int, end: int | None) -> Iterator[Any]:
    """Yields the records appended from `start` (ms) to `end`; None: to the present end offset.

    Each partition keeps its order, and the partitions are merged by append time. So who reads
    sources that are spread over partitions gets what belongs together at about the same time.
    """
    wait = int(ANSWER_TIMEOUT * 1000)
    consumer.assign(parts)
    ends = consumer.end_offsets(parts, timeout_ms=wait)
    first = consumer.offsets_for_times(dict.fromkeys(parts, start), timeout_ms=wait)
    after = consumer.offsets_for_times(dict.fromkeys(parts, end), timeout_ms=wait) if end else {}
    left = {}
    for part in parts:
        stop = after[part].offset if after.get(part) else ends[part]
        at = first[part].offset if first[part] else stop
        if at < stop:
            consumer.seek(part, at)
            left[part] = stop
        else:
            consumer.seek(part, stop)
            consumer.pause(part)
    held: dict[Any, deque[Any]] = {part: deque() for part in left}
    while held:
        empty = [part for part, records in held.items() if not records]
        for part in [part for part in empty if part not in left]:
            del held[part]
        if any(part in left for part in empty):
            _fill(consumer, held, left)
        elif held:
            part = min(held, key=lambda of: (held[of][0].timestamp, of.partition))
            yield held[part].popleft()


def _fill(consumer: Any, held: dict[Any, deque[Any]], left: dict[Any, int]) -> None:
    """Polls until something came, or a partition has ended; raises KafkaTimeoutError.

    `left` is the end offset of each partition that is not read to its end; what is ahead of the
    others waits.
    """
    for part in left:
        (consumer.pause if len(held[part]) > MAX_HELD else consumer.resume)(part)
    until = time.monotonic() + FETCH_TIMEOUT
    while True:
        polled = consumer.poll(timeout_ms=500, max_records=500)
        ended = []
        for part, records in polled.items():
            if part in left:
                held[part] += [record for record in records if record.offset < left[part]]
                if not records or records[-1].offset + 1 >= left[part]:
                    ended.append(part)
        # The last offsets may hold no record: only the position shows that the end is reached
        wait = int(ANSWER_TIMEOUT * 1000)
        at = {part: consumer.position(part, timeout_ms=wait) for part in left if part not in ended}
        ended += [part for part, offset in at.items() if offset >= left[part]]
        for part in ended:
            del left[part]
            consumer.pause(part)
        if polled or ended:
            return
        if time.monotonic() > until:
            msg = f"nothing more came within {FETCH_TIMEOUT:.0f} s"
            raise kafka.KafkaTimeoutError(msg)
