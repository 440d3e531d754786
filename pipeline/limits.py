"""How large a record may be: limits that every bus and the runner share."""

from __future__ import annotations

from pipeline import topics

MAX_RECORD_BYTES = 1 << 26  # of one record, where nobody set a lower limit
MAX_DEAD_BYTES = 1 << 18  # of a record that are kept in its dead letter
RECORD_HEADROOM = 1 << 16  # of a record in Kafka beside its value: key, headers, what Kafka adds
WRAPPER_BYTES = 1 << 16  # that a Late or a DeadLetter may have beside the record in it


def most_bytes(topic: str, max_message: int) -> int:
    """Bytes of the largest value that may be published to a topic: a Late or a DeadLetter holds a
    record, and must fit whatever came."""
    if topic not in (topics.LATE, topics.DEAD):
        return max_message
    return max(max_message, MAX_DEAD_BYTES) + WRAPPER_BYTES
