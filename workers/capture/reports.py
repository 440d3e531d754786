"""The source of a site's reports and modes: stamps and publishes them, and publishes progress.

It has no HTTP: `report_api` answers requests, and `report_server` has the sockets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Site
from pipeline.errors import DecodeError, DiskFull, FileBusy, TooManyReports
from pipeline.judge.modes import ModePlan
from pipeline.sources import REPORTS_SOURCE, first_free, roster
from pipeline.types import BEFORE_ALL, ROSTER_EVERY, Mode, Progress, Record, Report, Roster, ns
from workers.capture.capture import Publish
from workers.capture.clock import Clock
from workers.runtime.mode_store import ModeStore, SiteMode

# Reports of one site that wait to be read: so many at most, and so many bytes of their texts. The
# text stage reads some seven of the longest in a second.
MAX_WAITING, MAX_WAITING_BYTES = 100, 256 << 10
BUSY_TIMEOUT = 2.5  # s that a report waits for those before it to be stored


class ReportBacklog(msgspec.Struct, frozen=True, kw_only=True):
    """Where the reports of a log are: `end` is the offset of the next record, and all records
    below `read` were read."""

    end: Callable[[], int]
    read: Callable[[], int]


class _Waiting:
    """The reports of each site that the text stage has not read."""

    def __init__(self, backlog: ReportBacklog) -> None:
        self._backlog = backlog
        self._reports: dict[str, deque[tuple[int, int]]] = {}  # site -> (end offset, bytes)

    def check(self, site: str) -> None:
        """Raises TooManyReports where too many reports of the site wait."""
        waiting, read = self._reports.setdefault(site, deque()), self._backlog.read()
        while waiting and waiting[0][0] <= read:
            waiting.popleft()
        if len(waiting) >= MAX_WAITING or sum(size for _, size in waiting) >= MAX_WAITING_BYTES:
            msg = f"{len(waiting)} reports of {site} wait to be read; send this one again later"
            raise TooManyReports(msg)

    def add(self, report: Report) -> None:
        """Notes a report that was just published."""
        place = self._backlog.end(), len(report.text.encode())
        self._reports.setdefault(report.site, deque()).append(place)


class ReportSource:
    """Publishes reports and modes as records; thread safe.

    A report starts when it is received, but never before the published progress and never at the
    same ns as the report before: both would be taken for a repeat. `promised` is site -> the first
    free ns in the log, so that no report is lost when the clock is set back over a restart. With a
    `backlog` a site whose reports are not read fast enough has to wait.

    `modes` holds what persons have set; each is said again with the roster while it holds. `tell`
    is called once a hop with what is in force at each site.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        publish: Publish,
        clock: Clock,
        promised: Mapping[str, int] | None = None,
        backlog: ReportBacklog | None = None,
        modes: ModeStore | None = None,
        tell: Callable[[str, SiteMode], object] = lambda site, mode: None,
    ) -> None:
        self._sites = sites
        self._modes, self._tell = modes or ModeStore(sites), tell
        self._said = dict.fromkeys(sites, BEFORE_ALL)  # ns; the newest statement about modes
        self._publish = publish
        self._clock = clock
        self._waiting = _Waiting(backlog) if backlog else None
        self._lock = threading.Lock()
        self._next = {site: (promised or {}).get(site, 0) for site in sites}  # ns; next free start
        self._beat = dict.fromkeys(sites, -1)
        self._roster = dict.fromkeys(sites, -1)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that accept reports."""
        return tuple(self._sites)

    def submit(self, site: str, author: str, text: str) -> Report:
        """Publishes a report, durable on return; raises KeyError for an unknown site.

        Raises TooManyReports, DiskFull, or FileBusy; the report is not kept then.
        """
        with self._locked():
            if self._waiting:
                self._waiting.check(site)
            start = max(self._clock(), self._next[site])
            report = Report(
                site=site,
                source=REPORTS_SOURCE,
                start=start,
                end=start + 1,
                author=author,
                text=text,
            )
            self._store(site, [*self._roster_due(site, start), report])
            self._next[site] = start + 1
            if self._waiting:
                self._waiting.add(report)
            return report

    def set_mode(
        self, site: str, mode: str, *, lasts: int | None = None, by: str = "", rule: str = ""
    ) -> SiteMode:
        """Publishes the mode of a site, or of a rule, for `lasts` ns (None: until the next one).

        It is durable on return, and survives a restart. Returns what is in force then. Raises
        KeyError for an unknown site, ValueError for what the site does not have, and DiskFull or
        FileBusy when it cannot be kept.
        """
        with self._locked():
            start = max(self._clock(), self._next[site], self._said[site] + 1)
            record = Mode(
                site=site,
                source=REPORTS_SOURCE,
                start=start,
                mode=mode,
                until=None if lasts is None else start + lasts,
                by=by,
                rule=rule,
                said=start,
            )
            if wrong := self._modes.plan(site).refusal(record):
                raise ValueError(wrong)
            self._modes.put(record, lambda: self._store(site, [record]))
            self._said[site], self._next[site] = start, start + 1
            return self._modes.state(site, start)

    def now(self) -> int:
        """The event time of this moment, ns."""
        return self._clock()

    def mode(self, site: str) -> tuple[SiteMode, ModePlan]:
        """What is in force at a site now, and what it has by its config; raises KeyError."""
        with self._locked():
            return self._modes.state(site, self._clock()), self._modes.plan(site)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=BUSY_TIMEOUT):
            msg = "the reports before this one wait for the disk"
            raise FileBusy(msg)
        try:
            yield
        finally:
            self._lock.release()

    def beat(self) -> None:
        """Publishes, once a hop, that no report starts before now; and the site's roster if due.

        Where they cannot be stored now, the next call publishes them.
        """
        with suppress(DiskFull, FileBusy), self._lock:
            now = self._clock()
            for name, site in self._sites.items():
                records = self._roster_due(name, now)
                due = now >= self._beat[name]
                upto = max(now, self._next[name])
                if due:
                    records.append(Progress(site=name, source=REPORTS_SOURCE, upto=upto))
                if records:
                    self._store(name, records)
                if due:
                    self._tell(name, self._modes.state(name, now))
                    self._beat[name], self._next[name] = now + ns(site.windows.hop), upto

    def _store(self, site: str, records: Sequence[Record]) -> None:
        try:
            self._publish(topics.REPORTS, records)
        except (DiskFull, FileBusy):
            self._roster[site] = -1  # a roster among them is due again
            self._modes.retract(site)
            raise

    def _roster_due(self, name: str, now: int) -> list[Record]:
        if now < self._roster[name]:
            return []
        self._roster[name] = now + ROSTER_EVERY
        site = self._sites[name]
        sources = roster(site.cameras, site.microphones)
        self._said[name] = max(now, self._next[name], self._said[name] + 1)
        return [
            Roster(site=name, source=REPORTS_SOURCE, sources=sources, start=now),
            *self._modes.statements(name, self._said[name]),
        ]


def last_promises(last: Callable[[str, str], bytes | None], sites: Sequence[str]) -> dict[str, int]:
    """The first ns at which each site's next report may start, from the log's newest entries."""
    found = {}
    for site in sites:
        value = last(topics.REPORTS, f"{site}/{REPORTS_SOURCE}")
        if value is not None:
            with suppress(DecodeError):  # the stage that reads the entry sends it to `dead`
                found[site] = first_free(codec.decode(value))
    return found
