"""Watch: speaks for sources whose capture process has stopped speaking.

Capture itself tells when a source is lost; only where capture hangs or is gone would a site wait
for ever. `Watch` sees what captures publish, and declares lost who said nothing for `patience`.
It is the one place where silence in a topic is measured against a clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pipeline.types import ROSTER_EVERY, SECOND, Progress, Record, Roster

PATIENCE = 15 * SECOND


class Watch:
    """Knows when each (topic, site, source) was last heard; for any thread.

    `saw` is called for all that captures publish, `speak` once a hop.
    """

    def __init__(self, clock: Callable[[], int], patience: int = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._heard: dict[tuple[str, str, str], int] = {}
        self._roster: dict[str, tuple[str, ...]] = {}
        self._rostered: dict[tuple[str, str, str], int] = {}

    def saw(self, topic: str, records: Sequence[Record]) -> None:
        """A capture published these."""
        now = self._clock()
        with self._lock:
            for record in records:
                self._heard[topic, record.site, record.source] = now
                if isinstance(record, Roster):
                    self._roster[record.site] = record.sources

    def expect(self, topic: str, site: str, source: str, sources: tuple[str, ...]) -> None:
        """Watch a source that may never speak at all, from now on."""
        self.saw(topic, [Roster(site=site, source=source, sources=sources, start=0)])

    def speak(self) -> list[tuple[str, Record]]:
        """(topic, record) to publish: for each that is silent for too long, that it is lost."""
        now = self._clock()
        with self._lock:
            silent = [who for who, heard in self._heard.items() if now - heard > self._patience]
            return [(who[0], record) for who in silent for record in self._lost(who, now)]

    def _lost(self, who: tuple[str, str, str], now: int) -> list[Record]:
        _, site, source = who
        reason = f"its capture has said nothing for {self._patience / SECOND:g} s"
        records: list[Record] = [
            Progress(site=site, source=source, upto=now, alive=False, reason=reason)
        ]
        if now - self._rostered.get(who, 0) >= ROSTER_EVERY and site in self._roster:
            self._rostered[who] = now
            sources = self._roster[site]
            records.insert(0, Roster(site=site, source=source, sources=sources, start=now))
        return records
