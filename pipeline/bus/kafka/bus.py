"""The bus of many processes: Apache Kafka, by kafka-python. What it promises: docs/kafka.md.

Our names are short (`frames.v1`, `vision`); the brokers know them as `PREFIX.frames.v1` and
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

FETCH_BYTES = 16 << 20  # bytes that a reader asks for at a time, and so holds at most twice
FETCH_PARTITION_BYTES = 4 << 20
SESSION_TIMEOUT_MS = 45_000  # ms that a member may be gone before others get its partitions
MAX_POLL_INTERVAL_MS = 600_000  # ms between two polls, after which a member counts as hung
FETCH_WAIT_MS = 250  # ms that a broker waits for something new


class KafkaBus:
    """The brokers of `settings`, whose password is looked up already; for any thread.

    `instance` is the name by which a group knows this process again after a restart (static
    membership), `client` our name in the brokers' logs. Connects when first used.
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
        """Sends in the background; raises OutsideError for an unknown topic or a large value."""
        self._writer.publish(topic, key, value, trace)

    def flush(self) -> None:
        """Waits until the brokers have all that this thread published; OutsideError after 5 min.

        What failed is forgotten: nothing of it arrives later.
        """
        self._writer.flush()

    def settled(self, wait: float) -> bool:
        """Whether the brokers have all that this thread published; waits at most `wait` seconds.

        False: it stays with the producer, in its order, and may be asked again. Raises OutsideError
        when a record failed for good: `discard`, and publish again.
        """
        return self._writer.settled(wait)

    def discard(self) -> None:
        """Forgets what was published and is not settled; nothing of it arrives later."""
        self._writer.discard()

    def partition_of(self, topic: str, key: str) -> int:
        """Where the records of a key are, by Kafka's own hash (murmur2)."""
        return hashed(key) % self._monitor.partitions(self._topic(topic))

    def reader(self, topic: str, group: str) -> KafkaReader:
        """The only reader of `group` in this process; it shares the partitions with the others."""
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
        """What is still held of `key` and overlaps `[start, end)` ns, oldest first.

        Found by append time, a minute of slack before `start`; bounded, for evidence only.
        """
        name, span = self._topic(topic), (start, end)
        return self._monitor.fetch(name, self.partition_of(topic, key), key.encode(), span)

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        """What was appended in `[start, end)` ns, each partition in its order."""
        return (entry for _, entry in self.appended(topic, start, end))

    def appended(self, topic: str, start: int, end: int) -> Iterator[tuple[int, Entry]]:
        """As `between`, each with the time that the broker appended it at, in ns."""
        return self._monitor.appended(self._topic(topic), start, end)

    def end(self, topic: str) -> dict[int, int]:
        """The offset that the next record of each partition will have."""
        return self._monitor.ends(self._topic(topic))

    def oldest(self, topic: str) -> dict[int, int]:
        """The offset of the oldest record still held in each partition; its end where none is."""
        return self._monitor.ends(self._topic(topic), oldest=True)

    def committed(self, topic: str, group: str) -> dict[int, tuple[int, bytes]]:
        """Offset and note of each partition that `group` has committed."""
        return self._monitor.committed(self._topic(topic), self._group(group))

    def close(self) -> None:
        """Ends within seconds, also where brokers hang; what was not flushed is forgotten."""
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
            auto_offset_reset="none",  # where to begin is decided by the reader, aloud
            allow_auto_create_topics=False,
            fetch_max_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=max(FETCH_PARTITION_BYTES, largest),
            session_timeout_ms=SESSION_TIMEOUT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        )
