"""Windows that ship with a head for fine-tuning: they keep it from forgetting.

Experience replay: Rolnick et al., NeurIPS 2019. There are as many windows with labels as without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import msgspec
import numpy as np

from models.fusion.labels import LABELS
from models.training import dataset
from models.training.dataset import WindowRow

REHEARSAL_FILE = "rehearsal.jsonl.gz"
WINDOWS_A_LABEL = {"train": 12, "val": 6}  # windows per label


def select_windows(sources: Sequence[Iterable[WindowRow]], seed: int) -> list[WindowRow]:
    """Selects WINDOWS_A_LABEL windows per label, from different scenes and from the sources in
    turn.

    Adds as many unlabelled windows as labelled ones, if there are enough. The same rows and seed
    give the same result. The scenes get new names, without their folders.
    """
    pools = [_by_scene(rows) for rows in sources]
    picked: list[WindowRow] = []
    for split, count in WINDOWS_A_LABEL.items():
        chance = np.random.default_rng([seed, count])
        labelled = [r for label in LABELS for r in _some(pools, split, label, count, chance)]
        picked += [*labelled, *_some(pools, split, "", len(labelled), chance)]
    return [
        msgspec.structs.replace(row, scene=f"{number:03d} {Path(row.scene).name}")
        for number, row in enumerate(picked)
    ]


Pool = dict[tuple[str, str], dict[str, list[WindowRow]]]  # (split, label) -> scene -> windows


def _by_scene(rows: Iterable[WindowRow]) -> Pool:
    pool: Pool = {}
    for row in rows:
        label = row.answer()
        if label is not None and not row.weak and row.vectors:
            pool.setdefault((row.split, label), {}).setdefault(row.scene, []).append(row)
    return pool


def _some(
    pools: Sequence[Pool], split: str, label: str, count: int, chance: np.random.Generator
) -> list[WindowRow]:
    """Returns the middle window of each scene; the scenes of the pools alternate."""
    orders = []
    for pool in pools:
        scenes = pool.get((split, label), {})
        names = sorted(scenes)
        orders.append([scenes[names[i]] for i in chance.permutation(len(names))])
    turns = chain.from_iterable(zip_longest(*orders))
    return [windows[len(windows) // 2] for windows in turns if windows][:count]


def read(head: Path) -> list[WindowRow]:
    """Returns the windows shipped with a head, none without the file; raises as `dataset.read`."""
    file = head / REHEARSAL_FILE
    return dataset.read([file]) if file.exists() else []
