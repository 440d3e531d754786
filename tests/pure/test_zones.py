"""Areas, lines and crossings, in fractions of a picture whose y grows downwards."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.types import SECOND
from pipeline.zones import LineCounter, LineSegment, Polygon, feet, parse_points
from tests import make

SQUARE = Polygon.parse("0.2,0.2, 0.8,0.2, 0.8,0.8, 0.2,0.8")
HORSESHOE = Polygon.parse("0.1,0.1, 0.9,0.1, 0.9,0.9, 0.7,0.9, 0.7,0.3, 0.3,0.3, 0.3,0.9, 0.1,0.9")
DOWN = "0.5,0.2, 0.5,0.8"  # walks down the picture: the right hand is at the picture's left

fractions = st.floats(0, 1)
points = st.tuples(fractions, fractions)


@pytest.mark.parametrize(
    "text", ["0,0, 1,0, 1,1", "0,0,1,0,1,1", " 0 , 0 , 1,0 ,1, 1 ", "0 0 1 0 1 1"]
)
def test_points_are_read_with_any_spaces(text: str) -> None:
    assert parse_points(text) == ((0, 0), (1, 0), (1, 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,0, 1,0, 1", "5 numbers"),
        ("0,0, 1,x, 1,1", "number 4 of the coordinates is 'x'"),
        ("0,0, 1.2,0, 1,1", "number 3 of the coordinates is 1.2"),
        ("0,0, -0.1,0, 1,1", "number 3 of the coordinates is -0.1"),
        ("0,0, nan,0, 1,1", "number 3 of the coordinates is nan"),
        ("0,0, inf,0, 1,1", "number 3 of the coordinates is inf"),
        ("", "at least three different points, not 0"),
        ("0,0, 1,0", "at least three different points, not 2"),
        ("0,0, 1,0, 0,0, 1,0", "at least three different points, not 2"),
        ("0,0, 0.5,0.5, 1,1", "on one line"),
        ("0,0, 1,0, 0.5,0, 0,0", "on one line"),
    ],
)
def test_a_wrong_area_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Polygon.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,0", "two points, not 1"),
        ("0,0, 1,0, 1,1", "two points, not 3"),
        ("0.5,0.5, 0.5,0.5", "the same"),
        ("0,0, 1,two", "'two'"),
    ],
)
def test_a_wrong_line_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LineSegment.parse(text)


def test_the_first_point_may_be_said_again() -> None:
    assert len(Polygon.parse("0,0, 1,0, 1,1, 0,0").points) == 3


def test_a_point_is_inside_or_outside() -> None:
    assert SQUARE.contains(0.5, 0.5)
    assert not SQUARE.contains(0.1, 0.5)
    assert not SQUARE.contains(0.9, 0.5)
    assert not SQUARE.contains(0.5, 0.1)
    assert not SQUARE.contains(0.5, 0.9)


@pytest.mark.parametrize("point", [(0.2, 0.2), (0.8, 0.8), (0.5, 0.2), (0.2, 0.5), (0.8, 0.3)])
def test_the_border_is_inside(point: tuple[float, float]) -> None:
    assert SQUARE.contains(*point)


def test_the_whole_frame_holds_its_edges() -> None:
    frame = Polygon.parse("0,0, 1,0, 1,1, 0,1")
    assert all(frame.contains(x, y) for x in (0, 0.5, 1) for y in (0, 0.5, 1))


def test_the_hollow_of_a_concave_area_is_outside() -> None:
    assert HORSESHOE.contains(0.2, 0.6)
    assert HORSESHOE.contains(0.8, 0.6)
    assert HORSESHOE.contains(0.5, 0.2)
    assert not HORSESHOE.contains(0.5, 0.6)
    assert not HORSESHOE.contains(0.5, 0.9)
    assert not HORSESHOE.contains(0.0, 0.9)


def test_a_ray_through_a_corner_counts_once() -> None:
    diamond = Polygon.parse("0.5,0.1, 0.9,0.5, 0.5,0.9, 0.1,0.5")
    assert diamond.contains(0.5, 0.5)
    assert not diamond.contains(0.05, 0.5)
    assert not diamond.contains(0.05, 0.1)


@given(st.lists(points, min_size=3, max_size=3, unique=True), points)
def test_a_triangle_holds_what_is_on_one_side_of_all_its_edges(
    corners: list[tuple[float, float]], point: tuple[float, float]
) -> None:
    a, b, c = corners
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if abs(area) < 1e-3:
        return
    sides = [LineSegment(p, q).side(point) for p, q in ((a, b), (b, c), (c, a))]
    if min(map(abs, sides)) < 1e-6:
        return
    assert Polygon((a, b, c)).contains(*point) == (len({side > 0 for side in sides}) == 1)


@given(points)
def test_the_order_of_the_corners_does_not_matter(point: tuple[float, float]) -> None:
    forth = HORSESHOE.contains(*point)
    assert Polygon(HORSESHOE.points[::-1]).contains(*point) == forth
    assert Polygon(HORSESHOE.points[3:] + HORSESHOE.points[:3]).contains(*point) == forth


def test_feet_are_in_the_middle_of_the_lower_edge() -> None:
    assert feet(make.box(x=0.5, y=0.4, width=0.2, height=0.4)) == pytest.approx((0.5, 0.6))


@pytest.mark.parametrize(
    ("line", "right"),
    [
        ("0.1,0.5, 0.9,0.5", (0.5, 0.9)),  # to the picture's right: below
        ("0.9,0.5, 0.1,0.5", (0.5, 0.1)),  # to its left: above
        ("0.5,0.9, 0.5,0.1", (0.9, 0.5)),  # up: the picture's right
        ("0.5,0.1, 0.5,0.9", (0.1, 0.5)),  # down: the picture's left
    ],
)
def test_right_is_the_right_hand_of_who_walks_the_line(
    line: str, right: tuple[float, float]
) -> None:
    assert LineSegment.parse(line).side(right) == pytest.approx(0.4)
    assert LineSegment.parse(line).side((1 - right[0], 1 - right[1])) == pytest.approx(-0.4)


def counted(
    *walk: tuple[float, float], line: str = DOWN, hysteresis: float = 0.05
) -> list[str | None]:
    counter = LineCounter(LineSegment.parse(line), hysteresis)
    return [counter.push(1, point, place * SECOND) for place, point in enumerate(walk)]


def test_to_the_right_hand_is_in_and_back_is_out() -> None:
    walk = (0.8, 0.5), (0.6, 0.5), (0.4, 0.5), (0.2, 0.5), (0.4, 0.5), (0.6, 0.5)
    assert counted(*walk) == [None, None, "in", None, None, "out"]


def test_walking_the_line_backwards_swaps_in_and_out() -> None:
    assert counted((0.8, 0.5), (0.2, 0.5), line="0.5,0.8, 0.5,0.2") == [None, "out"]


def test_it_counts_where_the_track_is_clear_of_the_line() -> None:
    walk = (0.6, 0.5), (0.52, 0.5), (0.48, 0.5), (0.46, 0.5), (0.44, 0.5)
    assert counted(*walk) == [None, None, None, None, "in"]


def test_who_trembles_on_the_line_is_not_counted() -> None:
    walk = [(0.6, 0.5), *((0.5 + (-1) ** n * 0.04, 0.5) for n in range(20)), (0.6, 0.5)]
    assert set(counted(*walk)) == {None}


def test_exactly_the_hysteresis_is_not_beyond_it() -> None:
    walk = (0.75, 0.5), (0.25, 0.5), (0.2, 0.5)
    assert counted(*walk, hysteresis=0.25) == [None, None, None]
    assert counted((0.8, 0.5), *walk, hysteresis=0.25) == [None, None, None, "in"]


def test_who_first_appears_near_the_line_was_on_no_side() -> None:
    assert counted((0.52, 0.5), (0.4, 0.5)) == [None, None]


def test_who_steps_on_the_line_itself_is_counted_once() -> None:
    walk = (0.6, 0.5), (0.5, 0.5), (0.5, 0.5), (0.4, 0.5)
    assert counted(*walk) == [None, None, None, "in"]
    assert counted(*walk, hysteresis=0) == [None, None, None, "in"]


def test_past_the_end_of_the_line_is_no_crossing() -> None:
    assert counted((0.8, 0.9), (0.2, 0.9)) == [None, None]
    assert counted((0.8, 0.1), (0.2, 0.1)) == [None, None]


def test_around_the_end_and_back_through_the_line_is_one_crossing() -> None:
    walk = (0.8, 0.5), (0.8, 0.9), (0.2, 0.9), (0.2, 0.5), (0.8, 0.5)
    assert counted(*walk) == [None, None, None, None, "out"]


def test_only_the_last_change_of_sides_matters() -> None:
    through_then_past = (0.6, 0.7), (0.48, 0.7), (0.52, 0.85), (0.48, 0.9), (0.3, 0.9)
    assert counted(*through_then_past) == [None] * 5
    past_then_through = (0.6, 0.9), (0.48, 0.9), (0.52, 0.7), (0.48, 0.7), (0.3, 0.7)
    assert counted(*past_then_through) == [None, None, None, None, "in"]


def test_a_slanted_way_crosses_where_it_meets_the_line() -> None:
    assert counted((0.6, 0.5), (0.4, 1.0)) == [None, "in"]  # meets it at y = 0.75
    assert counted((0.6, 0.7), (0.4, 1.0)) == [None, None]  # at y = 0.85, past its end


def test_tracks_are_apart() -> None:
    counter = LineCounter(LineSegment.parse(DOWN), 0.05)
    counter.push(1, (0.8, 0.5), 0)
    counter.push(2, (0.2, 0.5), 0)
    assert counter.push(1, (0.2, 0.5), 1) == "in"
    assert counter.push(2, (0.8, 0.5), 1) == "out"


def test_tracks_are_forgotten_when_they_are_unseen_for_long() -> None:
    counter = LineCounter(LineSegment.parse(DOWN), 0.05, keep=10 * SECOND)
    for second in range(1000):
        counter.push(second, (0.8, 0.5), second * SECOND)
        assert len(counter) <= 10
    assert counter.push(990, (0.2, 0.5), 999 * SECOND) == "in"
    assert counter.push(980, (0.2, 0.5), 999 * SECOND) is None


def test_a_track_that_stays_does_not_keep_the_others() -> None:
    counter = LineCounter(LineSegment.parse(DOWN), 0.05, keep=10 * SECOND)
    for second in range(1000):
        counter.push("guard", (0.8, 0.5), second * SECOND)
        counter.push(second, (0.8, 0.5), second * SECOND)
        assert len(counter) <= 11


def test_a_side_is_forgotten_too_by_who_waits_on_the_line() -> None:
    """Or a restart, which reads back no further than that, would count otherwise."""
    counter = LineCounter(LineSegment.parse(DOWN), 0.05, keep=10 * SECOND)
    counter.push(1, (0.8, 0.5), 0)
    told = [counter.push(1, (0.51, 0.5), second * SECOND) for second in range(1, 10)]
    assert [*told, counter.push(1, (0.2, 0.5), 10 * SECOND)] == [None] * 10
    assert counter.push(1, (0.8, 0.5), 11 * SECOND) == "out"


@pytest.mark.parametrize(("hysteresis", "keep"), [(-0.1, 1), (1, 1), (math.nan, 1), (0.1, 0)])
def test_a_counter_refuses_what_makes_no_sense(hysteresis: float, keep: int) -> None:
    with pytest.raises(ValueError, match="hysteresis"):
        LineCounter(LineSegment.parse(DOWN), hysteresis, keep)


@given(st.lists(points, min_size=2, max_size=30), st.floats(0, 0.2))
def test_in_and_out_take_turns_through_a_line_without_ends(
    walk: list[tuple[float, float]], hysteresis: float
) -> None:
    """Across the whole frame nobody walks past the ends."""
    told = [way for way in counted(*walk, line="0.5,0, 0.5,1", hysteresis=hysteresis) if way]
    assert all(one != two for one, two in itertools.pairwise(told))
    clear = [x < 0.5 for x, _ in walk if abs(x - 0.5) > hysteresis]
    assert len(told) == sum(one != two for one, two in itertools.pairwise(clear))


@given(st.lists(points, min_size=2, max_size=30), st.integers(0, 29))
def test_a_restart_from_the_last_clear_point_counts_the_same(
    walk: list[tuple[float, float]], at: int
) -> None:
    told = counted(*walk)
    clear = [n for n, (x, _) in enumerate(walk[: at + 1]) if abs(x - 0.5) > 0.05]
    if clear:
        assert counted(*walk[clear[-1] :])[1:] == told[clear[-1] + 1 :]
