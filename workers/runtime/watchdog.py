"""The stall watchdog: who has work, moves nothing and says nothing is ended, so that it is started
again.

A model that hangs, an agent that fell silent, a reader that lost its brokers for good look alike
from outside: entries wait, and the place in them does not change.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

from pipeline.bus.kafka.state import reached
from pipeline.errors import OutsideError

log = logging.getLogger("fusewatch")

EVERY = 5.0  # s between two looks


class ConsumerOffsets(Protocol):
    """What a bus with partitions knows of them, by partition; raises OutsideError."""

    def end(self, topic: str) -> Mapping[int, int]: ...
    def oldest(self, topic: str) -> Mapping[int, int]: ...
    def committed(self, topic: str, group: str) -> Mapping[int, tuple[int, bytes]]: ...


class Stall:
    """Measures how long a consumer has had a backlog without progress; monotonic s."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since: float | None = None
        self._place: Hashable = None

    def saw(self, waiting: int, place: Hashable) -> float:
        """Returns the s since `place` changed with `waiting` entries of backlog; 0 without one."""
        now = self._monotonic()
        if waiting <= 0 or self._since is None or place != self._place:
            self._since, self._place = now, place
        return now - self._since

    def away(self) -> None:
        """Nobody can tell: the brokers do not answer, and then nothing can move."""
        self._since = None


class ConsumerProgress:
    """One consumer's work in this process: told by its own thread after each turn, asked by others.

    `reached` is, by partition that it owns, the offset below which all is answered.
    """

    def __init__(
        self, topic: str, group: str, settling: Callable[[], bool] = lambda: False
    ) -> None:
        """`settling`: it waits for brokers to take what it made, with a patience of its own."""
        self.topic, self.group, self.settling = topic, group, settling
        self._reached: Mapping[int, int] = {}
        self._turns = 0
        self._highest: dict[int, int] = {}
        self.lost = 0

    def moved(self, reached: Mapping[int, int], *, by_design: bool = False, lost: int = 0) -> None:
        """After a turn. `by_design`: it stays where it is for a reason (it rebuilds its state, it
        waits for a receiver), so that turning at all is progress enough. `lost` are the entries
        that retention deleted before they were read."""
        self._reached = dict(reached)
        self._turns += by_design
        self.lost = lost

    def look(self, bus: ConsumerOffsets) -> tuple[int, Hashable]:
        """How many entries wait, and a place that changes when anything moves.

        Of the partitions that this process owns; where it owns none, of the whole group: then
        somebody else should move. Raises OutsideError.
        """
        end, turns, reached = bus.end(self.topic), self._turns, self._reached
        if not reached:
            committed = bus.committed(self.topic, self.group)
            waiting = unanswered(end, committed, bus.oldest(self.topic))
            return waiting, (turns, tuple(sorted(committed.items())))
        for number, offset in reached.items():
            # Not the present place: who loses its partition at each commit reads the same for ever.
            self._highest[number] = max(offset, self._highest.get(number, 0))
        waiting = _waiting(end, reached)
        if waiting:  # what retention took waits for nobody, and no turn will ever pass it
            oldest = bus.oldest(self.topic)
            still = {
                number: max(offset, oldest.get(number, 0)) for number, offset in reached.items()
            }
            waiting = _waiting(end, still)
        return waiting, (turns, tuple(sorted(self._highest.items())))


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


def watch(
    stop: threading.Event,
    bus: ConsumerOffsets,
    jobs: Sequence[ConsumerProgress],
    patience: float,
    gauge: Callable[[str, float], object],
    every: float = EVERY,
) -> None:
    """Look at the jobs until `stop`, and tell how much waits for each as `behind.GROUP`, and how
    much of it retention took as `lost.GROUP`.

    Raises OutsideError when one had work and moved nothing for `patience` s, while the brokers
    answered all that time.
    """
    stalls = [Stall(time.monotonic) for _ in jobs]
    lost = dict.fromkeys(jobs, 0)
    while not stop.wait(every):
        for job, stall in zip(jobs, stalls, strict=True):
            if job.lost > lost[job]:
                said = "%s came too late: retention took %d entries of %s before they were read"
                log.warning(said, job.group, job.lost - lost[job], job.topic)
                lost[job] = job.lost
            gauge(f"lost.{job.group}", job.lost)
            try:
                waiting, place = job.look(bus)
            except OutsideError:
                stall.away()
                continue
            gauge(f"behind.{job.group}", waiting)
            if job.settling():  # some brokers answer, and those that matter may not
                stall.away()
                continue
            if (stuck := stall.saw(waiting, place)) >= patience:
                msg = (
                    f"{job.group} has stalled: {waiting} entries of {job.topic} wait and nothing "
                    f"has moved for {stuck:.0f} s (bus.stall); the process ends, to be started anew"
                )
                log.critical("%s has stalled: where the threads are: %s", job.group, stacks())
                raise OutsideError(msg)


def stacks() -> str:
    """The stack of each thread of this process, to find the one that hangs."""
    frames = sys._current_frames()  # noqa: SLF001, the only way to ask
    return "\n".join(
        f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
        for thread in threading.enumerate()
        if thread.ident in frames
    )
