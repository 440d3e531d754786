"""Publishes captured records and begins their traces."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import codec, topics, trace
from pipeline.ports import Bus
from pipeline.types import Record


def publish_captured(bus: Bus, topic: str, record: Record) -> None:
    """Publishes a captured record and begins its trace; `Bus.flush` makes it durable."""
    key = topics.key_of(topic, record)
    bus.publish(topic, key, codec.encode(record), trace.begin(record))


def publish_all(bus: Bus, topic: str, records: Sequence[Record]) -> None:
    """Publishes records to one topic; they are durable when it returns."""
    for record in records:
        publish_captured(bus, topic, record)
    bus.flush()
