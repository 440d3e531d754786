"""Converts YAMNet's scores to features for training; does not import YAMNet itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

CLASSES = 521
HALF_STEP = np.float32(1 / 512)  # half a step of the scores: the model is quantized to 8 bits

Floats = NDArray[np.float32]


def features(scores: Floats) -> Floats:
    """Returns the log odds of YAMNet's scores, half a step from 0 and 1 (steps are 1/256)."""
    return np.log((scores + HALF_STEP) / (1 + HALF_STEP - scores)).astype(np.float32)


# The classes of each of our sounds, and those that YAMNet confuses with it (AudioSet's order,
# yamnet_class_map.csv): shouts and wails, sirens and alarms, shots with fireworks, thunder, glass.
OWN: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "gunshot": (*range(420, 431), 434, 460),
        "explosion": (280, 281, *range(420, 431), 454, 460),
        "glass": (435, 436, 437, 460, 463, 464),
        "scream": (6, 7, 8, 9, 10, 11, 19, 22),
        "siren": (304, *range(316, 320), 382, *range(389, 396)),
    }
)
GRAVE = frozenset(number for some in OWN.values() for number in some)
