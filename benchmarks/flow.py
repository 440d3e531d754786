"""Whether the motion of the picture tells fights: dense optical flow at 5 frames a second.

    python -m benchmarks.flow [MEDIA]

The pictures are those that a scene publishes, as the luma of 160 x 90 that the gate reads. Between
each two of the first two seconds, dense inverse search (Kroeger et al., ECCV 2016) gives the flow.
Its median is taken out, as that is the camera. A clip gives the numbers of `described`: how fast
and how abruptly the picture moves, where, and in how many directions.

A ridge logistic regression learns from them. Nested folds as in `benchmarks.behaviour`: the clips
of a tenth of the source videos are judged by a regression whose penalty and operating point were
chosen by folds over the other videos. No stage computes these numbers: this is a study.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.clips import CAMERA, CONFIG, SITE, START
from benchmarks.fights import DRAWS, INNER, OUTER, auc, folds
from models.behaviour.fight_head import fitted
from pipeline.types import SECOND, FrameChunk
from workers.media.jpeg import decoded
from workers.media.motion import COLUMNS, HEIGHT, ROWS, WIDTH, small_luma
from workers.replay.scene_records import load_scene, scene_records

SPAN = 2 * SECOND  # ns
MOVES = 0.3  # px of 160 between two pictures from which a pixel moves
BUSIEST = 8  # cells of the grid
PENALTIES = (3.0, 10.0, 30.0)
SHIFTS = np.linspace(-2, 2, 41)


def lumas(path: Path) -> list[np.ndarray]:
    """The small luma of the published pictures of two seconds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scene.yaml"
        file.write_text(
            f"site: {SITE}\nstart: {START}\ncameras:\n  {CAMERA}: {{file: '{path.resolve()}'}}\n"
        )
        scene = load_scene(file)
        frames = [r for _, r in scene_records(scene, CONFIG.sites[SITE]) if type(r) is FrameChunk]
    some = [frame for frame in frames if frame.start - frames[0].start <= SPAN]
    return [small_luma(decoded(frame.data, frame.width, frame.height)) for frame in some]


def described(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The numbers of a clip: of speed, its change, directions, and where it is."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.array([search.calc(a, b, None) for a, b in itertools.pairwise(pictures)])
    still = np.median(flow.reshape(len(flow), -1, 2), axis=1)[:, None, None]
    speed = np.linalg.norm(flow - still, axis=3)
    change = np.linalg.norm(np.diff(flow, axis=0), axis=3)
    moving = speed > MOVES
    angle = np.arctan2(flow[..., 1], flow[..., 0])
    turns = np.array(
        [
            np.histogram(a, 8, (-np.pi, np.pi), weights=s * m)[0]
            for a, s, m in zip(angle, speed, moving, strict=True)
        ]
    )
    across, down = flow[..., 0], flow[..., 1]
    spread = np.abs(np.gradient(across, axis=2) + np.gradient(down, axis=1))
    curl = np.abs(np.gradient(down, axis=2) - np.gradient(across, axis=1))
    swings = np.abs(np.diff(speed, axis=0))
    often = (swings > swings.mean((1, 2), keepdims=True)).mean(0)  # ViF (Hassner et al. 2012)
    busy, abrupt = _busiest(speed), _busiest(change)
    numbers = [
        *_levels(speed), *_levels(change), *_levels(spread), *_levels(curl),
        busy.mean(), busy.max(), busy.std(), abrupt.mean(), abrupt.max(), abrupt.std(),
        abrupt.mean() / (busy.mean() + 0.05), moving.mean(),
        _entropy(turns.sum(0)), np.mean([_entropy(one) for one in turns]),
        *np.histogram(often, 8, (0, 0.8))[0] / often.size,
    ]  # fmt: skip
    return np.log1p(np.array(numbers))


def _levels(values: np.ndarray) -> tuple[float, float, float]:
    high, highest = np.quantile(values, (0.9, 0.99))
    return float(values.mean()), float(high), float(highest)


def _busiest(values: np.ndarray) -> np.ndarray:
    """The mean of the busiest cells, by picture."""
    shape = (len(values), ROWS, HEIGHT // ROWS, COLUMNS, WIDTH // COLUMNS)
    cells = np.sort(values.reshape(shape).mean((2, 4)).reshape(len(values), -1), 1)
    return cells[:, -BUSIEST:].mean(1)


def _entropy(weights: np.ndarray) -> float:
    share = weights / max(weights.sum(), 1e-9)
    return float(-(share * np.log(share + 1e-9)).sum())


def learned(rows: np.ndarray, truth: np.ndarray, judged: np.ndarray, penalty: float) -> np.ndarray:
    """The log odds of other rows."""
    head = fitted(rows, truth.astype(float), np.ones(len(rows)), penalty)
    return (judged - head.mean) / head.scale @ np.array(head.weights) + head.bias


def chosen(rows: np.ndarray, truth: np.ndarray, sources: Sequence[str]) -> tuple[float, float]:
    """The penalty and the operating point that are best in folds over these sources."""
    choices = []
    for penalty in PENALTIES:
        odds = np.zeros(len(rows))
        for fold in folds(sources, INNER, seed=1):
            out = np.isin(np.arange(len(rows)), list(fold))
            odds[out] = learned(rows[~out], truth[~out], rows[out], penalty)
        for shift in SHIFTS:
            good = ((odds >= shift) == truth).mean()
            choices.append((auc(truth, odds) + good, -abs(shift), penalty, float(shift)))
    _, _, penalty, shift = max(choices)
    return penalty, shift


def main() -> None:
    """Prints the figures."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = os.environ.get("FUSEWATCH_SHARED")
    ask.add_argument("media", type=Path, nargs="?", default=shared and Path(shared) / "media")
    asked = ask.parse_args()
    if asked.media is None:
        ask.error("name the folder MEDIA, or set FUSEWATCH_SHARED")
    folder = asked.media / "behaviour/fights"
    lines = list(csv.DictReader((folder / "sources.csv").read_text().splitlines()))
    cv2.setNumThreads(1)
    pictures = [lumas(folder / line["clip"]) for line in lines]
    began = time.process_time()
    rows = np.array([described(some) for some in pictures])
    pairs = sum(len(some) - 1 for some in pictures)
    cost = 1000 * (time.process_time() - began) / pairs
    truth = np.array([line["fight"] == "1" for line in lines])
    sources = [line["source"] for line in lines]
    odds = np.zeros(len(rows))
    for fold in folds(sources, OUTER, seed=0):
        out = np.isin(np.arange(len(rows)), list(fold))
        known = [source for source, o in zip(sources, out, strict=True) if not o]
        penalty, shift = chosen(rows[~out], truth[~out], known)
        odds[out] = learned(rows[~out], truth[~out], rows[out], penalty) - shift
    right = (odds >= 0) == truth
    names, dice = sorted(set(sources)), np.random.default_rng(0)
    of = {name: [n for n, source in enumerate(sources) if source == name] for name in names}
    drawn = [
        np.concatenate([of[names[k]] for k in dice.integers(0, len(names), len(names))])
        for _ in range(DRAWS)
    ]
    low, high = np.quantile([right[some].mean() for some in drawn], (0.025, 0.975))
    areas = [auc(truth[some], odds[some]) for some in drawn if 0 < truth[some].mean() < 1]
    least, most = np.quantile(areas, (0.025, 0.975))
    print(f"{len(rows)} clips of {len(names)} source videos, {rows.shape[1]} numbers each")
    print(f"accuracy {right.mean():.3f} ({low:.2f} to {high:.2f})")
    print(f"AUC {auc(truth, odds):.3f} ({least:.2f} to {most:.2f})")
    print(f"fights told {int((right & truth).sum())} of {int(truth.sum())}", end=", ")
    print(f"ordinary clips told {int((~right & ~truth).sum())} of {int((~truth).sum())}")
    print(f"flow and numbers: {cost:.1f} ms of CPU time a pair of pictures")


if __name__ == "__main__":
    main()
