"""Publishing to Kafka: one idempotent producer for each way of compressing, for any thread."""

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
from pipeline.limits import RECORD_HEADROOM, most_bytes

# JPEGs do not get smaller; sound is 16 bit noise: a fast one takes what little there is
COMPRESSION: dict[str, str | None] = {topics.FRAMES: None, topics.AUDIO: "lz4"}
DEFAULT_COMPRESSION = "zstd"
BATCH_BYTES = 1 << 20  # bytes; 7 frames of 150 kB travel together
REQUEST_BYTES = 8 << 20  # bytes for one broker at a time
# bytes that a thread may publish before it must wait for their settling
MAX_UNSETTLED_BYTES = 64 << 20
FLUSH_TIMEOUT = 300.0  # s that `flush` waits for brokers that are away
# ms; a batch that gave up earlier would be overtaken by the next
DELIVERY_TIMEOUT_MS = 7 * 86_400_000
MISSING_TOPIC_AFTER = 3.0  # s after which a topic that the brokers do not know is taken for missing
MAX_KEYS = 100_000  # whose partition is remembered


class _Buffer(local):
    """What one thread published and was not yet told to be safe."""

    def __init__(self) -> None:
        self.futures: deque[tuple[str, Any]] = deque()  # topic on the wire, kafka-python's future
        self.bytes = 0


class Writer:
    """`prefix` comes before the topics' names; a value of more than `max_message` bytes (in a
    wrapper: `run.most_bytes`) never leaves this process. `exists` asks for a topic by another way.
    """

    def __init__(
        self, link: Connector, prefix: str, max_message: int, exists: Callable[[str], bool]
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._exists = exists
        self._max_message = max_message
        self._batch = min(BATCH_BYTES, max_message)
        self._lock = Lock()
        self._producers: dict[str | None, Any] = {}
        self._hashes: dict[str, tuple[bytes, int]] = {}
        self._buffer = _Buffer()
        self._closed = False

    def publish(self, topic: str, key: str, value: bytes, trace: str) -> None:
        """Hands a record to the producer; waits only where this thread is far ahead of it."""
        if len(value) > most_bytes(topic, self._max_message):
            msg = f"a record of {len(value)} bytes for {topic}: bus.max_message is the limit"
            raise OutsideError(msg)
        if self._buffer.bytes + len(value) > MAX_UNSETTLED_BYTES:
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
        """Whether all that this thread published is acknowledged; waits at most `wait` seconds.

        Raises OutsideError when a record failed for good; `discard` then, and publish again.
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
                    pass  # said below
            if future.failed():
                error = future.exception
                raise self._link.outside(error, f"publish to {wire}") from error
            futures.popleft()
        self._buffer.bytes = 0
        return True

    def flush(self) -> None:
        """Waits until all that this thread published is safe; raises OutsideError, after that it
        is forgotten and will not arrive any more."""
        try:
            if not self.settled(FLUSH_TIMEOUT):
                error = kafka.KafkaTimeoutError(f"not within {FLUSH_TIMEOUT:.0f} s")
                raise self._link.outside(error, "publish")
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Forgets what this thread published; nothing of it arrives after what comes next.

        What other threads have not settled yet fails there.
        """
        self._buffer.futures.clear()
        self._buffer.bytes = 0
        with self._lock:
            given_up = list(self._producers.values())
            self._producers.clear()
        for producer in given_up:
            _abandon(producer)

    def close(self) -> None:
        """Ends the producers; what was not flushed is lost, and fails where it is waited for."""
        self._closed = True
        self.discard()

    def _refused(self, error: kafka.KafkaError, doing: str, wire: str) -> OutsideError:
        # kafka-python waits alike for brokers that are away and for a topic that nobody made
        if isinstance(error, kafka.KafkaTimeoutError) and not self._exists(wire):
            error = kafka.UnknownTopicOrPartitionError(wire)
        return self._link.outside(error, doing)

    def _hash(self, key: str) -> tuple[bytes, int]:
        found = self._hashes.get(key)
        if found is None:
            if len(self._hashes) >= MAX_KEYS:
                self._hashes.clear()
            name = key.encode()
            found = self._hashes[key] = (name, hashed(key))
        return found

    def _producer(self, topic: str) -> Any:
        """The producer of this topic's compression, which knows the topic's partitions."""
        codec = COMPRESSION.get(topic, DEFAULT_COMPRESSION)
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
            max_request_size=max(
                most_bytes(topics.DEAD, self._max_message) + RECORD_HEADROOM, REQUEST_BYTES
            ),
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            max_block_ms=int(MISSING_TOPIC_AFTER * 1000),
            allow_auto_create_topics=False,
        )


def hashed(key: str) -> int:
    """Modulo the number of partitions this is where a key belongs, for every client of Kafka."""
    return int(murmur2(key.encode())) & 0x7FFFFFFF


def _abandon(producer: Any) -> None:
    """Ends a producer without waiting for what it holds; bounded, also where brokers hang."""

    def end() -> None:
        # The public close() waits for every record first, and gives up itself if that fails
        producer._sender.force_close()  # noqa: SLF001
        producer._sender.join(5)  # noqa: SLF001
        producer.close(timeout=0)

    ending = Thread(target=end, name="kafka-abandon", daemon=True)
    ending.start()
    ending.join(2)
