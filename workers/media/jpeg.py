"""Pictures to JPEG and back: one encoder, and a decoder for bytes that nobody vouches for.

Equal pixels are equal bytes everywhere, since there is one encoder. libjpeg fills what is missing
with grey and only prints a warning. `simplejpeg` raises that warning as an error, so a picture that
is cut off or damaged is refused and no part of it is invented. Some damage changes only values and
cannot be told from a strange picture. `benchmarks/jpeg.py` counts.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.limits import MAX_PIXELS

QUALITY = 90
MAX_SIDE = 16_384  # px; a larger claimed size is an attack or a fault

Pixels = NDArray[np.uint8]  # height x width x 3, BGR


def fits(width: int, height: int) -> bool:
    """Whether a picture of this size may be decoded."""
    return 0 < max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Returns the size with nearly the same shape and a longest side of at most `longest`."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrunk(pixels: Pixels, longest: int) -> Pixels:
    """Returns the picture at `fitted` size, by area averaging; unchanged if it is small enough."""
    height, width = pixels.shape[:2]
    size = fitted(width, height, longest)
    if size == (width, height):
        return pixels
    small: Any = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return small  # type: ignore[no-any-return]


def encoded(pixels: Pixels) -> bytes:
    """Returns one baseline JPEG, quality 90; raises ValueError for an array that is no picture."""
    return _encoded(pixels, cv2.IMWRITE_JPEG_QUALITY, QUALITY)


def within(pixels: Pixels, most: int, least: int, best: int) -> bytes:
    """Returns the JPEG of the best quality, `least` to `best`, that has at most `most` bytes.

    Returns nothing if even that of `least` is larger. Raises ValueError as `encoded`.
    """
    found = b""
    while least <= best:
        quality = (least + best) // 2 if found else least
        data = _encoded(pixels, cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
        if len(data) <= most:
            found, least = data, quality + 1
        elif not found:
            break
        else:
            best = quality - 1
    return found


def _encoded(pixels: Pixels, *settings: int) -> bytes:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        msg = f"not a BGR picture: shape {pixels.shape}"
        raise ValueError(msg)
    done, data = cv2.imencode(".jpg", pixels, settings)
    if not done:
        msg = f"no JPEG can be made of shape {pixels.shape}"
        raise ValueError(msg)
    return bytes(data)


def decoded(data: bytes, width: int, height: int) -> Pixels:
    """The picture in one JPEG; DecodeError when it is not `width` x `height` or not whole.

    Bytes after the end marker are allowed: many cameras pad. An EXIF orientation is not applied.
    """
    try:
        high, wide, _, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError) as error:  # KeyError: 4:4:1, for which it has no name
        raise DecodeError("no JPEG, or its header is broken") from error  # noqa: EM101
    # The size is judged before memory is taken, since a few bytes can claim gigabytes.
    if (wide, high) != (width, height):
        msg = f"the JPEG is {wide} x {high}, its record says {width} x {height}"
        raise DecodeError(msg)
    if not fits(wide, high):
        msg = (
            f"the JPEG is {wide} x {high}; a picture has {MAX_PIXELS} pixels at most, and "
            f"{MAX_SIDE} on a side"
        )
        raise DecodeError(msg)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "BGR", strict=True)
    except (ValueError, MemoryError) as error:
        msg = f"broken JPEG: {error}"
        raise DecodeError(msg) from error
    return pixels


def opened(data: bytes) -> Pixels:
    """The picture in a JPEG of ours, whose size no record tells; raises DecodeError."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, KeyError) as error:
        raise DecodeError("no JPEG, or its header is broken") from error  # noqa: EM101
    return decoded(data, width, height)
