"""Describes how a person looks: brightness and colour of the box, in a few bytes.

All arithmetic is in integers, so equal pixels and an equal box give equal bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pipeline.judge.appearance import HUES, LUMAS
from pipeline.types import Box
from workers.media.jpeg import Pixels

PERSON = "person"
ROWS, COLUMNS = 32, 16  # pixels of the box that are read
MARGIN = 5  # of the width of the box, as a divisor; at each side, where the background is
LEAST_HEIGHT, LEAST_WIDTH = 24, 8  # px; a smaller box shows too little

VIVID = 16  # the distance from grey from which a colour is as strong as can be
Ints = NDArray[np.int32]


def described(pixels: Pixels, boxes: Sequence[Box]) -> tuple[Box, ...]:
    """Returns the boxes; those of persons have an appearance."""
    return tuple(
        replace(box, appearance=appearance(pixels, box)) if box.label == PERSON else box
        for box in boxes
    )


def appearance(pixels: Pixels, box: Box) -> bytes:
    """Returns the bytes of `Box.appearance`; empty where the box is too small to say anything."""
    height, width = pixels.shape[:2]
    left, right = _span(box.x1, box.x2, width)
    top, bottom = _span(box.y1, box.y2, height)
    if bottom - top < LEAST_HEIGHT or right - left < LEAST_WIDTH:
        return b""
    side = (right - left) // MARGIN
    rows = _middles(top, bottom, ROWS)
    columns = _middles(left + side, right - side, COLUMNS)
    blue, green, red = pixels[rows[:, None], columns].astype(np.int32).transpose(2, 0, 1)
    luma = (77 * red + 150 * green + 29 * blue) >> 8
    halves = zip(*(np.split(of, 2) for of in (luma, blue - luma, red - luma)), strict=True)
    return np.concatenate([_histograms(*half) for half in halves]).astype(np.uint8).tobytes()


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """The pixels from `low` to `high`; a box is in thousandths of the frame."""
    return max(0, round(low * 1000) * size // 1000), min(size, round(high * 1000) * size // 1000)


def _middles(low: int, high: int, count: int) -> NDArray[np.int64]:
    """Pixels in equal distances."""
    found: NDArray[np.int64] = low + (2 * np.arange(count) + 1) * (high - low) // (2 * count)
    return found


def _histograms(luma: Ints, blue: Ints, red: Ints) -> Ints:
    """Brightness and colour of some pixels; each pixel is shared between two neighbouring bins."""
    return np.concatenate([_lumas(luma.ravel()), _hues(blue.ravel(), red.ravel())])


def _lumas(luma: Ints) -> Ints:
    place = np.clip(luma * LUMAS - 128, 0, (LUMAS - 1) * 256)
    low, part = place >> 8, place & 255
    counts = np.bincount(low, 256 - part, LUMAS + 1) + np.bincount(low + 1, part, LUMAS + 1)
    return _shares(counts[:LUMAS], 256 * luma.size)


def _hues(blue: Ints, red: Ints) -> Ints:
    """Colour in eight directions of the plane of blue and red, and what is missing to `VIVID`."""
    longer = np.maximum(abs(blue), abs(red))
    shorter = np.minimum(abs(blue), abs(red))
    strong = np.maximum(longer, VIVID)
    diagonal, straight = shorter * VIVID // strong, (longer - shorter) * VIVID // strong
    axis = np.where(abs(blue) >= abs(red), np.where(blue >= 0, 0, 4), np.where(red >= 0, 2, 6))
    corner = np.where(blue >= 0, np.where(red >= 0, 1, 7), np.where(red >= 0, 3, 5))
    counts = np.bincount(axis, straight, HUES + 1) + np.bincount(corner, diagonal, HUES + 1)
    counts[HUES] = VIVID * blue.size - counts.sum()
    return _shares(counts, VIVID * blue.size)


def _shares(counts: NDArray[np.float64], total: int) -> Ints:
    """Parts of 255; the counts are whole numbers."""
    return counts.astype(np.int64) * 255 // total
