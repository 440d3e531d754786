"""What happens again in an open incident is told again, in each way of running."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from pipeline.config import rule_kinds
from pipeline.types import SECOND, Alert, Detections, event_start
from tests import reels
from tests.fakes import FakeText
from tests.graph.conftest import Runner
from tests.graph.test_fusion_stage import SITE, timeline
from tests.make import box
from workers.stages.alert import AlertStage
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_incidents, site_plan

SHOTS = (3, 8, 13)  # s


def test_each_shot_is_told_while_somebody_is_in_view(
    runner: Runner, config: Path, scene: Callable[..., Path]
) -> None:
    config.write_text(
        config.read_text().replace("    fusion:", "    incidents: {remind: 3}\n    fusion:")
    )
    played = scene(person=(1, 19))
    at = np.arange(20 * 16_000) / 16_000
    loud = sum(((second <= at) & (at < second + 1)) * 0.95 for second in SHOTS)
    wave = np.sin(2 * np.pi * 440 * at) * loud
    reels.sound(config.parent / "room.wav", wave.astype(np.float32))
    told = [event["data"] for event in runner(config, played)]
    assert [data["revision"] for data in told] == list(range(len(told)))
    heard = [
        reason[6:]
        for data in told
        for reason in data["reasons_new"]
        if "gunshot heard" in reason and "several" not in reason
    ]
    assert sorted(heard) == [f"{second:02}Z gunshot heard (microphone room)" for second in SHOTS]
    assert [data["changed"] for data in told if "again" in data["changed"]] == [["again"]] * 2
    shots = [f for f in told[-1]["findings"] if f["kind"] == "sound"]
    assert [(f["source"], f["count"]) for f in shots] == [("room", len(SHOTS))]


def walking(seen: Detections) -> Detections:
    """The frame with a person who walks to the right for ten seconds, and then to the left."""
    step = seen.start / SECOND % 20
    x = 0.3 + 0.02 * (step if step < 10 else 20 - step)
    return msgspec.structs.replace(seen, boxes=(box(x=x),))


def test_one_loiterer_for_ten_minutes_is_told_once() -> None:
    """By the whole of fusion and alerting: a person who walks up and down in a zone."""
    rules = (rule_kinds.LoiteringRule(zone="floor", seconds=30, severity="critical"),)
    site = msgspec.structs.replace(SITE, rules=rules)
    plan = site_plan(site, FakeText(), recorded=True)
    fusion = FusionStage({"office": plan}).open({})
    alerting = AlertStage({"office": site_incidents(site)}, lambda *_: ()).open({})
    sources = timeline(620)
    sources["desk"] = [walking(r) if isinstance(r, Detections) else r for r in sources["desk"]]
    told: list[Alert] = [
        alert
        for record in sorted(chain(*sources.values()), key=event_start)
        for anomaly in fusion.on(record, None)
        for alert in alerting.on(anomaly, None)
    ]
    assert [a.changed for a in told if a.changed != ("presence",)] == [("opened",)]
    assert len(told) <= 2  # somebody reports something once
    assert told[0].reasons == ("00:17:10Z person in zone floor for 30 s (camera desk)",)
