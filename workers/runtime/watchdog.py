"""Ends the process when a consumer has a backlog and its offset does not advance.

A model that hangs, an agent that fell silent and a reader that lost its brokers for good look alike
from outside: entries wait, and the place in them does not change. The supervisor of the process
then starts it again.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Sequence

from pipeline.errors import OutsideError
from workers.runtime.lag import ConsumerOffsets, ConsumerProgress

log = logging.getLogger("fusewatch")

EVERY = 5.0  # s between two looks
PAUSE = 5.0  # s; a wait that is so much longer than asked for was a pause of the whole process


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

    def excuse(self) -> None:
        """Nothing could move (the brokers do not answer, the machine was paused): count anew."""
        self._since = None


def watch(
    stop: threading.Event,
    bus: ConsumerOffsets,
    jobs: Sequence[ConsumerProgress],
    patience: float,
    gauge: Callable[[str, float], object] = lambda name, value: None,
    *,
    every: float = EVERY,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Look at the jobs until `stop`, and tell how much waits for each as `behind.GROUP`, and how
    much of it retention took as `lost.GROUP`.

    Raises OutsideError when one had work and moved nothing for `patience` s, while the brokers
    answered all that time and the process was not paused.
    """
    stalls = [Stall(monotonic) for _ in jobs]
    lost = dict.fromkeys(jobs, 0)
    while True:
        asked = monotonic()
        if stop.wait(every):
            return
        if monotonic() - asked > every + PAUSE:
            for stall in stalls:
                stall.excuse()
        for job, stall in zip(jobs, stalls, strict=True):
            if job.lost > lost[job]:
                said = "%s came too late: retention took %d entries of %s before they were read"
                log.warning(said, job.group, job.lost - lost[job], job.topic)
                lost[job] = job.lost
            gauge(f"lost.{job.group}", job.lost)
            try:
                waiting, place = job.look(bus)
            except OutsideError:
                stall.excuse()
                continue
            gauge(f"behind.{job.group}", waiting)
            if job.settling():  # some brokers answer, and those that matter may not
                stall.excuse()
                continue
            if (stuck := stall.saw(waiting, place)) >= patience + job.extra:
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
