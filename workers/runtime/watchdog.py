"""Ends the process when a consumer has a backlog and its offset does not advance.

A model that hangs, an agent that stopped and a reader that lost its brokers for good look the same:
entries wait, and the offset does not change. The service manager then starts the process again.
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
from workers.runtime.loss_log import LossLog

log = logging.getLogger("fusewatch")

CHECK_EVERY = 5.0  # s between two checks
PAUSE = 5.0  # s; a wait that took this much longer means that the whole process was paused


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
        """Restarts the measurement: no progress was possible (brokers away, machine paused)."""
        self._since = None


def watch(
    stop: threading.Event,
    bus: ConsumerOffsets,
    jobs: Sequence[ConsumerProgress],
    patience: float,
    gauge: Callable[[str, float], object] = lambda name, value: None,
    *,
    every: float = CHECK_EVERY,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Checks the jobs until `stop`, and sets the gauges `behind.GROUP` (the backlog) and
    `lost.GROUP` (entries that retention deleted before they were read).

    Raises OutsideError when a job had a backlog and no progress for `patience` s, while the brokers
    answered all that time and the process was not paused.
    """
    stalls = [Stall(monotonic) for _ in jobs]
    losses = [LossLog(job.group, job.topic, monotonic) for job in jobs]
    while True:
        asked = monotonic()
        if stop.wait(every):
            return
        if monotonic() - asked > every + PAUSE:
            for stall in stalls:
                stall.excuse()
        for job, stall, loss in zip(jobs, stalls, losses, strict=True):
            loss.saw(job.lost)
            gauge(f"lost.{job.group}", job.lost)
            try:
                waiting, place = job.look(bus)
            except OutsideError:
                stall.excuse()
                continue
            gauge(f"behind.{job.group}", waiting)
            if job.settling():  # the brokers that it waits for may be away
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
