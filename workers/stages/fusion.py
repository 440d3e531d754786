"""The fusion stage: judges a site's observations and emits anomalies; each site has a state."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from models.fusion.head import Head
from pipeline.judge.refusal import Ask, Collector, CollectorOf
from pipeline.types import FOREVER, SECOND, Presence, Record, event_start
from pipeline.words import cleaned_record
from workers.stages.anomalies import rejected
from workers.stages.site_state import SitePlan, SiteState

MAX_STEP = 10 * SECOND  # ns; sources of one site are rarely further apart

TellPresence = Callable[[str, Mapping[str, Presence]], object]  # site, source -> presence


class FusionStage:
    """Tracks, aligns and judges; `plans` has every site, `heads` the sites with a learned head.

    `tell` is called once a second of event time with the presence of each site's sources. `judged`
    are the sites that are judged (None: all), as in a replay of one site: the records of the others
    only let the time of the partition go on. `refusals` gives the collector of what stood in the
    way of a site's rules and heads.
    """

    def __init__(
        self,
        plans: Mapping[str, SitePlan],
        heads: Mapping[str, Head] = {},
        tell: TellPresence = lambda site, presence: None,
        judged: Container[str] | None = None,
        refusals: CollectorOf = lambda site: None,
    ) -> None:
        self._refusals = refusals
        self._plans, self._heads, self._tell = plans, dict(heads), tell
        self._judged = plans if judged is None else judged

    @property
    def heads(self) -> Mapping[str, Head]:
        """The learned heads in use, by site."""
        return self._heads

    def swap(self, heads: Mapping[str, Head]) -> None:
        """Replaces the heads from the next window on; any thread may call it."""
        for site in self._plans:
            if site in heads:
                self._heads[site] = heads[site]
            else:
                self._heads.pop(site, None)

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        """Returns None for each record: heads judge windows, which close in the state."""
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> FusionState:
        """Returns the state of a partition."""
        return FusionState(
            self._plans, self._heads, floors, self._tell, self._judged, self._refusals
        )


class FusionState:
    """The sites of one partition; the progress of all sources shows which source has stalled.

    Event times of different sites may differ: clocks differ, and a capture sends the records that
    it spooled in an outage. So the sites share only the pace. `_now` advances to the newest record,
    but by at most a second if that is further ahead than `MAX_STEP`, so that one clock that jumps a
    year ahead makes no other site late. What a restart reads first may lag: it soon catches up.
    """

    def __init__(
        self,
        plans: Mapping[str, SitePlan],
        heads: Mapping[str, Head],
        floors: Mapping[str, int],
        tell: TellPresence,
        judged: Container[str],
        refusals: CollectorOf,
    ) -> None:
        self._refusals = refusals
        self.counting = True
        self._plans, self._heads, self._floors, self._tell = plans, heads, floors, tell
        self._judged = judged
        self._sites: dict[str, SiteState] = {}
        self._now = 0  # ns

    def on(self, record: Record, inferred: object) -> Sequence[Record]:
        """Returns what one record causes at its site, and at sites whose silent sources expire."""
        record = cleaned_record(record)
        if record.site not in self._plans:
            return [rejected(record, f"site {record.site!r} is not in the config")]
        if record.site not in self._judged:
            return self._expired(self._advance(record))
        if record.site not in self._sites:
            floor = self._floors.get(record.site, 0)
            plan = self._plans[record.site]
            refusals = self._collector(record.site)
            self._sites[record.site] = SiteState(record.site, plan, self._heads, floor, refusals)
        before = self._advance(record)
        said = self._sites[record.site].on(record, self._now)
        return said + self._expired(before)

    def _collector(self, site: str) -> Collector | None:
        found = self._refusals(site)
        return None if found is None else _OnceCollected(found, self)

    def passed(self, record: Record) -> None:
        """Lets the time of the partition go on by a record that a restart need not judge again."""
        if record.site in self._plans:
            self._expired(self._advance(record))

    def _advance(self, record: Record) -> int:
        """Advances the time of the partition; returns the time before."""
        before, newest = self._now, event_start(record)
        near = not before or newest - before <= MAX_STEP
        self._now = max(before, newest if near else before + SECOND)
        return before

    def _expired(self, before: int) -> list[Record]:
        """Returns what silent sources cause at all sites, once a second."""
        said: list[Record] = []
        if self._now // SECOND > before // SECOND:
            for name, site in self._sites.items():
                said += site.expire_silent_sources(self._now)
                self._tell(name, site.presence)
        return said

    def floor(self, site: str) -> int:
        """The site's floor, ns; FOREVER for a site that is not judged."""
        if site not in self._plans or site not in self._judged:
            return FOREVER
        known = self._sites.get(site)
        return known.floor if known else self._floors.get(site, 0)


class _OnceCollected:
    """Passes refusals on, but not while a restart repeats what was collected before."""

    def __init__(self, collector: Collector, state: FusionState) -> None:
        self._collector, self._state = collector, state

    def refuse(self, rule: str, source: str, start: int, reason: str, ask: Ask) -> None:
        if self._state.counting:
            self._collector.refuse(rule, source, start, reason, ask)
