"""Measures loudness and noise floor of sound, in dBFS."""

from __future__ import annotations

import numpy as np

from workers.media.pcm import RATE, Samples

FLOOR_PIECE = RATE // 50  # samples: 20 ms
FLOOR_PIECES = 5  # of the 50 in a second: the quietest tenth
SILENCE_DB = -120.0


def loudness(samples: Samples) -> float:
    """Returns the RMS in dBFS, to a tenth; -120 for digital silence."""
    return round(_decibels(float(np.mean(np.square(samples, dtype=np.float64)))), 1)


def floor(samples: Samples) -> float:
    """Returns the noise floor: the RMS of the quietest tenth of the second's 20 ms pieces, dBFS.

    Rounded to 1e-3. It is the constant noise of the room and the microphone, without events.
    """
    pieces = np.square(samples, dtype=np.float64).reshape(-1, FLOOR_PIECE).mean(axis=1)
    return round(_decibels(float(np.sort(pieces)[:FLOOR_PIECES].mean())), 3)


def _decibels(power: float) -> float:
    return max(10 * float(np.log10(power + 1e-12)), SILENCE_DB)
