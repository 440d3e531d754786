"""Measures how far each consumer of this process is: for the view, the status and the watchdog.

A consumer is a stage or a delivery. Its own thread says after each turn how far it has come, and
this file compares that with the end of its topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

from pipeline.bus.kafka.state import reached
from pipeline.bus.log import LocalLog

MANY = 1000  # entries; a stage with a larger backlog
LONG = 60.0  # for so many seconds does not keep up


class ConsumerOffsets(Protocol):
    """What a bus knows of its partitions, by partition; raises OutsideError."""

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
    """How far one consumer of this process is; its own thread calls `moved`, others only ask.

    `settling` says whether it waits for the bus to take what it made, which has a patience of its
    own. `answered` says how many entries its present turn has answered, where it can tell. `extra`
    is how many s of patience it gets beyond the others.
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
        """Called after each turn. `reached` is, by partition that the consumer owns, the offset
        below which everything is answered, published and committed.

        `by_design`: it stays where it is for a reason (it rebuilds its state, it waits for a
        receiver), so that turning at all is progress enough. `lost` are the entries that retention
        deleted before they were read.
        """
        self._reached = dict(reached)
        self._turns += by_design
        self.lost = lost

    def waiting(self, bus: ConsumerOffsets) -> int:
        """How many entries wait for an answer; raises OutsideError.

        Of the partitions that this process owns; where it owns none, of the whole group.
        """
        end, reached = bus.end(self.topic), self._reached  # in this order: 0 is 0 as of the call
        if reached:
            return self._own(bus, end, reached)
        return unanswered(end, bus.committed(self.topic, self.group), bus.oldest(self.topic))

    def look(self, bus: ConsumerOffsets) -> tuple[int, Hashable]:
        """How many entries wait, and a place that changes when anything moves.

        Where this process owns no partition, somebody else of the group should move. For the one
        thread that watches; raises OutsideError.
        """
        end, turns, reached = bus.end(self.topic), self._turns, self._reached
        if reached:
            for number, offset in reached.items():
                # Not the present offset: who loses its partition at each commit reads the same for
                # ever.
                self._highest[number] = max(offset, self._highest.get(number, 0))
            waiting = self._own(bus, end, reached)
            return waiting, self._within((turns, tuple(sorted(self._highest.items()))))
        committed = bus.committed(self.topic, self.group)
        waiting = unanswered(end, committed, bus.oldest(self.topic))
        return waiting, self._within((turns, tuple(sorted(committed.items()))))

    def _within(self, place: Hashable) -> Hashable:
        """`place`, and how far a turn has come that is slow and still under way.

        At one place a turn moves only as it answers more than any turn before it: those that are
        never kept answer the same again.
        """
        before, most = self._within_place
        answered = self._answered()
        self._within_place = (place, max(answered, most) if place == before else answered)
        return self._within_place

    def _own(self, bus: ConsumerOffsets, end: Mapping[int, int], reached: Mapping[int, int]) -> int:
        waiting = _waiting(end, reached)
        if not waiting:
            return 0
        oldest = bus.oldest(self.topic)  # what retention took waits for nobody, and is never passed
        return _waiting(end, {n: max(at, oldest.get(n, 0)) for n, at in reached.items()})


def _waiting(end: Mapping[int, int], reached: Mapping[int, int]) -> int:
    return sum(max(0, end.get(number, 0) - offset) for number, offset in reached.items())


def unanswered(
    end: Mapping[int, int],
    committed: Mapping[int, tuple[int, bytes]],
    oldest: Mapping[int, int] | None = None,
) -> int:
    """Entries still held that a group has not answered: its note may have reached further than its
    commit, from which a restart rebuilds."""
    notes = {number: committed.get(number, (0, b"")) for number in end}
    there = {
        number: max((oldest or {}).get(number, 0), reached(offset, note.decode(errors="replace")))
        for number, (offset, note) in notes.items()
    }
    return _waiting(end, there)


class StageLag:
    """How far the stages of this process are, by group, in the order that records flow."""

    def __init__(self, bus: ConsumerOffsets, stages: Sequence[ConsumerProgress]) -> None:
        self._bus, self._stages = bus, stages

    def behind(self) -> dict[str, int]:
        """Entries that each stage has not answered yet.

        Where all are zero the stages have answered all that there was when the call began.
        """
        return {stage.group: stage.waiting(self._bus) for stage in self._stages}

    def lost(self) -> dict[str, int]:
        """Entries that retention deleted before each stage came, since the start."""
        return {stage.group: stage.lost for stage in self._stages}


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
    """Whether every stage keeps up: none has more than `MANY` entries of backlog for `LONG` s."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since: dict[str, float] = {}

    def saw(self, behind: Mapping[str, int]) -> None:
        """Notes the present backlog of the stages."""
        now = self._monotonic()
        self._since = {
            name: self._since.get(name, now) for name, entries in behind.items() if entries > MANY
        }

    def __call__(self) -> bool:
        now = self._monotonic()
        return all(now - since < LONG for since in self._since.values())
