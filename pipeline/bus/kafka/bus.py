"""The bus for many processes: Apache Kafka, by kafka-python (docs/reference/kafka-bus.md).

Fusewatch uses short names (`frames.v1`, `vision`); the brokers know them as `PREFIX.frames.v1` and
`PREFIX-vision`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from pipeline import topics
from pipeline.bus.kafka import record
from pipeline.bus.kafka.connection import Connector
from pipeline.bus.kafka.monitor import Monitor
from pipeline.bus.kafka.reader import KafkaReader
from pipeline.bus.kafka.writer import Writer, hashed
from pipeline.config import schema
from pipeline.limits import RECORD_HEADROOM, most_bytes
from pipeline.ports import Entry

__all__ = ["KafkaBus", "KafkaReader"]

FETCH_BYTES = 16 << 20  # bytes of one fetch request; a reader holds at most twice as much
FETCH_PARTITION_BYTES = 4 << 20
SESSION_TIMEOUT_MS = 45_000  # ms without a heartbeat, after which other members get the partitions
MAX_POLL_INTERVAL_MS = 600_000  # ms between two polls; a slower member counts as hung
FETCH_WAIT_MS = 250  # ms; longest wait of a broker for new records


class KafkaBus:
    """A bus on the brokers of `settings`, whose password is already resolved. Thread-safe.

    `instance` is the name by which a group recognises this process after a restart (static
    membership). `client` is the client name in the brokers' logs. The bus connects on first use.
    """

    def __init__(
        self, settings: schema.KafkaBus, *, instance: str = "", client: str = "fusewatch"
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._link = Connector(settings, client)
        self._writer = Writer(self._link, settings.prefix, settings.max_message, self._exists)
        self._monitor = Monitor(self._link)
        self._lock = Lock()
        self._reading: dict[tuple[str, str], KafkaReader] = {}

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Sends in the background; raises OutsideError for an unknown topic or too large a
        value."""
        self._writer.publish(topic, key, value, trace)

    def flush(self) -> None:
        """Waits until the brokers have acknowledged all that this thread published.

        Raises OutsideError after 5 minutes. Records that failed are dropped: they do not arrive
        later.
        """
        self._writer.flush()

    def settled(self, wait: float) -> bool:
        """Returns whether the brokers have acknowledged all that this thread published.

        Waits at most `wait` seconds. On False the records stay in the producer, in order, and the
        caller may ask again. Raises OutsideError when a record failed for good: call `discard` and
        publish again.
        """
        return self._writer.settled(wait)

    def discard(self) -> None:
        """Drops this thread's records that the brokers have not acknowledged; they do not
        arrive later."""
        self._writer.discard()

    def partition_of(self, topic: str, key: str) -> int:
        """Returns the partition of a key, by Kafka's default hash (murmur2)."""
        return hashed(key) % self._monitor.partitions(self._topic(topic))

    def reader(self, topic: str, group: str) -> KafkaReader:
        """Returns the only reader of `group` in this process.

        It shares the partitions with the readers of other processes. Raises RuntimeError while
        another reader of the group is open here.
        """
        with self._lock:
            if (topic, group) in self._reading:
                msg = f"group {group} reads {topic} already: close its reader first"
                raise RuntimeError(msg)
            reader = self._reading[topic, group] = KafkaReader(
                self._link,
                self._topic(topic),
                lambda: self._consumer(group),
                self._exists,
                lambda: self._reading.pop((topic, group), None),
            )
        return reader

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        """Returns the stored values of `key` that overlap `[start, end)` ns, oldest first.

        Searches by append time, from one minute before `start`. The search is bounded in bytes and
        time, so it serves evidence only.
        """
        name, span = self._topic(topic), (start, end)
        return self._monitor.fetch(name, self.partition_of(topic, key), key.encode(), span)

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        """Yields the entries appended in `[start, end)` ns, in order within each partition."""
        return (entry for _, entry in self.appended(topic, start, end))

    def appended(self, topic: str, start: int, end: int) -> Iterator[tuple[int, Entry]]:
        """Yields the entries of `between`, each with its append time at the broker, in ns."""
        return self._monitor.appended(self._topic(topic), start, end)

    def end(self, topic: str) -> dict[int, int]:
        """Returns the end offset of each partition: the offset of its next record."""
        return self._monitor.ends(self._topic(topic))

    def oldest(self, topic: str) -> dict[int, int]:
        """Returns the offset of each partition's oldest stored record; its end offset if it
        is empty."""
        return self._monitor.ends(self._topic(topic), oldest=True)

    def exists(self, topic: str) -> bool:
        """Returns whether the brokers have the topic; waits up to 5 s for one that is missing."""
        return self._exists(self._topic(topic))

    def committed(self, topic: str, group: str) -> dict[int, tuple[int, bytes]]:
        """Returns the offset and the note that `group` has committed, by partition."""
        return self._monitor.committed(self._topic(topic), self._group(group))

    def close(self) -> None:
        """Closes within seconds, even when brokers hang; records that were not flushed are lost."""
        self._writer.close()
        for reader in list(self._reading.values()):
            reader.close()
        self._monitor.close()

    def _topic(self, name: str) -> str:
        return record.topic(self._settings.prefix, name)

    def _group(self, name: str) -> str:
        return record.group(self._settings.prefix, name)

    def _exists(self, wire: str) -> bool:
        return self._monitor.exists(wire)

    def _consumer(self, group: str) -> Any:
        largest = most_bytes(topics.DEAD, self._settings.max_message) + RECORD_HEADROOM
        return self._link.open(
            KafkaConsumer,
            metrics_enabled=False,
            group_id=self._group(group),
            group_instance_id=f"{self._instance}-{group}" if self._instance else None,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # the reader chooses the start offset itself
            allow_auto_create_topics=False,
            fetch_max_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=max(FETCH_PARTITION_BYTES, largest),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        )
