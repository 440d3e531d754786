"""The fights of `benchmarks.behaviour`: nested folds over source videos."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.clips import CAMERA, observed, wilson
from models.behaviour import fight_head
from models.behaviour.fight_head import PENALTIES, FightHead, fitted, squeezed
from pipeline.behaviour.fights import Crowd, Row, fight_score
from pipeline.behaviour.persons import Persons
from pipeline.config.schema import Detect
from pipeline.types import SECOND, Detections
from workers.stages.camera_tracks import CameraTracks
from workers.stages.encoders import Encoders

OUTER, INNER = 10, 5  # folds
DRAWS = 2000  # of the bootstrap
SHIFTS = np.linspace(-3, 3, 61)  # of the operating point, in logarithms of the odds


class FightClip(NamedTuple):
    """A clip: the rows of its persons, frame by frame."""

    fight: bool
    source: str
    frames: Sequence[Sequence[Row]]


def fights(folder: Path, encoders: Encoders, *, write: bool) -> None:
    """Prints how well fights are told from ordinary scenes."""
    clips = []
    for line in csv.DictReader((folder / "sources.csv").read_text().splitlines()):
        seen = observed(folder / line["clip"], encoders)
        clips.append(FightClip(line["fight"] == "1", line["source"], list(rows_of(seen))))
    measured(clips, write=write)


def measured(clips: Sequence[FightClip], *, write: bool) -> None:
    """Prints the figures of nested folds."""
    truth = np.array([clip.fight for clip in clips])
    scores = np.zeros(len(clips))
    for fold in folds([clip.source for clip in clips], OUTER, seed=0):
        head = trained([clip for n, clip in enumerate(clips) if n not in fold])
        for n in fold:
            scores[n] = score(head, clips[n])
    right = (scores >= 0.5) == truth
    sources = sorted({clip.source for clip in clips})
    by_source = {s: [n for n, clip in enumerate(clips) if clip.source == s] for s in sources}
    dice = np.random.default_rng(0)
    drawn = [
        np.concatenate(
            [by_source[sources[k]] for k in dice.integers(0, len(sources), len(sources))]
        )
        for _ in range(DRAWS)
    ]
    accuracy = np.quantile([right[some].mean() for some in drawn], (0.025, 0.975))
    areas = [auc(truth[some], scores[some]) for some in drawn if 0 < truth[some].mean() < 1]
    area = np.quantile(areas, (0.025, 0.975))
    told, false = int((right & truth).sum()), int((~right & ~truth).sum())
    figures = (
        f"accuracy {right.mean():.3f} ({accuracy[0]:.2f} to {accuracy[1]:.2f}), "
        f"AUC {auc(truth, scores):.3f} ({area[0]:.2f} to {area[1]:.2f})"
    )
    print(f"fights, {len(clips)} clips of {len(sources)} source videos: {figures}")
    print(f"fights told: {told} of {truth.sum()} ({wilson(told, int(truth.sum()))})")
    rest = int((~truth).sum())
    print(f"ordinary clips told: {false} of {rest} ({wilson(false, rest)})")
    if write:
        head = msgspec.structs.replace(
            trained(clips),
            data=f"{len(clips)} clips of surveillance cameras (Akti 2019), MIT for the compilation",
            figures=figures,
        )
        file = Path(fight_head.__file__).parent / fight_head.SHIPPED
        file.write_bytes(msgspec.json.format(msgspec.json.encode(head), indent=1) + b"\n")
        print(f"{file} written")


def rows_of(seen: Sequence[Detections]) -> Iterator[list[Row]]:
    """The rows of the persons of each frame."""
    tracks = CameraTracks({CAMERA: Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    persons, crowd = Persons(), Crowd()
    for record in seen:
        frame = tracks.see(record)
        if frame is not None:
            known = persons.see(frame)
            if not frame.gated:
                crowd.see(known, frame.aspect, frame.start)
                yield [row for row, _ in crowd.rows()]


def score(head: FightHead, clip: FightClip) -> float:
    """The highest score of a frame, as a rule would see it; -1 where no frame has a score."""
    return max((fight_score(head(rows)) for rows in clip.frames if rows), default=-1.0)


def trained(clips: Sequence[FightClip]) -> FightHead:
    """The head with the best penalty and operating point, by folds over the source videos."""
    truth = np.array([clip.fight for clip in clips])
    choices = []
    for penalty in PENALTIES:
        margins: list[list[np.ndarray]] = [[] for _ in clips]
        for fold in folds([clip.source for clip in clips], INNER, seed=1):
            head = _fit([clip for n, clip in enumerate(clips) if n not in fold], penalty)
            for n in fold:
                margins[n] = [head.margin(rows) for rows in clips[n].frames if rows]
        for shift in SHIFTS:
            scores = np.array([_shifted(of, shift) for of in margins])
            good = ((scores >= 0.5) == truth).mean()
            choices.append((auc(truth, scores) + good, -abs(shift), penalty, shift))
    _, _, penalty, shift = max(choices)
    head = _fit(clips, penalty)
    return msgspec.structs.replace(head, bias=round(head.bias - float(shift), 6))


def _shifted(frames: Sequence[np.ndarray], shift: float) -> float:
    likely = (1 / (1 + np.exp(shift - margin)) for margin in frames)
    return max((fight_score(each.tolist()) for each in likely), default=-1.0)


def _fit(clips: Sequence[FightClip], penalty: float) -> FightHead:
    rows, truth, shares = [], [], []
    for clip in clips:
        mine = [row for frame in clip.frames for row in frame]
        rows += mine
        truth += [clip.fight] * len(mine)
        shares += [3 / max(len(mine), 1)] * len(mine)  # each clip has the same weight
    return fitted(squeezed(rows), np.array(truth, float), np.array(shares), penalty)


def folds(sources: Sequence[str], count: int, seed: int) -> list[set[int]]:
    """Divides clips into folds of about one size; all clips of a source are in one fold."""
    names = sorted(set(sources))
    np.random.default_rng(seed).shuffle(names)
    made: list[set[int]] = [set() for _ in range(count)]
    for name in sorted(names, key=lambda name: -sources.count(name)):
        min(made, key=len).update(n for n, source in enumerate(sources) if source == name)
    return [fold for fold in made if fold]


def auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve: the share of pairs in the right order."""
    ours, rest = scores[truth], scores[~truth]
    wins = (ours[:, None] > rest).mean() + (ours[:, None] == rest).mean() / 2
    return float(wins)
