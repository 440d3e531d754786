"""Stored entries that a test has made, as a log or a recording would give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline import codec, topics
from pipeline.ports import Entry
from pipeline.types import Record
from tests.make import comes
from workers.bus.history import History
from workers.replay.inputs import StoredInput
from workers.stored.selection import Selection


class MadeHistory:
    """A history of observations alone, in the order of their time."""

    def __init__(self, records: Sequence[Record]) -> None:
        ordered = sorted(records, key=comes)
        self._entries = [
            Entry(0, offset, record.site, codec.encode(record), "")
            for offset, record in enumerate(ordered)
        ]

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        return iter(self._entries if topic == topics.OBSERVATIONS else ())

    def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
        return self.between(topic, 0, 0)

    def oldest(self, topic: str) -> Mapping[int, int]:
        return {}


def stored_input(records: Sequence[Record], since: int, until: int) -> StoredInput:
    """An input of made observations, of which `[since, until)` ns is judged."""

    @contextmanager
    def opened() -> Iterator[History]:
        yield MadeHistory(records)

    chosen = Selection(since=since, until=until)
    return StoredInput(path=Path("made"), kind="log", opened=opened, selected=chosen)
