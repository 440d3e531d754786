"""`fusewatch train | evaluate`: teaching a head, and saying what it is worth.

`train` learns from windows of scenes or of reviewed alerts (`workers/windows.py` makes both);
`evaluate` judges a head on either, on scenes, or on single clips of sound. Both need the extra
`train`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.progress import Progress

from models.fusion import data, metrics, rehearsal, shipping
from models.fusion import report as page
from models.fusion import train as learning
from models.fusion.labels import LABELS
from models.fusion.learned import SHIPPED, Learned
from models.fusion.matrix import Windows
from models.fusion.metrics import Scored, Truth
from pipeline.errors import ConfigError
from workers import clipmanifest, examples
from workers.scenefile import load_scene
from workers.truth import truth
from workers.windows import encoded, playable

log = logging.getLogger("fusewatch")

SEEDS = 2**32
SCALE = 4.0  # times a base's temperature, at most
SOUNDS = {".wav", ".flac", ".ogg", ".mp3"}


def folder_of(head: str) -> Path:
    """Where a head is: `shipped`, or a folder."""
    return SHIPPED if head == "shipped" else Path(head)


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
    """Train a head from files of windows, and write it to `out`; what to tell of it.

    With a `base` it is trained on: that head's threshold stays, and it is held near to what it
    knew, by its weights and by the windows that it is shipped with. Raises ConfigError with file
    and line for windows that cannot be learned from.
    """
    began = time.monotonic()
    _checked(epochs, seed, per_hour)
    if out.exists() and (not out.is_dir() or (base != "none" and out.samefile(folder_of(base)))):
        msg = f"--out {out}: is a file, or the base itself: name a new folder"
        raise ConfigError(msg)
    rows = _undisputed([row for row in data.read(files) if row.answer() is not None])
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
    settings = learning.Settings(network=network, seed=seed, epochs=epochs, device=device)
    known = None
    card = None
    if base != "none":
        known, card = shipping.base_of(folder_of(base))
        settings = msgspec.structs.replace(
            settings, network=card.network, members=card.members, rate=5e-4, near=0.02, decay=0.0
        )
    val = Windows(held)
    learning.single()
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("epochs", total=epochs)
        trained = learning.fit(
            Windows(learned),
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
        threshold = learning.chosen_threshold(trained, val, _truths(held), per_hour)
    made_of = _hash(files, settings, card.sha256 if card else "")
    made = shipping.ship(
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
        shutil.copyfile(folder_of(base) / rehearsal.FILE, out / rehearsal.FILE)
    return {
        "head": str(out),
        "version": Learned.read(out).version,
        **_agreement(rows, folder_of(base) if card else None, out),
        "windows": len(learned),
        "validation": len(held),
        "validation_ap": round(trained.ap, 3),
        "threshold": made.threshold,
        "seconds": round(time.monotonic() - began, 1),
    }


def _split(
    rows: Sequence[data.Row], rehearsed: Sequence[data.Row]
) -> tuple[list[data.Row], list[data.Row]]:
    """Windows to learn from and to stop by: the splits of the file, else every fourth alert; and
    those that the base is rehearsed with.

    Where a part would lack right or wrong ones, all alerts are in both: better than nothing to stop
    by, and the base holds the head near.
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
    # Without windows of its own to stop by, a training would be stopped by those of elsewhere
    return [*learned, *known[0]], [*held, *known[1]] if held else []


def _agreement(rows: Sequence[data.Row], base: Path | None, made: Path) -> dict[str, int]:
    """Of how many reviewed alerts the base, and what was made of it, say what the person said."""
    verdicts = {row.scene: bool(row.verdict) for row in rows if row.alert}
    if not verdicts or base is None:
        return {}
    told = {"alerts": len(verdicts)}
    for name, folder in (("agrees_before", base), ("agrees_after", made)):
        head = Learned.read(folder)
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
    """Raise ConfigError for what is wrong of the options, before the work."""
    if epochs < 1:
        msg = f"--epochs {epochs}: a head learns nothing in less than one"
        raise ConfigError(msg)
    if not 0 <= seed < SEEDS:
        msg = f"--seed {seed}: a whole number from 0 to {SEEDS - 1}, please"
        raise ConfigError(msg)
    if not 0 < per_hour < math.inf:
        msg = f"--per-hour {per_hour}: false alarms an hour, more than 0, please"
        raise ConfigError(msg)


def _undisputed(rows: Sequence[data.Row]) -> list[data.Row]:
    """Each window of a site's alerts once: where one alert follows on another, windows are in both,
    and of one that was right and one that was wrong they teach nothing."""

    def window_of(row: data.Row) -> object:
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
    trained: learning.Trained, base: Any, temperature: float, rehearsed: Sequence[data.Row]
) -> float:
    """The temperature by which the new head is as sure of what the base knew as the base was.

    Training moves the scale of all log odds, and the base's threshold goes on to count: by least
    squares over the windows that are rehearsed. Without any it is the base's.
    """
    if not rehearsed:
        return temperature
    inputs = Windows(rehearsed).inputs
    was, is_ = (learning.forward(network, inputs)[0] for network in (base, trained.network))
    scale = float((is_ @ was) / (is_ @ is_))
    return temperature / min(max(scale, 1 / SCALE), SCALE)


def _hash(files: Sequence[Path], settings: Any, base: str) -> str:
    digest = hashlib.sha256(msgspec.json.encode(settings) + base.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _truths(rows: Sequence[data.Row]) -> dict[str, list[Truth]]:
    """What happened in each scene, as far as its windows say: for files without scenes."""
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


def evaluate(
    inputs: Sequence[Path], head: str, config: Path | None, report: Path | None
) -> dict[str, object]:
    """Judge a head on files of windows (.jsonl) or on scenes (.yaml, by `config`)."""
    learned = Learned.read(folder_of(head))
    files, scenes = windows_and_scenes(inputs)
    if report is not None and (report.is_dir() or not report.parent.is_dir()):
        msg = f"--report {report}: an .html file in a folder that exists, please"
        raise ConfigError(msg)
    rows = data.read(files) if files else []
    truths: dict[str, list[Truth]] = _truths(rows)
    if scenes:
        if config is None:
            msg = f"{scenes[0]}: scenes are seen by a site's cameras: add --config CONFIG"
            raise ConfigError(msg)
        playable(config, scenes)
        told = {path: truth(load_scene(path)) for path in scenes}
        jobs = [examples.Job(scene=str(path)) for path in scenes]
        rows += [row for made in encoded(config, jobs) for row in made]
        truths |= {path.stem: [Truth(*s) for s in spans] for path, spans in told.items()}
    if not rows:
        msg = f"{inputs[0]}: holds no window"
        raise ConfigError(msg)
    try:
        answered = _answered(learned, rows)
        measured = metrics.measure(answered, truths, learned.threshold)
    except ValueError as error:
        msg = f"{inputs[0]}: {error}"
        raise ConfigError(msg) from error
    if report is not None:
        built = msgspec.to_builtins(learned.card)
        card = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in built.items()}
        page.write(
            report,
            title=f"Fusion head {learned.version}",
            card=card,
            rows=[metrics.Row(learned.version, "VAT", "as given", measured)],
            curves={learned.version: answered},
            main=answered,
            truths=truths,
            threshold=learned.threshold,
            notes=[f"Judged on {', '.join(path.name for path in inputs)}."],
        )
    figures = {name: getattr(measured, name) for name in measured.__dataclass_fields__}
    found = {name: None if np.isnan(value) else value for name, value in figures.items()}
    splits = sorted({row.split for row in rows})
    return {
        "head": learned.version,
        "threshold": learned.threshold,
        "split": ", ".join(splits),
        **found,
    }


def windows_and_scenes(inputs: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Files of windows, and scenes, by their endings; raises ConfigError for any other."""
    files = [path for path in inputs if path.name.lower().endswith((".jsonl", ".jsonl.gz"))]
    scenes = [path for path in inputs if path.suffix.lower() in (".yaml", ".yml")]
    other = [path for path in inputs if path not in files and path not in scenes]
    if other:
        msg = f"{other[0]}: is neither a file of windows (.jsonl) nor a scene (.yaml)"
        raise ConfigError(msg)
    return files, scenes


def _answered(learned: Learned, rows: Sequence[data.Row]) -> Scored:
    """What the head says to each window, just as in the daemon."""
    labels = [row.answer() for row in rows]
    verdicts = [learned.probabilities(row.tokens()) for row in rows]
    return Scored(
        scene=[row.scene for row in rows],
        start_ns=np.array([row.start for row in rows]),
        end_ns=np.array([row.end for row in rows]),
        score=np.array([score for score, _ in verdicts]),
        classes=np.array([classes for _, classes in verdicts], np.float64),
        anomaly=np.array([-1 if label is None else int(bool(label)) for label in labels]),
        label=np.array([LABELS.index(label) if label else -1 for label in labels]),
        kind=[row.site for row in rows],
    )


def evaluate_clips(folder: Path, head: str, manifest: Path | None) -> dict[str, object]:
    """What each sound file of a folder is told to be, from sound alone.

    The truth is the manifest's label, or the beginning of the file's name (`siren_004.flac`); what
    is named after no label is ordinary. Every file is heard by the daemon's own stages.
    """
    if not folder.is_dir():
        msg = f"--clips {folder}: there is no such folder"
        raise ConfigError(msg)
    labels = _labels(folder, manifest)
    if not labels:
        msg = f"{folder}: holds no sound ({', '.join(sorted(SOUNDS))})"
        raise ConfigError(msg)
    learned = Learned.read(folder_of(head))
    jobs = [examples.Job(scene="", clip=str(path), label=label) for path, label in labels.items()]
    counts: dict[str, dict[str, int]] = {}
    known = tuple(sorted({label for label in labels.values() if label}))
    right = 0
    for label, rows in zip(labels.values(), encoded(Path(), jobs), strict=True):
        said = learned.heard([row.tokens() for row in rows], known or LABELS)
        right += said == label
        row = counts.setdefault(label or "ordinary", {})
        row[said or "ordinary"] = row.get(said or "ordinary", 0) + 1
    return {
        "head": learned.version,
        "clips": len(labels),
        "accuracy": round(right / len(labels), 4),
        "told": counts,
    }


def _labels(folder: Path, manifest: Path | None) -> Mapping[Path, str]:
    if manifest is not None:
        read = clipmanifest.read(manifest, folder)
        return {folder / c.path: c.label for c in read.clips if c.kind == "sound"}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)
    names = {path: path.stem.split("_")[0].lower() for path in files}
    return {path: name if name in LABELS else "" for path, name in names.items()}
