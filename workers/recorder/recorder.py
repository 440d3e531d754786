"""Copies entries from tails into a folder of recordings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from pipeline import codec, topics
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.types import Progress, event_start
from workers.recorder.tails import Tail
from workers.recordings.folder_writer import FolderWriter, Lost

ELSEWHERE = "elsewhere"  # the source of what stands for the records of a site that is not recorded
RETENTION = "retention deleted them before they were recorded"

Wanted = Callable[[str, Entry], bool]  # topic, entry


class Recorder:
    """Records the sites `sites` (all, if there are none) from one tail a topic.

    `wanted` may leave out entries. Of other sites nothing is recorded but the event times of their
    observations: the silence of a source is measured by the time of its whole partition. Raises
    OSError when the disk is full, and OutsideError when a tail cannot be read.
    """

    def __init__(
        self,
        writer: FolderWriter,
        tails: Mapping[str, Tail],
        *,
        sites: Collection[str] = (),
        wanted: Wanted = lambda topic, entry: True,
    ) -> None:
        self.writer = writer
        self.lost = 0  # entries
        self.entries: dict[str, int] = dict.fromkeys(tails, 0)  # topic -> recorded
        self._tails, self._sites, self._wanted = tails, frozenset(sites), wanted
        self._written = self._counted()

    def step(self) -> int:
        """Records what has come since the last step; returns how many entries."""
        came = 0
        for topic, tail in self._tails.items():
            polled = tail.poll()
            for gap in tail.gaps():
                self._lose(topic, gap.partition, gap.first, gap.count, RETENTION)
            for entry in polled:
                kept = self._kept(topic, entry)
                if kept is not None:
                    self.writer.add(topic, kept)
                    self.entries[topic] += 1
            came += len(polled)
        if self.writer.tick():
            self._commit()
        return came

    def behind(self) -> int:
        """Returns how many entries wait to be recorded; at least 1 while that is not known."""
        return sum(tail.behind() for tail in self._tails.values())

    def finish(self) -> None:
        """Finishes the file, and closes the tails."""
        try:
            self.writer.close()
            self._commit()
        finally:
            self.close()

    def rewind(self) -> None:
        """After an error of the disk: what was not written is read and counted again."""
        self.writer.abandon()
        lost, entries = self._written
        self.lost, self.entries = lost, dict(entries)
        for tail in self._tails.values():
            tail.rewind()

    def close(self) -> None:
        """Closes the tails."""
        for tail in self._tails.values():
            tail.close()

    def _commit(self) -> None:
        for tail in self._tails.values():
            tail.commit()
        self._written = self._counted()

    def _counted(self) -> tuple[int, Mapping[str, int]]:
        return self.lost, dict(self.entries)

    def _lose(self, topic: str, partition: int, first: int, count: int, reason: str) -> None:
        self.lost += count
        lost = Lost(topic=topic, partition=partition, first=first, count=count, reason=reason)
        self.writer.lost(lost)

    def _kept(self, topic: str, entry: Entry) -> Entry | None:
        if not self._wanted(topic, entry):
            return None
        if not self._sites or entry.key.partition("/")[0] in self._sites:
            return entry
        return stand_in(entry) if topic == topics.OBSERVATIONS else None


def stand_in(entry: Entry) -> Entry | None:
    """Returns an entry of the same event time and nothing else; None for what is no record."""
    try:
        record = codec.decode(entry.value)
    except DecodeError:
        return None
    time = Progress(site=record.site, source=ELSEWHERE, upto=event_start(record))
    return msgspec.structs.replace(entry, value=codec.encode(time), trace="", fault="")
