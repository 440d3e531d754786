"""JPEG bytes to pixels, for bytes that nobody vouches for.

libjpeg fills what is missing with grey and only prints a warning. `simplejpeg` raises that warning
as an error, so a picture that is cut off or damaged is refused and no part of it is invented. Some
damage changes only values and cannot be told from a strange picture. `benchmarks/jpeg.py` counts.
"""

from __future__ import annotations

import simplejpeg

from pipeline.errors import DecodeError
from workers.jpeg import MAX_SIDE, Pixels


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
    if max(wide, high) > MAX_SIDE:
        msg = f"the JPEG is {wide} x {high}, and a side has {MAX_SIDE} pixels at most"
        raise DecodeError(msg)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "BGR", strict=True)
    except (ValueError, MemoryError) as error:
        msg = f"broken JPEG: {error}"
        raise DecodeError(msg) from error
    return pixels
