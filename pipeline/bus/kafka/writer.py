"""Publishes to Kafka through one idempotent producer per compression type. Thread-safe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Lock, Thread, local
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka
from kafka.partitioner.default import murmur2

from pipeline import topics
from pipeline.bus.kafka import record
from pipeline.bus.kafka.connection import Connector
from pipeline.errors import OutsideError
from pipeline.limits import most_bytes

# JPEGs do not compress; 16-bit sound is mostly noise: a fast compressor gains about as much
COMPRESSION: dict[str, str | None] = {topics.FRAMES: None, topics.AUDIO: "lz4"}
OTHERWISE = "zstd"
HEADROOM = 65_536  # bytes of a record beside its value: key, headers, Kafka's overhead
BATCH = 1 << 20  # bytes; 7 frames of 150 kB travel together
REQUEST = 8 << 20  # bytes of one request to a broker
BUFFERED = 64 << 20  # bytes; limit of a thread's unacknowledged records
PATIENCE = 300.0  # s; longest wait of `flush` for brokers that do not answer
DELIVERY = 7 * 86_400_000  # ms; if a batch expired earlier, later ones would overtake it
NEW_TOPIC = 3.0  # s; a topic that the brokers do not know after this time is missing
KEYS = 100_000  # size of the cache of key hashes


class _Buffer(local):
    """The records that one thread published and the brokers have not acknowledged."""

    def __init__(self) -> None:
        self.futures: deque[tuple[str, Any]] = deque()  # topic on the wire, kafka-python's future
        self.bytes = 0


class Writer:
    """Publishes records to topics whose names begin with `prefix`.

    A value of more than `max_message` bytes is not sent; the limit is higher for a record that
    wraps another (`limits.most_bytes`). `exists` checks a topic over another connection.
    """

    def __init__(
        self, link: Connector, prefix: str, max_message: int, exists: Callable[[str], bool]
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._exists = exists
        self._max_message = max_message
        self._batch = min(BATCH, max_message)
        self._lock = Lock()
        self._producers: dict[str | None, Any] = {}
        self._hashes: dict[str, tuple[bytes, int]] = {}
        self._buffer = _Buffer()
        self._closed = False

    def publish(self, topic: str, key: str, value: bytes, trace: str) -> None:
        """Hands a record to the producer; blocks only while this thread has too many bytes in
        flight."""
        if len(value) > most_bytes(topic, self._max_message):
            msg = f"a record of {len(value)} bytes for {topic}: bus.max_message is the limit"
            raise OutsideError(msg)
        if self._buffer.bytes + len(value) > BUFFERED:
            self.flush()
        producer = self._producer(topic)
        wire = record.topic(self._prefix, topic)
        name, number = self._hash(key)
        try:
            partition = number % len(producer.partitions_for(wire))
            future = producer.send(wire, value, name, record.headers(trace), partition=partition)
        except kafka.KafkaError as error:
            raise self._refused(error, f"publish to {wire}", wire) from error
        self._buffer.futures.append((wire, future))
        self._buffer.bytes += len(value)

    def settled(self, wait: float) -> bool:
        """Returns whether all that this thread published is acknowledged; waits up to `wait`
        seconds.

        Raises OutsideError when a record failed for good: call `discard` and publish again.
        """
        until = time.monotonic() + wait
        futures = self._buffer.futures
        while futures:
            wire, future = futures[0]
            if not future.is_done:
                try:
                    future.get(timeout=max(0.0, until - time.monotonic()))
                except kafka.KafkaTimeoutError:
                    if not future.is_done:
                        return False
                except kafka.KafkaError:
                    pass  # raised below
            if future.failed():
                error = future.exception
                raise self._link.outside(error, f"publish to {wire}") from error
            futures.popleft()
        self._buffer.bytes = 0
        return True

    def flush(self) -> None:
        """Waits until all that this thread published is acknowledged; raises OutsideError.

        After an error the records are dropped and do not arrive any more.
        """
        try:
            if not self.settled(PATIENCE):
                error = kafka.KafkaTimeoutError(f"not within {PATIENCE:.0f} s")
                raise self._link.outside(error, "publish")
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Drops what this thread published: none of it arrives after later records.

        Unacknowledged records of other threads fail, and those threads get the error.
        """
        self._buffer.futures.clear()
        self._buffer.bytes = 0
        with self._lock:
            given_up = list(self._producers.values())
            self._producers.clear()
        for producer in given_up:
            _abandon(producer)

    def close(self) -> None:
        """Closes the producers; records that were not flushed are lost, and waiting threads
        get an error."""
        self._closed = True
        self.discard()

    def _refused(self, error: kafka.KafkaError, doing: str, wire: str) -> OutsideError:
        # kafka-python times out alike for brokers that do not answer and for a missing topic
        if isinstance(error, kafka.KafkaTimeoutError) and not self._exists(wire):
            error = kafka.UnknownTopicOrPartitionError(wire)
        return self._link.outside(error, doing)

    def _hash(self, key: str) -> tuple[bytes, int]:
        found = self._hashes.get(key)
        if found is None:
            if len(self._hashes) >= KEYS:
                self._hashes.clear()
            name = key.encode()
            found = self._hashes[key] = (name, hashed(key))
        return found

    def _producer(self, topic: str) -> Any:
        """Returns the producer of this topic's compression type."""
        codec = COMPRESSION.get(topic, OTHERWISE)
        producer = self._producers.get(codec)
        if producer is None:
            with self._lock:
                if self._closed:
                    msg = "the bus is closed"
                    raise OutsideError(msg)
                producer = self._producers.get(codec)
                if producer is None:
                    producer = self._producers[codec] = self._open(codec)
        return producer

    def _open(self, codec: str | None) -> Any:
        return self._link.open(
            KafkaProducer,
            metrics_enabled=False,
            acks="all",
            enable_idempotence=True,
            compression_type=codec,
            batch_size=self._batch,
            max_request_size=max(most_bytes(topics.DEAD, self._max_message) + HEADROOM, REQUEST),
            delivery_timeout_ms=DELIVERY,
            max_block_ms=int(NEW_TOPIC * 1000),
            allow_auto_create_topics=False,
        )


def hashed(key: str) -> int:
    """Returns Kafka's hash of a key; its remainder by the number of partitions is the partition.

    Every Kafka client uses this hash by default.
    """
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def _abandon(producer: Any) -> None:
    """Closes a producer without waiting for its unsent records; bounded, even when brokers hang."""

    def end() -> None:
        # The public close() first waits for every record, and aborts the close if that fails
        producer._sender.force_close()  # noqa: SLF001
        producer._sender.join(5)  # noqa: SLF001
        producer.close(timeout=0)

    ending = Thread(target=end, name="kafka-abandon", daemon=True)
    ending.start()
    ending.join(2)
