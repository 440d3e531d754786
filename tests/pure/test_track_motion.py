"""The arithmetic of the tracker against the textbook, and where objects have come to rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tracking.active_track import ACCELERATION, BOX_ERROR, PATH_STEP, Motion, Point
from pipeline.tracking.stationary import StationaryMemory, alike
from pipeline.tracking.track import Track, Tracker, _greedy, _overlaps
from pipeline.types import SECOND, Box, ns

FRAME = SECOND // 5
WIDE = 16 / 9


def box(
    x: float, y: float = 0.5, score: float = 0.8, label: str = "person", size: float = 0.2
) -> Box:
    """A standing box whose feet are at (x, y)."""
    return Box(label=label, score=score, x1=x - size / 4, x2=x + size / 4, y1=y - size, y2=y)


def told_at(tracker: Tracker, frames: list[list[Box]]) -> list[int]:
    """In which frames some track is told."""
    told = [tracker.update(boxes, n * FRAME) for n, boxes in enumerate(frames)]
    return [n for n, tracks in enumerate(told) if tracks]


# -- the motion model


class Textbook:
    """A Kalman filter of one coordinate, as books write it: place and speed, 2 x 2 matrices."""

    def __init__(self, measured: float, scale: float) -> None:
        self.state = np.array([measured, 0.0])
        self.spread = np.diag([(2 * BOX_ERROR * scale) ** 2, scale**2])

    def predict(self, span: float) -> None:
        step = np.array([[1.0, span], [0.0, 1.0]])
        self.state = step @ self.state
        self.spread = step @ self.spread @ step.T

    def disturb(self, span: float, scale: float) -> None:
        """White noise acceleration over `span` seconds."""
        noise = np.array([[span**3 / 3, span**2 / 2], [span**2 / 2, span]])
        self.spread = self.spread + (ACCELERATION * scale) ** 2 * noise

    def correct(self, measured: float, scale: float) -> None:
        sees = np.array([1.0, 0.0])
        gain = self.spread @ sees / (sees @ self.spread @ sees + (BOX_ERROR * scale) ** 2)
        self.state = self.state + gain * (measured - self.state[0])
        self.spread = (np.eye(2) - np.outer(gain, sees)) @ self.spread


def scales(height: float) -> list[float]:
    """Of centre x and y, shape and height."""
    return [height, height, 0.3, height]


coordinate = st.floats(0.05, 1.5)
measurement = st.tuples(coordinate, coordinate, coordinate, coordinate).map(np.array)


@given(measurement, st.lists(st.tuples(st.floats(0.03, 2), measurement), max_size=8))
def test_the_motion_model_is_the_textbooks_kalman_filter(
    first: np.ndarray, then: list[tuple[float, np.ndarray]]
) -> None:
    motion = Motion(first)
    books = [Textbook(m, s) for m, s in zip(first, scales(first[3]), strict=True)]
    for span, measured in then:
        motion.predict(span)
        for one in books:
            one.predict(span)
        for one in books[2:]:  # no shape and no height below a thousandth
            one.state[0] = max(one.state[0], 1e-3)
        for one, scale in zip(books, scales(books[3].state[0]), strict=True):
            one.disturb(span, scale)
        assert motion.mean == pytest.approx([one.state[0] for one in books], rel=1e-6)
        motion.correct(measured)
        height = books[3].state[0]
        for one, value, scale in zip(books, measured, scales(height), strict=True):
            one.correct(value, scale)
        assert motion.mean == pytest.approx([one.state[0] for one in books], rel=1e-6)


def test_a_height_that_would_vanish_is_a_thousandth() -> None:
    motion = Motion(np.array([0.5, 0.5, 0.5, 0.3]))
    for height in (0.2, 0.1, 0.01):
        motion.predict(0.2)
        motion.correct(np.array([0.5, 0.5, 0.5, height]))
    motion.predict(2.0)
    assert motion.mean[3] == 1e-3
    assert motion._scale().tolist() == [1e-3, 1e-3, 0.3, 1e-3]


def test_time_that_passes_moves_a_track_for_two_seconds_at_most() -> None:
    """One that was not seen for long may be anywhere: it is not looked for far away."""
    paths = []
    for gap in (2.0, 3.0):
        tracker = Tracker(unseen=10 * SECOND)
        for n in range(5):
            tracker.update([box(0.1 + 0.02 * n)], n * FRAME)
        tracker.update([], 4 * FRAME + ns(gap))
        paths.append(tracker._live[0].motion.mean[0])
    assert paths[0] == pytest.approx(paths[1])


@pytest.mark.parametrize("gap", [0.1, 0.5, 1.5])
def test_a_walker_is_looked_for_where_his_speed_has_brought_him(gap: float) -> None:
    tracker = Tracker(aspect=WIDE)
    for n in range(20):
        tracker.update([box(0.1 + 0.02 * n)], n * FRAME)
    here = tracker._live[0].motion.mean[0]
    tracker.update([], 19 * FRAME + ns(gap))
    there = tracker._live[0].motion.mean[0]
    assert there - here == pytest.approx(
        0.1 * WIDE * gap, rel=0.05
    )  # a tenth of the frame a second


def test_the_first_frame_moves_nothing() -> None:
    tracker = Tracker()
    assert tracker.time is None
    tracker.update([box(0.5)], 5 * SECOND)
    assert tracker.time == 5 * SECOND


# -- how boxes are compared

edge = st.integers(0, 100).map(lambda n: n / 100)


def enlarged(one: Box, by: float) -> tuple[float, float, float, float]:
    wide, high = (one.x2 - one.x1) * by, (one.y2 - one.y1) * by
    return one.x1 - wide, one.y1 - high, one.x2 + wide, one.y2 + high


def union_share(one: Box, other: Box, by: float) -> float:
    """Intersection over union of two boxes that are enlarged on every side."""
    a, b = enlarged(one, by), enlarged(other, by)
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return wide * high / (areas - wide * high)


boxes = st.builds(
    lambda x, y, w, h: Box(label="person", score=0.8, x1=x, y1=y, x2=x + w, y2=y + h),
    edge, edge, edge.map(lambda n: n + 0.02), edge.map(lambda n: n + 0.02),
)  # fmt: skip


@given(st.lists(boxes, min_size=1, max_size=4), st.lists(boxes, min_size=1, max_size=4))
def test_the_likeness_of_boxes_is_their_buffered_overlap(
    ours: list[Box], theirs: list[Box]
) -> None:
    tracker = Tracker(aspect=WIDE)
    rows = np.array([tracker._measure(one) for one in ours])
    columns = np.array([tracker._measure(one) for one in theirs])
    expected = [[union_share(one, other, 0.1) for other in theirs] for one in ours]
    assert _overlaps(rows, columns, 0.1) == pytest.approx(np.array(expected), abs=1e-9)


def test_a_box_without_height_is_a_thousandth_high() -> None:
    flat = Box(label="person", score=0.8, x1=0.4, x2=0.6, y1=0.5, y2=0.5)
    assert Tracker(aspect=1.0)._measure(flat).tolist() == pytest.approx([0.5, 0.5, 200, 1e-3])


def test_boxes_without_any_area_overlap_nothing() -> None:
    line = Box(label="person", score=0.8, x1=0.4, x2=0.4, y1=0.3, y2=0.5)
    flat = Box(label="person", score=0.8, x1=0.4, x2=0.6, y1=0.5, y2=0.5)
    shape = np.array([Tracker()._measure(line)])
    assert _overlaps(shape, shape, 0.1).tolist() == [[0.0]]
    assert not alike(line, line)
    assert not alike(flat, flat)


def test_the_best_pairs_go_first_and_each_row_and_column_once() -> None:
    likeness = np.array([[0.5, 0.9, 0.1], [0.3, 0.8, 0.2], [0.05, 0.7, 0.09]])
    assert list(_greedy(likeness, 0.1)) == [(0, 1), (1, 0)]
    assert list(_greedy(likeness, 0.31)) == [(0, 1)]


def test_of_equal_pairs_the_first_wins() -> None:
    assert list(_greedy(np.full((2, 2), 0.5), 0.5)) == [(0, 0), (1, 1)]


def test_a_sure_box_takes_the_track_from_an_unsure_one_of_equal_overlap() -> None:
    tracker = Tracker(low=0.1, high=0.1)
    for n in range(3):
        tracker.update([box(0.5)], n * FRAME)
    left, right = box(0.49, score=0.2), box(0.51, score=0.9)
    for order in ([left, right], [right, left]):
        (track, *_) = tracker.update(order, tracker.time + FRAME)  # type: ignore[operator]
        assert track.id == 1
        assert track.score == 0.9


# -- when a track is told


@pytest.mark.parametrize(
    "frames",
    ["x--xx", "x--x--xx", "x-x--x-x"],
    ids=["after-the-first-sight", "again-and-again", "after-the-second-sight"],
)
def test_two_misses_in_a_row_end_what_was_not_told_yet(frames: str) -> None:
    assert told_at(Tracker(), [[box(0.5)] if sight == "x" else [] for sight in frames]) == []


def test_what_is_far_away_is_another_one_also_while_neither_is_told() -> None:
    assert told_at(Tracker(), [[box(0.2)], [box(0.8)], [box(0.2)], [box(0.8)]]) == []
    assert told_at(Tracker(), [[box(0.2)], [box(0.8)]] * 3) == [4, 5]


@pytest.mark.parametrize("frames", ["x-xx", "xx-x", "x-x-x"])
def test_one_miss_does_not(frames: str) -> None:
    seen = [[box(0.5)] if sight == "x" else [] for sight in frames]
    assert told_at(Tracker(), seen) == [len(frames) - 1]


def test_a_track_may_be_told_at_first_sight() -> None:
    assert told_at(Tracker(hits=1), [[box(0.5)]]) == [0]


def test_a_box_of_just_the_scores_that_are_set_counts() -> None:
    assert told_at(Tracker(high=0.4, hits=1), [[box(0.5, score=0.4)]]) == [0]
    tracker = Tracker(low=0.1)
    for n in range(3):
        tracker.update([box(0.5)], n * FRAME)
    (track,) = tracker.update([box(0.5, score=0.1)], 3 * FRAME)
    assert track.last_seen == 3 * FRAME
    (track,) = tracker.update([box(0.5, score=0.099)], 4 * FRAME)
    assert track.last_seen == 3 * FRAME


def test_a_box_that_is_just_sure_is_not_given_to_a_second_track_as_an_unsure_one() -> None:
    tracker = Tracker(high=0.4)
    for n in range(3):
        tracker.update([box(0.5), box(0.52)], n * FRAME)
    tracks = tracker.update([box(0.51, score=0.4)], 3 * FRAME)
    assert len(tracks) == 2
    assert sum(track.last_seen == 3 * FRAME for track in tracks) == 1


def test_a_track_is_kept_for_just_as_long_as_it_may_be_unseen() -> None:
    tracker = Tracker(unseen=2 * SECOND, hits=1)
    tracker.update([box(0.5)], 0)
    assert tracker.update([], 2 * SECOND)
    assert not tracker.update([], 2 * SECOND + 1)


@pytest.mark.parametrize(
    "wrong",
    [{"low": -0.1}, {"high": 1.1}, {"low": 0.5, "high": 0.4}, {"hits": 0}, {"unseen": 0},
     {"horizon": 0}],
)  # fmt: skip
def test_settings_just_beyond_their_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Tracker:"):
        Tracker(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "right", [{"low": 0.0}, {"high": 1.0}, {"low": 0.4}, {"hits": 1}, {"unseen": 1}, {"horizon": 1}]
)
def test_settings_at_their_bounds_are_taken(right: dict[str, float]) -> None:
    Tracker(**right)  # type: ignore[arg-type]


# -- how far a track has moved


def track(
    xs: list[float], *, number: int = 1, label: str = "person", y: float = 0.5, at: float = 0.0
) -> Track:
    """A track that was at these places, second after second, the last one at `at`."""
    last = xs[-1]
    first = at - len(xs) + 1
    return Track(
        id=number,
        label=label,
        score=0.8,
        box=box(last, y, label=label),
        first_seen=ns(first),
        last_seen=ns(at),
        path=tuple(Point(ns(first + n), x, y) for n, x in enumerate(xs)),
        aspect=WIDE,
    )


def test_how_far_one_has_moved_is_the_ninth_decile_of_its_distances() -> None:
    places = [0.5 - 0.01 * n for n in range(10, -1, -1)]  # ten steps, and where it is now
    assert track(places).moved(ns(100)) == pytest.approx(0.09 * WIDE / 0.2)
    assert track(places[1:]).moved(ns(100)) == pytest.approx(0.08 * WIDE / 0.2)


def test_only_the_span_that_is_asked_for_counts() -> None:
    walked = track([0.1, 0.1, 0.5, 0.5])
    assert walked.moved(ns(1)) == 0
    assert walked.moved(ns(2)) == 0
    assert walked.moved(ns(3)) > 0


def test_up_and_down_is_movement_too() -> None:
    one = track([0.5, 0.5])
    lower = Track(
        id=1, label="person", score=0.8, box=box(0.5, 0.9), first_seen=0, last_seen=ns(1),
        path=(Point(0, 0.5, 0.6), Point(ns(1) // 2, 0.5, 0.6), Point(ns(1), 0.5, 0.9)),
        aspect=WIDE,
    )  # fmt: skip
    assert one.moved(ns(9)) == 0
    assert lower.moved(ns(9)) == pytest.approx(0.3 / 0.2)


def test_a_box_without_height_has_moved_by_thousandths() -> None:
    flat = Box(label="person", score=0.8, x1=0.4, x2=0.6, y1=0.5, y2=0.5)
    points = (Point(0, 0.4, 0.5), Point(1, 0.4, 0.5), Point(2, 0.5, 0.5))
    one = Track(
        id=1, label="person", score=0.8, box=flat, first_seen=0, last_seen=2, path=points,
        aspect=1.0,
    )  # fmt: skip
    assert one.moved(9) == pytest.approx(0.1 / 1e-3)


def test_a_path_has_its_feet_and_what_was_before() -> None:
    one = track([0.1, 0.2, 0.3])
    assert (one.feet.x, one.feet.y) == (0.3, 0.5)
    assert one.previous is not None
    assert one.previous.x == 0.2
    assert track([0.1]).previous is None


@pytest.mark.parametrize("rate", [5, 10, 15, 20, 40, 60])
def test_a_path_keeps_the_first_point_of_each_tenth_of_a_second_and_the_newest(rate: int) -> None:
    """Whenever it began: so a restart knows the same path."""
    tracker, late, step = Tracker(hits=1), Tracker(hits=1), SECOND // rate
    every = [n * step for n in range(2 * rate)]
    for n, time in enumerate(every):
        boxes = [box(0.2 + n * 0.001)]
        (one,) = tracker.update(boxes, time)
        if n >= rate // 2:
            (other,) = late.update(boxes, time)
    cells = [time // PATH_STEP for time in every]
    firsts = [time for n, time in enumerate(every) if cells.index(cells[n]) == n]
    times = [point.time for point in one.path]
    assert times == sorted({*firsts, every[-1]})
    known = [point for point in one.path if point.time > every[rate // 2] + PATH_STEP]
    assert list(other.path[-len(known) :]) == known


def test_the_newest_point_is_replaced_until_the_next_tenth_of_a_second() -> None:
    tracker = Tracker(hits=1)
    for time in (0, PATH_STEP // 2, PATH_STEP - 1):
        (one,) = tracker.update([box(0.5)], time)
    assert [point.time for point in one.path] == [0, PATH_STEP - 1]
    (one,) = tracker.update([box(0.5)], PATH_STEP)
    assert [point.time for point in one.path] == [0, PATH_STEP]


def test_a_point_as_old_as_the_horizon_is_kept() -> None:
    tracker = Tracker(hits=1, horizon=ns(1))
    for n in range(11):
        (one,) = tracker.update([box(0.5)], n * FRAME)
    assert one.path[0].time == ns(1)
    assert one.first_seen == ns(1)


# -- what came to rest


REST = {"after": ns(10), "distance": 0.5, "horizon": ns(100)}
CAR = [0.3, 0.3]


def parked(**settings: float) -> StationaryMemory:
    """A car stands at 0.3 of the camera `desk`: track 1, seen at second 0."""
    one = StationaryMemory(**(REST | settings))  # type: ignore[arg-type]
    assert one.again("desk", 0, [track(CAR, label="car")], frozenset([1])) == set()
    return one


def again(one: StationaryMemory, found: Track, at: float, camera: str = "desk") -> set[int]:
    return one.again(camera, ns(at), [found], frozenset())


def test_what_is_found_again_in_its_place_is_known() -> None:
    assert again(parked(), track(CAR, number=2, label="car", at=5), 5) == {2}


@pytest.mark.parametrize(
    ("place", "label", "camera"),
    [([0.45, 0.45], "car", "desk"), (CAR, "person", "desk"), (CAR, "car", "door")],
    ids=["elsewhere", "another-kind", "another-camera"],
)
def test_what_differs_in_place_kind_or_camera_is_news(
    place: list[float], label: str, camera: str
) -> None:
    assert again(parked(), track(place, number=2, label=label), 5, camera) == set()


def test_two_boxes_are_one_place_from_seven_tenths_of_overlap_on() -> None:
    """A shift by a part s of the width leaves (1 - s) / (1 + s) of overlap."""
    width = 0.1
    for part, known in ((0.17, True), (0.18, False)):
        place = [0.3 + part * width] * 2
        assert bool(again(parked(), track(place, number=2, label="car"), 5)) is known


def test_a_place_is_one_in_height_too() -> None:
    for part, known in ((0.17, True), (0.18, False)):
        found = track(CAR, number=2, label="car", y=0.5 + part * 0.2)
        assert bool(again(parked(), found, 5)) is known


def test_what_moves_through_the_place_is_news() -> None:
    passing = track([0.1, 0.2, 0.25, 0.3], number=2, label="car", at=5)
    assert passing.moved(ns(10)) >= 0.5
    assert again(parked(), passing, 5) == set()


def test_a_place_is_forgotten_after_the_horizon() -> None:
    assert again(parked(), track(CAR, number=2, label="car"), 99.9) == {2}
    assert again(parked(), track(CAR, number=2, label="car"), 100) == set()


def test_one_camera_does_not_forget_the_places_of_another() -> None:
    one = parked()
    one.again("door", ns(500), [], frozenset())
    assert ("desk", 1) in one._places


def test_what_is_found_again_is_so_until_it_stands_still_by_itself() -> None:
    one = parked()
    for at in (5, 14):
        assert again(one, track(CAR, number=2, label="car"), at) == {2}
    at_rest = one.again("desk", ns(15), [track(CAR, number=2, label="car")], frozenset([2]))
    assert at_rest == set()


def test_what_was_known_and_drives_away_is_news_when_it_is_at_rest_elsewhere() -> None:
    one = parked()
    assert again(one, track(CAR, number=2, label="car"), 5) == {2}
    assert again(one, track([0.1, 0.2, 0.4, 0.6], number=2, label="car"), 8) == set()
    assert again(one, track([0.6, 0.6], number=2, label="car"), 20) == set()


def test_another_camera_does_not_make_unknown_what_is_known_here() -> None:
    one = parked()
    assert again(one, track(CAR, number=2, label="car"), 5) == {2}
    one.again("door", ns(6), [], frozenset())
    assert again(one, track(CAR, number=2, label="car"), 7) == {2}


def test_a_place_that_was_found_again_is_kept_as_long_anew() -> None:
    one = parked()
    for number, at in ((2, 60), (3, 150), (4, 240)):
        assert again(one, track(CAR, number=number, label="car"), at) == {number}


def test_a_place_where_nothing_stood_still_by_itself_is_forgotten_in_the_end() -> None:
    one = parked()
    for number in range(2, 14):
        assert again(one, track(CAR, number=number, label="car"), 50 * (number - 1)) == {number}
    assert again(one, track(CAR, number=14, label="car"), 601) == set()


def test_a_restart_reads_from_where_the_object_of_a_place_began_to_stand_still() -> None:
    one = StationaryMemory(**REST)  # type: ignore[arg-type]
    car = track(CAR, label="car", at=30)
    one.again("desk", ns(30), [car], frozenset([1]), lambda number, time: time - number)
    assert one.needs(ns(0)) == ns(0)
    assert one.needs(ns(25)) == ns(30) - ns(10) - 1
    assert again(one, track(CAR, number=2, label="car"), 50) == {2}
    one.again("desk", ns(70), [track(CAR, number=2, label="car")], frozenset([2]))
    assert one.needs(ns(69)) == ns(20) - 1, "at 69 s, it was there by the first track's place"
    one.again("desk", ns(131), [track(CAR, number=2, label="car")], frozenset([2]))
    assert one.needs(ns(129)) == ns(20) - 1
    assert one.needs(ns(131)) == ns(121)


def test_a_distance_is_measured_in_heights_of_the_frame() -> None:
    assert math.isclose(track([0.1, 0.1, 0.2]).moved(ns(9)), 0.1 * WIDE / 0.2)
