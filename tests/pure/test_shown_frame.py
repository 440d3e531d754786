"""Which frame shows an alert, and which objects in it get a box."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus.memory import MemoryBus
from pipeline.types import Box, Corners, ns
from tests.make import alert, box, detections
from tests.pictures import AT, LITTLE, finding, frame, pictured, recorded
from workers.delivery.shown_frame import (
    AlertFrames,
    best_frame,
    corners,
    found_objects,
    marks,
    overlap,
)

PERSON = box(x=0.3, y=0.5)
OTHER = box(x=0.8, y=0.5)
DOG = box("dog", x=0.3, y=0.5)


def small(start: float) -> object:
    return frame(start, size=LITTLE)


def texts(boxes: tuple[Box, ...]) -> list[str]:
    return [each.label for each in boxes]


def test_the_frame_of_the_gravest_finding_is_shown() -> None:
    frames = [frame(t, size=LITTLE) for t in (998.0, 999.0, 1000.0)]
    looked = {ns(1000.0): detections(1000.0)}
    assert best_frame(frames, looked, ns(AT), [ns(998.0), ns(999.0)]) is frames[0]


def test_a_finding_of_long_ago_does_not_choose_the_frame() -> None:
    frames = [frame(t, size=LITTLE) for t in (999.0, 1000.0)]
    assert best_frame(frames, {}, ns(AT), [ns(500.0), ns(999.0)]) is frames[0]
    assert best_frame(frames, {}, ns(AT), [ns(500.0)]) is frames[1]


def test_a_finding_of_the_frame_has_its_own_box() -> None:
    (drawn,) = marks([finding(PERSON, label="loitering")], ns(AT), [])
    assert (drawn.label, corners(drawn)) == ("person: loitering", corners(PERSON))


def test_only_what_was_found_has_a_box() -> None:
    assert texts(marks([finding(PERSON)], ns(AT), [PERSON, OTHER, DOG])) == ["person: intrusion"]


def test_in_another_frame_the_object_of_the_class_that_overlaps_most_has_the_box() -> None:
    near, nearer = box(x=0.34, y=0.5), box(x=0.31, y=0.5)
    (drawn,) = marks([finding(PERSON, at=500.0)], ns(AT), [near, nearer, OTHER, DOG])
    assert corners(drawn) == corners(nearer)
    assert drawn.score == nearer.score


@pytest.mark.parametrize("others", [[OTHER], [DOG], [box(x=0.39, y=0.5)], []])
def test_in_another_frame_no_unrelated_object_has_a_box(others: list[Box]) -> None:
    assert marks([finding(PERSON, at=500.0)], ns(AT), others) == ()


def test_several_findings_of_one_object_share_a_box() -> None:
    told = [finding(PERSON), finding(PERSON, label="loitering", score=0.5), finding(OTHER)]
    drawn = marks(told, ns(AT), [])
    assert texts(drawn) == ["person: intrusion", "person: intrusion, loitering"]
    assert drawn[-1].score == 0.9, "the gravest is drawn last, above the others"


def test_a_crowd_of_several_classes_is_told_by_its_label() -> None:
    (drawn,) = marks([finding(PERSON, object="", label="crowd")], ns(AT), [])
    assert drawn.label == "crowd"


def test_sounds_words_and_other_cameras_have_no_box() -> None:
    told = (
        finding(None, source="room", kind="sound", label="glass"),
        finding(PERSON, source="door"),
        finding(PERSON, source="window", kind="learned"),
    )
    bus = recorded(frame(AT, size=LITTLE), detections(AT, PERSON))
    shown = AlertFrames(bus, pictured(*told), {}).of("desk")
    assert shown is not None
    assert shown.drawn == ()
    assert shown.boxes == (PERSON,)


def test_an_alert_of_an_older_version_has_a_box_for_each_object() -> None:
    bus = recorded(frame(AT, size=LITTLE), detections(AT, PERSON, box(score=0.2)))
    shown = AlertFrames(bus, alert(time=ns(AT)), {("office", "desk"): 0.4}).of("desk")
    assert shown is not None
    assert shown.drawn == (PERSON,)
    assert len(shown.boxes or ()) == 2


def test_no_box_that_is_shown_or_listed_has_a_pose() -> None:
    posed = box(x=0.3, y=0.5, keypoints=bytes(102))
    bus = recorded(frame(AT, size=LITTLE), detections(AT, posed))
    shown = AlertFrames(bus, alert(time=ns(AT)), {}).of("desk")
    assert shown is not None
    assert shown.drawn == shown.boxes == (PERSON,)


def test_an_object_below_the_least_score_is_no_match() -> None:
    faint = box(x=0.3, y=0.5, score=0.2)
    bus = recorded(frame(AT, size=LITTLE), detections(AT, faint))
    told = pictured(finding(PERSON, at=500.0))
    shown = AlertFrames(bus, told, {("office", "desk"): 0.4}).of("desk")
    assert shown is not None
    assert shown.drawn == ()


def test_without_a_frame_near_the_alert_nothing_is_shown() -> None:
    assert AlertFrames(MemoryBus(keep=True), pictured(finding(PERSON)), {}).of("desk") is None


share = st.floats(-1e12, 1e12)
place = st.tuples(share, share, share, share)


@given(place, place)
def test_an_overlap_is_a_share_of_proper_boxes(ours: Corners, other: Corners) -> None:
    proper = (min(ours[0], ours[2]), min(ours[1], ours[3]), max(ours[0], ours[2]),
              max(ours[1], ours[3]))  # fmt: skip
    assert 0 <= overlap(proper, other) <= 1 or other[2] < other[0] or other[3] < other[1]
    assert overlap(proper, proper) in (0.0, 1.0)


def test_a_behaviour_has_a_place_in_the_picture_too() -> None:
    fall = finding(PERSON, kind="behaviour", label="fall")
    assert found_objects(pictured(fall), "desk") == [fall]


@pytest.mark.parametrize(("lasts", "shown"), [(8.0, True), (2.5, False)])
def test_a_keyframe_that_lasts_up_to_the_alert_shows_it(lasts: float, shown: bool) -> None:
    keyframe = msgspec.structs.replace(frame(AT - 6, size=LITTLE), end=ns(AT - 6 + lasts))
    bus = recorded(keyframe, detections(AT - 6, PERSON, seconds=lasts))
    found = AlertFrames(bus, pictured(), {}).of("desk")
    assert (found is not None) == shown
    if found is not None:
        assert found.boxes == (PERSON,)
