"""The words that training data, heads and reports have in common."""

from __future__ import annotations

from pipeline.config.fields import SOUNDS

LABELS = (*SOUNDS, "intrusion", "threat")
MODALITIES = ("vision", "sound", "speech", "report")
SPLITS = ("train", "val", "test")
