"""Detects voice activity with Silero VAD v6, as shipped with faster-whisper (ONNX, MIT).

One frame is 512 samples (32 ms) of 16 kHz mono. The network is recurrent, so a probability depends
on the earlier frames of the same call; it settles within two seconds. Each call starts from zero
state, so the result is a pure function of its waveform.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from models.hearing.waveform import FRAME_SAMPLES, Samples

Probabilities = NDArray[np.float32]


class VoiceActivity:
    """Detects speech: maps a batch of waveforms to speech probabilities, one per frame.

    A waveform is float32, 16 kHz mono, -1 to 1, of any length. Frames are counted back from its
    *end*; an incomplete first frame is filled with zeros at its start. Probabilities are rounded to
    1e-3. NaN and infinite samples count as zero. Raises ValueError for more than one dimension.
    """

    def __init__(self) -> None:
        self._model = get_vad_model()

    def __call__(self, batch: Sequence[Samples]) -> list[Probabilities]:
        return [self._one(waveform) for waveform in batch]

    def _one(self, waveform: Samples) -> Probabilities:
        if waveform.ndim != 1:
            msg = f"a waveform has one dimension, this one has shape {waveform.shape}"
            raise ValueError(msg)
        if not len(waveform):
            return np.zeros(0, np.float32)
        before = -len(waveform) % FRAME_SAMPLES
        # The wrapper sets the last 64 samples of its input to zero, in place. So it gets a copy
        # with an extra frame of silence at the end, whose probability is dropped.
        copy = np.zeros(before + len(waveform) + FRAME_SAMPLES, np.float32)
        copy[before:-FRAME_SAMPLES] = np.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0)
        found: Probabilities = self._model(copy).reshape(-1)[:-1].astype(np.float32)
        return found.round(3)
