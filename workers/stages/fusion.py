"""The fusion stage: observations of a site in, anomalies out; each site has a state of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.types import FOREVER, SECOND, Record, event_start
from workers.stages.site_state import Head, SitePlan, SiteState, dead


class FusionStage:
    """Tracks, aligns and judges; `plans` has every site of the config, `heads` those with one."""

    def __init__(self, plans: Mapping[str, SitePlan], heads: Mapping[str, Head] = {}) -> None:
        self._plans, self._heads = plans, dict(heads)

    @property
    def heads(self) -> Mapping[str, Head]:
        """The learned heads that judge now, by site."""
        return self._heads

    def swap(self, heads: Mapping[str, Head]) -> None:
        """Judge by other heads from the next window on; from any thread."""
        for site in self._plans:
            if site in heads:
                self._heads[site] = heads[site]
            else:
                self._heads.pop(site, None)

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        """Nothing: the head judges windows, and those close in the state."""
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> FusionState:
        """The state of a partition."""
        return FusionState(self._plans, self._heads, floors)


class FusionState:
    """The sites of one partition; a source that stalls is told by how far the others have come.

    Event times of different sites need not agree (clocks differ, a capture sends what it spooled in
    an outage), so only the pace is shared: `_now` goes on with the newest record, by a second each
    at most, so that one clock that jumps a year ahead makes nobody else late.
    """

    def __init__(
        self, plans: Mapping[str, SitePlan], heads: Mapping[str, Head], floors: Mapping[str, int]
    ) -> None:
        self._plans, self._heads, self._floors = plans, heads, floors
        self._sites: dict[str, SiteState] = {}
        self._now = 0  # ns

    def on(self, record: Record, inferred: object) -> Sequence[Record]:
        """What one record of a site causes, at every site that it lets go on."""
        if record.site not in self._plans:
            return [dead(record, f"site {record.site!r} is not in the config")]
        if record.site not in self._sites:
            floor = self._floors.get(record.site, 0)
            plan = self._plans[record.site]
            self._sites[record.site] = SiteState(record.site, plan, self._heads, floor)
        before, newest = self._now, event_start(record)
        self._now = max(before, min(newest, before + SECOND) if before else newest)
        said = self._sites[record.site].on(record, self._now)
        if self._now // SECOND > before // SECOND:
            for site in self._sites.values():
                said += site.expire_silent_sources(self._now)
        return said

    def floor(self, site: str) -> int:
        """Watermark - horizon of the site; a site that left the config is held for by nobody."""
        if site not in self._plans:
            return FOREVER
        known = self._sites.get(site)
        return known.floor if known else self._floors.get(site, 0)
