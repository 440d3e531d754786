"""Converts window rows to a network's input: one array per modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from models.fusion.features import arrays
from models.fusion.labels import LABELS, MODALITIES
from models.fusion.learned_head import SCORE_DIGITS
from models.training.dataset import WindowRow
from models.training.metrics import Scored, Truth
from pipeline.config.rule_kinds import WORD_MODALITIES

LETTERS: Mapping[str, tuple[str, ...]] = {
    "V": ("vision",),
    "A": ("sound",),
    "T": WORD_MODALITIES,
}


class WindowArrays:
    """Rows as arrays; `neighbours` holds the indices of the windows one hop before and after."""

    def __init__(self, rows: Sequence[WindowRow]) -> None:
        self.rows = rows
        self.inputs = arrays([row.tokens() for row in rows])
        to_scored = [row.answer() for row in rows]
        self.anomaly = np.array([-1 if a is None else int(bool(a)) for a in to_scored])
        self.label = np.array([LABELS.index(a) if a else -1 for a in to_scored])
        self.weak = np.array([row.weak for row in rows], bool)
        place = {(row.scene, row.start): i for i, row in enumerate(rows)}
        hop = _hop(rows)
        self.neighbours = np.array(
            [
                [place.get((row.scene, row.start + step), i) for step in (-hop, hop)]
                for i, row in enumerate(rows)
            ]
        ).reshape(-1, 2)
        bags: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            if row.weak:
                bags.setdefault(row.scene, []).append(i)
        self.bags = list(bags.values())


def _hop(rows: Sequence[WindowRow]) -> int:
    starts: dict[str, list[int]] = {}
    for row in rows:
        starts.setdefault(row.scene, []).append(row.start)
    steps = [b - a for s in starts.values() for a, b in pairwise(sorted(s))]
    return min((step for step in steps if step > 0), default=1)


def only_modalities(inputs: Mapping[str, np.ndarray], modalities: str) -> dict[str, np.ndarray]:
    """Returns the inputs with only these of V, A and T; the others are set to lost."""
    kept = {m for letter in modalities for m in LETTERS[letter]}
    out = {name: values.copy() for name, values in inputs.items()}
    for column, modality in enumerate(MODALITIES):
        if modality not in kept:
            out[modality][:] = 0
            out["state"][:, column] = (0, 0, 1)
    return out


def to_scored(windows: WindowArrays, score: np.ndarray, classes: np.ndarray) -> Scored:
    """Returns scores together with their windows."""
    rows = windows.rows
    return Scored(
        scene=[row.scene for row in rows],
        start_ns=np.array([row.start for row in rows]),
        end_ns=np.array([row.end for row in rows]),
        score=np.round(score.astype(np.float64), SCORE_DIGITS),
        classes=classes.astype(np.float64),
        anomaly=windows.anomaly,
        label=windows.label,
        kind=[row.site for row in rows],
    )


def truths_of(rows: Sequence[WindowRow]) -> dict[str, list[Truth]]:
    """Returns the truths of each scene as its windows imply them, for files without scenes."""
    truths: dict[str, list[Truth]] = {}
    for row in sorted(rows, key=lambda row: (row.scene, row.start)):
        found = truths.setdefault(row.scene, [])
        label = row.answer()
        if not label:
            continue
        if found and found[-1].label == label and row.start <= found[-1].end_ns:
            found[-1] = Truth(found[-1].start_ns, row.end, label)
        else:
            found.append(Truth(row.start, row.end, label))
    return truths
