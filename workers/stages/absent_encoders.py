"""What takes the place of an encoder that is not loaded.

A quiet encoder finds nothing. Fusion treats its results as those of a source without data. A
guard raises an error when it is called: it stands where no record can lead to a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.hearing.waveform import FRAME_SAMPLES, Samples


def no_boxes(batch: Sequence[object]) -> list[tuple[()]]:
    """A detector that finds no object."""
    return [() for _ in batch]


def no_scores(batch: Sequence[Samples]) -> list[NDArray[np.float32]]:
    """A sound model without scores; a window counts as one without sound."""
    return [np.zeros(0, np.float32) for _ in batch]


def no_labels(scores: Samples) -> Mapping[str, float]:
    """A sound head that names no sound."""
    return {}


def no_voice(batch: Sequence[Samples]) -> list[Samples]:
    """A voice model that hears no voice, so that nothing is transcribed."""
    return [np.zeros(-(-len(waveform) // FRAME_SAMPLES), np.float32) for waveform in batch]


def no_embedding(batch: Sequence[str]) -> list[NDArray[np.float32]]:
    """A text model whose embeddings are empty; they count as missing."""
    return [np.zeros(0, np.float32) for _ in batch]


def no_poses(batch: Sequence[object]) -> list[bytes]:
    """A pose model that finds no pose."""
    return [b"" for _ in batch]


def guard(name: str) -> Callable[..., Any]:
    """An encoder that must not be called; raises RuntimeError when it is."""

    def call(*_: object, **__: object) -> Any:
        msg = f"{name} was not loaded: no stage of this process was said to need it"
        raise RuntimeError(msg)

    return call


# model of the config -> the encoders that depend on it, and what takes their place
QUIET: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "detector": {"detector": no_boxes},
    "detector_high": {"detector_high": no_boxes},
    "sound": {"sound": no_scores, "sound_head": no_labels},
    "speech": {"voice": no_voice, "speech": guard("speech")},
    "text": {"text": no_embedding},
    "pose": {"pose": no_poses},
}
