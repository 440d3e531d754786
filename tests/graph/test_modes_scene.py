"""A site that is armed and disarmed in the middle of a scene, in every way of running it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.errors import ConfigError
from pipeline.ports import Entry
from pipeline.types import SECOND, Mode
from tests.graph.conftest import CONFIG, FAKES, Runner, drain, last
from workers.config import loader
from workers.delivery.jsonl import write_all
from workers.replay.observation_replay import rejudge
from workers.replay.scene_file import load_scene
from workers.replay.scene_replay import replay

Scene = Callable[..., Path]

MODES = """modes:
  - {at: 4, mode: armed, until: 8, by: ann}
  - {at: 11, mode: armed, by: ben}
  - {at: 13.5, mode: auto}
"""
START = 1_767_650_400 * SECOND  # 2026-01-05T22:00:00Z


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The closed office, disarmed by default; its zone holds while it is armed."""
    path = tmp_path / "office.yaml"
    text = CONFIG.replace("zone: floor,", "zone: floor, modes: [armed],")
    path.write_text(text.replace("    rules:", "    modes: {default: disarmed}\n    rules:"))
    return path


def test_a_person_is_told_while_the_site_is_armed(
    runner: Runner, config: Path, scene: Scene
) -> None:
    events = runner(config, scene(person=(2, 15), loud=(9, 10), more=MODES))
    final = events[-1]["data"]
    assert len({event["data"]["alert_id"] for event in events}) == 1
    assert final["labels"] == ["gunshot", "intrusion"]
    assert final["start"] == "2026-01-05T22:00:04.000000000Z"
    assert final["end"] == "2026-01-05T22:00:13.200000000Z"
    assert final["modes"] == ["armed", "disarmed"]  # the gunshot came in between


def test_it_is_told_as_soon_as_the_site_is_armed(
    in_step: Runner, config: Path, scene: Scene
) -> None:
    first, *_ = in_step(config, scene(person=(2, 15), more=MODES))
    assert first["data"]["labels"] == ["intrusion"]
    assert "2026-01-05T22:00:04" < first["time"] <= "2026-01-05T22:00:05.5"


def test_nobody_is_told_while_it_is_not(runner: Runner, config: Path, scene: Scene) -> None:
    assert runner(config, scene(person=(2, 15))) == []
    snoozed = "modes:\n  - {at: 0, mode: armed}\n  - {at: 1, mode: snoozed, rule: zone-floor}\n"
    assert runner(config, scene(person=(2, 15), more=snoozed)) == []


def test_the_ways_agree(runner: Runner, config: Path, scene: Scene) -> None:
    path = scene(person=(2, 15), loud=(9, 10), spoken=(4, 6), more=MODES)
    assert last(runner(config, path)) == last(drain(config, path))


def test_a_scene_with_modes_gives_the_same_bytes_every_time(
    config: Path, scene: Scene, tmp_path: Path
) -> None:
    path = scene(person=(2, 15), loud=(9, 10), spoken=(4, 6), more=MODES)
    for name in ("one", "two"):
        write_all(tmp_path / name, replay(loader.load(config), path, FAKES).alerts)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "armed" in (tmp_path / "one").read_text()


def test_what_was_observed_is_judged_again_in_the_modes_that_were_in_force(
    config: Path, scene: Scene
) -> None:
    settings, bus = loader.load(config), MemoryBus()
    path = scene(person=(2, 15), loud=(9, 10), more=MODES)
    alerts = replay(settings, path, FAKES, bus=bus).alerts
    reader = bus.reader(topics.OBSERVATIONS, "test")
    entries = [e for _ in range(50) for e in reader.poll(1000) if isinstance(e, Entry)]
    said = [r for e in entries if isinstance(r := codec.decode(e.value), Mode)]
    assert [(m.mode, m.by, (m.said - START) // SECOND) for m in said] == [
        ("armed", "ann", 4),
        ("armed", "ben", 11),
        ("auto", "", 13),
    ]
    again = rejudge(settings, FAKES, entries, START, START + 60 * SECOND)
    judged = {a.id: a for a in again.alerts}
    assert {a.id: (a.labels, a.modes, a.end) for a in judged.values()} == {
        a.id: (a.labels, a.modes, a.end) for a in {a.id: a for a in alerts}.values()
    }


def test_a_mode_is_said_again_with_the_roster(config: Path, scene: Scene) -> None:
    bus = MemoryBus()
    more = "modes:\n  - {at: 2, mode: armed, by: ann}\n  - {at: 10, mode: home}\n"
    replay(loader.load(config), scene(more=more), FAKES, bus=bus)
    reader = bus.reader(topics.REPORTS, "test")
    found = [codec.decode(e.value) for e in reader.poll(1000) if isinstance(e, Entry)]
    said = [(r.mode, (r.said - START) // SECOND) for r in found if isinstance(r, Mode)]
    assert said == [("armed", 2), ("home", 10), ("home", 10), ("home", 20)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("modes: [{at: 1, mode: amred}]", "modes[0]: the site has no such mode (`amred`); did you"),
        ("modes: [{at: 1, mode: snoozed, rule: zone-flor}]", "did you mean `zone-floor`?"),
        ("modes: [{at: 1, mode: armed, rule: sound}]", "a rule takes the mode `snoozed` or `auto`"),
        ("modes: [{at: 5, mode: armed, until: 4}]", "modes[0].until: must be after `at`"),
        ("modes: [{at: -1, mode: armed}]", "modes[0].at"),
        ("modes: [{at: 1, mode: armed, unil: 4}]", "did you mean `until`"),
    ],
)
def test_a_wrong_mode_of_a_scene_is_said_with_its_place(
    config: Path, scene: Scene, more: str, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        replay(loader.load(config), load_scene(scene(more=more)), FAKES)
    assert said in str(raised.value)


def test_alerts_of_a_site_without_modes_are_armed(config: Path, scene: Scene) -> None:
    config.write_text(CONFIG)
    events = drain(config, scene(person=(3, 6)))
    assert {json.dumps(event["data"]["modes"]) for event in events} == {'["armed"]'}
