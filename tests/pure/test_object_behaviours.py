"""Running, abandoned objects and vehicles at rest, on made trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from pipeline.behaviour.rule import BehaviourJudge
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Detect
from pipeline.types import SECOND, Box
from tests.make import box, detections
from workers.stages.camera_tracks import CameraTracks

FPS = 5


def told(
    label: str,
    seconds: float,
    at: Callable[[float], Sequence[Box]],
    on: Callable[[float], bool] = lambda _: True,
) -> list[tuple[str, int]]:
    """What is told, with the second; `at` gives the boxes, `on` whether the rule holds."""
    rule = BehaviourRule(labels={label: 0.5}, seconds=4)
    utc = ZoneInfo("UTC")
    judge = BehaviourJudge("b", rule, None, camera="desk", timezone=utc, horizon=120)
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    found = []
    for k in range(round(seconds * FPS)):
        frame = tracks.see(detections(k / FPS, *at(k / FPS)))
        assert frame is not None
        frame = replace(frame, watched=on(k / FPS))
        found += [(f.label, f.start // SECOND) for f in judge.see(frame)]
    return found


def crossing(speed: float) -> Callable[[float], Sequence[Box]]:
    """A person of 0.2 of the frame who crosses it at `speed` bodies a second."""
    return lambda at: [box(x=0.05 + at * speed * 0.2 * 9 / 16, height=0.2, width=0.1)]


@pytest.mark.parametrize(("speed", "count"), [(0.8, 0), (1.2, 0), (2.0, 1), (3.0, 1)])
def test_who_runs_is_told_once_and_who_walks_is_not(speed: float, count: int) -> None:
    assert len(told("running", 3, crossing(speed))) == count


def leaves(at: float) -> Sequence[Box]:
    """Somebody walks in with a suitcase, stands, and walks on without it after 5 s."""
    bag = box("suitcase", x=0.5, y=0.8, width=0.05, height=0.1)
    return [bag, box(x=0.45 if at < 5 else 0.45 - (at - 5) * 0.1, y=0.7)] if at < 9 else [bag]


def test_a_bag_whose_person_has_left_is_told_once() -> None:
    ((label, second),) = told("abandoned-object", 30, leaves)
    assert label == "abandoned-object"
    assert 9 <= second <= 14


def test_a_bag_beside_its_person_is_not_abandoned() -> None:
    assert told("abandoned-object", 30, lambda at: leaves(min(at, 4))) == []


def test_a_bag_that_nobody_brought_is_not_abandoned() -> None:
    assert told("abandoned-object", 30, lambda at: leaves(20)) == []


def test_a_vehicle_is_told_once_when_it_has_stood_and_again_when_it_stands_anew() -> None:
    def drives(at: float) -> Sequence[Box]:
        way = min(at, 3) + max(0.0, min(at - 12, 3))
        return [box("car", x=0.2 + way * 0.1, y=0.6, width=0.2, height=0.15)]

    assert [label for label, _ in told("vehicle-at-rest", 25, drives)] == ["vehicle-at-rest"] * 2
    assert [label for label, _ in told("vehicle-at-rest", 10, drives)] == ["vehicle-at-rest"]


def test_a_vehicle_that_drives_by_does_not_rest() -> None:
    slow = lambda at: [box("car", x=0.1 + at * 0.05, y=0.6, width=0.2, height=0.15)]  # noqa: E731
    assert told("vehicle-at-rest", 15, slow) == []


@pytest.mark.parametrize(
    ("label", "at"),
    [
        ("vehicle-at-rest", lambda _: [box("car", x=0.5, y=0.6, width=0.2, height=0.15)]),
        ("abandoned-object", leaves),
    ],
)
def test_what_rests_when_the_rule_begins_to_hold_is_told_then(
    label: str, at: Callable[[float], Sequence[Box]]
) -> None:
    assert told(label, 30, at, lambda second: second >= 20) == [(label, 20)]
    on_and_off = told(label, 50, at, lambda second: second < 25 or second >= 40)
    assert [name for name, _ in on_and_off] == [label] * 2
    assert on_and_off[1] == (label, 40)
