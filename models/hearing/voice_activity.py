"""Voice activity by Silero VAD v6, as faster-whisper carries it (ONNX, MIT).

One frame is 512 samples (32 ms) of 16 kHz mono. The network is recurrent, so a probability depends
on all that the same call heard before: two seconds are enough for it to settle, and each call
starts from zero state, which makes it a pure function of its waveform.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.typing import NDArray

from models.hearing.waveform import Samples

FRAME_SAMPLES = 512  # samples

Probabilities = NDArray[np.float32]


class VoiceActivity:
    """Says where somebody speaks: a batch of waveforms in, speech probabilities a frame out.

    A waveform is float32, 16 kHz mono, -1 to 1, of any length. Frames are counted back from its
    *end*; zeros stand before a first frame that is not whole. Probabilities are rounded to 1e-3.
    NaN and infinite samples are heard as zero. Raises ValueError for more than one dimension.
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
        # The wrapper blanks the last 64 samples of what it is given, in place: so it gets a copy
        # of ours, and a frame of silence at the end to blank, whose probability nobody wants.
        copy = np.zeros(before + len(waveform) + FRAME_SAMPLES, np.float32)
        copy[before:-FRAME_SAMPLES] = np.nan_to_num(waveform, nan=0.0, posinf=0.0, neginf=0.0)
        found: Probabilities = self._model(copy).reshape(-1)[:-1].astype(np.float32)
        return found.round(3)
