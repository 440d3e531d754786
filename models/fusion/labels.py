"""The labels, modalities and splits that training data, heads and reports share."""

from __future__ import annotations

LABELS = ("gunshot", "explosion", "glass", "scream", "siren", "intrusion", "threat")
MODALITIES = ("vision", "sound", "speech", "report")
SPLITS = ("train", "val", "test")
