"""Pictures to JPEG bytes: the one encoder, so that equal pixels are equal bytes everywhere."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

QUALITY = 90
MAX_SIDE = 16_384  # px; what claims to be larger is an attack or a fault

Pixels = NDArray[np.uint8]  # height x width x 3, BGR


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size whose longest side is `longest` at most and whose shape is nearly the same."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrunk(pixels: Pixels, longest: int) -> Pixels:
    """The picture at `fitted` size, by area averaging; itself where it is small enough."""
    height, width = pixels.shape[:2]
    size = fitted(width, height, longest)
    if size == (width, height):
        return pixels
    small: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return small  # type: ignore[no-any-return]


def encoded(pixels: Pixels) -> bytes:
    """One baseline JPEG, quality 90; raises ValueError for what is no picture."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        msg = f"not a BGR picture: shape {pixels.shape}"
        raise ValueError(msg)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        msg = f"no JPEG can be made of shape {pixels.shape}"
        raise ValueError(msg)
    return bytes(data)
