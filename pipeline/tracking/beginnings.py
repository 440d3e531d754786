"""From where on a track or a person would be found again: what a restart must read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pipeline.types import SECOND

STEP = SECOND  # ns; of two times that are nearer to each other, the later one is left out
MOST = 4096  # times that are kept


class Beginnings:
    """The times from which on the boxes alone would begin the object anew, oldest first; ns."""

    def __init__(self) -> None:
        self._times: deque[int] = deque(maxlen=MOST)
        self.newest = 0

    def add(self, time: int) -> None:
        """Adds a later time."""
        self.newest = max(self.newest, time)
        if not self._times or time - self._times[-1] >= STEP:
            self._times.append(time)

    def extend(self, other: Beginnings) -> None:
        """Adds the times of the same object, seen later."""
        for time in other._times:
            self.add(time)
        self.add(other.newest)

    def before(self, time: int) -> int:
        """Returns the last time up to `time` that is known, less 1, or `time` if there is none."""
        return next((at - 1 for at in reversed(self._times) if at <= time), time)

    def needs(self, limit: int) -> int:
        """Returns the last time up to `limit` that was added, less 1, or `limit` if there is none.

        A restart that reads what ended after this knows at `limit` what was known then. The limit
        must not fall from call to call: older times are forgotten.
        """
        while len(self._times) > 1 and self._times[1] <= limit:
            self._times.popleft()
        return min(limit, self._times[0] - 1) if self._times else limit


class Gone:
    """The begins of objects that are no more."""

    def __init__(self) -> None:
        self._begun: deque[tuple[int, Beginnings]] = deque(maxlen=MOST)

    def add(self, begun: Beginnings, time: int) -> None:
        """Adds an object that matters no more from `time` on, ns."""
        self._begun.append((time, begun))

    def needs(self, there: Iterable[Beginnings], limit: int) -> int:
        """Returns the time, ns, from which on a restart must read to know who was there at `limit`.

        `there` are the begins of the objects that are not gone. The limit must not fall from call
        to call: who was gone by then is forgotten.
        """
        while self._begun and self._begun[0][0] <= limit:
            self._begun.popleft()
        known = (*there, *(begun for _, begun in self._begun))
        return min((begun.needs(limit) for begun in known), default=limit)


class Confirmations:
    """When a tracker that had not known an object would have confirmed it.

    It takes `hits` boxes that are sure enough to begin a track, without two misses in a row.
    """

    def __init__(self, hits: int, time: int) -> None:
        self._run: deque[int] = deque(maxlen=hits)  # times of sure boxes
        self._misses, self._seen, self._held = 0, time, 0
        self.begun = Beginnings()
        self.begun.add(time)

    def sure(self, time: int, patience: int) -> None:
        """Adds a look with a sure box; it may be unseen for `patience` ns."""
        if self._misses > 1 or time - self._seen - self._held > patience:
            self._run.clear()
        self._run.append(time)
        self._misses, self._seen, self._held = 0, time, 0
        if len(self._run) == self._run.maxlen:
            self.begun.add(self._run[0])

    def resume(self, other: Confirmations) -> None:
        """Goes on as `other`, of a younger track of the same object."""
        self._run, self._misses = other._run, other._misses
        self._seen, self._held = other._seen, other._held
        self.begun.extend(other.begun)

    def unsure(self) -> None:
        """Adds a look without a sure box."""
        self._misses += 1

    def hold(self, time: int, span: int) -> None:
        """Adds a gated frame, `span` ns after the frame before it."""
        if self._misses:
            self._held += span
        else:
            self._seen = time
