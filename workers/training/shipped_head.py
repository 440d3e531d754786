"""`make head`: from a folder of clips to a fusion head, its card and its report.

    python -m workers.training.shipped_head MEDIA --out build/head --ship models/fusion/shipped

It composes scenes, runs them through the daemon's own stages, and trains on the windows. The head
is evaluated on clips and texts that are not in its training data. There are three videos, one per
site, so every figure of the tables comes from networks that never saw the video they are tested on:
for each video one network is trained without it (leave one out), and the results are pooled. The
shipped head has seen all three videos, and its own row says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.fusion.labels import SPLITS
from models.fusion.learned_head import LearnedHead
from models.training import dataset, export_head, fit, metrics, rehearsal, report
from models.training.batches import WindowArrays
from models.training.fit import FitSettings, Trained
from models.training.metrics import Scored, Truth
from workers.replay.scene_file import load_scene
from workers.runtime.process_pool import pool
from workers.training import clip_augmentation, corruptions, feature_extraction
from workers.training.compose import compose
from workers.training.datasets import encoded
from workers.training.ground_truth import truth

NAME, VERSION = "fusewatch-fusion", "2"
SCENES, SEED = 160, 7
EPOCHS = 16  # with clips, which make seven times as many windows
MAX_ALARMS_AN_HOUR = 0.25  # false alarms per hour of continuous normal sounds
TOUCHED = {"seen": ("vision",), "heard": ("sound", "speech")}
MAIN_HEAD = "concat VAT"  # the shipped kind: it had the better validation AP
SUBSETS = ("V", "A", "T", "VA", "VT", "AT", "VAT")
NO_BEHAVIOURS = "concat, never shown behaviours"
POSELESS = "no poses"  # a condition: the cameras have no poses
SESA = ("gunshot", "explosion", "siren", "")


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of all data sets, and the truths of each scene."""

    scenes: Sequence[dataset.WindowRow]  # without corruption
    spoilt: Mapping[str, Sequence[dataset.WindowRow]]  # kind -> the corrupted test scenes
    clips: Sequence[dataset.WindowRow]
    truths: Mapping[str, Sequence[Truth]]


def gather(media: Path, out: Path, scenes: int, seed: int, say: Callable[[str], None]) -> Data:
    """Composes and encodes scenes and clips, stores the rows below `out`. Raises ConfigError."""
    folder = out / "scenes"
    compose(media, folder, scenes=scenes, seed=seed)
    files = {split: sorted((folder / split).glob("*.yaml")) for split in SPLITS}
    plain = [
        feature_extraction.ExtractionJob(scene=str(f), split=s)
        for s, found in files.items()
        for f in found
    ]
    wrong = {
        kind: [
            feature_extraction.ExtractionJob(
                scene=str(f), split="test", spoil=kind, only=corruptions.TOUCHES.get(kind, "")
            )
            for f in files["test"]
        ]
        for kind in corruptions.CORRUPTIONS
    }
    every = {"scenes": plain, **wrong}
    jobs = [job for some in every.values() for job in some]
    made = iter(encoded(folder / "config.yaml", jobs, "scenes"))
    kept: dict[str, list[dataset.WindowRow]] = {}
    for name, some in every.items():
        rows = [row for _ in some for row in next(made)]
        kept[name] = _whole(name, rows, kept.get("scenes", []))
        dataset.write(out / f"rows/{name}.jsonl", kept[name])
    heard = encoded(Path(), list(clip_augmentation.jobs(media, seed)), "clips")
    clips = [row for rows in heard for row in rows]
    dataset.write(out / "rows/clips.jsonl", clips)
    say(f"{len(kept['scenes'])} windows of {scenes} scenes, {len(clips)} of clips")
    truths = {
        file.stem: [Truth(*span) for span in truth(load_scene(file))]
        for found in files.values()
        for file in found
    }
    return Data(
        scenes=kept["scenes"],
        spoilt={kind: kept[kind] for kind in corruptions.CORRUPTIONS},
        clips=clips,
        truths=truths,
    )


def _whole(
    kind: str, rows: Sequence[dataset.WindowRow], clean: Sequence[dataset.WindowRow]
) -> list[dataset.WindowRow]:
    """Completes windows with only the corrupted modalities encoded, from the clean windows."""
    touched = TOUCHED.get(corruptions.TOUCHES.get(kind, ""))
    if touched is None:
        return list(rows)
    anew = {(row.scene, row.start): row for row in rows}
    whole = []
    for row in clean:
        other = anew.get((row.scene, row.start))
        if other is None:
            continue
        vectors = {m: v for m, v in row.vectors.items() if m not in touched}
        vectors |= {m: v for m, v in other.vectors.items() if m in touched}
        states = {m: (other if m in touched else row).states[m] for m in row.states}
        whole.append(msgspec.structs.replace(row, vectors=vectors, states=states))
    return whole


Folds = dict[str, list[tuple[str, Trained]]]  # name of a head -> (video it never saw, trained)


class Fold(msgspec.Struct, frozen=True, kw_only=True):
    """One training: a kind of head without one video; "" is the shipped head."""

    name: str
    settings: FitSettings
    video: str = ""


def folds(given: Data, say: Callable[[str], None], seed: int) -> tuple[Folds, Trained]:
    """Trains each kind of head without each video, and the shipped head on all; one core each.

    Networks this small gain nothing from a second core.
    """
    kinds = {
        "concat": FitSettings(seed=seed, epochs=EPOCHS),
        "attention": FitSettings(seed=seed, epochs=EPOCHS, network="attention", members=1),
        NO_BEHAVIOURS: FitSettings(seed=seed, epochs=EPOCHS, poseless=1.0),
        "only A": FitSettings(seed=seed, epochs=EPOCHS, modalities="A"),
        **{f"only {letter}": FitSettings(seed=seed, modalities=letter) for letter in "VT"},
    }
    videos = sorted({row.camera for row in given.scenes if row.camera})
    wanted = [Fold(name=MAIN_HEAD, settings=kinds["concat"])]
    wanted += [
        Fold(name=name, settings=settings, video=video)
        for name, settings in kinds.items()
        for video in videos
    ]
    made: list[Trained] = []
    with pool(_alone, given.scenes, given.clips) as workers:
        for fold, trained in zip(wanted, workers.map(_trained, wanted), strict=True):
            say(
                f"without {fold.video or 'none'}, {fold.name}: AP {trained.ap:.3f} on validation, "
                f"{trained.epochs} epochs"
            )
            made.append(trained)
    by_kind: Folds = {name: [] for name in kinds}
    for fold, trained in zip(wanted[1:], made[1:], strict=True):
        by_kind[fold.name].append((fold.video, trained))
    return by_kind, made[0]


_rows: list[Sequence[dataset.WindowRow]] = []  # of this process: the scenes and the clips


def _alone(scenes: Sequence[dataset.WindowRow], clips: Sequence[dataset.WindowRow]) -> None:
    fit.use_one_thread()
    _rows[:] = [scenes, clips]


def _trained(fold: Fold) -> Trained:
    scenes, clips = _rows
    known = [row for row in scenes if not fold.video or row.camera != fold.video]
    if "A" in fold.settings.modalities:
        known += [
            row for row in clips if row.split != "train" or not clip_augmentation.doubtful(row)
        ]
    parts = {
        split: WindowArrays([r for r in known if r.split == split]) for split in ("train", "val")
    }
    return fit.fit(parts["train"], parts["val"], fold.settings)


def pooled(
    heads: Sequence[tuple[str, Trained]], rows: Sequence[dataset.WindowRow], modalities: str
) -> Scored:
    """Scores each test window with the network that never saw its video."""
    parts = []
    for video, trained in heads:
        own = [row for row in rows if row.split == "test" and row.camera == video]
        parts.append(fit.scored(trained, WindowArrays(own), modalities))
    return Scored(
        scene=[name for part in parts for name in part.scene],
        kind=[name for part in parts for name in part.kind],
        **{
            field: np.concatenate([getattr(part, field) for part in parts])
            for field in ("start_ns", "end_ns", "score", "classes", "anomaly", "label")
        },
    )


def table(
    made: Folds, given: Data, threshold: float
) -> tuple[list[metrics.TableRow], dict[str, Scored]]:
    """Returns every row of the report, and the scores behind some of them."""
    rows: list[metrics.TableRow] = []
    curves: dict[str, Scored] = {}
    poseless = [corruptions.without_behaviours(row) for row in given.scenes if row.split == "test"]
    conditions = {"clean": given.scenes, POSELESS: poseless, **given.spoilt}

    def add(name: str, modalities: str, condition: str, keep: str = "") -> None:
        answers = pooled(made[name], conditions[condition], modalities)
        measured = metrics.measure(answers, given.truths, threshold)
        shown = name if not name.startswith("only") else "one modality alone"
        rows.append(metrics.TableRow(shown, modalities, condition, measured))
        if keep:
            curves[keep] = answers

    for condition in conditions:
        for subset in SUBSETS:
            keep = MAIN_HEAD if condition == "clean" and subset == "VAT" else ""
            add("concat", subset, condition, keep)
        add("attention", "VAT", condition, "attention VAT" if condition == "clean" else "")
        add(NO_BEHAVIOURS, "VAT", condition)
        for letter in "VAT":
            keep = f"only {letter}" if condition == "clean" else ""
            add(f"only {letter}", letter, condition, keep)
    return rows, curves


def clips_right(head: LearnedHead, rows: Sequence[dataset.WindowRow]) -> tuple[float, np.ndarray]:
    """Returns the accuracy on held-out SESA clips from sound alone, and the confusion counts.

    The classes are gunshot, explosion, siren and casual; rows are the truth.
    """
    counts = np.zeros((len(SESA), len(SESA)), int)
    by_clip: dict[str, list[dataset.WindowRow]] = {}
    for row in rows:
        if row.split == "test" and "sesa_train" in row.scene:
            by_clip.setdefault(row.scene, []).append(row)
    for name, windows in by_clip.items():
        wanted = Path(name).name.split("_")[0]
        said = head.heard([row.tokens() for row in windows], SESA[:-1])
        counts[SESA.index("" if wanted == "casual" else wanted), SESA.index(said)] += 1
    return float(np.trace(counts) / max(counts.sum(), 1)), counts


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the head; its last output line names the report."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("media", type=Path)
    ask.add_argument("--out", type=Path, default=Path("build/head"))
    ask.add_argument("--ship", type=Path, help="where the head goes; default OUT/head")
    ask.add_argument("--scenes", type=int, default=SCENES)
    ask.add_argument("--seed", type=int, default=SEED)
    ask.add_argument("--reuse", action="store_true", help="the rows that an earlier run made")
    asked = ask.parse_args(argv)
    began = time.monotonic()
    fit.use_one_thread()
    ship = asked.ship or asked.out / "head"
    given = _held(asked.out) if asked.reuse else gather(
        asked.media, asked.out, asked.scenes, asked.seed, _say
    )  # fmt: skip
    _say(f"{time.monotonic() - began:.0f} s until here")
    made, final = folds(given, _say, asked.seed)
    _say(f"{time.monotonic() - began:.0f} s until here")
    val = WindowArrays([r for r in (*given.scenes, *given.clips) if r.split == "val"])
    threshold = fit.chosen_threshold(final, val, _spans(given), MAX_ALARMS_AN_HOUR)
    rows, curves = table(made, given, threshold)
    test = WindowArrays([row for row in given.scenes if row.split == "test"])
    own = fit.scored(final, test)
    measured = metrics.measure(own, given.truths, threshold)
    rows.append(metrics.TableRow("shipped (knows the videos)", "VAT", "clean", measured))
    config = _hash(asked.scenes, final.settings, asked.out / "scenes/compose.json")
    about = _about(asked, rows, final, threshold)
    card = export_head.write_head(
        ship, final, name=NAME, version=VERSION, threshold=threshold, per_hour=MAX_ALARMS_AN_HOUR,
        config=config, about=about,
    )  # fmt: skip
    heard = [row for row in given.clips if not clip_augmentation.doubtful(row)]
    kept = rehearsal.select_windows([given.scenes, heard], asked.seed)
    dataset.write(ship / rehearsal.REHEARSAL_FILE, kept)
    right, counts = clips_right(LearnedHead.read(ship), given.clips)
    about["sesa_held_out_accuracy"] = round(right, 3)
    card = msgspec.structs.replace(card, about=about)
    export_head.write_card(ship, card)
    _tell(rows, right, counts)
    report.write(
        asked.out / "report.html", title=f"Fusion head {NAME} {VERSION}", card=_flat(card),
        rows=rows, curves=curves, main=curves[MAIN_HEAD], truths=given.truths,
        threshold=threshold, notes=_notes(right, counts),
    )  # fmt: skip
    _say(f"{time.monotonic() - began:.0f} s in all; the head is in {ship}")
    _say(f"report: {asked.out / 'report.html'}")
    return 0


def _held(out: Path) -> Data:
    kept = {
        name: dataset.read([out / f"rows/{name}.jsonl"])
        for name in ("scenes", "clips", *corruptions.CORRUPTIONS)
    }
    files = (out / "scenes").glob("*/*.yaml")
    return Data(
        scenes=kept["scenes"],
        spoilt={kind: kept[kind] for kind in corruptions.CORRUPTIONS},
        clips=kept["clips"],
        truths={f.stem: [Truth(*span) for span in truth(load_scene(f))] for f in files},
    )


def _spans(given: Data) -> dict[str, Sequence[Truth]]:
    """Returns the truths of scenes and of clips."""
    spans: dict[str, Sequence[Truth]] = dict(given.truths)
    for row in given.clips:
        if row.truth:
            spans[row.scene] = [*spans.get(row.scene, ()), Truth(row.start, row.end, row.truth)]
    return spans


def _hash(scenes: int, settings: FitSettings, composed: Path) -> str:
    text = f"{scenes} {settings} {composed.read_text()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _about(
    asked: argparse.Namespace, rows: Sequence[metrics.TableRow], final: Trained, threshold: float
) -> dict[str, object]:
    chosen = {(r.name, r.modalities, r.condition): r.metrics for r in rows}
    main = chosen["concat", "VAT", "clean"]
    return {
        "purpose": "raises the score of a window from sound, picture and words together",
        "data": f"{asked.scenes} composed scenes (seed {asked.seed}), single clips; not recorded",
        "clips": "models/training/media.tsv names each with its licence and split",
        "videos": "three, one a site: vision is judged by leaving each out in turn",
        "vision": "counts, speeds, zones, quality, postures and limbs; no picture is learned",
        "behaviours": "no clip shows a fall or a fight; half of the windows were learned without "
        "poses",
        "validation_ap": round(final.ap, 3),
        "epochs": final.epochs,
        "settings": msgspec.to_builtins(final.settings),
        "held_out": {
            "threshold": threshold,
            **{
                key: round(float(getattr(main, key)), 3)
                for key in ("ap", "auc", "f1", "event_recall", "false_alarms_per_hour", "ece")
            },
            "ap_no_poses": round(chosen["concat", "VAT", POSELESS].ap, 3),
            "ap_never_shown_behaviours": round(chosen[NO_BEHAVIOURS, "VAT", "clean"].ap, 3),
        },
    }


def _notes(right: float, counts: np.ndarray) -> list[str]:
    names = ", ".join(label or "casual" for label in SESA)
    return [
        "Scenes are composited from clips, not recorded. No clip or text of training is met here.",
        "There are three videos: each window is judged by networks that never saw its video.",
        f"Held-out SESA clips told right from sound alone: {right:.3f}; counts by truth, in the "
        f"order {names}: {counts.tolist()}",
    ]


def _tell(rows: Sequence[metrics.TableRow], right: float, counts: np.ndarray) -> None:
    _say(f"{'head':28}{'given':7}{'':9}{'AP':>6}{'AUC':>7}{'F1':>7}{'recall':>8}{'false/h':>9}"
         f"{'detect':>8}")  # fmt: skip
    for row in rows:
        m = row.metrics
        _say(
            f"{row.name:28}{row.modalities:7}{row.condition:9}{m.ap:6.3f}{m.auc:7.3f}{m.f1:7.3f}"
            f"{m.event_recall:8.3f}{m.false_alarms_per_hour:9.1f}{m.detect_median_s:7.1f}s"
        )
    _say(f"held-out SESA clips from sound alone: accuracy {right:.3f} of {int(counts.sum())}")


def _flat(card: object) -> dict[str, object]:
    built = msgspec.to_builtins(card)
    about = built.pop("about")
    return {**built, **{k: json.dumps(v) if isinstance(v, dict) else v for k, v in about.items()}}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
