"""The first test to read: a frame, a sound and a word walk through the whole graph to an alert.

Real bus, real stages, real tracking, windows, rules and incidents; only the models are fakes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.graph.conftest import Runner, drain, last

Scene = Callable[..., Path]


def labels(events: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(e["type"].rsplit(".", 1)[1], e["data"]["labels"]) for e in events]


def test_a_person_in_a_closed_office_becomes_an_alert(
    runner: Runner, config: Path, scene: Scene
) -> None:
    events = runner(config, scene(person=(3, 6)))
    assert labels(events) == [("opened", ["intrusion"]), ("closed", ["intrusion"])]
    opened, closed = events
    assert opened["subject"] == "office/intrusion"
    assert opened["data"]["rules"] == ["zone-floor"]
    assert opened["data"]["reasons"] == ["22:00:03Z person in zone floor (camera desk)"]
    assert opened["data"]["contributions"] == {"vision": 1.0}
    # Seen at 3.0 s, confirmed by the third frame, told with that frame's end.
    assert opened["time"] == "2026-01-05T22:00:03.600000000Z"
    assert opened["data"]["end"] is None
    assert closed["data"]["start"] == "2026-01-05T22:00:03.400000000Z"
    assert closed["data"]["end"] == "2026-01-05T22:00:05.200000000Z"


def test_picture_and_sound_of_one_happening_are_one_incident(
    runner: Runner, config: Path, scene: Scene
) -> None:
    events = runner(config, scene(person=(3, 6), loud=(8, 9)))
    ids = {event["data"]["alert_id"] for event in events}
    last = events[-1]["data"]
    assert len(ids) == 1
    assert last["labels"] == ["gunshot", "intrusion"]
    assert last["label"] == "gunshot"
    assert last["severity"] == "critical"
    assert set(last["contributions"]) == {"sound", "vision"}


def test_spoken_and_reported_words_are_reasons(runner: Runner, config: Path, scene: Scene) -> None:
    more = 'reports:\n  - {at: 12, author: guard-1, text: "a man on a ladder"}\n'
    events = runner(config, scene(spoken=(4, 6), more=more))
    last = events[-1]["data"]
    assert last["labels"] == ["distress"]
    assert last["transcript"] == ["please help me", "a man on a ladder"]
    assert '22:00:12Z "ladder" reported by guard-1' in last["reasons"]


def test_a_quiet_site_is_quiet(runner: Runner, config: Path, scene: Scene) -> None:
    assert runner(config, scene()) == []


def test_a_dead_camera_keeps_nobody_from_hearing(
    runner: Runner, config: Path, scene: Scene
) -> None:
    events = runner(config, scene(black=(5, 15), loud=(10, 11)))
    assert [event["data"]["labels"] for event in events] == [["gunshot"]] * len(events)
    assert events[-1]["data"]["state"] == "closed"
    assert events[-1]["data"]["presence"]["room"] == "present"


def test_a_dead_camera_is_told_beside_what_the_microphone_hears(
    in_step: Runner, config: Path, scene: Scene
) -> None:
    events = in_step(config, scene(black=(5, 15), loud=(10, 11)))
    assert events[0]["data"]["labels"] == ["gunshot"]
    assert events[0]["data"]["presence"]["desk"] == "lost"
    assert events[0]["data"]["presence"]["room"] == "present"


def test_the_ways_of_running_tell_the_same(runner: Runner, config: Path, scene: Scene) -> None:
    played = scene(person=(3, 6), loud=(8, 9), spoken=(12, 13))
    assert last(runner(config, played)) == last(drain(config, played))


def test_a_scene_gives_the_same_events_every_time(config: Path, scene: Scene) -> None:
    played = scene(person=(3, 6), loud=(8, 9), spoken=(12, 13))
    assert drain(config, played) == drain(config, played)
