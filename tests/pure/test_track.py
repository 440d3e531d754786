"""The tracker: who is the same from frame to frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tracking.track import Track, Tracker
from pipeline.types import SECOND, Box

FRAME = SECOND // 5


def box(
    x: float, y: float = 0.5, score: float = 0.8, label: str = "person", size: float = 0.2
) -> Box:
    """A standing box whose feet are at (x, y)."""
    return Box(label=label, score=score, x1=x - size / 4, x2=x + size / 4, y1=y - size, y2=y)


def follow(tracker: Tracker, frames: list[list[Box]], first: int = 0) -> list[tuple[Track, ...]]:
    return [tracker.update(boxes, (first + n) * FRAME) for n, boxes in enumerate(frames)]


def seen(tracks: tuple[Track, ...]) -> list[int]:
    newest = max((track.last_seen for track in tracks), default=0)
    return [track.id for track in tracks if track.last_seen == newest]


def test_a_walker_is_one_track_told_with_the_third_sight() -> None:
    told = follow(Tracker(), [[box(0.1 + 0.02 * n)] for n in range(20)])
    assert [len(tracks) for tracks in told] == [0, 0] + [1] * 18
    assert {track.id for tracks in told for track in tracks} == {1}
    assert told[2][0].first_seen == 0


def test_a_flicker_is_never_told() -> None:
    frames = [[box(0.5)] if n % 3 == 0 else [] for n in range(30)]
    assert not any(follow(Tracker(), frames))


def test_unsure_boxes_begin_no_track_but_carry_one_on() -> None:
    assert not any(follow(Tracker(), [[box(0.5, score=0.3)]] * 10))
    frames = [[box(0.5)]] * 3 + [[box(0.5, score=0.15)]] * 20
    (track,) = follow(Tracker(), frames)[-1]
    assert (track.id, track.score, track.last_seen) == (1, 0.15, 22 * FRAME)


def test_two_who_meet_and_part_keep_their_ids() -> None:
    frames = [[box(0.1 + 0.02 * n, y=0.5), box(0.9 - 0.02 * n, y=0.6)] for n in range(40)]
    told = follow(Tracker(), frames)
    first = {track.id: track.feet.y for track in told[3]}
    assert {track.id: track.feet.y for track in told[-1]} == first
    assert len(first) == 2


def test_a_short_absence_keeps_the_id_and_a_long_one_does_not() -> None:
    here = [[box(0.5)]] * 4
    short = follow(Tracker(), here + [[]] * 9 + here)
    long = follow(Tracker(), here + [[]] * 11 + here)
    assert seen(short[-1]) == [1]
    assert seen(long[-1]) == [2]


def test_a_walker_behind_a_pillar_comes_out_the_same() -> None:
    frames = [[box(0.1 + 0.02 * n)] if not 12 <= n < 18 else [] for n in range(30)]
    assert {track.id for tracks in follow(Tracker(), frames) for track in tracks} == {1}


def test_labels_never_mix() -> None:
    frames = [[box(0.5, label="dog" if n % 2 else "person")] for n in range(12)]
    last = follow(Tracker(), frames)[-1]
    assert [(track.id, track.label, len(track.path)) for track in last] == [
        (1, "person", 6),
        (2, "dog", 6),
    ]
    both = follow(Tracker(), [[box(0.5), box(0.5, label="dog")]] * 5)[-1]
    assert sorted(track.label for track in both) == ["dog", "person"]


def test_ids_belong_to_a_tracker() -> None:
    for _ in range(2):
        assert follow(Tracker(), [[box(0.5)]] * 3)[-1][0].id == 1


@pytest.mark.parametrize("time", [5 * FRAME, 4 * FRAME, -1])
def test_time_that_stands_or_runs_back_is_refused(time: int) -> None:
    tracker = Tracker()
    tracker.update([], 5 * FRAME)
    with pytest.raises(ValueError, match="time must grow"):
        tracker.update([box(0.5)], time)


def test_a_gap_of_hours_forgets_and_goes_on() -> None:
    tracker = Tracker()
    follow(tracker, [[box(0.5)]] * 4)
    assert tracker.update([box(0.5)], 7200 * SECOND) == ()
    (track,) = follow(tracker, [[box(0.5)]] * 3, first=7200 * 5 + 1)[-1]
    assert track.id == 2


def test_nothing_reaches_back_beyond_the_horizon() -> None:
    tracker = Tracker(horizon=10 * SECOND)
    (track,) = follow(tracker, [[box(0.5)]] * 200)[-1]
    now = 199 * FRAME
    assert track.first_seen == now - 10 * SECOND
    assert track.path[0].time >= now - 10 * SECOND
    assert len(track.path) == 51


def test_a_path_at_a_high_rate_is_thinned_but_keeps_its_newest_point() -> None:
    tracker, step = Tracker(horizon=10 * SECOND), SECOND // 60
    for n in range(600):
        tracks = tracker.update([box(0.2 + n * 0.001)], n * step)
    assert len(tracks[0].path) < 110
    assert tracks[0].feet.x == pytest.approx(0.799)
    assert tracks[0].previous is not None


def test_who_stands_has_not_moved_though_the_box_flickers() -> None:
    frames = [[box(0.5, y=0.42 if n % 10 == 0 else 0.5)] for n in range(100)]
    (track,) = follow(Tracker(), frames)[-1]
    assert track.moved(15 * SECOND) == 0


def test_who_walks_has_moved_at_once() -> None:
    still, walk = [[box(0.3)]] * 50, [[box(0.3 + 0.02 * n)] for n in range(1, 4)]
    told = follow(Tracker(), still + walk)
    assert told[49][0].moved(60 * SECOND) == 0
    assert told[-1][0].moved(60 * SECOND) == pytest.approx(0.06 * 16 / 9 / 0.2)


@pytest.mark.parametrize("wrong", [{"low": 0.5}, {"hits": 0}, {"unseen": 0}, {"horizon": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Tracker:"):
        Tracker(**wrong)


corner = st.integers(0, 20).map(lambda n: n / 20)
length = st.integers(1, 10).map(lambda n: n / 20)
any_box = st.builds(
    lambda x, y, w, h, score, label: Box(
        label=label, score=score, x1=x, y1=y, x2=min(1.0, x + w), y2=min(1.0, y + h)
    ),
    corner, corner, length, length,
    st.integers(0, 10).map(lambda n: n / 10), st.sampled_from(["person", "dog"]),
)  # fmt: skip
frames_of = st.lists(
    st.tuples(st.integers(1, 5 * SECOND), st.lists(any_box, max_size=5)), max_size=25
)


@given(frames_of)
def test_whatever_comes_a_frame_gives_each_box_to_one_track_at_most(
    frames: list[tuple[int, list[Box]]],
) -> None:
    one, twin, now, known = Tracker(), Tracker(), 0, 0
    for step, boxes in frames:
        now += step
        tracks = one.update(boxes, now)
        assert tracks == twin.update(boxes, now)
        ids = [track.id for track in tracks]
        assert ids == sorted(set(ids))
        fresh = [track.box for track in tracks if track.last_seen == now]
        assert all(fresh.count(box) <= boxes.count(box) for box in fresh)
        for track in tracks:
            assert now - track.last_seen <= 2 * SECOND
            assert track.first_seen <= track.last_seen <= now
            assert track.box.label == track.label
            assert [point.time for point in track.path] == sorted(p.time for p in track.path)
        known = max([known, *ids])
    assert known <= sum(len(boxes) for _, boxes in frames)
