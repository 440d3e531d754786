"""The chunks of a topic of the local log: their spans, and whose were deleted unread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any

from pipeline import codec

_MOST = 100_000  # chunks; older ones are forgotten, and then counted for no source


def event_span(value: bytes) -> tuple[int | None, int | None]:
    """Returns the event span of an encoded record if it has one that SQLite can store."""
    span = codec.span(value)
    fits = span is not None and all(abs(at) < 2**63 for at in span)
    return span if span is not None and fits else (None, None)


class UnreadLosses:
    """The keys of chunks that were deleted unread, by offset; thread safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: dict[int, str] = {}

    def note(self, execute: Callable[..., Any], first: int, last: int) -> None:
        """Remembers the chunks of `[first, last]`, which are about to be deleted."""
        if first > last:
            return
        sql = "SELECT offset, key FROM entries WHERE offset BETWEEN ? AND ? AND stop IS NOT NULL"
        rows = execute(sql, (first, last)).fetchall()
        with self._lock:
            self._keys.update(rows)
            while len(self._keys) > _MOST:
                del self._keys[next(iter(self._keys))]

    def between(self, first: int, end: int) -> Counter[str]:
        """The number of chunks by key that were deleted from `[first, end)`."""
        with self._lock:
            return Counter(key for at, key in self._keys.items() if first <= at < end)
