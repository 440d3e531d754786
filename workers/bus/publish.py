"""Publishes captured records: a record's trace begins here."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import codec, topics, trace
from pipeline.ports import Bus
from pipeline.types import Record


def capture(bus: Bus, topic: str, record: Record) -> None:
    """Publish what a source gave: here its trace begins."""
    key = topics.key_of(topic, record)
    bus.publish(topic, key, codec.encode(record), trace.begin(record))


def publish_all(bus: Bus, topic: str, records: Sequence[Record]) -> None:
    """Publish records to one topic; durable when it returns."""
    for record in records:
        capture(bus, topic, record)
    bus.flush()
