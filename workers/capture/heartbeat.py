"""Declares the sources of a capture lost that publishes nothing any more.

A capture reports a lost source itself. But if the capture hangs or its process is gone, the site
would wait for ever. `HeartbeatMonitor` sees every record that captures publish, and declares a
source lost after `patience` without one. This is the only place where silence in a topic is
measured against a clock.

Callers: `workers/capture/live.py`, in the daemon and in a capture worker for its own threads; and
over Kafka the workers that read chunks, for a capture whose whole process is gone
(`workers/bus/absent_captures.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from pipeline.judge.modes import followed, in_force
from pipeline.sources import CAPTURE_IS_SILENT, REPORTS_SOURCE
from pipeline.types import ROSTER_EVERY, SECOND, Mode, Progress, Record, Roster

LOST_AFTER = 15 * SECOND


def may_be_from_monitor(record: Record) -> bool:
    """Whether a HeartbeatMonitor may have published this record, which then proves no live capture.

    A capture publishes its roster and modes from time to time too, but never these alone.
    """
    match record:
        case Progress(alive=False, reason=reason):
            return reason.startswith(CAPTURE_IS_SILENT)
        case _:
            return isinstance(record, Roster | Mode)


class HeartbeatMonitor:
    """Keeps the time of the last record of each (topic, site, source); thread safe.

    Call `saw` for all records that captures publish, and `speak` once a hop. `clock` returns ns.
    """

    def __init__(self, clock: Callable[[], int], patience: int = LOST_AFTER) -> None:
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._heard: dict[tuple[str, str, str], int] = {}
        self._roster: dict[str, tuple[str, ...]] = {}
        self._rostered: dict[tuple[str, str, str], int] = {}
        self._own: dict[tuple[str, str, str], int] = {}
        self._modes: dict[str, dict[str, Mode]] = {}  # site -> what holds, said for a lost source

    def saw(self, topic: str, records: Sequence[Record]) -> None:
        """Notes that a capture published these records."""
        for record in records:
            self.heard(topic, record.site, record.source)
            self.noted(record)
            if isinstance(record, Roster):
                with self._lock:
                    self._roster[record.site] = record.sources

    def noted(self, record: Record) -> None:
        """Notes a mode, which is said again for a lost source of reports: who reads the log from
        the middle must find what holds."""
        if isinstance(record, Mode):
            with self._lock:
                held = self._modes.get(record.site, {})
                self._modes[record.site] = followed(held, record)

    def heard(self, topic: str, site: str, source: str) -> None:
        """Notes that a capture published a record of this source."""
        now = self._clock()
        with self._lock:
            self._heard[topic, site, source] = now

    def expect(
        self, topic: str, site: str, source: str, sources: tuple[str, ...], patience: int = 0
    ) -> None:
        """Monitors a source from now on, even if no record comes; `patience` (ns) is its own."""
        self.saw(topic, [Roster(site=site, source=source, sources=sources, start=0)])
        if patience:
            with self._lock:
                self._own[topic, site, source] = patience

    def excuse(self, more: int = 0) -> None:
        """Restarts the patience of all sources in `more` ns, after records could not be read."""
        begins = self._clock() + more
        with self._lock:
            self._heard = {who: max(heard, begins) for who, heard in self._heard.items()}

    def speak(self, by: int | None = None, upto: int | None = None) -> list[tuple[str, Record]]:
        """The (topic, record) pairs to publish: each source that is silent for too long is lost.

        Every record that was published by the time `by` (of `clock`; default: now) was seen. `upto`
        is the same moment as event time, needed where `clock` does not return event time.
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
        reason = f"{CAPTURE_IS_SILENT} {patience / SECOND:g} s"
        records: list[Record] = [
            Progress(site=site, source=source, upto=upto, alive=False, reason=reason)
        ]
        if upto - self._rostered.get(who, 0) >= ROSTER_EVERY and site in self._roster:
            self._rostered[who] = upto
            sources = self._roster[site]
            records.insert(0, Roster(site=site, source=source, sources=sources, start=upto))
            if source == REPORTS_SOURCE:
                held = in_force(self._modes.get(site, {}), upto).values()
                records[1:1] = [msgspec.structs.replace(mode, said=upto) for mode in held]
        return records
