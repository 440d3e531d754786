"""How well a camera could see, on made pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.media.image_quality import luma_and_sharpness
from workers.media.jpeg import Pixels


def plain(level: int, width: int = 640, height: int = 360) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def squares(width: int = 640, height: int = 360, side: int = 40) -> Pixels:
    """A board of dark and bright squares, `side` px each."""
    y, x = np.mgrid[:height, :width] // side
    return np.repeat(np.where((x + y) % 2, 200, 50).astype(np.uint8)[..., None], 3, axis=2)


def blurred(picture: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)


@pytest.mark.parametrize(("level", "luma"), [(0, 0.0), (51, 0.2), (204, 0.8), (255, 1.0)])
def test_a_plain_picture_has_its_level_and_no_sharpness(level: int, luma: float) -> None:
    assert luma_and_sharpness(plain(level)) == (luma, 0.0)


def test_luma_weighs_colours_as_the_eye_does() -> None:
    blue, green, red = (plain(0) for _ in range(3))
    blue[..., 0] = green[..., 1] = red[..., 2] = 255
    lumas = [luma_and_sharpness(picture)[0] for picture in (blue, green, red)]
    assert lumas == pytest.approx([0.114, 0.587, 0.299], abs=0.003)


def test_blur_takes_sharpness_and_leaves_luma() -> None:
    seen = [luma_and_sharpness(blurred(squares(), sigma)) for sigma in (0.5, 2, 4, 8, 16)]
    lumas, sharpness = zip(*seen, strict=True)
    assert lumas == pytest.approx([0.49] * 5, abs=0.005)
    assert list(sharpness) == sorted(sharpness, reverse=True)
    assert sharpness[0] > 3
    assert sharpness[-1] < 1


def test_a_dim_picture_is_less_sharp_than_the_same_in_light() -> None:
    dim = (squares() // 10).astype(np.uint8)
    assert luma_and_sharpness(dim)[1] == pytest.approx(
        luma_and_sharpness(squares())[1] - 2, abs=0.2
    )


def test_the_same_view_is_about_as_sharp_at_any_size() -> None:
    view = [squares(160 * k, 90 * k, 10 * k) for k in (2, 4, 8)]
    one, *others = (luma_and_sharpness(picture)[1] for picture in view)
    assert others == pytest.approx([one] * 2, abs=0.2)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 255))
def test_any_size_is_measured(width: int, height: int, level: int) -> None:
    luma, sharpness = luma_and_sharpness(plain(level, width, height))
    assert (luma, sharpness) == (round(level / 255, 3), 0.0)
