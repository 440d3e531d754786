"""The source of a site's reports: stamps and publishes them, and publishes progress.

It has no HTTP: `report_api` answers requests, and `report_server` has the sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from pipeline import codec, topics
from pipeline.config.schema import Site
from pipeline.errors import DecodeError
from pipeline.sources import REPORTS_SOURCE, first_free, roster
from pipeline.types import ROSTER_EVERY, Progress, Record, Report, Roster, ns
from workers.capture.capture import Publish
from workers.capture.clock import Clock


class ReportSource:
    """Publishes reports as records; thread safe.

    A report starts when it is received, but never before the published progress and never at the
    same ns as the report before: both would be taken for a repeat. `promised` is site -> the first
    free ns in the log, so that no report is lost when the clock is set back over a restart.
    """

    def __init__(
        self,
        sites: Mapping[str, Site],
        publish: Publish,
        clock: Clock,
        promised: Mapping[str, int] | None = None,
    ) -> None:
        self._sites = sites
        self._publish = publish
        self._clock = clock
        self._lock = threading.Lock()
        self._next = {site: (promised or {}).get(site, 0) for site in sites}  # ns; next free start
        self._beat = dict.fromkeys(sites, -1)
        self._roster = dict.fromkeys(sites, -1)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that accept reports."""
        return tuple(self._sites)

    def submit(self, site: str, author: str, text: str) -> Report:
        """Publishes a report, durable on return; raises KeyError for an unknown site."""
        with self._lock:
            start = max(self._clock(), self._next[site])
            report = Report(
                site=site,
                source=REPORTS_SOURCE,
                start=start,
                end=start + 1,
                author=author,
                text=text,
            )
            self._publish(topics.REPORTS, [*self._roster_due(site, start), report])
            self._next[site] = start + 1
            return report

    def beat(self) -> None:
        """Publishes, once a hop, that no report starts before now; and the site's roster if due."""
        with self._lock:
            now = self._clock()
            for name, site in self._sites.items():
                records = self._roster_due(name, now)
                if now >= self._beat[name]:
                    self._beat[name] = now + ns(site.windows.hop)
                    upto = max(now, self._next[name])
                    records.append(Progress(site=name, source=REPORTS_SOURCE, upto=upto))
                    self._next[name] = upto
                if records:
                    self._publish(topics.REPORTS, records)

    def _roster_due(self, name: str, now: int) -> list[Record]:
        if now < self._roster[name]:
            return []
        self._roster[name] = now + ROSTER_EVERY
        site = self._sites[name]
        sources = roster(site.cameras, site.microphones)
        return [Roster(site=name, source=REPORTS_SOURCE, sources=sources, start=now)]


def last_promises(last: Callable[[str, str], bytes | None], sites: Sequence[str]) -> dict[str, int]:
    """The first ns at which each site's next report may start, from the log's newest entries."""
    found = {}
    for site in sites:
        value = last(topics.REPORTS, f"{site}/{REPORTS_SOURCE}")
        if value is not None:
            with suppress(DecodeError):  # the stage that reads the entry sends it to `dead`
                found[site] = first_free(codec.decode(value))
    return found
