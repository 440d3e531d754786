"""Takes parts out of a window, so that a head can say what carried its verdict.

A part is a small group of features of one modality that a person has one word for. Taking it out
sets its features to what they are when the thing is not there (occlusion: Zeiler and Fergus, 2014).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np

from models.fusion.behaviour_features import BEHAVIOURS
from models.fusion.features import GROUPS, NAMES, TEXT_SIZE, Floats, Tokens
from models.hearing.yamnet_features import CLASSES, features
from pipeline.config.rule_kinds import WORD_MODALITIES

MIN_HEARD = 0.1  # a YAMNet score; the sounds of a family with less are not told as heard
PICTURE, LOUDNESS, CLIPPED, TEXT = "picture", "loudness", "clipped", "text"  # names of parts
SPEED, STILL, ZONE, FORBIDDEN = "speed", "still", "zone", "forbidden"
POSTURE, LIMBS = "posture", "limbs"  # of persons: falling and lying; fighting
_OF_POSTURE = ("fall.most", "lying.most", "down.share", "tilt.most")
_OF_LIMBS = tuple(n for n in BEHAVIOURS if n not in ("known", "posed.share", *_OF_POSTURE))
_DAYLIGHT, _SHARP = 0.45, 3.0  # luma and sharpness of an ordinary picture
_CALM = -40 / 60  # loudness of a calm room, dBFS / 60
_NOT_HEARD: Final = float(np.float16(features(np.zeros(1, np.float32))[0] / 8))

# The classes of YAMNet, each in one family. AudioSet's order keeps relatives together; the lists
# also join what YAMNet confuses, because a head may rely on any of them: shots, thunder and glass.
_SOUNDS: Mapping[str, tuple[int, ...]] = {
    "scream": (*range(6, 12), *range(19, 23), 33, 39),
    "speech": (*range(6), 12, 63, 64, 65),
    "siren": (302, 303, 304, 312, *range(316, 320), 324, 325, *range(382, 398)),
    "bang": (280, 281, *range(420, 438), 454, 455, *range(460, 467), 472),
    "people": (*range(13, 19), *range(23, 63), 66),
    "animal": tuple(range(67, 132)),
    "music": tuple(range(132, 277)),
    "weather": tuple(range(277, 294)),
    "vehicle": tuple(range(294, 348)),
    "home": tuple(range(348, 382)),
    "machine": tuple(range(398, 420)),
    "liquid": tuple(range(438, 454)),
    "other": tuple(range(456, 494)),
    "background": tuple(range(494, CLASSES)),
}


def _families() -> dict[str, tuple[int, ...]]:
    taken: set[int] = set()
    families = {}
    for name, classes in _SOUNDS.items():
        families[name] = tuple(number for number in classes if number not in taken)
        taken.update(classes)
    return families


FAMILIES: Mapping[str, tuple[int, ...]] = MappingProxyType(_families())  # a partition of YAMNet's

_AT = {modality: {name: i for i, name in enumerate(names)} for modality, names in NAMES.items()}


class Part(msgspec.Struct, frozen=True):
    """A part of a window, and the vector of its modality without it."""

    modality: str
    name: str
    vector: Floats


def value(window: Tokens, modality: str, name: str) -> float:
    """Returns a feature by its name; 0 where the modality is absent."""
    vector = window.vectors.get(modality)
    return 0.0 if vector is None else float(np.nan_to_num(vector[_AT[modality][name]]))


def count(window: Tokens, modality: str, name: str) -> int:
    """Returns a feature that is log1p of a number, as that number; a million stands for more."""
    return round(float(np.expm1(np.clip(value(window, modality, name), 0, 13.8))))


def heard(window: Tokens) -> Floats:
    """Returns YAMNet's scores of a window with sound: of each class, in its highest second."""
    odds = np.nan_to_num(window.vectors["sound"][:CLASSES]).astype(np.float64)
    return np.asarray(1 / (1 + np.exp(-np.clip(8 * odds, -50, 50))), np.float32)


def parts(window: Tokens, modalities: Collection[str]) -> list[Part]:
    """Returns the parts of these modalities that a phrase can name, and that are in the window."""
    made: list[Part] = []
    if "vision" in modalities:
        made += _of_vision(window)
    if "sound" in modalities:
        made += _of_sound(window)
    for modality in WORD_MODALITIES:
        if modality in modalities:
            vector = window.vectors[modality].copy()
            vector[:TEXT_SIZE] = 0
            made.append(Part(modality, TEXT, vector))
    return [p for p in made if not np.array_equal(p.vector, window.vectors[p.modality])]


def _of_vision(window: Tokens) -> list[Part]:
    seen = [group for group in GROUPS if count(window, "vision", f"most.{group}")]
    absent: dict[str, tuple[str, ...]] = {
        group: (f"most.{group}", f"mean.{group}") for group in seen
    }
    absent[SPEED] = ("speed.most", "speed.mean", "motion")
    absent[STILL] = ("still.share",)
    absent[ZONE] = ("zone.most", "zone.mean")
    absent[FORBIDDEN] = ("forbidden.most", "forbidden.share")
    if value(window, "vision", "behaviour.known"):
        absent[POSTURE] = tuple(f"behaviour.{name}" for name in _OF_POSTURE)
        absent[LIMBS] = tuple(f"behaviour.{name}" for name in _OF_LIMBS)
    made = [_changed(window, "vision", part, dict.fromkeys(absent[part], 0.0)) for part in absent]
    if value(window, "vision", "luma.least") >= 0:  # -1: not measured
        ordinary = {"luma.mean": _DAYLIGHT, "luma.least": _DAYLIGHT, "sharpness.mean": _SHARP}
        made.append(_changed(window, "vision", PICTURE, ordinary))
    return made


def _of_sound(window: Tokens) -> list[Part]:
    scores, sound = heard(window), window.vectors["sound"]
    made = []
    for family, classes in FAMILIES.items():
        numbers = list(classes)
        if scores[numbers].max() >= MIN_HEARD:
            vector = sound.copy()
            vector[numbers] = np.minimum(vector[numbers], _NOT_HEARD)
            made.append(Part("sound", family, vector))
    calm = {
        name: min(value(window, "sound", name), most)
        for name, most in (("loudness.most", _CALM), ("loudness.mean", _CALM), ("onset", 0.0))
    }
    made.append(_changed(window, "sound", LOUDNESS, calm))
    made.append(_changed(window, "sound", CLIPPED, {"clipped": 0.0}))
    return made


def _changed(window: Tokens, modality: str, part: str, to: Mapping[str, float]) -> Part:
    vector = window.vectors[modality].copy()
    for name, number in to.items():
        vector[_AT[modality][name]] = number
    return Part(modality, part, vector)
