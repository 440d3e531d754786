"""What every model that hears is given: the waveform that capture publishes, as numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # samples a second
FRAME_SAMPLES = 512  # samples that one probability of the voice model covers: 32 ms
QUIET_DB = -60.0  # dBFS; a quieter second is silence: no label, and nothing to hear

Samples = NDArray[np.float32]  # mono, -1 to 1
