"""Tracks which sources of a site are present, silent or lost; raises anomalies for lost ones."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.judge.findings import reason_at
from pipeline.sources import CAPTURE_IS_SILENT
from pipeline.types import (
    SECOND,
    SYSTEM,
    Anomaly,
    Observation,
    Presence,
    Progress,
    content_id,
)

# ns; the promises of a lost source come every hop or every 2 s, whichever is longer
MAX_UNTOLD = 5 * SECOND


class SourcePresence:
    """The presence of one site's sources; all times in event ns.

    A source that is lost for `lost_after` raises an anomaly; None: never (replay). While it stays
    lost, the anomaly repeats in each span of `cry_every` since the epoch, so that its incident
    stays open. An anomaly is `hop` long. An observation makes its source present for `size`.

    The time in which no process captured the source does not count: after a restart the loss
    begins anew. A restart shows in two ways. The promises of a lost source pause, or its capture
    speaks again after a heartbeat monitor spoke for it.
    """

    def __init__(
        self, site: str, *, hop: int, size: int, lost_after: int | None, cry_every: int
    ) -> None:
        self._site, self._hop, self._size = site, hop, size
        self._lost_after, self._cry_every = lost_after, cry_every
        self._sources: tuple[str, ...] = ()  # of the newest roster
        self._seen: dict[str, int] = {}  # source -> end of its last observation
        self._max_untold = max(MAX_UNTOLD, 3 * hop)
        self._lost: dict[str, int] = {}  # source -> since when
        self._gone: set[str] = set()  # lost sources that a heartbeat monitor spoke for last
        self._cried: dict[str, int] = {}  # source -> time of its last `system` anomaly
        self._why: dict[str, str] = {}  # source -> the reason of that anomaly
        self._heard: dict[str, int] = {}  # source -> its last promise
        self._spoke: dict[str, int] = {}  # source -> `now` of the partition at that promise

    def expect(self, sources: Sequence[str]) -> None:
        """Sets the present sources, from a roster."""
        self._sources = tuple(sources)

    def observed(self, record: Observation) -> None:
        """Registers an observation of its source."""
        self._seen[record.source] = max(record.end, self._seen.get(record.source, 0))

    def promised(self, promise: Progress, now: int) -> list[Anomaly]:
        """Returns the `system` anomaly for a lost source, repeatedly while it stays lost.

        `now` is the partition's newest event time.
        """
        before = self._heard.get(promise.source, -1)
        if promise.upto <= before:
            return []  # a repeat
        self._heard[promise.source], self._spoke[promise.source] = promise.upto, now
        if promise.alive:
            self._lost.pop(promise.source, None)
            self._why.pop(promise.source, None)
            self._gone.discard(promise.source)
            return []
        if promise.upto - before > self._max_untold or self._is_back(promise):
            self._lost[promise.source] = promise.upto
        since = self._lost.setdefault(promise.source, promise.upto)
        after = self._lost_after
        # A microphone's speech and sound are lost together: report it once.
        if after is None or "/" in promise.source or promise.upto - since < after:
            return []
        # The times of repeats do not depend on when the loss began, so that a restart keeps them.
        if promise.upto // self._cry_every <= self._cried.get(promise.source, 0) // self._cry_every:
            return []
        why = f": {promise.reason}" if promise.reason else ""
        return [self._cry(promise.source, promise.upto, f"{promise.source} is lost{why}")]

    def lost_since(self, source: str) -> int | None:
        """Returns since when a source is lost, ns; None while it is not."""
        return self._lost.get(source)

    def _is_back(self, promise: Progress) -> bool:
        """Whether the source's capture speaks again; notes who speaks for it."""
        if promise.reason.startswith(CAPTURE_IS_SILENT):
            self._gone.add(promise.source)
            return False
        was_gone = promise.source in self._gone
        self._gone.discard(promise.source)
        return was_gone

    def speaking(self, now: int, patience: int) -> set[str]:
        """Returns the sources whose last promise is at most `patience` old at the partition's
        `now`."""
        return {name for name, at in self._spoke.items() if now - at <= patience}

    def stalled(self, source: str, since: int, patience: int) -> list[Anomaly]:
        """Declares a source lost since `since`, after `patience` of silence; returns its
        anomaly."""
        self._lost.setdefault(source, since)
        if self._lost_after is None:
            return []
        seconds = patience / SECOND
        why = f"{source} has said nothing for {seconds:g} s: a stage hangs or is far behind"
        return [self._cry(source, since, why)]

    def presence(self, now: int) -> dict[str, Presence]:
        """Returns each source's presence at `now`, for rules that do not wait for a window."""
        presence = {}
        for source in self._sources:
            if source in self._lost:
                presence[source] = Presence.LOST
            elif self._seen.get(source, 0) > now - self._size:
                presence[source] = Presence.PRESENT
            else:
                presence[source] = Presence.SILENT
        return presence

    def _cry(self, source: str, now: int, reason: str) -> Anomaly:
        """Returns the `system` anomaly of a lost source."""
        self._cried[source] = now
        news = self._why.get(source) != reason
        self._why[source] = reason
        start = now // self._hop * self._hop
        return Anomaly(
            site=self._site,
            source=source,
            id=content_id(self._site, SYSTEM, source, start, 0),
            start=start,
            end=start + self._hop,
            rule=SYSTEM,
            label="source-lost",
            severity="medium",
            score=1.0,
            presence=self.presence(now),
            reasons=(reason_at(start, reason),) if news else (),
            kind=SYSTEM,
            what=reason,
        )
