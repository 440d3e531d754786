"""Limits on the size of a record, shared by every bus and the runner."""

from __future__ import annotations

from pipeline import topics

MAX_BYTES = 1 << 26  # limit of one record, unless the config sets a lower one
DEAD_BYTES = 1 << 18  # bytes of a record that its dead letter keeps
WRAPPED = 1 << 16  # overhead of a Late or a DeadLetter beside the record in it


def most_bytes(topic: str, max_message: int) -> int:
    """Returns the size limit of a value of this topic, in bytes.

    It is higher for a Late or a DeadLetter: each wraps a record and must fit whatever arrived.
    """
    if topic not in (topics.LATE, topics.DEAD):
        return max_message
    return max(max_message, DEAD_BYTES) + WRAPPED
