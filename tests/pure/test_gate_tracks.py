"""The tracker over gated frames: nothing moves in them, so each object is where it was."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tracking.track import Track, Tracker
from pipeline.types import SECOND, Box
from tests.make import box

FRAME = SECOND // 5
HEARTBEAT = 10  # frames; one of them is looked at though nothing moves
STANDING = [box()]
GATED = None  # in place of a frame's boxes

Frames = Sequence[Sequence[Box] | None]


def follow(frames: Frames, tracker: Tracker | None = None) -> list[tuple[Track, ...]]:
    tracker = tracker or Tracker()
    return [
        tracker.hold(n * FRAME) if boxes is None else tracker.update(boxes, n * FRAME)
        for n, boxes in enumerate(frames)
    ]


def heartbeats(count: int, *boxes: Box) -> list[Sequence[Box] | None]:
    """Gated frames with a look at the end of each two seconds, which shows these boxes."""
    return [*[GATED] * (HEARTBEAT - 1), boxes] * count


def test_one_who_lies_still_for_ten_minutes_is_known_all_the_time() -> None:
    frames = [*[STANDING] * 3, *heartbeats(300, *STANDING)]
    told = follow(frames)
    for number, tracks in enumerate(told[2:], 2):
        assert [(track.id, track.last_seen) for track in tracks] == [(1, number * FRAME)]
    last = told[-1][0]
    assert last.first_seen == (len(frames) - 1) * FRAME - 120 * SECOND
    assert last.moved(60 * SECOND) == 0


def test_gated_frames_confirm_nothing() -> None:
    flicker = [*heartbeats(1, *STANDING), *heartbeats(2)] * 5
    assert not any(follow(flicker))
    assert not any(follow([STANDING, STANDING, *[GATED] * 100]))


def test_looks_confirm_across_gated_frames() -> None:
    told = follow([STANDING, *heartbeats(2, *STANDING), GATED])
    assert [len(tracks) for tracks in told] == [0] * 20 + [1, 1]
    assert told[-1][0].first_seen == 0


def test_what_was_missed_before_the_gate_closed_keeps_its_state() -> None:
    told = follow([*[STANDING] * 4, [], *heartbeats(1), *heartbeats(1, *STANDING)])
    assert [[track.id for track in tracks] for tracks in told[2:]] == [[1]] * 23
    assert {track.last_seen for tracks in told[4:-1] for track in tracks} == {3 * FRAME}
    assert told[-1][0].last_seen == 24 * FRAME


def test_what_three_looks_miss_is_gone() -> None:
    told = follow([*[STANDING] * 4, *heartbeats(4)])
    lives = [bool(tracks) for tracks in told]
    assert lives[2:] == [True] * (2 + 3 * HEARTBEAT) + [False] * HEARTBEAT


def test_one_who_left_is_gone_as_soon_as_without_a_gate() -> None:
    away = [*[STANDING] * 4, *[[]] * 4]
    gated, looked = follow([*away, *[GATED] * 20]), follow([*away, *[[]] * 20])
    assert [len(tracks) for tracks in gated] == [len(tracks) for tracks in looked]
    assert not gated[-1]


def test_a_hole_in_the_stream_is_no_gated_time() -> None:
    tracker = Tracker()
    follow([*[STANDING] * 4, GATED], tracker)
    assert not tracker.hold(5 * FRAME + 3 * SECOND)
    tracker = Tracker()
    follow([*[STANDING] * 4, [], GATED], tracker)
    assert not tracker.update([], 6 * FRAME + 3 * SECOND)


def test_gated_frames_must_be_later_too() -> None:
    tracker = Tracker()
    tracker.update([], FRAME)
    with pytest.raises(ValueError, match="time must grow"):
        tracker.hold(FRAME)


PLACES = st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.8]), st.integers(2, 40)), max_size=6)


@given(PLACES)
def test_gating_where_nothing_changes_changes_no_track(scene: list[tuple[float, int]]) -> None:
    """A scene of objects that stand; one goes and another comes. The gate closes after 1 s."""
    shown = [[box(x=x)] if n else [] for x, n in scene for _ in range(n)]
    gated: list[Sequence[Box] | None] = []
    for number, boxes in enumerate(shown):
        rests = number >= 5 and all(shown[number - ago] == boxes for ago in range(1, 6))
        gated.append(GATED if rests and number % HEARTBEAT else boxes)
    assert follow(gated) == follow(shown)


def test_an_object_lives_on_from_keyframe_to_keyframe() -> None:
    tracker, apart = Tracker(), 8 * SECOND
    told = [tracker.update(STANDING, n * apart, apart) for n in range(4)]
    told += [tracker.update([], n * apart, apart) for n in (4, 5, 6)]
    told += [tracker.update(STANDING, 7 * apart, apart)]
    assert [[track.id for track in tracks] for tracks in told[2:7]] == [[1]] * 5
    assert told[7] == (), "it was missed in three keyframes, and is new"


def test_after_the_keyframe_that_wakes_a_camera_its_objects_have_the_time_of_keyframes() -> None:
    tracker, apart = Tracker(), 4 * SECOND
    for n in range(3):
        tracker.update(STANDING, n * apart, apart)
    begin = 3 * apart
    told = [tracker.update([], begin + n * FRAME, FRAME) for n in range(41)]
    lived = [begin + n * FRAME - 2 * apart for n, tracks in enumerate(told) if tracks]
    assert max(lived) == 12 * SECOND


def test_when_a_camera_falls_idle_its_objects_get_the_time_of_keyframes() -> None:
    tracker, apart = Tracker(), 4 * SECOND
    for n in range(3):
        tracker.update(STANDING, n * FRAME, FRAME)
    begin = 3 * FRAME
    told = [tracker.update([], begin + n * apart, apart) for n in range(4)]
    assert [len(tracks) for tracks in told] == [1, 1, 1, 0]
