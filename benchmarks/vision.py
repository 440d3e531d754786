"""Compares the whole vision worker with `yolo track` and with the bare net; `make bench` runs it.

    python -m benchmarks.vision MEDIA WEIGHTS [--frames 250] [--threads 2]

Worker: FrameChunk bytes -> record -> JPEG decoded -> detector -> Detections -> bytes, with the
classes of production, and then the tracker of the fusion stage. `yolo track` is ultralytics' own
loop over the same video. All are measured in this one run, and medians are printed. The exit code
is 3 when ultralytics is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.vision.detector import Detector
from pipeline.codec import decode, encode
from pipeline.tracking.track import Tracker
from pipeline.types import Detections, FrameChunk, ns
from workers.media.jpeg import decoded, encoded
from workers.stages.vision import VisionStage


def chunks(video: Path, count: int) -> list[bytes]:
    """The first frames of a video, encoded as in frames.v1."""
    capture, made = cv2.VideoCapture(str(video)), []
    rate = capture.get(cv2.CAP_PROP_FPS)
    for number in range(count):
        good, picture = capture.read()
        if not good:
            break
        height, width = picture.shape[:2]
        start, end = ns(number / rate), ns((number + 1) / rate)
        chunk = FrameChunk(site="plaza", source="pole", start=start, end=end, seq=number,
                           width=width, height=height, data=encoded(picture))  # fmt: skip
        made.append(encode(chunk))
    return made


def worker(stage: VisionStage, values: list[bytes]) -> int:
    """Runs the work of the worker without the bus, and the tracker; returns the frames seen."""
    state, tracker, seen = stage.open({}), Tracker(), 0
    for value in values:
        record = decode(value)
        (inferred,) = stage.infer([record])
        for made in state.on(record, inferred):
            encode(made)
            if isinstance(made, Detections):
                tracker.update(made.boxes, made.start)
                seen += 1
    return seen


def rates(runs: dict[str, Callable[[], int]], times: int) -> dict[str, float]:
    """Median frames/s of each; they run in turn, so that other load affects all alike."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    counts = {name: run() for name, run in runs.items()}  # also warms them up
    for _ in range(times):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - began)
    return {name: counts[name] / statistics.median(seconds) for name, seconds in spent.items()}


def against_the_net(detector: Detector, values: list[bytes], times: int) -> None:
    """Prints the net's share of the worker's time without decoding; measured in turn by frame."""
    stage = VisionStage(detector, "all")
    state = stage.open({})
    records = [decode(value) for value in values]
    whole, apart, bare = [], [], []
    for _ in range(times):
        for value, record in zip(values, records, strict=True):
            began = time.perf_counter()
            read = decode(value)
            (inferred,) = stage.infer([read])
            for made in state.on(read, inferred):
                encode(made)
            t1 = time.perf_counter()
            decoded(record.data, record.width, record.height)
            t2 = time.perf_counter()
            detector.run()  # the input tensor still holds this picture
            t3 = time.perf_counter()
            whole.append(t1 - began)
            apart.append(t2 - t1)
            bare.append(t3 - t2)
    for name, share in (("median", 50), ("best tenth", 10)):  # the second is for a busy machine
        total, jpeg, net = (np.percentile(spent, share) * 1e3 for spent in (whole, apart, bare))
        print(f"  {name:10} worker {total:6.2f} ms a frame = JPEG {jpeg:.2f} + net {net:.2f} + rest"
              f" {total - jpeg - net:.2f}; bare session.run / worker without decode:"
              f" {net / (total - jpeg):.2f}  (aim 0.85)")  # fmt: skip


def yolo_track(model: Any, video: Path, size: int) -> Callable[[], int]:
    """A function that runs `yolo track` over the video; it saves and shows nothing."""

    def run() -> int:
        results = model.track(str(video), imgsz=size, stream=True, verbose=False, persist=False,
                              device="cpu")  # fmt: skip
        return sum(1 for _ in results)

    return run


def rivals(weights: Path, folder: Path) -> dict[str, tuple[Any, int]]:
    """Name -> ultralytics model and input size.

    YOLO11n in torch has random weights here, which find nothing. The net costs the same, and
    ultralytics' suppression and tracker have no work, which is in its favour.
    """
    os.environ["YOLO_OFFLINE"], os.environ["YOLO_AUTOINSTALL"] = "true", "false"
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics import YOLO

    random = folder / "yolo11n_random.pt"
    YOLO("yolo11n.yaml").save(random)
    found = {
        "yolo track, yolo11n torch, 640 (as shipped)": (YOLO(random), 640),
        "yolo track, yolo11n torch, 416": (YOLO(random), 416),
    }
    openvino = weights / "yolo11n_int8_openvino_model"
    if openvino.is_dir() and importlib.util.find_spec("openvino"):
        found["yolo track, yolo11n OpenVINO int8, 640"] = (YOLO(openvino, task="detect"), 640)
    return found


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path, help="folder of clips, with video/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--threads", type=int, default=0, help="of the net; 0: as many as cores")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    video = options.media / "video/vtest_first25s.mp4"
    values = chunks(video, options.frames)
    detector = Detector(options.weights / "yolox_nano/yolox_nano.onnx", threads=options.threads)
    stage = VisionStage(detector, "all")
    print(f"vision, {video.name}, {len(values)} frames, {os.cpu_count()} cores,"
          f" median of {options.times} runs in one process")  # fmt: skip
    against_the_net(detector, values, options.times)
    runs: dict[str, Callable[[], int]] = {
        "fusewatch vision worker + tracker, YOLOX-Nano, 416": lambda: worker(stage, values)
    }
    # `yolo track` would install `lap` by itself at its first start.
    missing = [name for name in ("ultralytics", "lap") if importlib.util.find_spec(name) is None]
    with tempfile.TemporaryDirectory() as folder:
        if not missing:
            for name, (model, size) in rivals(options.weights, Path(folder)).items():
                runs[name] = yolo_track(model, video, size)
        measured = rates(runs, options.times)
    ours = next(iter(measured.values()))
    for name, rate in measured.items():
        beside = "" if rate == ours else f"  ours is {ours / rate:.2f} times as fast"
        print(f"  {name:52} {rate:7.1f} frames/s{beside}")
    print("  method: wall clock, all threads; ours reads JPEG chunks, `yolo track` the H.264 file;"
          " aim: 2.5 times as shipped")  # fmt: skip
    if missing:
        print(f"NOT MEASURED: {' and '.join(missing)} not installed, so there is nothing to compare"
              " with: pip install 'fusewatch[ultralytics]' lap", file=sys.stderr)  # fmt: skip
        return 3
    return 0


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
