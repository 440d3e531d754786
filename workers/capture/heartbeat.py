"""Watch: speaks for sources whose capture process has stopped speaking.

Capture itself tells when a source is lost; only where capture hangs or is gone would a site wait
for ever. `HeartbeatMonitor` sees what captures publish, and declares lost who said nothing for
`patience`. It is the one place where silence in a topic is measured against a clock.

Who calls it: in the daemon, and in a capture worker for its own threads, `workers/capture/live.py`;
over Kafka the workers that read chunks, for captures whose whole process is gone
(`workers/bus/absent_captures.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pipeline.types import ROSTER_EVERY, SECOND, Progress, Record, Roster

LOST_AFTER = 15 * SECOND
_REASON = "its capture has said nothing for"


def spoken(record: Record) -> bool:
    """Whether this may be the word of a watch: it does not show that a capture lives.

    A capture says its roster every now and then too, but never that alone.
    """
    match record:
        case Progress(alive=False, reason=reason):
            return reason.startswith(_REASON)
        case _:
            return isinstance(record, Roster)


class HeartbeatMonitor:
    """Knows when each (topic, site, source) was last heard; for any thread.

    `saw` is called for all that captures publish, `speak` once a hop. `clock` is ns.
    """

    def __init__(self, clock: Callable[[], int], patience: int = LOST_AFTER) -> None:
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._heard: dict[tuple[str, str, str], int] = {}
        self._roster: dict[str, tuple[str, ...]] = {}
        self._rostered: dict[tuple[str, str, str], int] = {}
        self._own: dict[tuple[str, str, str], int] = {}

    def saw(self, topic: str, records: Sequence[Record]) -> None:
        """A capture published these."""
        for record in records:
            self.heard(topic, record.site, record.source)
            if isinstance(record, Roster):
                with self._lock:
                    self._roster[record.site] = record.sources

    def heard(self, topic: str, site: str, source: str) -> None:
        """A capture published something of this source."""
        now = self._clock()
        with self._lock:
            self._heard[topic, site, source] = now

    def expect(
        self, topic: str, site: str, source: str, sources: tuple[str, ...], patience: int = 0
    ) -> None:
        """Watch a source that may never speak at all, from now on; `patience` is its own, ns."""
        self.saw(topic, [Roster(site=site, source=source, sources=sources, start=0)])
        if patience:
            with self._lock:
                self._own[topic, site, source] = patience

    def excuse(self, more: int = 0) -> None:
        """Nobody could be heard: everybody's patience begins anew, in `more` ns."""
        begins = self._clock() + more
        with self._lock:
            self._heard = {who: max(heard, begins) for who, heard in self._heard.items()}

    def speak(self, by: int | None = None, upto: int | None = None) -> list[tuple[str, Record]]:
        """(topic, record) to publish: for each that is silent for too long, that it is lost.

        All that was published by the time `by` (of `clock`; default: now) was seen; `upto` is that
        moment as event time, where `clock` does not give it.
        """
        by = self._clock() if by is None else by
        upto = by if upto is None else upto
        with self._lock:
            silent = [
                (who, patience)
                for who, heard in self._heard.items()
                if by - heard > (patience := self._own.get(who, self._patience))
            ]
            return [
                (who[0], record)
                for who, patience in silent
                for record in self._lost(who, patience, upto)
            ]

    def _lost(self, who: tuple[str, str, str], patience: int, upto: int) -> list[Record]:
        _, site, source = who
        reason = f"{_REASON} {patience / SECOND:g} s"
        records: list[Record] = [
            Progress(site=site, source=source, upto=upto, alive=False, reason=reason)
        ]
        if upto - self._rostered.get(who, 0) >= ROSTER_EVERY and site in self._roster:
            self._rostered[who] = upto
            sources = self._roster[site]
            records.insert(0, Roster(site=site, source=source, sources=sources, start=upto))
        return records
