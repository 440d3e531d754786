"""How a person looks, on made pictures: the bytes, what changes them, and how they are compared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import DecodeError
from pipeline.tracking.appearance import HUES, KEPT, LUMAS, OTHER, SAME, SIZE, STEP, Looks, unlike
from pipeline.types import SECOND, Box
from tests import make
from workers.media.appearance import appearance, described
from workers.media.jpeg import Pixels, decoded, encoded

PERSON = Box(label="person", score=0.9, x1=0.25, y1=0.1, x2=0.75, y2=0.9)
RED, GREEN, BLUE, GREY = (40, 40, 200), (40, 160, 40), (190, 60, 40), (120, 120, 120)
Colour = tuple[int, int, int]


def dressed(
    upper: Colour, lower: Colour, ground: Colour = (90, 90, 90), size: tuple[int, int] = (240, 120)
) -> Pixels:
    """A picture of a person in the middle; BGR."""
    height, width = size
    picture = np.full((height, width, 3), ground, np.uint8)
    left, right = width // 3, width - width // 3
    picture[height // 10 : height // 2, left:right] = upper
    picture[height // 2 : height * 9 // 10, left:right] = lower
    return picture


def row(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).astype(float)


def off(one: Pixels, other: Pixels) -> float:
    return unlike(row(appearance(one, PERSON))[None], row(appearance(other, PERSON))[None])


def test_the_bytes_of_a_plain_picture_by_hand() -> None:
    found = appearance(np.full((200, 100, 3), (100, 100, 100), np.uint8), PERSON)
    assert len(found) == SIZE == 2 * (LUMAS + HUES + 1)
    luma = [0] * LUMAS
    luma[5], luma[6] = 63, 191  # 100 lies at 5.75 bins
    assert list(found) == [*luma, *[0] * HUES, 255] * 2


def test_each_direction_of_colour_has_its_bin() -> None:
    bins = {
        int(np.argmax(row(appearance(dressed(c, c, c), PERSON))[LUMAS : LUMAS + HUES]))
        for c in ((250, 60, 60), (60, 250, 60), (60, 60, 250), (250, 250, 60), (60, 250, 250),
                  (250, 60, 250))
    }  # fmt: skip
    assert len(bins) >= 5


def test_the_same_person_is_the_same_and_another_is_another() -> None:
    person = dressed(RED, BLUE)
    assert off(person, person) == 0
    assert off(person, dressed(RED, BLUE, (110, 100, 90))) < SAME
    assert off(person, dressed(BLUE, RED)) > OTHER
    assert off(person, dressed(GREEN, GREY)) > OTHER


def test_a_jpeg_a_shift_and_a_little_less_light_leave_a_person_the_same() -> None:
    person = dressed(RED, BLUE)
    jpeg = decoded(encoded(person), person.shape[1], person.shape[0])
    assert off(person, jpeg) < 0.3
    assert off(person, np.roll(person, 4, 1)) < SAME
    assert off(person, (person * 0.92).astype(np.uint8)) < OTHER


def test_the_size_of_a_person_in_the_picture_does_not_matter() -> None:
    assert off(dressed(RED, BLUE), dressed(RED, BLUE, size=(720, 360))) < 0.3


@pytest.mark.parametrize("box", [
    (0.4, 0.4, 0.41, 0.9), (0.3, 0.5, 0.7, 0.52), (1.2, 0.1, 1.4, 0.9), (-0.5, 0.1, -0.2, 0.9),
    (0.7, 0.9, 0.3, 0.1),
])  # fmt: skip
def test_a_box_that_is_too_small_or_outside_has_none(box: tuple[float, ...]) -> None:
    corners = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
    assert appearance(dressed(RED, BLUE), Box(label="person", score=0.9, **corners)) == b""


@given(
    st.tuples(*[st.integers(-300, 1300)] * 4),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(0, 2**32 - 1),
)
def test_any_box_of_any_picture_has_all_bytes_or_none(
    corners: tuple[int, int, int, int], height: int, width: int, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    x1, y1, x2, y2 = (corner / 1000 for corner in corners)
    box = Box(label="person", score=0.9, x1=x1, y1=y1, x2=x2, y2=y2)
    found = appearance(picture, box)
    assert len(found) in (0, SIZE)
    assert found == appearance(np.ascontiguousarray(picture), box)


def test_only_sure_persons_are_described() -> None:
    given = [PERSON, make.box("dog"), make.box("person"), make.box("person", score=0.29)]
    boxes = described(dressed(RED, BLUE), given)
    assert [bool(box.appearance) for box in boxes] == [True, False, True, False]
    assert [box.bare() for box in boxes] == given


def test_a_box_without_a_look_is_stored_without_the_field() -> None:
    with_look = make.detections(1.0, make.box(appearance=bytes(SIZE)))
    assert codec.decode(codec.encode(with_look)) == with_look
    assert b"appearance" not in codec.encode(make.detections(1.0, make.box()))


@pytest.mark.parametrize("size", [1, SIZE - 1, SIZE + 1])
def test_a_look_of_another_length_is_refused(size: int) -> None:
    record = codec.encode(make.detections(1.0, make.box(appearance=bytes(size))))
    with pytest.raises(DecodeError, match="appearance"):
        codec.decode(record)


@pytest.mark.parametrize("rate", [5, 10, 25])
def test_a_track_remembers_a_look_of_each_span_and_the_newest_whenever_it_began(rate: int) -> None:
    looks, late = Looks(), Looks()
    for n in range(20 * rate):
        looks.add(n * SECOND // rate, np.full(SIZE, n, float))
        if n > 13 * rate:
            late.add(n * SECOND // rate, np.full(SIZE, n, float))
    known = looks.rows[:, 0].astype(int).tolist()
    assert len(known) == KEPT
    assert known[-1] == 20 * rate - 1
    spans = [n * SECOND // rate // STEP for n in known[:-1]]
    assert spans == sorted(set(spans)), "one of each span"
    assert known == late.rows[:, 0].tolist()


def test_looks_before_a_time_are_forgotten() -> None:
    looks = Looks()
    for n in range(3):
        looks.add(n * SECOND, np.full(SIZE, n, float))
    looks.forget(SECOND)
    assert looks.rows[:, 0].tolist() == [1, 2]
    looks.forget(9 * SECOND)
    assert not looks


def test_a_sudden_other_look_fits_only_if_it_stays() -> None:
    red, blue = (row(appearance(dressed(c, c), PERSON)) for c in (RED, BLUE))
    looks = Looks()
    looks.add(0, red)
    assert not looks.fits(SECOND // 5, blue)
    assert looks.fits(SECOND // 5, red)
    assert looks.fits(SECOND, blue)
    assert Looks().fits(0, blue)


def test_the_most_similar_looks_count() -> None:
    red, blue = (row(appearance(dressed(c, c), PERSON)) for c in (RED, BLUE))
    assert unlike(np.array([red, blue]), blue[None]) == 0
    assert unlike(red[None], blue[None]) == unlike(blue[None], red[None]) > OTHER
