"""Poses of tracks: a track has the last pose of its person, and the time of that pose."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge.pose import JOINTS, pack
from pipeline.tracking.track import Track, Tracker
from pipeline.types import Box, ns
from tests.make import box

LEFT, RIGHT = 0.25, 0.75


def pose(x: float) -> bytes:
    return pack([(x, 0.5, 0.9)] * JOINTS)


def person(x: float, at: float | None = None) -> Box:
    """A person at `x`, whose keypoints are all at `at`; None: without a pose."""
    return box(x=x, keypoints=b"" if at is None else pose(at))


def seen(tracker: Tracker, number: int, *boxes: Box) -> tuple[Track, ...]:
    return tracker.update(boxes, ns(number / 5))


def test_each_track_has_the_pose_of_its_own_box() -> None:
    tracker = Tracker(hits=1)
    tracks = seen(tracker, 1, person(RIGHT, RIGHT), person(LEFT, LEFT))
    assert {(track.box.x1 < 0.5, track.pose) for track in tracks} == {
        (True, pose(LEFT)),
        (False, pose(RIGHT)),
    }
    assert {track.posed for track in tracks} == {ns(0.2)}


def test_a_frame_without_a_pose_leaves_the_last_one_with_its_time() -> None:
    tracker = Tracker(hits=1)
    seen(tracker, 1, person(LEFT, 0.2))
    (track,) = seen(tracker, 2, person(LEFT))
    assert (track.pose, track.posed, track.last_seen) == (pose(0.2), ns(0.2), ns(0.4))
    (track,) = seen(tracker, 3, person(LEFT, 0.3))
    assert (track.pose, track.posed) == (pose(0.3), ns(0.6))


def test_a_gated_frame_leaves_the_last_pose_with_its_time() -> None:
    tracker = Tracker(hits=1)
    seen(tracker, 1, person(LEFT, 0.2))
    (track,) = tracker.hold(ns(0.4))
    assert (track.pose, track.posed, track.last_seen) == (pose(0.2), ns(0.2), ns(0.4))


def test_a_frame_that_misses_the_person_leaves_the_last_pose() -> None:
    tracker = Tracker(hits=1)
    seen(tracker, 1, person(LEFT, 0.2))
    (track,) = seen(tracker, 2)
    assert (track.pose, track.posed, track.last_seen) == (pose(0.2), ns(0.2), ns(0.2))


def test_a_track_without_a_pose_says_so() -> None:
    (track,) = seen(Tracker(hits=1), 1, person(LEFT))
    assert (track.pose, track.posed) == (b"", None)


def test_the_box_of_a_track_has_no_pose() -> None:
    tracker = Tracker(hits=1)
    (track,) = seen(tracker, 1, person(LEFT, 0.2))
    assert track.box == person(LEFT)


def test_a_pose_is_forgotten_after_the_horizon() -> None:
    tracker = Tracker(hits=1, horizon=ns(1))
    seen(tracker, 0, person(LEFT, 0.2))
    for number in range(1, 6):
        (track,) = seen(tracker, number, person(LEFT))
        assert track.posed == 0
    (track,) = seen(tracker, 6, person(LEFT))
    assert (track.pose, track.posed) == (b"", None)


@given(st.lists(st.sampled_from("pbgm"), min_size=1, max_size=30), st.integers(0, 29))
def test_a_tracker_that_starts_later_knows_the_same_pose_or_none(kinds: str, late: int) -> None:
    """`p` a pose, `b` a box, `g` a gated frame, `m` a miss."""
    whole, part = Tracker(hits=1), Tracker(hits=1)
    for number, kind in enumerate(kinds):
        for tracker in (whole, part) if number >= late else (whole,):
            if kind == "g":
                tracks = tracker.hold(ns(number / 5))
            else:
                at = number / 30 if kind == "p" else None
                tracks = seen(tracker, number, *([] if kind == "m" else [person(LEFT, at)]))
        if number >= late:
            poses = {track.posed: track.pose for track in tracks if track.pose}
            assert all(at is not None and at >= ns(late / 5) for at in poses)
            last = max((n for n in range(number + 1) if kinds[n] == "p"), default=None)
            if last is not None and last >= late and tracks:
                assert poses == {ns(last / 5): pose(last / 30)}


@given(st.booleans(), st.floats(0.05, 0.95))
def test_poses_change_nothing_else_of_a_track(first: bool, x: float) -> None:
    with_poses, without = Tracker(hits=1), Tracker(hits=1)
    for number in range(8):
        one, other = person(x, x if first or number % 3 else None), person(0.5)
        (posed, bare) = (
            seen(with_poses, number, one, other),
            seen(without, number, msgspec.structs.replace(one, keypoints=b""), other),
        )
        assert [msgspec.structs.replace(t, pose=b"", posed=None) for t in posed] == list(bare)
