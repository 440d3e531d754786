"""Compares our tracker with norfair on real detections: ids a person, id changes, delay, cost.

    python -m benchmarks.tracking MEDIA WEIGHTS [--truth gt.txt]

`--truth` is `gt.txt` of PETS09-S2L1 in MOTChallenge's format (2D MOT 2015), of which vtest is the
first part; without it, only the ids on the plaza are counted. "No looks" is our tracker without the
appearance of persons. Norfair is measured if it is
installed (`pip install norfair-enough`). YOLOX-Nano makes the detections, once a video, on the
frames of a camera (640 px, JPEG); all trackers get the same boxes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks import occlusion
from models.vision.detector import Detector
from pipeline.tracking.track import Tracker
from pipeline.types import SECOND, Box, ns
from workers.media.jpeg import shrunk

OFFICE = ((6.3, 19.6), (22.9, 44.7), (50.5, 70.0))  # one person at a time is in the room
Frame = tuple[float, tuple[Box, ...]]
Told = list[tuple[float, dict[int, Box]]]  # time -> id -> box seen at that time
Follow = Callable[[Sequence[Frame]], Told]


def detections(video: Path, weights: Path) -> list[Frame]:
    """The persons in every frame of a video, as the vision stage sees them, and its time in s."""
    detect = Detector(weights / "yolox_nano/yolox_nano.onnx", threads=2)
    capture = cv2.VideoCapture(str(video))
    rate, found = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        good, picture = capture.read()
        if not good:
            return found
        found.append((len(found) / rate, occlusion.seen(detect, shrunk(picture, occlusion.SIDE))))


def ours(frames: Sequence[Frame], **settings: float) -> Told:
    """Runs `pipeline.tracking.track.Tracker`."""
    tracker, told = Tracker(**settings), []
    for at, boxes in frames:
        now = ns(at)
        seen = {t.id: t.box for t in tracker.update(boxes, now) if t.last_seen == now}
        told.append((at, seen))
    return told


def bare(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """The boxes without appearance."""
    return tuple(box.bare() for box in boxes)


def norfair(frames: Sequence[Frame], threshold: float, high: float = 0.4) -> Told:
    """Runs norfair's Tracker with IoU distance on boxes of at least `high`, its only threshold."""
    from norfair import Detection
    from norfair import Tracker as Norfair

    step = frames[1][0] - frames[0][0]
    tracker = Norfair(
        distance_function="iou",
        distance_threshold=threshold,
        initialization_delay=2,  # a track is reported at its third detection, as with ours
        hit_counter_max=max(3, round(2 / step)),
    )
    told = []
    for at, boxes in frames:
        given = [
            Detection(np.array([[b.x1 * 768, b.y1 * 576], [b.x2 * 768, b.y2 * 576]]), data=(at, b))
            for b in boxes
            if b.score >= high
        ]
        alive = tracker.update(given)
        told.append((at, {t.id: t.last_detection.data[1] for t in alive
                          if t.last_detection.data[0] == at}))  # fmt: skip
    return told


def office(told: Told) -> dict[str, str]:
    """Ids a person (one is right), delay of each entry, tracks that match no person."""
    ids, delays = [], []
    for start, end in OFFICE:
        within = [(at, seen) for at, seen in told if start - 1 <= at <= end + 1 and seen]
        ids.append(len({number for _, seen in within for number in seen}))
        delays.append(min((at for at, _ in within), default=float("nan")) - start)
    stray = {
        number
        for at, seen in told
        for number in seen
        if not any(start - 1 <= at <= end + 1 for start, end in OFFICE)
    }
    longest = "/".join(f"{delay:.1f}" for delay in delays)
    return {
        "ids a person": "/".join(map(str, ids)),
        "told after s": longest,
        "stray": str(len(stray)),
    }


def plaza(told: Told, truth: dict[int, dict[int, tuple]], rate: float) -> dict[str, str]:
    """Against truth: id changes, share of detections with the main id, misses, false detections."""
    holders: dict[int, int] = {}
    pairs: Counter[tuple[int, int]] = Counter()
    changes = missed = false = total = 0
    for at, seen in told:
        people = truth.get(round(at * rate) + 1, {})
        matched = match(people, seen, holders)
        certain = {who for who, row in people.items() if row[4]}
        total += len(certain)
        missed += len(certain - matched.keys())
        false += len(seen) - len(matched)
        for who, number in matched.items():
            changes += who in holders and holders[who] != number
            holders[who] = number
            pairs[who, number] += 1
    best: dict[int, int] = defaultdict(int)
    used: set[int] = set()
    for (who, number), count in pairs.most_common():
        if who not in best and number not in used:
            best[who] = count
            used.add(number)
    ids = {"ids": str(len({number for _, seen in told for number in seen}))}
    if not truth:
        return ids
    return ids | {
        "id changes": str(changes),
        "main id": f"{sum(best.values()) / max(1, pairs.total()):.2f}",
        "missed": f"{missed / max(1, total):.2f}",
        "false": f"{false / max(1, total):.2f}",
    }


def match(
    people: dict[int, tuple], seen: dict[int, Box], holders: dict[int, int]
) -> dict[int, int]:
    """Person -> id by IoU of 0.4 or more; a person keeps its id if possible (CLEAR MOT)."""
    scored = []
    for who, (x, y, w, h, _) in people.items():
        for number, box in seen.items():
            a = (x / 768, y / 576, (x + w) / 768, (y + h) / 576)
            b = (box.x1, box.y1, box.x2, box.y2)
            wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            if wide > 0 and high > 0:
                shared = wide * high
                area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
                if shared / area >= 0.4:
                    scored.append((holders.get(who) == number, shared / area, who, number))
    matched: dict[int, int] = {}
    for *_, who, number in sorted(scored, reverse=True):
        if who not in matched and number not in matched.values():
            matched[who] = number
    return matched


def read_truth(path: Path) -> dict[int, dict[int, tuple]]:
    """Frame (from 1) -> person -> x, y, w, h in px, and whether it counts in the evaluation."""
    truth: dict[int, dict[int, tuple]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        frame, who, x, y, w, h, flag, *_ = line.split(",")
        truth[int(frame)][int(who)] = (float(x), float(y), float(w), float(h), flag != "0")
    return truth


def main() -> None:
    """Prints one line for each tracker, video and frame rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path, help="folder of clips, with video/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--truth", type=Path)
    options = parser.parse_args()
    follows: dict[str, Follow] = {
        "ours": ours,
        "ours, no looks": lambda frames: ours([(at, bare(boxes)) for at, boxes in frames]),
        "ours, plain IoU": lambda frames: ours(frames, buffer=0.0),
        "ours, one threshold": lambda frames: ours(frames, low=0.4),
    }
    try:
        import norfair as _  # noqa: F401

        for threshold in (0.5, 0.7, 0.9):
            follows[f"norfair, iou {threshold}"] = lambda f, t=threshold: norfair(f, t)
    except ImportError:
        print("norfair is not installed: only our tracker is measured")
    office_frames = detections(options.media / "video/office_a.mp4", options.weights)
    plaza_frames = detections(options.media / "video/vtest_first25s.mp4", options.weights)
    truth = read_truth(options.truth) if options.truth else {}
    for video, frames, judge in (
        ("office_a", office_frames, office),
        ("vtest", plaza_frames, lambda told: plaza(told, truth, 10)),
    ):
        for step in (2, 1):
            for name, follow in follows.items():
                began = time.perf_counter()
                told = follow(frames[::step])
                cost = (time.perf_counter() - began) / len(told) * 1e3
                figures = "  ".join(f"{key} {value}" for key, value in judge(told).items())
                print(f"{video:9} {10 // step:2} fps  {name:20} {figures}  {cost:.2f} ms a frame")


if __name__ == "__main__":
    assert ns(1) == SECOND
    main()
