"""What the motion model calls motion, on made pictures."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.config.schema import Detect
from pipeline.judge.active_track import MIN_LOOKS
from pipeline.judge.track import Tracker
from pipeline.types import SECOND
from workers.media.motion import (
    COLUMNS,
    HEARTBEAT,
    HEIGHT,
    LOOKS,
    MAX_REGIONS,
    ROWS,
    TAIL_LOOKS,
    UNMEASURED,
    WIDTH,
    Motion,
    MotionModel,
    measured,
    model_for,
    small_luma,
)

FPS = 5
PERIOD = SECOND // FPS
Picture = np.ndarray


def room(seed: int = 3) -> Picture:
    """A still room: soft shapes of some contrast."""
    rough = np.random.default_rng(seed).integers(40, 200, (5, 8)).astype(np.uint8)
    return np.repeat(np.repeat(rough, 18, axis=0), 20, axis=1)


class Watch:
    """A model that is shown pictures at `fps` a second, with the noise of a sensor."""

    def __init__(self, noise: float = 1.0, fps: int = FPS) -> None:
        self.model, self.told = MotionModel(fps), list[Motion]()
        self._period = SECOND // fps
        self._noise, self._dice = noise, np.random.default_rng(5)

    def show(self, picture: Picture, times: int = 1) -> list[Motion]:
        """What is told of the picture, shown some times in a row."""
        for _ in range(times):
            noisy = picture + self._dice.normal(0, self._noise, picture.shape)
            luma = np.clip(noisy, 0, 255).astype(np.uint8)
            self.told.append(self.model(luma, len(self.told) * self._period))
        return self.told[-times:]


def looks(told: list[Motion]) -> list[str]:
    return [motion.look for motion in told]


def gated(told: list[Motion]) -> float:
    return sum(not motion.look for motion in told) / len(told)


def walker(picture: Picture, x: float, *, size: tuple[int, int], contrast: int) -> Picture:
    """The room with a person of this size (px, width and height) at x."""
    wide, high = size
    left = round(x)
    seen = picture.astype(np.int16)
    seen[50 - high // 2 : 50 - high // 2 + high, left : left + wide] += contrast
    return np.clip(seen, 0, 255).astype(np.uint8)


def test_the_first_frame_is_looked_at() -> None:
    (first,) = Watch().show(room())
    assert first.look == "first"
    assert first.regions == ((0, 0, 1, 1),)
    assert len(first.motion) == COLUMNS * ROWS


def test_a_still_room_is_looked_at_once_in_two_seconds() -> None:
    told = Watch().show(room(), 100)
    assert set(looks(told)) == {"first", "heartbeat", ""}
    at = [k for k, look in enumerate(looks(told)) if look == "heartbeat"]
    assert {b - a for a, b in itertools.pairwise(at)} == {HEARTBEAT // PERIOD}
    settles = TAIL_LOOKS + 1  # tracks need several looks, also of one who does not move
    assert looks(told)[: settles + 1] == ["first"] * settles + [""]
    assert not any(motion.regions or any(motion.motion) for motion in told[1:])


@pytest.mark.parametrize("speed", [0.5, 1, 4, 10])
@pytest.mark.parametrize("size", [(3, 6), (4, 10), (20, 60)], ids=["far", "small", "near"])
@pytest.mark.parametrize("contrast", [15, -40])
def test_a_person_of_low_contrast_is_seen(
    size: tuple[int, int], contrast: int, speed: float
) -> None:
    watch, empty = Watch(), np.full((HEIGHT, WIDTH), 110, np.uint8)
    watch.show(empty, 50)
    seen = []
    for step in range(12):
        seen += watch.show(walker(empty, 10 + step * speed, size=size, contrast=contrast))
    assert "motion" in looks(seen[:4])
    assert set(looks(seen[4:])) == {"motion"}


def test_the_region_is_around_the_person() -> None:
    watch = Watch()
    watch.show(room(), 50)
    for x in range(20, 60, 4):
        (told,) = watch.show(walker(room(), x, size=(8, 24), contrast=-40))
    (region,) = told.regions
    assert region[0] <= 56 / WIDTH
    assert region[1] <= 38 / HEIGHT
    assert region[2] >= 64 / WIDTH
    assert region[3] >= 62 / HEIGHT
    assert (region[2] - region[0]) * (region[3] - region[1]) < 0.2
    grid = np.frombuffer(told.motion, np.uint8).reshape(ROWS, COLUMNS)
    assert grid[4, 5] > 100
    assert not grid[:, 9:].any()


@pytest.mark.parametrize(("fps", "frames"), [(1, 3), (5, 3), (10, 6), (30, 18)])
def test_three_frames_and_600_ms_are_looked_at_after_the_motion(fps: int, frames: int) -> None:
    watch = Watch(fps=fps)
    watch.show(room(), 50)
    for x in range(20, 60, 4):
        watch.show(walker(room(), x, size=(8, 24), contrast=-40))
    after = looks(watch.show(room(), frames + 1))
    assert after[:frames] == ["motion"] * frames
    assert after[frames] != "motion"


def test_as_many_looks_follow_a_motion_as_a_track_needs() -> None:
    assert TAIL_LOOKS == MIN_LOOKS
    hits = inspect.signature(Tracker).parameters["hits"].default
    assert hits <= TAIL_LOOKS


def test_who_stands_still_is_at_rest_and_who_leaves_is_seen() -> None:
    watch = Watch()
    watch.show(room(), 50)
    for x in range(20, 60, 4):
        watch.show(walker(room(), x, size=(8, 24), contrast=-40))
    standing = watch.show(walker(room(), 60, size=(8, 24), contrast=-40), 300)
    assert gated(standing[20:]) > 0.85
    leaving = [watch.show(walker(room(), x, size=(8, 24), contrast=-40))[0]
               for x in range(62, 90, 2)]  # fmt: skip
    assert "motion" in looks(leaving[:3])


@pytest.mark.parametrize("gain", [0.4, 1.6])
def test_a_change_of_light_is_looked_at_and_learnt(gain: float) -> None:
    watch = Watch()
    watch.show(room() // 2 + 10, 50)
    other = np.clip((room() // 2 + 10) * gain, 0, 255)
    told = watch.show(other, 40)
    assert told[0].look == "light"
    assert gated(told[10:]) > 0.85


def test_light_that_changes_slowly_is_no_motion() -> None:
    watch = Watch()
    watch.show(room() * 0.6, 50)
    told = [watch.show(room() * (0.6 + 0.001 * k))[0] for k in range(300)]
    assert "motion" not in looks(told)


def test_another_scene_is_looked_at_as_the_first() -> None:
    watch = Watch()
    watch.show(room(3), 50)
    told = watch.show(room(8), 40)
    assert told[0].look == "first"
    assert gated(told[10:]) > 0.85


def test_noise_of_the_dark_is_learnt() -> None:
    assert gated(Watch(noise=6).show(room() // 3 + 20, 150)[50:]) > 0.85


def test_a_lamp_that_flickers_is_learnt() -> None:
    watch, told = Watch(), []
    for k in range(300):
        lamp = room().astype(np.int16)
        lamp[30:50, 100:120] += 60 * (k % 3 == 0)
        told += watch.show(lamp)
    assert gated(told[150:]) > 0.85


def test_a_person_is_seen_beside_a_lamp_that_flickers() -> None:
    watch, empty = Watch(), np.full((HEIGHT, WIDTH), 110, np.uint8)
    told = []
    for k in range(300):
        lamp = walker(empty, 20 + (k - 250) * 2, size=(4, 10), contrast=-40) if k > 250 else empty
        lamp = lamp.astype(np.int16)
        lamp[10:30, 100:120] += 60 * (k % 3 == 0)
        told += watch.show(lamp)
    assert set(looks(told[255:])) == {"motion"}


def test_equal_frames_give_equal_results() -> None:
    one, other = Watch(), Watch()
    for watch in (one, other):
        watch.show(room(), 20)
        for x in range(20, 60, 4):
            watch.show(walker(room(), x, size=(8, 24), contrast=-40))
    assert one.told == other.told


def test_a_gate_that_is_off_measures_nothing() -> None:
    def never() -> Picture:
        raise AssertionError

    assert model_for(Detect(gate="off"), FPS) is None
    assert measured(None, never, 0) is UNMEASURED
    assert UNMEASURED.look == "all"
    assert model_for(Detect(), FPS) is not None


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_turned_picture_is_measured_as_it_is_published(quarters: int) -> None:
    picture = np.zeros((200, 300), np.uint8)
    picture[:40, :60] = 255
    published = np.rot90(picture, quarters)
    assert np.array_equal(small_luma(picture, quarters) > 128, small_luma(published) > 128)


Sizes = st.integers(16, 400)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), Sizes, Sizes, st.booleans(), st.sampled_from([0.2, 1.0, 5.0, 60.0]),
    st.lists(st.integers(0, 5), min_size=2, max_size=12),
)  # fmt: skip
def test_any_pictures_give_fields_within_their_bounds(
    seed: int, width: int, height: int, colour: bool, fps: float, kinds: list[int]
) -> None:
    dice, model = np.random.default_rng(seed), MotionModel(fps)
    shape = (height, width, 3) if colour else (height, width)
    calm = dice.integers(0, 256, shape, dtype=np.uint8)
    for number, kind in enumerate(kinds):
        some = calm.copy()
        if kind == 1:
            some = dice.integers(0, 256, shape, dtype=np.uint8)
        elif kind == 2:
            some[...] = dice.integers(0, 256)
        elif kind > 2:  # some places
            for _ in range(4**kind // 8):
                y, x = dice.integers(0, height), dice.integers(0, width)
                some[y : y + 12, x : x + 12] ^= 255
        told = model(small_luma(some), number * round(SECOND / fps))
        assert told.look in LOOKS
        assert len(told.motion) == COLUMNS * ROWS
        assert len(told.regions) <= MAX_REGIONS
        for x1, y1, x2, y2 in told.regions:
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1
            assert all(round(value, 3) == value for value in (x1, y1, x2, y2))


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.uint8, (HEIGHT, WIDTH), elements=st.integers(0, 255)))
def test_a_picture_shown_twice_does_not_move(picture: Picture) -> None:
    model = MotionModel(FPS)
    assert model(picture, 0).look == "first"
    again = model(picture, PERIOD)
    assert (again.look, again.regions, any(again.motion)) == ("first", (), False)


def keyframes(model: MotionModel, pictures: list[Picture], begin: int) -> list[Motion]:
    """What is told of keyframes that are two seconds apart."""
    dice = np.random.default_rng(6)
    noisy = [np.clip(p + dice.normal(0, 1, p.shape), 0, 255).astype(np.uint8) for p in pictures]
    return [model(luma, begin + n * 2 * SECOND, sparse=True) for n, luma in enumerate(noisy)]


def test_keyframes_of_a_still_room_are_heartbeats_and_a_small_thing_is_seen_in_one() -> None:
    watch = Watch()
    watch.show(room(), 60)
    still = keyframes(watch.model, [room()] * 20, 12 * SECOND)
    assert set(looks(still[1:])) == {"heartbeat"}
    small = walker(room(), 60, size=(4, 5), contrast=60)
    (moved,) = keyframes(watch.model, [small], 52 * SECOND)
    assert moved.look == "motion"


def test_what_was_put_down_is_at_rest_in_the_next_keyframe() -> None:
    watch = Watch()
    watch.show(room(), 60)
    bag = walker(room(), 60, size=(12, 12), contrast=60)
    told = keyframes(watch.model, [room(), bag, bag, bag], 12 * SECOND)
    assert looks(told[1:]) == ["motion", "heartbeat", "heartbeat"]
