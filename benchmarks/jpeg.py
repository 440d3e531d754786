"""Damaged JPEGs: which of them a decoder takes for whole, and what decoding costs.

    python -m benchmarks.jpeg MEDIA [--damaged 300] [--times 12]

Three ways from a frame's bytes to its pixels: `decoded` of the vision worker (simplejpeg, strict);
a check of the markers (ITU-T T.81, annex B) and then OpenCV, as the worker did before; and OpenCV
alone. The pictures are 24 frames of the three videos. The damage is drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import DecodeError
from workers.media.jpeg import QUALITY, Pixels, decoded, encoded

FRAMES = 8  # of each video
SIZE = (640, 360)  # of the pictures that are damaged
SPEEDS = ((416, 416), (640, 360), (1920, 1080))
KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}
END = b"\xff\xd9"
ALONE = {0x01, *range(0xD0, 0xD8)}  # TEM and restart markers: no length follows
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in coded data ff00 is a byte

Decoder = Callable[[bytes, int, int], Pixels | None]
Damage = Callable[[bytes, bytes, np.random.Generator], bytes]


def strict(data: bytes, width: int, height: int) -> Pixels | None:
    """What the vision worker does; None for a refusal."""
    try:
        return decoded(data, width, height)
    except DecodeError:
        return None


def opencv(data: bytes, width: int, height: int) -> Pixels | None:
    """OpenCV alone; None for a refusal."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_BGR)
    except cv2.error:
        return None
    return None if pixels is None or pixels.shape[:2] != (height, width) else pixels


def markers(data: bytes, width: int, height: int) -> Pixels | None:
    """OpenCV, for what has a start, one frame header of that size, and an end."""
    return opencv(data, width, height) if whole(data) == (width, height) else None


def whole(data: bytes) -> tuple[int, int] | None:
    """The size by the frame header, if all segments up to the end marker are there."""
    if data[:2] != b"\xff\xd8":
        return None
    at, size = 2, None
    while at + 2 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == END[1]:
            return size
        if kind in ALONE or kind == 0xFF:
            at += 1 if kind == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2 or at + 2 + length > len(data):
            return None
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            if length < 8 or size is not None:
                return None
            size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + length
        if kind == 0xDA:
            found = _MARKER.search(data, at)
            if found is None:
                return None
            at = found.start()
    return None


WAYS: dict[str, Decoder] = {"strict": strict, "markers + OpenCV": markers, "OpenCV": opencv}


def _hole(data: bytes, chance: np.random.Generator, filled: bool) -> bytes:
    size = int(chance.choice([64, 512, 4096]))
    at = int(chance.integers(0, len(data) - size))
    return data[:at] + bytes(size * filled) + data[at + size :]


def _flipped(data: bytes, bits: int, chance: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for at in chance.integers(0, len(data), bits):
        damaged[at] ^= 1 << int(chance.integers(8))
    return bytes(damaged)


def _cut(data: bytes, chance: np.random.Generator) -> bytes:
    return data[: int(chance.integers(len(data) // 50, len(data) - 2))]  # the header is left whole


def _spliced(data: bytes, other: bytes, chance: np.random.Generator) -> bytes:
    at = int(chance.integers(len(data) // 50, min(len(data), len(other))))
    return data[:at] + other[at:]


DAMAGE: dict[str, Damage] = {
    "cut off": lambda data, other, chance: _cut(data, chance),
    "cut off, and an end marker": lambda data, other, chance: _cut(data, chance) + END,
    "64 to 4096 bytes missing": lambda data, other, chance: _hole(data, chance, filled=False),
    "64 to 4096 bytes zero": lambda data, other, chance: _hole(data, chance, filled=True),
    "goes on as the next picture": _spliced,
    "8 bits flipped": lambda data, other, chance: _flipped(data, 8, chance),
    "1 bit flipped": lambda data, other, chance: _flipped(data, 1, chance),
}


@contextmanager
def quiet() -> Iterator[None]:
    """OpenCV's libjpeg prints a line for each damaged picture: not here."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def frames(media: Path) -> list[Pixels]:
    """Some pictures of each video, evenly spread."""
    found = []
    for video in sorted((media / "video").glob("*.mp4")):
        capture = cv2.VideoCapture(str(video))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        for number in range(FRAMES):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number * count // (FRAMES + 1))
            good, picture = capture.read()
            if good:
                found.append(picture)
    return found


def jpegs(pictures: list[Pixels], flags: list[int]) -> list[bytes]:
    """The pictures at `SIZE`, by OpenCV's encoder."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *flags]
    small = [cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA) for picture in pictures]
    return [bytes(cv2.imencode(".jpg", picture, flags)[1]) for picture in small]


def taken(good: list[bytes], damage: Damage, count: int) -> tuple[dict[str, int], int]:
    """How many of `count` damaged pictures each way takes and shows otherwise than they were.

    And how many the markers refuse, but not `strict`.
    """
    chance, wrong, missed = np.random.default_rng(7), dict.fromkeys(WAYS, 0), 0
    true = [decoded(data, *SIZE) for data in good]
    for number in range(count):
        at = number % len(good)
        damaged = damage(good[at], good[(at + 1) % len(good)], chance)
        found = {name: decode(damaged, *SIZE) for name, decode in WAYS.items()}
        for name, pixels in found.items():
            wrong[name] += pixels is not None and not np.array_equal(pixels, true[at])
        missed += found["strict"] is not None and found["markers + OpenCV"] is None
    return wrong, missed


def speeds(
    pictures: list[Pixels], size: tuple[int, int], times: int
) -> tuple[dict[str, float], float]:
    """Median milliseconds a picture of each way; median of markers + OpenCV / strict by rounds."""
    data = [encoded(cv2.resize(picture, size)) for picture in pictures]
    spent: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(times):
        for name, decode in WAYS.items():  # by turns, so that other work hits all alike
            began = time.perf_counter()
            for each in data:
                decode(each, *size)
            spent[name].append((time.perf_counter() - began) / len(data) * 1e3)
    rounds = zip(spent["markers + OpenCV"], spent["strict"], strict=True)
    ratio = statistics.median(former / strict for former, strict in rounds)
    return {name: statistics.median(each) for name, each in spent.items()}, ratio


def main() -> int:
    """Print damage, equality and speed; 1 when pixels of a whole picture differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, help="folder of clips, with video/")
    parser.add_argument("--damaged", type=int, default=300, help="pictures of each kind of damage")
    parser.add_argument("--times", type=int, default=12)
    asked = parser.parse_args()
    pictures, differ, compared, missed = frames(asked.media), 0, 0, 0
    print(f"damaged pictures taken for whole, of {asked.damaged}: {', '.join(WAYS)}")
    for kind, flags in KINDS.items():
        good = jpegs(pictures, flags)
        for data in good:
            compared += 1
            differ += not np.array_equal(strict(data, *SIZE), opencv(data, *SIZE))
        for name, damage in DAMAGE.items():
            with quiet():
                wrong, more = taken(good, damage, asked.damaged)
            missed += more
            print(f"  {kind:11} {name:27}" + "".join(f"{count:6}" for count in wrong.values()))
    print(f"damaged pictures that the markers refuse and strict does not: {missed}")
    print(f"whole pictures whose pixels differ from OpenCV's: {differ} of {compared}")
    for size in SPEEDS:
        took, ratio = speeds(pictures, size, asked.times)
        beside = ", ".join(f"{name} {ms:.2f} ms" for name, ms in took.items())
        print(f"  {size[0]} x {size[1]}: {beside}: strict is {ratio:.2f} times as fast as markers"
              " + OpenCV")  # fmt: skip
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
