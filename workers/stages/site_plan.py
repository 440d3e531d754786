"""Builds rules, zones, thresholds and heads from a site's settings."""

from __future__ import annotations

from pathlib import Path

from models.behaviour.fight_head import FightHead
from models.fusion.head import RULES_HEAD, Head
from models.language.keywords import Keywords
from models.language.text import packed
from pipeline.behaviour.rule import BEHAVES
from pipeline.config.model_needs import pose_count
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Config, Site
from pipeline.errors import WeightsError
from pipeline.judge.incident import Timing
from pipeline.judge.modes import ModePlan
from pipeline.judge.rules import HEARS, READS, RuleContext, judges
from pipeline.judge.vision_rules import SEES
from pipeline.ports import Model
from pipeline.types import ns
from pipeline.zones import Polygon
from workers.stages.alert import SiteIncidents
from workers.stages.site_state import SitePlan

SHIPPED_NAME = "shipped"  # the head that comes with Fusewatch
FUSED_THRESHOLD = 0.8  # probability; fused evidence of several rules that reaches it is an anomaly


def load_heads(settings: Config) -> dict[str, Head]:
    """Loads the learned head of each site that has one; sites with the same head share it.

    Raises WeightsError for a head that cannot be used; its message names the site's setting.
    """
    named = {name: site.fusion.head for name, site in settings.sites.items()}
    loaded: dict[str, Head] = {}
    for name, head in named.items():
        if head != RULES_HEAD and head not in loaded:
            try:
                loaded[head] = load_head(head)
            except WeightsError as error:
                msg = f"sites.{name}.fusion.head: {error}"
                raise WeightsError(msg) from error
    return {name: loaded[head] for name, head in named.items() if head != RULES_HEAD}


def load_head(head: str) -> Head:
    """Loads the learned head that a config names; raises WeightsError."""
    from models.fusion.learned_head import LearnedHead

    return LearnedHead.shipped() if head == SHIPPED_NAME else LearnedHead.read(Path(head))


def site_incidents(site: Site) -> SiteIncidents:
    """How the incidents of a site are kept."""
    told = site.incidents
    timing = Timing(
        close_after=ns(told.close_after),
        max_duration=ns(told.max_duration),
        remind=ns(told.remind),
    )
    return SiteIncidents(timing, by_source=told.group == "source")


def _fights(site: Site) -> bool:
    return any(isinstance(r, BehaviourRule) and "fight" in r.labels for r in site.rules)


def site_plan(site: Site, text: Model, *, recorded: bool) -> SitePlan:
    """Builds the plan of a site for fusion; embeds the phrases of its rules once."""
    of = RuleContext(
        site=site,
        keywords=Keywords,
        embed=lambda phrases: [packed(vector) for vector in text(phrases)],
        fight=FightHead.shipped() if _fights(site) else None,
    )
    return SitePlan(
        size=ns(site.windows.size),
        hop=ns(site.windows.hop),
        horizon=ns(site.windows.horizon),
        patience=None if recorded else ns(site.windows.patience),
        lost_after=None if recorded else ns(site.incidents.lost_after),
        cry_every=ns(site.incidents.close_after) // 2,
        still_after=ns(site.stationary.after),
        still_distance=site.stationary.distance,
        threshold=FUSED_THRESHOLD if site.fusion.threshold is None else site.fusion.threshold,
        learned=site.fusion.threshold,
        severity=site.fusion.severity,
        zones={
            name: [Polygon.parse(zone.coordinates) for zone in camera.zones.values()]
            for name, camera in site.cameras.items()
        },
        posed=frozenset(n for n, camera in site.cameras.items() if pose_count(site, camera)),
        cameras={name: camera.detect for name, camera in site.cameras.items()},
        modes=ModePlan.of(site),
        judged_in=frozenset(site.fusion.modes),
        sees=lambda: judges({**SEES, **BEHAVES}, of),
        hears=judges(HEARS, of),
        reads=judges(READS, of),
    )
