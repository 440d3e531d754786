"""Windows that a head is shipped with, so that whoever trains it on does not make it forget
(experience replay: Rolnick et al., NeurIPS 2019): as many with each label as without any.
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
WINDOWS_A_LABEL = {"train": 12, "val": 6}  # windows of a label


def chosen(sources: Sequence[Iterable[WindowRow]], seed: int) -> list[WindowRow]:
    """Of each label as many windows as WINDOWS_A_LABEL says, of all scenes different ones, of the
    sources in turn; and as many ordinary ones as labelled ones, where there are. The same rows and
    seed give the same. Their scenes are named anew, without the folders that they lay in."""
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
    """One window of each scene, its middle one; the scenes of the pools take turns."""
    orders = []
    for pool in pools:
        scenes = pool.get((split, label), {})
        names = sorted(scenes)
        orders.append([scenes[names[i]] for i in chance.permutation(len(names))])
    turns = chain.from_iterable(zip_longest(*orders))
    return [windows[len(windows) // 2] for windows in turns if windows][:count]


def read(head: Path) -> list[WindowRow]:
    """What a head was shipped with; none where it has no such file. Raises as `data.read`."""
    file = head / REHEARSAL_FILE
    return dataset.read([file]) if file.exists() else []
