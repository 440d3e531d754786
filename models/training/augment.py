"""Augments training windows, so that a network does not rely on what a site may lack.

Modalities are dropped at random, so that the head works when one is missing (Neverova et al.,
ModDrop, 2016). Sound is sometimes that of the window before or after, so that clocks may differ by
a second. Common sounds are added where nothing happens. Noise is added to the numbers. What
behaviours see is dropped often, as many cameras have no poses.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from models.fusion.features import KNOWN
from models.fusion.labels import MODALITIES
from models.hearing.yamnet_features import ALL_OWN_CLASSES, CLASSES
from models.training.batches import LETTERS, WindowArrays

ORDINARY = np.array([number for number in range(CLASSES) if number not in ALL_OWN_CLASSES])
MAX_CROWD = 4  # limit of classes added to a window


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """The probability or strength of each augmentation."""

    drop: float = 0.2  # chance of each modality to be dropped from a window
    swap: float = 0.3  # chance of sound to be a neighbour's
    crowd: float = 0.5  # chance that common classes are added to a window without an anomaly
    poseless: float = 0.5  # chance of a window to lose what behaviours see
    blur: float = 0.1  # standard deviation of noise on standardized numbers


class AugmentedWindows:
    """Windows whose `inputs` are augmented again for each batch.

    `spread` is the standard deviation of each modality's numbers.
    """

    def __init__(
        self,
        windows: WindowArrays,
        inputs: Mapping[str, np.ndarray],
        by: Augmentation,
        spread: Mapping[str, np.ndarray],
    ) -> None:
        self._windows, self._inputs, self._by, self._spread = windows, inputs, by, spread

    def some(self, some: np.ndarray, chance: np.random.Generator) -> dict[str, np.ndarray]:
        """Returns the windows `some` as training sees them: parts are missing, late or noisy."""
        given = {name: values[some].copy() for name, values in self._inputs.items()}
        late = chance.random(len(some)) < self._by.swap
        other = self._windows.neighbours[some, chance.integers(0, 2, len(some))]
        sound = MODALITIES.index("sound")
        given["sound"][late] = self._inputs["sound"][other[late]]
        given["state"][late, sound] = self._inputs["state"][other[late], sound]
        self._crowded(given, self._windows.anomaly[some] == 0, chance)
        alone = chance.random(len(some)) < self._by.drop / 2
        only = chance.integers(0, len(LETTERS), len(some))
        for number, modalities in enumerate(LETTERS.values()):
            gone = chance.random(len(some)) < self._by.drop
            gone = np.where(alone, only != number, gone)
            for modality in modalities:
                column = MODALITIES.index(modality)
                given[modality][gone] = 0
                given["state"][gone, column] = (0, 0, 1)
        posed = (given["vision"][:, KNOWN] > 0) & (chance.random(len(some)) >= self._by.poseless)
        for column, modality in enumerate(MODALITIES):
            there = np.flatnonzero(given["state"][:, column, 0])
            shape = len(there), given[modality].shape[1]
            noise = chance.standard_normal(shape, np.float32)
            given[modality][there] += noise * (self._by.blur * self._spread[modality])
        given["vision"][~posed, KNOWN:] = 0
        given["vision"][posed, KNOWN] = 1  # it has no noise
        return given

    def _crowded(
        self, given: Mapping[str, np.ndarray], ordinary: np.ndarray, chance: np.random.Generator
    ) -> None:
        """Adds common sound classes to windows in which nothing happens.

        The few clips do not cover them; otherwise a cheer would be evidence because one siren was
        recorded in a crowd.
        """
        column = MODALITIES.index("sound")
        rows = np.flatnonzero(ordinary & (given["state"][:, column, 0] > 0))
        rows = rows[chance.random(len(rows)) < self._by.crowd]
        for _ in range(MAX_CROWD):
            some = rows[chance.random(len(rows)) < 0.5]
            which = ORDINARY[chance.integers(0, len(ORDINARY), len(some))]
            heard = chance.uniform(-0.5, 0.3, len(some))  # log odds / 8: a score of 0.02 to 0.92
            given["sound"][some, which] = np.maximum(given["sound"][some, which], heard)
