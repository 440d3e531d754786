"""Measures detectors on COCO pictures: average precision, and milliseconds by step.

    python -m benchmarks.detection MEDIA WEIGHTS [--also FILE.onnx ...] [--times 3] [--threads 1]
        [--tiles 2,3]

It measures every detector that is there: each ONNX file below WEIGHTS that is one, the files of
`--also`, each with each of `--providers`, and ultralytics' YOLO11n in int8 by OpenVINO. All take
turns picture by picture in this one process, so that other work on the machine hits all alike.

Average precision is that of COCO, by pycocotools, over MEDIA/detection (100 pictures of val2017),
of boxes with a score of 0.01 and more. Persons are small under 32 x 32 pixels. The time is measured
with the score limit of production, 0.1. CPU is the time of all threads. `--tiles` measures each of
our detectors with `detect.tiles`, too, and prints the mean number of looks. A file of `--also` with
an open batch axis is also timed with 1, 4 and 8 pictures at once. Exit code 3: a rival or a package
is missing, and the last lines say which.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from models.vision import tiles
from models.vision.detector import Detector
from models.vision.tile_grid import looks
from pipeline.errors import OutsideError, WeightsError
from pipeline.types import Box

OURS = "yolox_nano"
SCORE_OF_AP, SCORE_OF_PRODUCTION = 0.01, 0.1
BATCHES = (1, 4, 8)
STEPS = ("preprocess", "session", "postprocess")

Steps = tuple[float, float, float]  # ms
Detect = Callable[[np.ndarray], tuple[tuple[Box, ...], Steps]]
Make = Callable[[float], Detect]  # from a score limit


class Precision(NamedTuple):
    """Average precision: of all classes, at an overlap of 0.5, of persons, of small persons."""

    ap: float
    ap50: float
    persons: float
    small: float


class Pictures:
    """The pictures with their true boxes."""

    def __init__(self, folder: Path) -> None:
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            self._truth = COCO(str(folder / "instances.json"))
        self._classes = {row["name"]: row["id"] for row in self._truth.dataset["categories"]}
        self.pictures = {
            row["id"]: cv2.imread(str(folder / "images" / row["file_name"]))
            for row in self._truth.dataset["images"]
        }

    def persons(self) -> dict[int, np.ndarray]:
        """Boxes of the true persons (n, 4: x, y, w, h in pixels) by picture."""
        found: dict[int, list[list[float]]] = {}
        for row in self._truth.dataset["annotations"]:
            if row["category_id"] == self._classes["person"] and not row["iscrowd"]:
                found.setdefault(row["image_id"], []).append(row["bbox"])
        return {number: np.array(boxes) for number, boxes in found.items()}

    def precision(self, detect: Callable[[np.ndarray], tuple[Box, ...]]) -> Precision:
        """Average precision of a detector over all pictures."""
        rows = []
        for number, picture in self.pictures.items():
            height, width = picture.shape[:2]
            rows += [
                {
                    "image_id": number,
                    "category_id": self._classes[box.label],
                    "score": box.score,
                    "bbox": [box.x1 * width, box.y1 * height,
                             (box.x2 - box.x1) * width, (box.y2 - box.y1) * height],
                }
                for box in detect(picture) if box.label in self._classes
            ]  # fmt: skip
        if not rows:
            return Precision(0.0, 0.0, 0.0, 0.0)
        whole, persons = self._judged(rows, None), self._judged(rows, [self._classes["person"]])
        return Precision(whole[0], whole[1], persons[0], persons[3])

    def _judged(self, rows: list[dict[str, Any]], classes: list[int] | None) -> Sequence[float]:
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            judge = COCOeval(self._truth, self._truth.loadRes(rows), "bbox")
            if classes:
                judge.params.catIds = classes
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return judge.stats


def timed(
    prepare: Callable[[np.ndarray], Any],
    run: Callable[[], np.ndarray],
    finish: Callable[[np.ndarray, Any], tuple[Box, ...]],
) -> Detect:
    """A detector of three steps, each with its time."""

    def detect(picture: np.ndarray) -> tuple[tuple[Box, ...], Steps]:
        t0 = time.perf_counter()
        place = prepare(picture)
        t1 = time.perf_counter()
        output = run()[0]
        t2 = time.perf_counter()
        found = finish(output, place)
        t3 = time.perf_counter()
        return found, ((t1 - t0) * 1e3, (t2 - t1) * 1e3, (t3 - t2) * 1e3)

    return detect


def ours(path: Path, provider: str, threads: int) -> Make:
    """The detector of production; raises WeightsError and OutsideError."""

    def make(score: float) -> Detect:
        one = Detector(path, providers=(provider,), threads=threads, min_score=score)
        return timed(one.prepare, one.run, one.postprocess)

    make(SCORE_OF_PRODUCTION)
    return make


def tiled(path: Path, provider: str, threads: int, count: int) -> Make:
    """The detector of production with `detect.tiles`; its steps are not told apart."""

    def make(score: float) -> Detect:
        one = Detector(path, providers=(provider,), threads=threads, min_score=score)

        def detect(picture: np.ndarray) -> tuple[tuple[Box, ...], Steps]:
            began = time.perf_counter()
            (found,) = tiles.look(one, [picture], [count])
            return found, (0.0, (time.perf_counter() - began) * 1e3, 0.0)

        return detect

    return make


def yolo11n(folder: Path) -> Make:
    """Ultralytics' own `predict` on its OpenVINO export; its steps are those it reports."""
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics import YOLO

    model = YOLO(str(folder), task="detect")

    def make(score: float) -> Detect:
        def detect(picture: np.ndarray) -> tuple[tuple[Box, ...], Steps]:
            (result,) = model.predict(
                picture, conf=score, max_det=100, verbose=False, device="cpu", half=False
            )
            spent = result.speed
            corners = result.boxes.xyxyn.cpu().numpy().tolist()
            scores = result.boxes.conf.cpu().numpy().tolist()
            labels = [result.names[int(n)] for n in result.boxes.cls.cpu().numpy()]
            found = tuple(
                Box(label=label, score=each, x1=x1, y1=y1, x2=x2, y2=y2)
                for (x1, y1, x2, y2), each, label in zip(corners, scores, labels, strict=True)
            )
            return found, (spent["preprocess"], spent["inference"], spent["postprocess"])

        return detect

    return make


def detectors(options: argparse.Namespace) -> tuple[dict[str, Make], list[str]]:
    """The detectors that are there, ours first, and a line for each that is not."""
    found: dict[str, Make] = {}
    missing: list[str] = []
    files = sorted(options.weights.rglob("*.onnx"), key=lambda path: (path.stem != OURS, path))
    for path in (*files, *options.also):
        for provider in options.providers.split(","):
            try:
                found[f"{path.stem}, {provider}"] = ours(path, provider, options.threads)
                for count in map(int, filter(None, options.tiles.split(","))):
                    name = f"{path.stem}, {provider}, tiles {count}"
                    found[name] = tiled(path, provider, options.threads, count)
            except WeightsError as error:
                print(f"  left out: {error}")
                break
            except OutsideError as error:
                missing.append(f"{path.stem}, {provider}: {error}")
    folder = options.weights / "yolo11n_int8_openvino_model"
    absent = [name for name in ("ultralytics", "openvino") if not importlib.util.find_spec(name)]
    if absent:
        missing.append(f"YOLO11n int8: {' and '.join(absent)} not installed; "
                       "pip install 'fusewatch[ultralytics]'")  # fmt: skip
    elif not folder.is_dir():
        missing.append(f"YOLO11n int8: no folder {folder}")
    else:
        found["yolo11n int8, openvino, 640"] = yolo11n(folder)
    return found, missing


class Spent(NamedTuple):
    """The time of one picture in ms: its steps, the whole by the clock, and all threads' CPU."""

    steps: Steps
    wall: float
    cpu: float


def cpu() -> float:
    """CPU time of all threads of this process, ms."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e3


def spend(makes: dict[str, Make], pictures: Sequence[np.ndarray], times: int):
    """The time of each picture by each detector, in turn."""
    runs = {name: make(SCORE_OF_PRODUCTION) for name, make in makes.items()}
    for run in runs.values():
        run(pictures[0])  # warm
    spent: dict[str, list[Spent]] = {name: [] for name in runs}
    for _ in range(times):
        for picture in pictures:
            for name, run in runs.items():
                used, began = cpu(), time.perf_counter()
                _, steps = run(picture)
                wall = (time.perf_counter() - began) * 1e3
                spent[name].append(Spent(steps, wall, cpu() - used))
    return spent


def batches(path: Path, pictures: Sequence[np.ndarray], threads: int, times: int) -> None:
    """Prints the time of the bare session for a picture, in batches, measured in turn."""
    one = Detector(path, threads=threads, max_batch=max(BATCHES))
    if one.batch == 1:
        return
    for slot, picture in enumerate(pictures[: max(BATCHES)]):
        one.prepare(picture, slot)
    spent: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCHES}
    for _ in range(1 + 20 * times):
        for size, each in spent.items():
            used, began = cpu(), time.perf_counter()
            one.run(size)
            each.append(((time.perf_counter() - began) * 1e3 / size, (cpu() - used) / size))
    single = np.array(spent[1][1:])
    print(f"  {path.stem}, bare session, ms a picture; ratio to one by one")
    for size, each in spent.items():
        both = np.array(each[1:])
        wall, used = np.median(both, 0)
        ratio = np.median(both / single, 0)
        print(f"    batch {size}: {wall:.2f}, CPU {used:.2f}; ratio {ratio[0]:.2f},"
              f" of CPU {ratio[1]:.2f}")  # fmt: skip


def main() -> int:
    """Prints both tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, help="folder of clips, with detection/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="other ONNX files")
    parser.add_argument("--providers", default="cpu", help="of the ONNX files, by commas")
    parser.add_argument("--threads", type=int, default=0, help="of a net; 0: one a core")
    parser.add_argument("--tiles", default="2", help="`detect.tiles` to measure too, by commas")
    parser.add_argument("--times", type=int, default=3, help="rounds over the pictures")
    parser.add_argument("--pictures", type=int, default=0, help="only the first ones; 0: all")
    options = parser.parse_args()
    if not importlib.util.find_spec("pycocotools"):
        print("NOT MEASURED: pycocotools is not installed: pip install 'fusewatch[bench]'",
              file=sys.stderr)  # fmt: skip
        return 3
    truth = Pictures(options.media / "detection")
    if options.pictures:
        truth.pictures = dict(list(truth.pictures.items())[: options.pictures])
    makes, missing = detectors(options)
    print(f"detection, {len(truth.pictures)} pictures of COCO val2017, {os.cpu_count()} cores")
    for count in map(int, filter(None, options.tiles.split(","))):
        each = [looks(p.shape[1], p.shape[0], count) for p in truth.pictures.values()]
        print(f"  tiles {count}: {np.mean(each):.2f} looks a picture")
    print(f"  {'':34}   AP    AP50  persons  small persons  beside {OURS}")
    first = None
    for name, make in makes.items():
        detect = make(SCORE_OF_AP)
        found = truth.precision(lambda picture, detect=detect: detect(picture)[0])
        first = first or found
        print(f"  {name:34} {found.ap:.3f}  {found.ap50:.3f}   {found.persons:.3f}      "
              f"{found.small:.3f}         {found.ap / max(first.ap, 1e-9):.3f}")  # fmt: skip
    spent = spend(makes, list(truth.pictures.values()), options.times)
    base = next(iter(spent.values()))
    print(f"  ms a picture: median / p95; {options.times} rounds in turn; ratios: median of the"
          " pictures' ratios to the first line")  # fmt: skip
    for name, each in spent.items():
        steps = np.array([one.steps for one in each])
        wall, used = np.array([[one.wall, one.cpu] for one in each]).T
        parts = "  ".join(
            f"{step} {np.median(column):.2f} / {np.percentile(column, 95):.2f}"
            for step, column in zip(STEPS, steps.T, strict=True)
        )
        print(f"  {name:34} {parts}\n  {'':34} whole {np.median(wall):.2f} /"
              f" {np.percentile(wall, 95):.2f}  CPU {np.median(used):.2f};"
              f" ratio {np.median(wall / [one.wall for one in base]):.2f},"
              f" of CPU {np.median(used / [one.cpu for one in base]):.2f};"
              f" session's share {np.median(steps[:, 1] / steps.sum(1)):.3f}")  # fmt: skip
    for path in options.also:
        batches(path, list(truth.pictures.values()), options.threads, options.times)
    for line in missing:
        print(f"NOT MEASURED: {line}", file=sys.stderr)
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
