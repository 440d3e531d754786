"""What the graph makes of a site's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pipeline.config import rule_kinds, schema
from pipeline.config.rule_kinds import Rule
from pipeline.judge.modes import SiteModes
from pipeline.judge.rule_gate import RuleGate
from pipeline.judge.rules import RuleFinding, TrackedFrame
from pipeline.tracking.track import Point, Track
from pipeline.types import ns
from tests.fakes import FakeText
from tests.make import box
from workers.stages.site_plan import site_plan

FRAME = "0,0, 1,0, 1,1, 0,1"


def camera(*objects: str) -> schema.Camera:
    zone = schema.Zone(coordinates=FRAME, objects=objects or ("person",))
    lines = {"door": schema.Line(coordinates="0.5,0, 0.5,1")}
    return schema.Camera(source="device:0", zones={"floor": zone}, lines=lines)


def seen(source: str, at: float, label: str, x: float = 0.5) -> TrackedFrame:
    time = ns(at)
    track = Track(
        id=1,
        label=label,
        score=0.9,
        box=box(label, x, 0.5),
        first_seen=time,
        last_seen=time,
        path=(Point(time, x, 0.65),),
        aspect=16 / 9,
    )
    return TrackedFrame(
        source=source, start=time, end=ns(at + 0.2), tracks=(track,), still=frozenset()
    )


def judged(
    cameras: Mapping[str, schema.Camera],
    rule: Rule,
    frames: Sequence[TrackedFrame],
    **site: object,
) -> list[RuleFinding]:
    """What one rule of a site finds in `frames`."""
    made = schema.Site(cameras=cameras, rules=(rule,), **site)  # type: ignore[arg-type]
    sees = site_plan(made, FakeText(), recorded=True).sees()
    return [finding for frame in frames for each in sees for finding in each.judge.see(frame)]


def where(findings: Sequence[RuleFinding]) -> list[tuple[str, str]]:
    return [(finding.source, finding.reason.split()[0]) for finding in findings]


@pytest.mark.parametrize(
    "rule",
    [
        rule_kinds.ZoneRule(zone="floor"),
        rule_kinds.CrowdRule(zone="floor", count=1, seconds=1),
        rule_kinds.LoiteringRule(zone="floor", seconds=1),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_a_rule_without_objects_takes_those_of_the_zone_at_each_camera(
    rule: Rule,
) -> None:
    cameras = {"hall": camera("person"), "gate": camera("car", "truck")}
    for label, source in (("person", "hall"), ("car", "gate"), ("truck", "gate")):
        frames = [seen(name, at, label) for at in (1, 2, 3) for name in cameras]
        assert {finding.source for finding in judged(cameras, rule, frames)} == {source}


@pytest.mark.parametrize(
    "rule",
    [
        rule_kinds.ZoneRule(zone="floor"),
        rule_kinds.CrowdRule(zone="floor", count=1, seconds=1),
        rule_kinds.LoiteringRule(zone="floor", seconds=1),
        rule_kinds.LineRule(line="door"),
    ],
    ids=lambda rule: type(rule).__name__,
)
def test_a_frame_is_shown_to_the_rules_of_its_camera_with_the_same_findings(rule: Rule) -> None:
    cameras = {"hall": camera(), "gate": camera(), "yard": schema.Camera(source="device:1")}
    plan = site_plan(schema.Site(cameras=cameras, rules=(rule,)), FakeText(), recorded=True)
    gate = RuleGate(SiteModes(plan.modes), plan.sees(), (), ())
    frames = [seen(name, at, "person", at / 5) for at in (1, 2, 3, 4) for name in cameras]
    found = [finding for frame in frames for finding in gate.judge(frame, {})]
    assert found == judged(cameras, rule, frames) != []


def test_a_rule_s_own_objects_go_before_those_of_the_zone() -> None:
    rule = rule_kinds.ZoneRule(zone="floor", objects=("dog",))
    frames = [seen("gate", 1, "car"), seen("gate", 3, "dog")]
    assert where(judged({"gate": camera("car")}, rule, frames)) == [("gate", "dog")]


def test_a_line_remembers_no_longer_than_the_horizon() -> None:
    rule = rule_kinds.LineRule(line="door")
    waits = [seen("gate", at, "person", 0.5) for at in range(1, 50)]
    frames = [seen("gate", 0, "person", 0.3), *waits, seen("gate", 50, "person", 0.7)]
    cameras = {"gate": camera()}
    long = judged(cameras, rule, frames, windows=schema.Windows(horizon=60))
    short = judged(
        cameras,
        rule,
        frames,
        windows=schema.Windows(horizon=40),
        stationary=schema.Stationary(after=20),
    )
    assert (len(long), len(short)) == (1, 0)
