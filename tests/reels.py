"""Tiny films and sounds for tests, whose content says which frame or sample it is."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.types import AudioChunk, FrameChunk

STEP = 16  # of gray between frames: more than JPEG blurs


def film(
    path: Path,
    shots: Iterable[tuple[float, int]],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "ffv1",
    rate: int = 1000,
) -> Path:
    """A video of flat gray pictures: (seconds at which it appears, number) each; also below 0."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "gray" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.max_b_frames = 0
        stream.codec_context.gop_size = 1
        for at, number in shots:
            gray = np.full((size[1], size[0]), number * STEP, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, "gray")
            frame.pts, frame.time_base = round(at * rate), Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def sound(path: Path, samples: Sequence[float] | np.ndarray, rate: int = 16_000) -> Path:
    """A WAV of float32 samples, one row a channel; so that it may hold what is no number too."""
    rows = np.atleast_2d(np.asarray(samples, "<f4"))
    data = rows.T.tobytes()
    channels = len(rows)
    head = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 3, channels, rate, rate * channels * 4, channels * 4, 32
    )
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return path


def picture(chunk: FrameChunk) -> np.ndarray:
    """The pixels of a chunk, and that they are what it says."""
    pixels = cv2.imdecode(np.frombuffer(chunk.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.shape == (chunk.height, chunk.width, 3)
    return pixels


def number(chunk: FrameChunk) -> int:
    """Which shot of `film` the chunk shows."""
    return round(float(picture(chunk).mean()) / STEP)


def samples(chunks: Iterable[AudioChunk]) -> np.ndarray:
    """All samples of chunks of 16 kHz mono, as int16."""
    return np.concatenate([np.frombuffer(chunk.data, "<i2") for chunk in chunks])
