"""Corrupts a scene as faulty cameras and microphones would, for evaluation."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import msgspec
import numpy as np

from models.fusion.features import KNOWN
from models.training import dataset
from pipeline.types import AudioChunk, FrameChunk, Record
from workers.replay.scene_file import Scene

CORRUPTIONS = ("dark", "blur", "noise", "dropped", "shifted")
TOUCHES = {"dark": "seen", "blur": "seen", "noise": "heard", "shifted": "heard"}  # `dropped`: all
SHIFT = 1.0  # s; delay of sound
DARK = 0.15  # share of the light that is left
BLUR = 6.0  # px, sigma, at detect size
NOISE_DB = -32.0  # dBFS (RMS) of the noise added to sound
DROPPED = 0.4  # share of frames and audio chunks
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)


def corruption(kind: str, seed: int = 0) -> Callable[[Record], Record]:
    """Returns the function that corrupts each record before the stages; ValueError if unknown."""
    match kind:
        case "dark" | "blur":
            return lambda record: _seen(record, kind)
        case "noise":
            return lambda record: (
                _hissing(record, seed) if isinstance(record, AudioChunk) else record
            )
        case "dropped":
            return lambda record: _gone(record, seed)
        case "" | "shifted":
            return lambda record: record
    msg = f"no way to spoil a scene is called {kind!r}; there are {', '.join(CORRUPTIONS)}"
    raise ValueError(msg)


def shifted(scene: Scene) -> Scene:
    """Returns the scene with all sound one second late; pictures, reports and truth stay."""
    late = {
        name: tuple(msgspec.structs.replace(clip, at=clip.at + SHIFT) for clip in clips)
        for name, clips in scene.microphones.items()
    }
    return msgspec.structs.replace(scene, microphones=late)


def without_behaviours(row: dataset.WindowRow) -> dataset.WindowRow:
    """Returns the window as a camera without poses gives it."""
    seen = row.tokens()
    if "vision" not in seen.vectors:
        return row
    vision = seen.vectors["vision"].copy()
    vision[KNOWN:] = 0
    return msgspec.structs.replace(row, vectors=dataset.packed(seen.replaced("vision", vision)))


def _seen(chunk: Record, kind: str) -> Record:
    if not isinstance(chunk, FrameChunk):
        return chunk
    pixels = cv2.imdecode(np.frombuffer(chunk.data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        return chunk
    if kind == "dark":
        chance = np.random.default_rng(zlib.crc32(chunk.data))
        grain = chance.normal(0, 4, pixels.shape)
        worse = np.clip(pixels * DARK + grain, 0, 255).astype(np.uint8)
    else:
        worse = cv2.GaussianBlur(pixels, (0, 0), BLUR)
    return msgspec.structs.replace(chunk, data=cv2.imencode(".jpg", worse, _JPEG)[1].tobytes())


def _hissing(chunk: Record, seed: int) -> Record:
    if not isinstance(chunk, AudioChunk):
        return chunk
    samples = np.frombuffer(chunk.data, "<i2").astype(np.float32)
    chance = np.random.default_rng([seed, chunk.start // 1_000_000])
    noise = chance.normal(0, 32768 * 10 ** (NOISE_DB / 20), samples.shape)
    data = np.clip(samples + noise, -32768, 32767).astype("<i2").tobytes()
    return msgspec.structs.replace(chunk, data=data)


def _gone(record: Record, seed: int) -> Record:
    """Replaces a dropped record by a black picture or silence, so that the source stays alive."""
    if not isinstance(record, FrameChunk | AudioChunk):
        return record
    if isinstance(record, FrameChunk):  # pictures that come and go are motion
        record = msgspec.structs.replace(record, look="motion")
    draw = zlib.crc32(f"{seed}/{record.source}/{record.start}".encode()) / 2**32
    if draw >= DROPPED:
        return record
    if isinstance(record, AudioChunk):
        return msgspec.structs.replace(record, data=bytes(len(record.data)))
    black = np.zeros((record.height, record.width, 3), np.uint8)
    return msgspec.structs.replace(record, data=cv2.imencode(".jpg", black, _JPEG)[1].tobytes())
