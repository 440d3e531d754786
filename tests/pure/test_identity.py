"""The tracker and looks: who was hidden is known again, and nobody takes the id of another."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge.appearance import SIZE
from pipeline.judge.identity import MOST
from pipeline.judge.track import HIDDEN, Track, Tracker
from pipeline.types import SECOND, Box
from tests.make import box

FRAME = SECOND // 5
RED = bytes([*[0] * 4, 255, *[0] * 14, 200, *[0] * 4, 55] * 2)
BLUE = bytes([*[0] * 9, 255, *[0] * 6, 200, *[0] * 7, 55] * 2)
assert len(RED) == len(BLUE) == SIZE
Frames = Sequence[Sequence[Box] | None]


def person(x: float, look: bytes = RED, y: float = 0.5) -> Box:
    return box(x=x, y=y, appearance=look)


def walk(begin: float, count: int, look: bytes = RED, step: float = 0.02) -> list[list[Box]]:
    return [[person(begin + step * n, look)] for n in range(count)]


def follow(frames: Frames, tracker: Tracker | None = None) -> list[tuple[Track, ...]]:
    """The tracks after each frame; None in place of boxes is a gated frame."""
    tracker = tracker or Tracker()
    return [
        tracker.hold(n * FRAME) if boxes is None else tracker.update(boxes, n * FRAME)
        for n, boxes in enumerate(frames)
    ]


def ids(told: Sequence[tuple[Track, ...]]) -> set[int]:
    return {track.id for tracks in told for track in tracks}


def away(seconds: float) -> list[list[Box]]:
    return [[] for _ in range(round(seconds * 5))]


@pytest.mark.parametrize("seconds", [2.5, 5, 10])
def test_who_comes_out_of_a_hiding_place_is_the_same(seconds: float) -> None:
    told = follow([*walk(0.2, 10), *away(seconds), *walk(0.5, 5)])
    assert ids(told) == {1}
    assert [len(tracks) for tracks in told[-3:]] == [1, 1, 1]
    (track,) = told[-1]
    back = 10 + round(seconds * 5)
    assert track.first_seen == 0
    assert track.found == back * FRAME
    assert [point.time for point in track.path][8:12] == [
        8 * FRAME, 9 * FRAME, back * FRAME, (back + 1) * FRAME,
    ]  # fmt: skip
    assert track.path[-1] == track.feet
    assert track.box == person(0.58).bare()


def test_no_track_shows_who_is_hidden() -> None:
    tracker = Tracker()
    told = follow([*walk(0.2, 10), *away(10)], tracker)
    assert not any(told[20:])
    assert tracker.hidden == {1}
    follow_on = tracker.update([], 59 * FRAME + HIDDEN)
    assert follow_on == ()
    assert tracker.hidden == frozenset()


def test_who_is_hidden_for_too_long_is_somebody_new() -> None:
    assert ids(follow([*walk(0.2, 10), *away(13), *walk(0.5, 5)])) == {1, 2}


def test_who_looks_different_is_somebody_else() -> None:
    for seconds in (1, 5):
        told = follow([*walk(0.2, 10), *away(seconds), *walk(0.45, 6, BLUE)])
        assert {track.id for track in told[-1] if track.last_seen == track.feet.time} >= {2}
        assert ids(told) == {1, 2}, "the box of another one does not continue the track"
        assert [t.id for t in told[-1] if t.last_seen == (len(told) - 1) * FRAME] == [2]


def test_without_looks_nobody_is_known_again() -> None:
    assert ids(follow([*walk(0.2, 10, b""), *away(5), *walk(0.5, 5, b"")])) == {1, 2}
    assert ids(follow([*walk(0.2, 10), *away(5), *walk(0.5, 5, b"")])) == {1, 2}
    assert ids(follow([*walk(0.2, 10, b""), *away(5), *walk(0.5, 5)])) == {1, 2}


def test_who_left_at_the_edge_does_not_come_back() -> None:
    assert ids(follow([*walk(0.75, 10), *away(5), *walk(0.6, 5)])) == {1, 2}
    tracker = Tracker()
    follow([*walk(0.75, 10), *away(5)], tracker)
    assert tracker.hidden == frozenset()


def test_who_comes_in_at_the_edge_is_new() -> None:
    assert ids(follow([*walk(0.2, 10), *away(5), *walk(0.05, 5)])) == {1, 2}


def test_who_comes_out_too_far_away_is_somebody_else() -> None:
    assert ids(follow([*walk(0.1, 6), *away(2.2), *walk(0.92, 3, step=0)])) == {1, 2}


def test_a_box_of_another_size_is_somebody_else() -> None:
    small = [[box(x=0.5, height=0.1, width=0.04, appearance=RED)]] * 4
    assert ids(follow([*walk(0.2, 10), *away(4), *small])) == {1, 2}


def test_of_two_who_look_the_same_nobody_is_guessed() -> None:
    both = [[person(0.4 - 0.01 * n, y=0.3), person(0.4 - 0.01 * n, y=0.7)] for n in range(6)]
    told = follow([*both, *away(5), *[[person(0.36, y=0.5)]] * 4])
    assert ids(told) == {1, 2, 3}


def test_both_of_two_come_out_with_their_own_ids() -> None:
    def pair(x: float) -> list[Box]:
        return [person(x, RED, 0.35), person(x, BLUE, 0.65)]

    crossed = [[person(0.5, BLUE, 0.35), person(0.5, RED, 0.65)]] * 5
    told = follow([*[pair(0.4)] * 6, *away(5), *crossed])
    before = {track.id: track.feet.y for track in told[5]}
    after = {track.id: track.feet.y for track in told[-1]}
    assert after == {1: before[2], 2: before[1]}


def test_a_track_that_is_seen_is_given_to_nobody_else() -> None:
    """Somebody who looks the same comes while the first one is there."""
    frames = [[person(0.3)] if n < 6 else [person(0.3), person(0.6)] for n in range(12)]
    assert ids(follow(frames)) == {1, 2}


def test_who_passes_a_hiding_place_does_not_take_the_id() -> None:
    hides = walk(0.3, 10, RED, 0.01)
    passes = [[person(0.36 + 0.02 * n, BLUE)] for n in range(10)]
    told = follow([*hides, [], *passes])
    assert [t.id for t in told[-1] if t.last_seen == 20 * FRAME] == [2]


def test_looks_decide_between_boxes_that_fit_equally_well() -> None:
    for above, below in ((RED, BLUE), (BLUE, RED)):
        begin = [[person(0.44, RED), person(0.56, BLUE)]] * 5
        told = follow([*begin, [person(0.5, above, 0.34), person(0.5, below, 0.66)]])
        left = next(t.id for t in told[4] if t.box.x1 < 0.45)
        upper = next(t.id for t in told[5] if t.box.y1 < 0.3)
        assert (upper == left) == (above == RED)


def test_the_look_of_a_box_that_another_one_covers_is_not_kept() -> None:
    tracker = Tracker(hits=1)
    tracker.update([person(0.5)], 0)
    tracker.update([person(0.5, BLUE), person(0.52, BLUE)], FRAME)
    assert [len(one.looks.rows) for one in tracker._live if one.looks] == [1]


def test_gated_frames_leave_a_hidden_object_hidden() -> None:
    frames: Frames = [*walk(0.2, 10), *away(3), *[None] * 30, *walk(0.5, 5)]
    assert ids(follow(frames)) == {1}
    frames = [*walk(0.2, 10), *away(3), *[None] * 60, *walk(0.5, 5)]
    assert ids(follow(frames)) == {1, 2}


def test_only_so_many_hidden_objects_are_kept() -> None:
    tracker, number = Tracker(hits=1), 0
    for row in range(8):
        for column in range(20):
            spot = box(
                x=0.1 + 0.04 * column, y=0.1 + 0.1 * row, width=0.02, height=0.05, appearance=RED
            )
            tracker.update([spot], number * FRAME // 8)
            number += 1
    tracker.update([], number * FRAME // 8 + 3 * SECOND)
    assert len(tracker.hidden) == MOST
    assert min(tracker.hidden) > 1


def test_the_horizon_bounds_how_long_somebody_may_be_hidden() -> None:
    frames = [*walk(0.2, 10), *away(6), *walk(0.5, 5)]
    assert ids(follow(frames, Tracker(horizon=10 * SECOND))) == {1, 2}
    assert ids(follow(frames, Tracker(horizon=14 * SECOND))) == {1}


LOOKS = st.sampled_from([RED, BLUE, b""])
SCENES = st.lists(
    st.tuples(
        st.integers(0, 30),  # frames that nobody is seen
        st.lists(st.tuples(st.floats(0.1, 0.9), LOOKS), max_size=3),
        st.integers(1, 12),  # frames that they are seen
    ),
    max_size=8,
)


def shown(scene: Sequence[tuple[int, Sequence[tuple[float, bytes]], int]]) -> list[list[Box]]:
    frames: list[list[Box]] = []
    for empty, persons, seen in scene:
        frames += [[] for _ in range(empty)]
        frames += [[person(round(x, 3), look) for x, look in persons] for _ in range(seen)]
    return frames


@given(SCENES)
def test_whatever_comes_an_id_is_of_one_track_at_a_time(
    scene: Sequence[tuple[int, Sequence[tuple[float, bytes]], int]],
) -> None:
    one, twin = Tracker(), Tracker()
    for number, boxes in enumerate(shown(scene)):
        tracks = one.update(boxes, number * FRAME)
        assert tracks == twin.update(boxes, number * FRAME)
        told = [track.id for track in tracks]
        assert told == sorted(set(told))
        assert not one.hidden & set(told)
        for track in tracks:
            times = [point.time for point in track.path]
            assert times == sorted(set(times))
            assert track.first_seen <= times[0]
            assert not track.box.appearance


@given(SCENES, st.integers(0, 40))
def test_a_tracker_that_starts_a_horizon_before_tells_the_same(
    scene: Sequence[tuple[int, Sequence[tuple[float, bytes]], int]], late: int
) -> None:
    """As after a restart; the ids are others."""
    horizon = 20 * SECOND
    frames = shown(scene)
    whole, part = Tracker(horizon=horizon), Tracker(horizon=horizon)
    back = horizon // FRAME
    for number, boxes in enumerate(frames):
        tracks = whole.update(boxes, number * FRAME)
        if number < late:
            continue
        again = part.update(boxes, number * FRAME)
        if number >= late + back:
            assert plain(again) == plain(tracks)


def plain(tracks: Sequence[Track]) -> list[Track]:
    return sorted(
        (msgspec.structs.replace(track, id=0, found=0) for track in tracks),
        key=lambda track: (track.box.x1, track.first_seen),
    )
