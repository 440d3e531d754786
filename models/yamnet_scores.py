"""YAMNet's answer as numbers to learn from; apart from YAMNet itself, which not all need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES = 521
HALF_STEP = np.float32(1 / 512)  # of the scores: the model is quantized to 8 bits

Floats = NDArray[np.float32]


def features(scores: Floats) -> Floats:
    """Log odds of YAMNet's scores; they come in steps of 1/256, hence half a step at both ends."""
    return np.log((scores + HALF_STEP) / (1 + HALF_STEP - scores)).astype(np.float32)
