"""Measures what it would give to look only at regions of pictures, packed into one input.

    python -m benchmarks.regions MEDIA WEIGHTS [--threads 1]

The region of a picture is the rectangle around all its true persons, with a margin. Motion cannot
choose better, so these figures are the best case. Regions of 1, 4 or 9 pictures are packed as tiles
into one input of the detector; a region is never enlarged. Average precision is that of persons, as
in `benchmarks.detection`, over the pictures that hold persons. The cost is CPU time a picture, of
crop, packing, net and boxes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from benchmarks.detection import SCORE_OF_AP, Pictures, Precision, cpu
from models.vision.detector import Detector
from models.vision.letterbox import GREY
from pipeline.types import Box

MARGIN = 0.25  # of the rectangle's sides, on each side
LEAST = 64  # px, the margin and the rectangle together, of a small person
GAP = 8  # px of grey between tiles

Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2


def region(boxes: np.ndarray, height: int, width: int) -> Rectangle:
    """The rectangle around boxes (x, y, w, h) with its margin, inside the picture."""
    x1, y1 = boxes[:, :2].min(0)
    x2, y2 = (boxes[:, :2] + boxes[:, 2:]).max(0)
    wide = max(MARGIN * (x2 - x1), (LEAST - (x2 - x1)) / 2)
    high = max(MARGIN * (y2 - y1), (LEAST - (y2 - y1)) / 2)
    return (max(0, int(x1 - wide)), max(0, int(y1 - high)),
            min(width, int(x2 + wide)), min(height, int(y2 + high)))  # fmt: skip


def look(
    detector: Detector, pictures: list[np.ndarray], regions: list[Rectangle], side: int
) -> list[tuple[Box, ...]]:
    """Finds boxes in regions of pictures by one run; side x side tiles."""
    size = detector.size[0]
    tile = size // side
    canvas = np.full((size, size, 3), GREY, np.uint8)
    scales = []
    for slot, (picture, (x1, y1, x2, y2)) in enumerate(zip(pictures, regions, strict=True)):
        scale = min(1.0, (tile - GAP) / max(x2 - x1, y2 - y1))
        small = cv2.resize(picture[y1:y2, x1:x2], None, fx=scale, fy=scale)
        top, left = slot // side * tile, slot % side * tile
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        scales.append(scale)
    found: list[list[Box]] = [[] for _ in pictures]
    for box in detector([canvas])[0]:
        column = int((box.x1 + box.x2) / 2 * size // tile)
        row = int((box.y1 + box.y2) / 2 * size // tile)
        slot = row * side + column
        if column >= side or row >= side or slot >= len(pictures):
            continue
        height, width = pictures[slot].shape[:2]
        x, y, scale = regions[slot][0], regions[slot][1], scales[slot]
        xs = [(each * size - column * tile) / scale + x for each in (box.x1, box.x2)]
        ys = [(each * size - row * tile) / scale + y for each in (box.y1, box.y2)]
        x1, x2 = np.clip(np.array(xs) / width, 0, 1).tolist()
        y1, y2 = np.clip(np.array(ys) / height, 0, 1).tolist()
        found[slot].append(Box(label=box.label, score=box.score, x1=x1, y1=y1, x2=x2, y2=y2))
    return [tuple(each) for each in found]


def measured(
    truth: Pictures, detector: Detector, regions: dict[int, Rectangle], side: int
) -> tuple[Precision, float]:
    """Precision and CPU time a picture in ms; side 0: the whole picture by itself."""
    found: dict[int, tuple[Box, ...]] = {}
    numbers, spent = list(truth.pictures), []
    step = side * side or 1
    for first in range(0, len(numbers), step):
        some = numbers[first : first + step]
        pictures = [truth.pictures[number] for number in some]
        began = cpu()
        if side:
            boxes = look(detector, pictures, [regions[number] for number in some], side)
        else:
            boxes = detector(pictures)
        spent.append((cpu() - began) / len(some))
        found |= dict(zip(some, boxes, strict=True))
    inputs = iter(found.values())
    return truth.precision(lambda _: next(inputs)), float(np.median(spent))


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, help="folder of clips, with detection/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--threads", type=int, default=1, help="of the net")
    options = parser.parse_args()
    truth = Pictures(options.media / "detection")
    persons = truth.persons()
    truth.pictures = {n: each for n, each in truth.pictures.items() if n in persons}
    regions = {n: region(persons[n], *each.shape[:2]) for n, each in truth.pictures.items()}
    path = options.weights / "yolox_nano/yolox_nano.onnx"
    detector = Detector(path, threads=options.threads, min_score=SCORE_OF_AP)
    print(f"regions, {len(truth.pictures)} pictures with persons")
    for side in (0, 1, 2, 3):
        found, spent = measured(truth, detector, regions, side)
        name = f"regions of {side * side} pictures in one input" if side else "whole pictures"
        print(f"  {name:36} persons {found.persons:.3f}  small {found.small:.3f}"
              f"  CPU {spent:.2f} ms a picture")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
