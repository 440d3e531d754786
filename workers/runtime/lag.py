"""Measures how far each consumer of this process is: for the view, the status and the watchdog.

A consumer is a stage or a delivery. Its own thread reports its offset after each turn, and this
module compares it with the end offset of the topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Protocol

from pipeline.bus.kafka.state import reached
from pipeline.bus.log import LocalLog
from pipeline.sources import speech_source
from pipeline.stages import SPEAKS, readers
from pipeline.topics import AUDIO, FRAMES
from workers.runtime.status import Ledger

MAX_BACKLOG = 1000  # entries; a stage with a larger backlog
BACKLOG_TIMEOUT = 60.0  # for so many seconds does not keep up


class ConsumerOffsets(Protocol):
    """The offsets of a bus by partition; its methods raise OutsideError."""

    def end(self, topic: str) -> Mapping[int, int]: ...
    def oldest(self, topic: str) -> Mapping[int, int]: ...
    def committed(self, topic: str, group: str) -> Mapping[int, tuple[int, bytes]]: ...


class LocalOffsets:
    """The offsets of the local log, whose topics have one partition, number 0."""

    def __init__(self, bus: LocalLog) -> None:
        self._bus = bus

    def end(self, topic: str) -> Mapping[int, int]:
        """The offset that the next entry will have."""
        return {0: self._bus.end(topic)}

    def oldest(self, topic: str) -> Mapping[int, int]:
        """The offset of the oldest entry that is still held."""
        return {0: self._bus.oldest(topic)}

    def committed(self, topic: str, group: str) -> Mapping[int, tuple[int, bytes]]:
        """Offset and note of the group's commit."""
        return {0: self._bus.committed(topic, group)}


class ConsumerProgress:
    """The progress of one consumer of this process; its own thread calls `moved`, others read.

    `settling` returns whether it waits for the bus to acknowledge its results, which has a timeout
    of its own. `answered` returns how many entries its present turn has answered, if that is known.
    `extra` is the additional patience of this consumer, s.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        settling: Callable[[], bool] = lambda: False,
        answered: Callable[[], int] = lambda: 0,
        extra: float = 0.0,
    ) -> None:
        self.topic, self.group, self.settling = topic, group, settling
        self.extra = extra
        self.lost = 0  # entries that retention deleted before they were read
        self._answered = answered
        self._reached: Mapping[int, int] = {}
        self._turns = 0
        self._highest: dict[int, int] = {}
        self._within_place: tuple[Hashable, int] = (None, 0)  # place, most entries of one turn

    def moved(self, reached: Mapping[int, int], *, by_design: bool = False, lost: int = 0) -> None:
        """Reports the progress after a turn.

        `reached` is partition -> the offset below which all entries are answered, published and
        committed, for each partition that the consumer owns. `by_design`: the offset stays for a
        reason (it rebuilds its state, it waits for a receiver), so that the turn itself counts as
        progress. `lost` is the number of entries that retention deleted before they were read.
        """
        self._reached = dict(reached)
        self._turns += by_design
        self.lost = lost

    def waiting(self, bus: ConsumerOffsets) -> int:
        """The backlog: the number of entries without an answer; raises OutsideError.

        It counts the partitions that this process owns, or those of the whole group if it owns
        none.
        """
        end, reached = bus.end(self.topic), self._reached  # in this order: 0 is 0 as of the call
        if reached:
            return self._own(bus, end, reached)
        return unanswered(end, bus.committed(self.topic, self.group), bus.oldest(self.topic))

    def look(self, bus: ConsumerOffsets) -> tuple[int, Hashable]:
        """The backlog, and a position that changes with any progress; raises OutsideError.

        If this process owns no partition, it is the progress of the whole group. Only the thread of
        the watchdog calls it.
        """
        end, turns, reached = bus.end(self.topic), self._turns, self._reached
        if reached:
            for number, offset in reached.items():
                # The highest offset, not the present one: a consumer that loses its partition at
                # each commit reads the same entries for ever.
                self._highest[number] = max(offset, self._highest.get(number, 0))
            waiting = self._own(bus, end, reached)
            return waiting, self._within((turns, tuple(sorted(self._highest.items()))))
        committed = bus.committed(self.topic, self.group)
        waiting = unanswered(end, committed, bus.oldest(self.topic))
        return waiting, self._within((turns, tuple(sorted(committed.items()))))

    def _within(self, place: Hashable) -> Hashable:
        """`place` with the progress inside a slow turn that still runs.

        At one place, only a turn that answers more entries than any turn before counts as progress:
        turns whose results are never kept answer the same entries again.
        """
        before, most = self._within_place
        answered = self._answered()
        self._within_place = (place, max(answered, most) if place == before else answered)
        return self._within_place

    def _own(self, bus: ConsumerOffsets, end: Mapping[int, int], reached: Mapping[int, int]) -> int:
        waiting = _waiting(end, reached)
        if not waiting:
            return 0
        oldest = bus.oldest(self.topic)  # entries deleted by retention are not part of the backlog
        return _waiting(end, {n: max(at, oldest.get(n, 0)) for n, at in reached.items()})


def _waiting(end: Mapping[int, int], reached: Mapping[int, int]) -> int:
    return sum(max(0, end.get(number, 0) - offset) for number, offset in reached.items())


def unanswered(
    end: Mapping[int, int],
    committed: Mapping[int, tuple[int, bytes]],
    oldest: Mapping[int, int] | None = None,
) -> int:
    """The number of held entries that a group has not answered.

    The offset in its note may be higher than its committed offset, from which a restart rebuilds.
    """
    notes = {number: committed.get(number, (0, b"")) for number in end}
    there = {
        number: max((oldest or {}).get(number, 0), reached(offset, note.decode(errors="replace")))
        for number, (offset, note) in notes.items()
    }
    return _waiting(end, there)


class StageLag:
    """The lag of the stages of this process, by group, in the order of the records' flow."""

    def __init__(self, bus: ConsumerOffsets, stages: Sequence[ConsumerProgress]) -> None:
        self._bus, self._stages = bus, stages

    def behind(self) -> dict[str, int]:
        """The number of entries that each stage has not answered yet.

        If all are zero, the stages have answered all entries that existed when the call began.
        """
        return {stage.group: stage.waiting(self._bus) for stage in self._stages}

    def lost(self) -> dict[str, int]:
        """Entries, since the start, that retention deleted before each stage read them."""
        return {stage.group: stage.lost for stage in self._stages}


def count_earlier(bus: LocalLog, status: Ledger, known: Collection[tuple[str, str]]) -> None:
    """Counts the chunks of `known` sources that an earlier process stored and no stage answered."""
    for topic, group in SPEAKS.items():
        place, note = bus.committed(topic, group)
        for key, n in bus.chunks(topic, reached(place, note.decode(errors="replace"))).items():
            site, _, source = key.partition("/")
            if (site, source) in known:
                status.count(site, source, "captured.earlier", n)


def count_missed(status: Ledger, group: str, chunks: Mapping[str, int]) -> None:
    """Counts frames and sound that retention deleted before the stage `group` had read them."""
    if group not in (*readers(FRAMES), *readers(AUDIO)):
        return
    for key, n in chunks.items():
        site, _, source = key.partition("/")
        named = source if group in SPEAKS.values() else speech_source(source)
        status.count(site, named, "dropped.retention", n)


def caught_up(
    behind: Callable[[], Mapping[str, int]], turn: Callable[[], bool], turns: int
) -> bool:
    """Whether the backlog is empty within `turns` turns; `turn` waits and returns true to stop."""
    for _ in range(turns):
        if not any(behind().values()):
            return True
        if turn():
            return False
    return not any(behind().values())


class KeepingUp:
    """Whether every stage keeps up: none has more than `MAX_BACKLOG` entries of backlog for
    `BACKLOG_TIMEOUT` s."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since: dict[str, float] = {}

    def saw(self, behind: Mapping[str, int]) -> None:
        """Notes the present backlog of the stages."""
        now = self._monotonic()
        self._since = {
            name: self._since.get(name, now)
            for name, entries in behind.items()
            if entries > MAX_BACKLOG
        }

    def __call__(self) -> bool:
        now = self._monotonic()
        return all(now - since < BACKLOG_TIMEOUT for since in self._since.values())
