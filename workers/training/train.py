"""`fusewatch train`: trains a head on windows of scenes or of reviewed alerts.

`workers/training/datasets.py` makes both, `workers/training/evaluate.py` measures the result. Needs
the extra `train`.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import Progress

from models.fusion.learned_head import LearnedHead, folder_of
from models.training import dataset, export_head, rehearsal
from models.training.batches import WindowArrays, truths_of
from models.training.fit import FitSettings, Trained, chosen_threshold, fit, forward, use_one_thread
from pipeline.errors import ConfigError

log = logging.getLogger("fusewatch")

SEEDS = 2**32
MAX_SCALE = 4.0  # limit of the change of a base's temperature, as a factor


def train(  # noqa: PLR0913 - the options of the command
    files: Sequence[Path],
    out: Path,
    *,
    base: str,
    network: str,
    seed: int,
    epochs: int,
    per_hour: float,
    device: str,
    name: str,
) -> dict[str, object]:
    """Trains a head on files of windows, writes it to `out`, and returns a summary.

    With a `base` it fine-tunes that head: the threshold stays, and its weights and the windows that
    it ships with keep the new head close to it. Raises ConfigError with file and line for windows
    that cannot be used.
    """
    began = time.monotonic()
    _checked(epochs, seed, per_hour)
    if out.exists() and (
        not out.is_dir() or (base != "none" and out.resolve() == folder_of(base).resolve())
    ):
        msg = f"--out {out}: is a file, or the base itself: name a new folder"
        raise ConfigError(msg)
    rows = _undisputed([row for row in dataset.read(files) if row.answer() is not None])
    if not rows:
        msg = f"{files[0]}: no window has a truth or a verdict: review the alerts first"
        raise ConfigError(msg)
    rehearsed = [] if base == "none" else rehearsal.read(folder_of(base))
    if not rehearsed and len({bool(row.answer()) for row in rows}) == 1:
        kind, other = ("right", "wrong") if rows[0].answer() else ("wrong", "right")
        msg = (
            f"{files[0]}: every window is of a {kind} alert or span, and a head learns what tells "
            f"both apart: review {other} ones too, or add windows of scenes (fusewatch features)"
        )
        raise ConfigError(msg)
    learned, held = _split(rows, rehearsed)
    settings = FitSettings(network=network, seed=seed, epochs=epochs, device=device)
    known = None
    card = None
    if base != "none":
        known, card = export_head.load_base(folder_of(base))
        settings = msgspec.structs.replace(
            settings, network=card.network, members=card.members, rate=5e-4, near=0.02, decay=0.0
        )
    val = WindowArrays(held)
    use_one_thread()
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("epochs", total=epochs)
        trained = fit(
            WindowArrays(learned),
            val,
            settings,
            folder=out,
            base=known,
            told=lambda done, _, ap: progress.update(task, completed=done),
        )
    if known is not None and card is not None:
        warmth = _as_sure(trained, known, card.temperature, rehearsed)
        trained = msgspec.structs.replace(trained, temperature=warmth)
        threshold, per_hour = card.threshold, card.per_hour
    else:
        threshold = chosen_threshold(trained, val, truths_of(held), per_hour)
    made_of = _hash(files, settings, card.sha256 if card else "")
    made = export_head.write_head(
        out,
        trained,
        name=name,
        version=made_of[:8],
        threshold=threshold,
        per_hour=per_hour,
        config=made_of,
        about={
            "data": [file.name for file in files],
            "windows": len(learned),
            "base": base if card is None else f"{base}: {card.name} {card.version}",
            "validation_ap": round(trained.ap, 3),
            "epochs": trained.epochs,
            "settings": msgspec.to_builtins(settings),
        },
    )
    if rehearsed:
        shutil.copyfile(folder_of(base) / rehearsal.REHEARSAL_FILE, out / rehearsal.REHEARSAL_FILE)
    return {
        "head": str(out),
        "version": LearnedHead.read(out).version,
        **_agreement(rows, folder_of(base) if card else None, out),
        "windows": len(learned),
        "validation": len(held),
        "validation_ap": round(trained.ap, 3),
        "threshold": made.threshold,
        "seconds": round(time.monotonic() - began, 1),
    }


def _split(
    rows: Sequence[dataset.WindowRow], rehearsed: Sequence[dataset.WindowRow]
) -> tuple[list[dataset.WindowRow], list[dataset.WindowRow]]:
    """Returns windows for training and for early stopping.

    They are the splits of the file, otherwise every fourth alert; and the base's rehearsal windows.
    If a part would lack right or wrong alerts, both parts get all alerts: the stopping is then less
    reliable, but the base keeps the head close.
    """
    learned = [row for row in rows if row.split == "train"]
    held = [row for row in rows if row.split == "val"]
    known = [[row for row in rehearsed if row.split == split] for split in ("train", "val")]
    if not held and any(row.alert for row in rows):
        names = sorted({row.scene for row in learned})
        for_val = set(names[::4])
        parts = [[r for r in learned if (r.scene in for_val) == later] for later in (False, True)]
        both = all(
            part and {bool(row.answer()) for row in (*part, *more)} == {True, False}
            for part, more in zip(parts, known, strict=True)
        )
        if not both:
            log.warning(
                "too few alerts to hold some back: validation_ap is of what it learned from"
            )
        learned, held = parts if both else (learned, learned)
    # Without own validation windows, the rehearsal windows alone must not stop the training
    return [*learned, *known[0]], [*held, *known[1]] if held else []


def _agreement(rows: Sequence[dataset.WindowRow], base: Path | None, made: Path) -> dict[str, int]:
    """Returns the number of reviewed alerts, and the matches of the base and the new head."""
    verdicts = {row.scene: bool(row.verdict) for row in rows if row.alert}
    if not verdicts or base is None:
        return {}
    told = {"alerts": len(verdicts)}
    for name, folder in (("agrees_before", base), ("agrees_after", made)):
        head = LearnedHead.read(folder)
        found = {
            row.scene
            for row in rows
            if row.alert and head.probabilities(row.tokens())[0] >= head.threshold
        }
        told[name] = sum((scene in found) == right for scene, right in verdicts.items())
    if told["agrees_after"] < told["agrees_before"]:
        log.warning(
            "it agrees with fewer verdicts than its base did: keep the base, or review more"
        )
    return told


def _checked(epochs: int, seed: int, per_hour: float) -> None:
    """Raises ConfigError for wrong options, before the work."""
    if epochs < 1:
        msg = f"--epochs {epochs}: a head learns nothing in less than one"
        raise ConfigError(msg)
    if not 0 <= seed < SEEDS:
        msg = f"--seed {seed}: a whole number from 0 to {SEEDS - 1}, please"
        raise ConfigError(msg)
    if not 0 < per_hour < math.inf:
        msg = f"--per-hour {per_hour}: false alarms an hour, more than 0, please"
        raise ConfigError(msg)


def _undisputed(rows: Sequence[dataset.WindowRow]) -> list[dataset.WindowRow]:
    """Keeps each window of a site's alerts once.

    Consecutive alerts share windows. A window of both a right and a wrong alert is dropped: it
    teaches nothing.
    """

    def window_of(row: dataset.WindowRow) -> object:
        return row.site, row.start, row.end, tuple(sorted(row.vectors.items()))

    answers: dict[object, set[bool]] = {}
    for row in rows:
        if row.alert:
            answers.setdefault(window_of(row), set()).add(bool(row.answer()))
    left, seen = [], set()
    for row in rows:
        window = window_of(row)
        if row.alert:
            if len(answers[window]) > 1 or window in seen:
                continue
            seen.add(window)
        left.append(row)
    return left


def _as_sure(
    trained: Trained, base: Any, temperature: float, rehearsed: Sequence[dataset.WindowRow]
) -> float:
    """Returns the temperature at which the new head is as sure as the base on its windows.

    Training changes the scale of all log odds, but the base's threshold stays in use. The scale is
    fitted by least squares over the rehearsal windows. Without any, it is the base's temperature.
    """
    if not rehearsed:
        return temperature
    inputs = WindowArrays(rehearsed).inputs
    was, is_ = (forward(network, inputs)[0] for network in (base, trained.network))
    scale = float((is_ @ was) / (is_ @ is_))
    return temperature / min(max(scale, 1 / MAX_SCALE), MAX_SCALE)


def _hash(files: Sequence[Path], settings: Any, base: str) -> str:
    digest = hashlib.sha256(msgspec.json.encode(settings) + base.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
