"""The labels, modalities and splits that training data, heads and reports share."""

from __future__ import annotations

from pipeline.config.fields import SOUNDS

LABELS = (*SOUNDS, "intrusion", "threat")
MODALITIES = ("vision", "sound", "speech", "report")
SPLITS = ("train", "val", "test")
