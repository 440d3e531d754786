"""`fusewatch evaluate`: measures a head on windows, scenes, or single sound clips.

Needs the extra `train`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.fusion.labels import LABELS
from models.fusion.learned_head import LearnedHead, folder_of
from models.training import dataset, metrics
from models.training import report as page
from models.training.batches import truths_of
from models.training.metrics import Scored, Truth
from pipeline.errors import ConfigError
from workers.replay.scene_file import load_scene
from workers.training import clip_manifest, feature_extraction
from workers.training.datasets import check_scenes, encoded
from workers.training.ground_truth import truth

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


def evaluate(
    inputs: Sequence[Path], head: str, config: Path | None, report: Path | None
) -> dict[str, object]:
    """Evaluates a head on files of windows (.jsonl) or on scenes (.yaml, which need `config`).

    Raises ConfigError.
    """
    learned = LearnedHead.read(folder_of(head))
    files, scenes = windows_and_scenes(inputs)
    if report is not None and (report.is_dir() or not report.parent.is_dir()):
        msg = f"--report {report}: an .html file in a folder that exists, please"
        raise ConfigError(msg)
    rows = dataset.read(files) if files else []
    truths: dict[str, list[Truth]] = truths_of(rows)
    if scenes:
        if config is None:
            msg = f"{scenes[0]}: scenes are seen by a site's cameras: add --config CONFIG"
            raise ConfigError(msg)
        check_scenes(config, scenes)
        told = {path: truth(load_scene(path)) for path in scenes}
        jobs = [feature_extraction.ExtractionJob(scene=str(path)) for path in scenes]
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
            rows=[metrics.TableRow(learned.version, "VAT", "as given", measured)],
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
    """Separates files of windows and scenes by their endings; raises ConfigError for others."""
    files = [path for path in inputs if path.name.lower().endswith((".jsonl", ".jsonl.gz"))]
    scenes = [path for path in inputs if path.suffix.lower() in (".yaml", ".yml")]
    other = [path for path in inputs if path not in files and path not in scenes]
    if other:
        msg = f"{other[0]}: is neither a file of windows (.jsonl) nor a scene (.yaml)"
        raise ConfigError(msg)
    return files, scenes


def _answered(learned: LearnedHead, rows: Sequence[dataset.WindowRow]) -> Scored:
    """Returns the head's scores for the windows, computed as in the daemon."""
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
    """Returns how a head classifies each sound file of a folder, from sound alone.

    The truth is the manifest's label, or the start of the file's name (`siren_004.flac`); a name
    without a label means normal. Every file runs through the daemon's own stages. Raises
    ConfigError.
    """
    if not folder.is_dir():
        msg = f"--clips {folder}: there is no such folder"
        raise ConfigError(msg)
    labels = _labels(folder, manifest)
    if not labels:
        msg = f"{folder}: holds no sound ({', '.join(sorted(SOUND_SUFFIXES))})"
        raise ConfigError(msg)
    learned = LearnedHead.read(folder_of(head))
    jobs = [
        feature_extraction.ExtractionJob(scene="", clip=str(path), label=label)
        for path, label in labels.items()
    ]
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
        read = clip_manifest.read(manifest, folder)
        return {folder / c.path: c.label for c in read.clips if c.kind == "sound"}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    names = {path: path.stem.split("_")[0].lower() for path in files}
    return {path: name if name in LABELS else "" for path, name in names.items()}
