"""Which part of an input is replayed: sites, sources and a span of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from pipeline.config.problem import nearest
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import Described, Record, Report, Roster


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The sites and sources that are judged, none for all, and the span `[since, until)` in ns.

    Incidents that overlap the span are output. A source that is left out is not expected: it is
    not in the roster, and so it is not lost. Modes, which the source of reports tells, always
    count.
    """

    sites: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None

    def judges(self, site: str) -> bool:
        """Whether incidents of this site are wanted."""
        return not self.sites or site in self.sites

    def kept(self, record: Record) -> Record | None:
        """Returns what is left of a record without the sources that are left out; None: nothing."""
        if not self.sources:
            return record
        if isinstance(record, Roster):
            names = tuple(name for name in record.sources if self._expects(name))
            record = msgspec.structs.replace(record, sources=names)
        if isinstance(record, Report | Described):
            return record if record.source in self.sources else None
        return record if self._expects(record.source) else None

    def _expects(self, source: str) -> bool:
        # A microphone `room` gives the sources `room` and `room/speech`.
        return source == REPORTS_SOURCE or source.partition("/")[0] in self.sources


ALL = Selection()


def selection(
    settings: Config,
    sites: Sequence[str] = (),
    sources: Sequence[str] = (),
    since: int | None = None,
    until: int | None = None,
) -> Selection:
    """Returns the selection; raises ConfigError for a site or source that the config lacks."""
    for site in sites:
        if site not in settings.sites:
            hint = nearest(site, settings.sites) or f"; it has {_listed(settings.sites)}"
            msg = f"--site {site}: the config has no such site{hint}"
            raise ConfigError(msg)
    chosen = [of for name, of in settings.sites.items() if not sites or name in sites]
    known = {name: None for of in chosen for name in (*of.cameras, *of.microphones)}
    known[REPORTS_SOURCE] = None
    for source in sources:
        if source not in known:
            hint = nearest(source, known) or f"; there is {_listed(known)}"
            where = f"the site {_listed(sites)}" if sites else "the config"
            msg = f"--source {source}: {where} has no such source{hint}"
            raise ConfigError(msg)
    return Selection(sites=tuple(sites), sources=tuple(sources), since=since, until=until)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
