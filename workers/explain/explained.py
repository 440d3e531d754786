"""Plays or judges an input again, and keeps why each rule and head told something or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from zoneinfo import ZoneInfo

import msgspec

from models.fusion.head import Head
from pipeline.config.rule_kinds import rule_names
from pipeline.config.schema import Config, Site
from pipeline.errors import ConfigError
from pipeline.judge.modes import JUDGEMENTS
from pipeline.judge.refusal import Collector
from pipeline.types import Alert, Anomaly
from workers.explain.observed import (
    Observation,
    Observed,
    Picture,
    TappedBus,
    TappedHistory,
    take_pictures,
)
from workers.explain.refusals import SiteRefusals
from workers.recordings.recording import Recording
from workers.replay.again import Way, judge_again
from workers.replay.inputs import SceneInput, StoredInput
from workers.replay.scene_replay import ReplayOptions, replay
from workers.replay.sent_alerts import overlapping
from workers.runtime.printable import printable
from workers.stages.encoders import Encoders
from workers.stored.pace import Heard
from workers.stored.recorded_sites import stored_sites
from workers.stored.rules_then import NOW, THEN, rules_then

NOTHING = "nothing that was seen, heard or said then is stored"
NOT_USED = ("seconds.gated", "not_understood")  # counters of what a stage leaves out


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at one site in `[start, end)`, ns, and what stood in the way of more.

    `observations` are in the order of their time. `lost` has the times at which a source was lost,
    `pictures` small frames by camera. `left_out` says what the stages did not look at or hear.
    """

    name: str
    site: str
    settings: Site
    start: int
    end: int
    refusals: SiteRefusals
    anomalies: Sequence[Anomaly]
    alerts: Sequence[Alert]
    observations: Sequence[Observation]
    lost: Mapping[str, Sequence[int]]
    pictures: Mapping[str, Sequence[Picture]]
    left_out: Mapping[str, int]
    notes: Sequence[str] = ()

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which times are told."""
        return ZoneInfo(self.settings.timezone)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules, and of the judgements of windows."""
        return (*rule_names(self.settings.rules), *JUDGEMENTS)

    @property
    def last(self) -> Mapping[str, Alert]:
        """The last revision of each incident, by its id."""
        return {alert.id: alert for alert in self.alerts}


def explain_scene(
    settings: Config, one: SceneInput, encoders: Encoders, heard: Heard, *, pictures: bool
) -> Explained:
    """Plays a scene, or a media file as a scene, and explains it."""
    scene, chosen = one.scene, one.selected
    start = max(scene.start, chosen.since or scene.start)
    end = min(scene.end, chosen.until or scene.end)
    if start >= end:
        msg = f"{one.path}: has nothing between --since and --until"
        raise ConfigError(msg)
    refusals = SiteRefusals(start, end)
    seen = Observed(scene.site, start, end, pictures=pictures)
    played = replay(
        settings,
        scene,
        encoders,
        bus=TappedBus(seen.take),
        heard=heard,
        study=ReplayOptions(keep=chosen.kept, refusals=_only(scene.site, refusals)),
    )
    counts = played.status.snapshot().counts.get(scene.site, {})
    return _explained(
        settings,
        scene.site,
        refusals,
        seen,
        name=printable(one.name),
        anomalies=seen.anomalies,
        alerts=overlapping(settings, played.alerts, start, end),
        left_out={
            f"{source} {what}": n
            for source, known in sorted(counts.items())
            for what, n in sorted(known.items())
            if what.startswith(("gated.", "dropped.", "unusable.")) or what in NOT_USED
        },
        notes=one.said,
    )


def explain_stored(
    settings: Config,
    one: StoredInput,
    encoders: Callable[[Config], Encoders],
    heard: Heard,
    *,
    pictures: bool,
    rules: str = NOW,
    heads: Mapping[str, Head] | None = None,
    check: Callable[[Mapping[str, Site], int], None] = lambda sites, start: None,
) -> list[Explained]:
    """Judges stored observations again by the rules of `now` or `then`, and explains each site.

    `encoders` gives the models of a config. `heads` are by site, in place of those of the config.
    `check` is called with the sites and the begin (ns) before they are judged, and may raise.
    """
    chosen = one.selected
    with one.opened() as stored:
        span = one.span(stored)
        since, until = span.since, span.until
        if rules == THEN:
            then = rules_then(settings, stored, since, until, chosen)
            settings, heads = then.settings, then.heads
        has = stored_sites(stored) or settings.sites
        sites = [site for site in settings.sites if chosen.judges(site) and site in has]
        check({site: settings.sites[site] for site in sites}, since)
        refusals = {site: SiteRefusals(since, until) for site in sites}
        seen = {
            site: Observed(site, since, until, keep=chosen.kept, pictures=pictures)
            for site in sites
        }

        def take(topic: str, value: bytes) -> None:
            for each in seen.values():
                each.take(topic, value)

        again = judge_again(
            settings,
            encoders(settings),
            TappedHistory(stored, take),
            since,
            until,
            heads=heads,
            way=Way(selected=chosen, heard=heard, refusals=refusals.get),
        )
        for each in seen.values() if pictures else ():
            take_pictures(stored, each)
        losses = [str(each) for each in stored.losses] if isinstance(stored, Recording) else []
        notes = [*again.compared.lines(), *losses]
    judged = again.judged
    return [
        _explained(
            settings,
            site,
            refusals[site],
            seen[site],
            name=printable(one.name),
            anomalies=[
                found
                for found in judged.anomalies
                if found.site == site and since <= found.start < until
            ],
            alerts=[
                alert
                for alert in judged.alerts
                if alert.site == site and alert.time >= span.told_from
            ],
            left_out={},
            notes=notes if seen[site].observations else [*notes, NOTHING],
        )
        for site in sites
    ]


def _only(site: str, refusals: SiteRefusals) -> Callable[[str], Collector | None]:
    return lambda name: refusals if name == site else None


def _explained(  # noqa: PLR0913 - what an explanation consists of
    settings: Config,
    site: str,
    refusals: SiteRefusals,
    seen: Observed,
    *,
    name: str,
    anomalies: Sequence[Anomaly],
    alerts: Sequence[Alert],
    left_out: Mapping[str, int],
    notes: Sequence[str],
) -> Explained:
    return Explained(
        name=name,
        site=site,
        settings=settings.sites[site],
        start=seen.since,
        end=seen.until,
        refusals=refusals,
        anomalies=anomalies,
        alerts=alerts,
        observations=sorted(seen.observations, key=lambda one: (one.start, one.source)),
        lost=seen.lost,
        pictures=seen.pictures,
        left_out=left_out,
        notes=notes,
    )
