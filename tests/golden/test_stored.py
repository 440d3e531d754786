"""The recorded scenes give the alerts that were stored, to the byte.

Fusion and alerting judge the stored observations on any machine. Where weights and media are, the
whole graph plays the scenes, and its observations are the stored ones, too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import codec
from pipeline.bus.memory import MemoryBus
from pipeline.types import Detections, Sound
from tests.golden import stored
from tests.graph.conftest import last
from workers.demo.demo import SHIPPED
from workers.replay.scene_replay import ReplayOptions, replay
from workers.stages.encoders import load_encoders


def events(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.splitlines()]


@pytest.mark.parametrize("name", [*stored.SCENES, stored.DEMO])
def test_stored_observations_give_the_stored_alerts(name: str) -> None:
    assert stored.judged(name) == stored.alerts_of(name)


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", [*stored.SCENES, stored.DEMO])
def test_a_scene_gives_the_stored_observations_and_alerts(scenes: Path, name: str) -> None:
    """To the byte on the kind of processor that wrote them; int8 models round by the processor,
    so elsewhere the same records with other scores, and the same incidents."""
    played, before = stored.played(name, stored.scene_file(name, scenes)), stored.read(name)
    assert last(events(played.file)) == last(events(stored.alerts_of(name)))
    assert [key for key, *_ in played.stored.entries] == [key for key, *_ in before.entries]
    if stored.processor() == stored.PROCESSOR.read_text():
        assert played.stored.entries == before.entries
        assert played.file == stored.alerts_of(name)


def test_the_shipped_models_see_and_hear_in_the_demo_scene_what_was_stored() -> None:
    """Needs no weights but those that are shipped, and no media but the clips of the demo."""
    settings, bus = stored.site_of(stored.DEMO), MemoryBus()
    stages = ("vision", "sound")
    needed = ("detector", "sound", "sound_head")
    models = load_encoders(settings.models, recorded=True, stages=stages, needed=needed)
    replay(settings, SHIPPED / "scene.yaml", models, bus=bus, study=ReplayOptions(stages=stages))
    before = by_source(stored.read(stored.DEMO).entries)
    now = by_source(stored.observed(bus))
    assert set(now) == {"desk", "room"}
    for source, records in now.items():
        assert [r.start for r in records] == [r.start for r in before[source]]
        if stored.processor() == stored.PROCESSOR.read_text():
            assert records == before[source]


def by_source(entries: Sequence[tuple[str, bytes, str]]) -> dict[str, list[Detections | Sound]]:
    """What was seen and heard, by camera and microphone."""
    found: dict[str, list[Detections | Sound]] = {}
    for _, value, _ in entries:
        record = codec.decode(value)
        if isinstance(record, Detections | Sound):
            found.setdefault(record.source, []).append(record)
    return found


@pytest.mark.parametrize("scene", [*stored.SCENES, stored.DEMO])
def test_no_revision_is_without_reasons_or_without_a_difference_to_see(scene: str) -> None:
    before: dict[str, dict[str, Any]] = {}
    for data in (event["data"] for event in events(stored.alerts_of(scene))):
        old = before.get(data["alert_id"], {"revision": -1})
        seen = {
            name
            for name in ("state", "severity", "labels", "rules", "presence")
            if data[name] != old.get(name)
        }
        assert data["reasons"]
        assert data["findings"]
        assert data["revision"] == old["revision"] + 1
        assert seen or ("again" in data["changed"] and data["reasons_new"])
        assert seen - {"state"} == set(data["changed"]) - {"opened", "closed", "again"} or (
            data["changed"] == ["opened"]
        )
        before[data["alert_id"]] = data
