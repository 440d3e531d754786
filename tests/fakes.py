"""Fake models for fast tests: the same ports and contracts as the real models, without weights.

Their results depend only on the input: a bright picture has a person, loud audio is a gunshot, and
audio of medium loudness is speech.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from models.hearing.transcript import Transcript
from models.vision.person_crop import Person
from pipeline.judge.pose import JOINTS, pack
from pipeline.types import Box

BRIGHT = 100  # mean of 0 to 255; a brighter picture has a person
LOUD, SPOKEN = 0.5, 0.1  # RMS of -1 to 1
PERSON = Box(label="person", score=0.9, x1=0.4, y1=0.3, x2=0.6, y2=0.9)


class FakeDetector:
    """Detects, in pictures (BGR uint8), one person in the middle of a bright picture."""

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        return [(PERSON,) if picture.mean() > BRIGHT else () for picture in batch]


class FakePose:
    """Returns, for each person, a pose whose keypoints lie on the diagonal of the box.

    Their score is the mean of the picture, 0 to 1.
    """

    def __call__(self, batch: Sequence[Person]) -> list[bytes]:
        return [self._one(person) for person in batch]

    def _one(self, person: Person) -> bytes:
        box, score = person.box, float(person.picture.mean()) / 255
        steps = np.linspace(0, 1, JOINTS).tolist()
        wide, high = box.x2 - box.x1, box.y2 - box.y1
        return pack((box.x1 + at * wide, box.y1 + at * high, score) for at in steps)


class FakeYamnet:
    """Returns 521 equal scores for each waveform: the RMS of its last second."""

    def __call__(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.full(521, _rms(waveform[-16_000:]), np.float32) for waveform in batch]


def fake_head(scores: np.ndarray) -> dict[str, float]:
    """Labels of scores: a loud second is a gunshot."""
    quiet = dict.fromkeys(("explosion", "glass", "scream", "siren"), 0.0)
    return {"gunshot": 0.9 if scores[0] > LOUD else 0.0, **quiet}


class FakeVoice:
    """Returns one probability of speech for each 32 ms of a waveform, counted back from the end."""

    def __call__(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._one(waveform) for waveform in batch]

    def _one(self, waveform: np.ndarray) -> np.ndarray:
        frames = -(-len(waveform) // 512)
        padded = np.concatenate([np.zeros(frames * 512 - len(waveform), np.float32), waveform])
        rms = np.sqrt((padded.reshape(frames, 512) ** 2).mean(axis=1))
        return ((rms > SPOKEN) & (rms < LOUD)).astype(np.float32)


class FakeSpeech:
    """Returns the same transcript for each waveform."""

    def __call__(self, batch: Sequence[np.ndarray]) -> list[Transcript]:
        return [Transcript("please help me", "en", 0.9) for _ in batch]


class FakeText:
    """Returns a unit vector of 384 numbers for each text; equal texts have equal vectors."""

    def __call__(self, batch: Sequence[str]) -> list[np.ndarray]:
        return [self._one(text) for text in batch]

    def _one(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        vector = np.random.default_rng(seed).normal(size=384).astype(np.float32)
        return vector / np.linalg.norm(vector)


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt((waveform**2).mean()))
