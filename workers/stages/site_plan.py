"""Builds rules, zones, thresholds and heads from a site's settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from models.language.keywords import Keywords
from models.language.text import packed
from pipeline.config import schema
from pipeline.config.schedule import Schedule
from pipeline.config.schema import Config, Site
from pipeline.errors import WeightsError
from pipeline.judge.incident import Timing
from pipeline.judge.rules import (
    Crowd,
    KeywordMatcher,
    LineCrossing,
    Loitering,
    PhraseMatcher,
    RuleScope,
    SoundThreshold,
    VisionRule,
    ZoneIntrusion,
)
from pipeline.ports import Model
from pipeline.types import ns
from pipeline.zones import LineCounter, LineSegment, Polygon
from workers.stages.site_state import RULES, Head, SitePlan

SHIPPED = "shipped"  # the head that comes with Fusewatch
FUSED = 0.8  # probability; fused evidence of several rules that reaches it is an anomaly


def load_heads(settings: Config) -> dict[str, Head]:
    """Loads the learned head of each site that has one; sites with the same head share it.

    Raises WeightsError for a head that cannot be used; its message names the site's setting.
    """
    named = {name: site.fusion.head for name, site in settings.sites.items()}
    loaded: dict[str, Head] = {}
    for name, head in named.items():
        if head != RULES and head not in loaded:
            try:
                loaded[head] = load_head(head)
            except WeightsError as error:
                msg = f"sites.{name}.fusion.head: {error}"
                raise WeightsError(msg) from error
    return {name: loaded[head] for name, head in named.items() if head != RULES}


def load_head(head: str) -> Head:
    """Loads the learned head that a config names; raises WeightsError."""
    from models.fusion.learned_head import LearnedHead

    return LearnedHead.shipped() if head == SHIPPED else LearnedHead.read(Path(head))


def timing(site: Site) -> Timing:
    """The settings for the end of a site's incidents."""
    return Timing(
        close_after=ns(site.incidents.close_after), max_duration=ns(site.incidents.max_duration)
    )


def site_plan(site: Site, text: Model, *, recorded: bool) -> SitePlan:
    """What fusion knows of a site; the phrases of its rules are embedded here, once."""
    named = tuple(zip(schema.rule_names(site), site.rules, strict=True))
    timezone = ZoneInfo(site.timezone)
    return SitePlan(
        size=ns(site.windows.size),
        hop=ns(site.windows.hop),
        horizon=ns(site.windows.horizon),
        patience=None if recorded else ns(site.windows.patience),
        lost_after=None if recorded else ns(site.incidents.lost_after),
        cry_every=ns(site.incidents.close_after) // 2,
        still_after=ns(site.stationary.after),
        still_distance=site.stationary.distance,
        threshold=FUSED if site.fusion.threshold is None else site.fusion.threshold,
        learned=site.fusion.threshold,
        severity=site.fusion.severity,
        zones={
            name: [Polygon.parse(zone.coordinates) for zone in camera.zones.values()]
            for name, camera in site.cameras.items()
        },
        cameras={name: camera.detect for name, camera in site.cameras.items()},
        sees=lambda: [made for name, rule in named for made in _sees(name, rule, site, timezone)],
        hears=[
            SoundThreshold(name, rule, Schedule.parse(rule.schedule), timezone)
            for name, rule in named
            if isinstance(rule, schema.SoundRule)
        ],
        reads=[made for name, rule in named for made in _reads(name, rule, text)],
    )


def _sees(name: str, rule: schema.Rule, site: Site, timezone: ZoneInfo) -> Iterator[VisionRule]:
    match rule:
        case schema.ZoneRule():
            for place in _places(rule, site, timezone, rule.min_score):
                yield ZoneIntrusion(name, rule, place)
        case schema.LoiteringRule():
            for place in _places(rule, site, timezone):
                yield Loitering(name, rule, place)
        case schema.CrowdRule():
            for place in _places(rule, site, timezone):
                yield Crowd(name, rule, place)
        case schema.LineRule():
            keep = ns(site.windows.horizon)
            lines = {
                camera: LineCounter(
                    LineSegment.parse(of.lines[rule.line].coordinates), rule.hysteresis, keep
                )
                for camera, of in site.cameras.items()
                if rule.line in of.lines
            }
            place = RuleScope(
                zones={},
                objects=frozenset(rule.objects),
                schedule=Schedule.parse(rule.schedule),
                timezone=timezone,
            )
            yield LineCrossing(name, rule, place, lines)


def _places(
    rule: schema.ZoneRule | schema.LoiteringRule | schema.CrowdRule,
    site: Site,
    timezone: ZoneInfo,
    min_score: float = 0.0,
) -> Iterator[RuleScope]:
    """The rule's zone at each camera that has it: the objects may differ from one to the next."""
    for camera, of in site.cameras.items():
        if rule.zone in of.zones:
            zone = of.zones[rule.zone]
            yield RuleScope(
                zones={camera: Polygon.parse(zone.coordinates)},
                objects=frozenset(rule.objects or zone.objects),
                schedule=Schedule.parse(rule.schedule),
                timezone=timezone,
                min_score=min_score,
            )


def _reads(name: str, rule: schema.Rule, text: Model) -> Iterator[KeywordMatcher | PhraseMatcher]:
    match rule:
        case schema.KeywordRule():
            yield KeywordMatcher(name, rule, Keywords(rule.words))
        case schema.PhraseRule():
            vectors = zip(rule.phrases, text(rule.phrases), strict=True)
            yield PhraseMatcher(name, rule, {phrase: packed(vector) for phrase, vector in vectors})
