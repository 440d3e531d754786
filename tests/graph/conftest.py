"""Every graph test runs in every way that the graph can be run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.stages import BY_FAUST
from pipeline.types import Alert
from tests import fakes, reels
from workers import daemon
from workers.config import loader
from workers.delivery.cloudevent import event
from workers.replay.scene_replay import replay
from workers.stages.encoders import Encoders

Runner = Callable[[Path, Path], list[dict[str, Any]]]  # config, scene -> CloudEvents in order

FAKES = Encoders(
    detector=fakes.FakeDetector(),
    detector_high=fakes.FakeDetector(),
    sound=fakes.FakeYamnet(),
    sound_head=fakes.fake_head,
    voice=fakes.FakeVoice(),
    speech=fakes.FakeSpeech(),
    text=fakes.FakeText(),
    pose=fakes.FakePose(),
)

CONFIG = """
version: 1
api: {listen: "127.0.0.1:0"}
sites:
  office:
    cameras:
      desk:
        source: "device:0"
        zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}
    microphones:
      room: {source: "device:default"}
    rules:
      - {rule: zone, zone: floor, severity: high}
      - {rule: sound, labels: {gunshot: 0.5}, severity: critical}
      - {rule: keyword, words: {en: [help, ladder]}, label: distress}
    fusion: {head: rules}   # no head was trained on what the fakes say
"""


def drain(config: Path, scene: Path) -> list[dict[str, Any]]:
    told: tuple[Alert, ...] = replay(loader.load(config), scene, FAKES).alerts
    return [json.loads(json.dumps(event(alert))) for alert in told]


def run_edge(config: Path, scene: Path) -> list[dict[str, Any]]:
    state = config.parent / "state"
    assert daemon.run(config, scene=scene, state=state, encoders=FAKES) == 0
    return [json.loads(line) for line in (state / "alerts.jsonl").read_text().splitlines()]


WORKERS = {"plain": (), "faust": BY_FAUST}  # over brokers; which of them run under Faust
WAYS = [
    pytest.param(drain, id="drain"),
    pytest.param(run_edge, id="edge"),
    *(pytest.param(way, id=way, marks=pytest.mark.live) for way in WORKERS),
]


@pytest.fixture(params=WAYS)
def runner(request: pytest.FixtureRequest) -> Runner:
    """One way of running the graph with fake models."""
    if callable(request.param):
        return request.param  # type: ignore[no-any-return]
    from tests.live import brokered  # kafka-python is an extra

    brokers, faust = request.getfixturevalue("kafka"), WORKERS[request.param]

    def over_brokers(config: Path, scene: Path) -> list[dict[str, Any]]:
        return brokered.play(brokered.over_kafka(config, brokers), scene, FAKES, faust=faust)

    return over_brokers


@pytest.fixture(params=WAYS[:2])
def in_step(request: pytest.FixtureRequest) -> Runner:
    """A way that holds a site's sources together, so that what is known of one when another speaks
    is the same each time; over brokers each comes at the speed of its own stage."""
    return request.param  # type: ignore[no-any-return]


def last(events: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """What the ways of running have in common: the last revision of each incident, without ids."""
    by_id = {event["data"]["alert_id"]: event["data"] for event in events}
    return {
        (d["site"], *d["labels"], d["severity"], d["start"], d["end"], *d["rules"])
        for d in by_id.values()
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A closed office: a camera, a microphone, three rules, no learned head."""
    path = tmp_path / "office.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Path]:
    """`scene(person=(3, 6), loud=(8, 9), spoken=(4, 6), more="...")`: spans in seconds of 20."""

    def make(
        *,
        person: tuple[float, float] = (30, 31),
        loud: tuple[float, float] = (30, 31),
        spoken: tuple[float, float] = (30, 31),
        black: tuple[float, float] = (30, 31),
        more: str = "",
    ) -> Path:
        shots = [(k / 5, 12 if person[0] <= k / 5 < person[1] else 1) for k in range(100)]
        reels.film(tmp_path / "desk.mkv", shots, size=(128, 96))
        at = np.arange(20 * 16_000) / 16_000
        wave = np.sin(2 * np.pi * 440 * at)
        level = np.where((loud[0] <= at) & (at < loud[1]), 0.95, 0.0)
        level += np.where((spoken[0] <= at) & (at < spoken[1]), 0.4, 0.0)
        reels.sound(tmp_path / "room.wav", (wave * level).astype(np.float32))
        path = tmp_path / "scene.yaml"
        path.write_text(
            "site: office\nstart: 2026-01-05T22:00:00Z\nduration: 20\n"
            f"cameras:\n  desk: {{file: desk.mkv, fps: 5, black: [[{black[0]}, {black[1]}]]}}\n"
            f"microphones:\n  room: [{{file: room.wav, at: 0}}]\n{more}"
        )
        return path

    return make
