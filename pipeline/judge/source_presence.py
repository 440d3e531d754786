"""Who is there: which sources of a site are present, silent or lost, and the cry of who is lost."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.types import (
    SECOND,
    SYSTEM,
    Anomaly,
    Observation,
    Presence,
    Progress,
    content_id,
)


class SourcePresence:
    """The sources of one site; all times in event ns.

    `lost_after`: from when on a lost source is told; None: never (replay). `cry_every`: how often
    one that stays lost is told again, so that its incident stays open. An anomaly is `hop` long; an
    observation counts for `size`.
    """

    def __init__(
        self, site: str, *, hop: int, size: int, lost_after: int | None, cry_every: int
    ) -> None:
        self._site, self._hop, self._size = site, hop, size
        self._lost_after, self._cry_every = lost_after, cry_every
        self._sources: tuple[str, ...] = ()  # of the newest roster
        self._seen: dict[str, int] = {}  # source -> end of its last observation
        self._lost: dict[str, int] = {}  # source -> since when
        self._cried: dict[str, int] = {}  # source -> when it was last told to be lost
        self._heard: dict[str, int] = {}  # source -> its last promise
        self._spoke: dict[str, int] = {}  # source -> `now` of the partition when it made that one

    def expect(self, sources: Sequence[str]) -> None:
        """These are the sources now: a roster."""
        self._sources = tuple(sources)

    def observed(self, record: Observation) -> None:
        """A source has something to say."""
        self._seen[record.source] = max(record.end, self._seen.get(record.source, 0))

    def promised(self, promise: Progress, now: int) -> list[Anomaly]:
        """A source that stays lost is told by a `system` anomaly, again and again while it is.

        `now` is the partition's.
        """
        if promise.upto <= self._heard.get(promise.source, -1):
            return []  # it comes again
        self._heard[promise.source], self._spoke[promise.source] = promise.upto, now
        if promise.alive:
            self._lost.pop(promise.source, None)
            return []
        since = self._lost.setdefault(promise.source, promise.upto)
        after = self._lost_after
        # Speech is lost exactly when sound is: one microphone, told once.
        if after is None or "/" in promise.source or promise.upto - since < after:
            return []
        if promise.upto - self._cried.get(promise.source, 0) < self._cry_every:
            return []
        why = f": {promise.reason}" if promise.reason else ""
        return [self._cry(promise.source, promise.upto, f"{promise.source} is lost{why}")]

    def speaking(self, now: int, patience: int) -> set[str]:
        """Sources whose last promise is no older than that, by the partition's `now`."""
        return {name for name, at in self._spoke.items() if now - at <= patience}

    def stalled(self, source: str, since: int, patience: int) -> list[Anomaly]:
        """One that says nothing is lost since then, and nobody waits for it any longer."""
        self._lost.setdefault(source, since)
        if self._lost_after is None:
            return []
        seconds = patience / SECOND
        why = f"{source} has said nothing for {seconds:g} s: a stage hangs or is far behind"
        return [self._cry(source, since, why)]

    def presence(self, now: int) -> dict[str, Presence]:
        """What is known of each source at `now`, for what cannot wait for a window."""
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
        """The `system` anomaly that tells of a lost source."""
        self._cried[source] = now
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
            reasons=(reason,),
        )
