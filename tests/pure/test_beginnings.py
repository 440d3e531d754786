"""From where on an object would be found again: confirmations, faint tracks, and what to read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tracking.beginnings import Beginnings, Confirmations
from pipeline.tracking.track import Tracker
from pipeline.types import SECOND, ns
from tests.make import box

FRAME = SECOND // 5


def times_of(*seconds: float) -> Beginnings:
    begun = Beginnings()
    for at in seconds:
        begun.add(ns(at))
    return begun


def test_a_restart_reads_from_the_last_begin_before_the_limit() -> None:
    begun = times_of(1, 5, 9)
    assert begun.needs(ns(0)) == ns(0)
    assert begun.needs(ns(6)) == ns(5) - 1
    assert begun.needs(ns(30)) == ns(9) - 1


def test_of_begins_within_a_second_the_first_is_kept_and_the_newest_is_known() -> None:
    begun = times_of(1, 1.5, 1.9, 2, 2.5)
    assert begun.needs(ns(1.95)) == ns(1) - 1
    assert begun.needs(ns(3)) == ns(2) - 1
    assert begun.newest == ns(2.5)


def looks(kinds: str, hits: int = 3) -> Confirmations:
    """`x` a sure box, `-` a look without one, `g` a gated frame."""
    seen = Confirmations(hits, 0)
    for number, kind in enumerate(kinds):
        if kind == "x":
            seen.sure(number * FRAME, ns(2))
        elif kind == "g":
            seen.hold(number * FRAME, FRAME)
        else:
            seen.unsure()
    return seen


@pytest.mark.parametrize(
    ("kinds", "begun"),
    [
        ("xxx", 0),
        ("xxxxx", 2),
        ("x---xx", 0),
        ("x---xxx", 4),
        ("x-x-x", 0),
        ("x--x-x-x", 3),
        ("x---x-g-xgx", 0),
        ("x---xggggggggggggggxx", 4),
        ("x---x-ggggggggggggggxx", 4),
    ],
)
def test_it_takes_three_sure_boxes_without_two_misses_in_a_row(kinds: str, begun: int) -> None:
    assert looks(kinds).begun.newest == begun * FRAME


def test_a_faint_track_ends_when_its_last_sure_boxes_are_too_long_ago() -> None:
    tracker = Tracker(horizon=ns(10), faith=ns(20))
    for frame in range(200):
        told = tracker.update([box(0.5, score=0.9 if frame < 5 else 0.2)], frame * FRAME)
        age = (frame - 2) * FRAME  # of the last three sure boxes
        assert bool(told) is (frame >= 2 and age <= ns(20))


def test_a_faint_track_lives_for_the_horizon_at_least() -> None:
    tracker = Tracker(horizon=ns(30), faith=ns(20))
    for frame in range(150):
        told = tracker.update([box(0.5, score=0.9 if frame < 3 else 0.2)], frame * FRAME)
    assert told


def test_a_gated_frame_is_no_sure_box_of_a_faint_track() -> None:
    tracker = Tracker(horizon=ns(10), faith=ns(20))
    for frame in range(200):
        at = frame * FRAME
        if frame < 5 or frame % 10 == 0:
            told = tracker.update([box(0.5, score=0.9 if frame < 5 else 0.2)], at)
        else:
            told = tracker.hold(at)
        assert bool(told) is (frame >= 2 and at <= ns(20) + 2 * FRAME)


def test_a_track_that_is_sure_now_and_then_goes_on() -> None:
    tracker = Tracker(horizon=ns(10), faith=ns(20))
    for frame in range(500):
        sure = frame % 80 < 3
        told = tracker.update([box(0.5, score=0.9 if sure else 0.2)], frame * FRAME)
    assert [track.id for track in told] == [1]


def played(
    tracker: Tracker, scores: Sequence[float], begin: int = 0
) -> list[list[tuple[int, int]]]:
    """The tracks of each frame, of one object at most."""
    told = []
    for frame in range(begin, len(scores)):
        boxes = [box(0.5, score=scores[frame])] if scores[frame] else []
        tracks = tracker.update(boxes, frame * FRAME)
        told.append([(track.first_seen, track.last_seen) for track in tracks])
    return told


@given(
    st.lists(st.tuples(st.sampled_from([0.9, 0.9, 0.2, 0.2, 0.0]), st.integers(1, 60)), min_size=1),
    st.integers(0, 400),
)
def test_a_tracker_that_starts_where_it_must_knows_at_the_limit_who_is_there(
    runs: Sequence[tuple[float, int]], cut: int
) -> None:
    scores = [score for score, count in runs for _ in range(count)]
    at, horizon = min(cut, len(scores)), ns(10)
    whole = Tracker(horizon=horizon)
    before = played(whole, scores[:at])
    limit = at * FRAME - horizon - ns(12)
    begin = max(-(-whole.needs(limit) // FRAME), 0)
    after = played(whole, scores, at)
    again = played(Tracker(horizon=horizon), scores, begin)
    assert again[at - begin :] == after
    assert len(before) == at
