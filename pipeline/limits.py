"""Limits on the size of a record and of a picture, shared by all that read them."""

from __future__ import annotations

from pipeline import topics

MAX_RECORD_BYTES = 1 << 26  # limit of one record, unless the config sets a lower one
MAX_DEAD_BYTES = 1 << 18  # bytes of a record that its dead letter keeps
RECORD_HEADROOM = 1 << 16  # of a record in Kafka beside its value: key, headers, what Kafka adds
MAX_PIXELS = 35_000_000  # of one picture; a larger one is an attack or a fault
MAX_KEYFRAME_DISTANCE = 10_000_000_000  # ns; further apart, and all frames are decoded
WRAPPER_BYTES = 1 << 16  # overhead of a Late or a DeadLetter beside the record in it


def most_bytes(topic: str, max_message: int) -> int:
    """Returns the size limit of a value of this topic, in bytes.

    It is higher for a Late or a DeadLetter: each wraps a record and must fit whatever arrived.
    """
    if topic not in (topics.LATE, topics.DEAD):
        return max_message
    return max(max_message, MAX_DEAD_BYTES) + WRAPPER_BYTES


MAX_KEYFRAME_DISTANCE = (
    10_000_000_000  # ns; a stream whose keyframes are further apart is decoded whole
)
