"""Encodes pictures to JPEG, and decodes untrusted JPEG bytes.

There is one encoder, so equal pixels give equal bytes everywhere. libjpeg fills missing data with
grey and only prints a warning. So the structure is checked first (ITU-T T.81, annex B): a start and
an end marker, one frame header, and its size. Damage inside the coded data that leaves all markers
intact cannot be detected.
"""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError

QUALITY = 90
MAX_SIDE = 16_384  # px; a larger claimed size is an attack or a fault

Pixels = NDArray[np.uint8]  # height x width x 3, BGR

END, SCAN = 0xD9, 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..15 without DHT, JPG, DAC
ALONE = frozenset(range(0xD0, 0xD8)) | {0x01}  # restart markers and TEM: no length follows
_MARKER = re.compile(
    rb"\xff[\x01-\xcf\xd8-\xfe]"
)  # in coded data ff00 is a byte, ffd0-d7 a restart


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
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        msg = f"not a BGR picture: shape {pixels.shape}"
        raise ValueError(msg)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        msg = f"no JPEG can be made of shape {pixels.shape}"
        raise ValueError(msg)
    return bytes(data)


def decoded(data: bytes, width: int, height: int) -> Pixels:
    """Decodes one JPEG; raises DecodeError if it is not `width` x `height` or not complete."""
    claimed = jpeg_size(data)
    if claimed != (width, height):
        msg = f"the JPEG is {claimed[0]} x {claimed[1]}, its record says {width} x {height}"
        raise DecodeError(msg)
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR)
    except cv2.error as error:
        msg = f"OpenCV cannot decode it: {error.err}"
        raise DecodeError(msg) from error
    if pixels is None or pixels.shape != (height, width, 3):
        raise DecodeError("OpenCV cannot decode it")  # noqa: EM101
    return pixels  # type: ignore[no-any-return]


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Returns width and height from the frame header of a complete JPEG; raises DecodeError.

    Bytes after the end marker are allowed: many cameras pad.
    """
    if data[:2] != b"\xff\xd8":
        raise DecodeError("no JPEG: it does not begin with ffd8")  # noqa: EM101
    at, size = 2, None
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            msg = f"broken JPEG: no marker at byte {at} of {len(data)}"
            raise DecodeError(msg)
        kind = data[at + 1]
        if kind == 0xFF:  # fill byte
            at += 1
            continue
        if kind == END:
            if size is None:
                break
            return size
        if kind in ALONE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2 or at + 2 + length > len(data):
            break
        if kind in FRAMES:
            if length < 8 or size is not None:
                raise DecodeError("broken JPEG: not one frame header")  # noqa: EM101
            size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + length
        if kind == SCAN:
            found = _MARKER.search(data, at)
            if found is None:
                break
            at = found.start()
    msg = f"truncated JPEG: it ends at byte {len(data)} without an end marker"
    raise DecodeError(msg)
