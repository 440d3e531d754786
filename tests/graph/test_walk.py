"""The first test to read: a frame, a sound and a word walk through the whole graph to an alert.

Real bus, real stages, real tracking, windows, rules and incidents; only the models are fakes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.graph.conftest import Runner

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


def test_a_dead_camera_is_told_beside_what_the_microphone_hears(
    runner: Runner, config: Path, scene: Scene
) -> None:
    events = runner(config, scene(black=(5, 15), loud=(10, 11)))
    assert events[0]["data"]["labels"] == ["gunshot"]
    assert events[0]["data"]["presence"]["desk"] == "lost"
    assert events[0]["data"]["presence"]["room"] == "present"


def test_the_ways_of_running_tell_the_same(config: Path, scene: Scene) -> None:
    from tests.graph.conftest import drain, run_edge

    def last(events: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
        by_id = {event["data"]["alert_id"]: event["data"] for event in events}
        return {
            (d["site"], *d["labels"], d["severity"], d["start"], d["end"], *d["rules"])
            for d in by_id.values()
        }

    played = scene(person=(3, 6), loud=(8, 9), spoken=(12, 13))
    assert last(drain(config, played)) == last(run_edge(config, played))


def test_a_scene_gives_the_same_events_every_time(config: Path, scene: Scene) -> None:
    from tests.graph.conftest import drain

    played = scene(person=(3, 6), loud=(8, 9), spoken=(12, 13))
    assert drain(config, played) == drain(config, played)
