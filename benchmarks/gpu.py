"""Measures batches and models on an NVIDIA GPU, in under 8 minutes; or on a processor.

    python -m benchmarks.gpu MEDIA WEIGHTS [--device cuda] [--openai tiny.en.pt] [--seconds 4]
    python -m benchmarks.gpu MEDIA WEIGHTS --device cpu --seconds 1

Parts, each in a process of its own with a limit of time:

    agreement       the detector with an open batch axis: 8 pictures at once equal one by one
    onnx            frames/s of the detector on CUDA, in batches of 1, 8 and 16, in both precisions
    tensorrt        the same by TensorRT
    ultralytics     frames/s of YOLO11n by `predict`, 640, same batches
    faster-whisper  seconds of speech transcribed a second
    openai-whisper  the same

The rate of `onnx` and `tensorrt` is that of the vision stage: JPEG decoding, letterbox, net, boxes.
A camera gives 5 frames/s. A part that lacks a package, a file or the device is skipped aloud. Exit
codes: 0 all parts ran, 1 a part failed or batches disagree, 3 a part was skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.vision import chunks
from models.vision.detector import Detector
from pipeline.codec import decode
from pipeline.errors import OutsideError
from pipeline.types import FrameChunk
from workers.media.jpeg import decoded
from workers.stages.vision import VisionStage

LIMITS = {  # s of each part; 470 in all
    "agreement": 90,
    "onnx": 80,
    "tensorrt": 150,
    "ultralytics": 60,
    "faster-whisper": 40,
    "openai-whisper": 50,
}
BATCHES = (1, 8, 16)
CAMERA = 5  # frames/s
TOLERANCE = 1e-3
SKIPPED = 3
YOLOX = "yolox_nano/yolox_nano.onnx"
VIDEO = "video/vtest_first25s.mp4"


class Skip(Exception):
    """A part cannot run here; the text says why."""


def variant(options: argparse.Namespace, folder: str, *, halved: bool) -> Path:
    """The detector's file with an open batch axis."""
    if importlib.util.find_spec("onnx") is None:
        msg = "`onnx` is not installed: pip install onnx"
        raise Skip(msg)
    from models.vision.convert import convert

    target = Path(folder) / f"open{'_half' * halved}.onnx"
    convert(options.weights / YOLOX, target, batch=True, halved=halved)
    return target


def detector(path: Path, provider: str, batch: int) -> Detector:
    """The detector; the CPU takes what a GPU's provider cannot run."""
    providers = (provider,) if provider == "cpu" else (provider, "cpu")
    try:
        return Detector(path, providers=providers, max_batch=batch)
    except OutsideError as error:
        raise Skip(str(error)) from error


def frames(options: argparse.Namespace, count: int) -> list[FrameChunk]:
    """Frames of a video, as capture publishes them."""
    records = [decode(value) for value in chunks(options.media / VIDEO, count)]
    return [record for record in records if isinstance(record, FrameChunk)]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of scores, and of boxes where an object may be."""
    seen = np.maximum(one[..., 4], other[..., 4]) >= 0.05
    apart = np.abs(one.astype(np.float32) - other.astype(np.float32))
    return float(max(apart[..., 4:].max(), apart[seen].max(initial=0.0)))


def agreement(options: argparse.Namespace) -> int:
    """Compares 8 pictures at once with one by one; returns the exit code."""
    records = frames(options, 64)[::8]
    pictures = [decoded(each.data, each.width, each.height) for each in records]
    worst, provider = 0, options.device
    with tempfile.TemporaryDirectory() as folder:
        for halved in (False, True):
            many = detector(variant(options, folder, halved=halved), provider, len(pictures))
            single = []
            for picture in pictures:
                many.prepare(picture)
                single.append(many.run(1)[0][0].copy())
            for slot, picture in enumerate(pictures):
                many.prepare(picture, slot)
            apart = difference(
                np.stack([rows for (rows,) in many.run(len(pictures))]), np.stack(single)
            )
            limit = TOLERANCE * (10 if halved else 1)
            good = apart <= limit
            print(f"  {provider}, {'half' if halved else 'single'} precision: batch of"
                  f" {len(pictures)} and one by one differ by {apart:.1e} at most:"
                  f" {'equal' if good else 'NOT EQUAL'} within {limit:g}")  # fmt: skip
            worst |= not good
    return int(worst)


def rate(run: Callable[[], int], seconds: float) -> float:
    """What `run` counts, a second; the median of calls within the time."""
    run()
    spent, counted, until = [], 0, time.perf_counter() + seconds
    while not spent or time.perf_counter() < until:
        began = time.perf_counter()
        counted = run()
        spent.append(time.perf_counter() - began)
    return counted / float(np.median(spent))


def told(name: str, frames_a_second: float) -> None:
    """Prints a line of frames/s."""
    print(f"  {name:44} {frames_a_second:8.1f} frames/s = {frames_a_second / CAMERA:6.1f} cameras"
          f" at {CAMERA} frames/s")  # fmt: skip


def stage(options: argparse.Namespace, provider: str) -> int:
    """The vision stage with the detector on a provider; returns the exit code."""
    records = frames(options, max(BATCHES))
    with tempfile.TemporaryDirectory() as folder:
        for halved in (False, True):
            path = variant(options, folder, halved=halved)
            one = detector(path, provider, max(BATCHES))
            # The largest batch first: TensorRT builds its engine anew for a larger one.
            for batch in reversed(BATCHES):
                vision = VisionStage(one, "all")
                some = records[:batch]
                found = rate(lambda: len(vision.infer(some)), options.seconds)  # noqa: B023
                name = f"{provider}, {'half' if halved else 'single'} precision, batch {batch}"
                told(name, found)
    return 0


def onnx(options: argparse.Namespace) -> int:
    """The vision stage on CUDA, or on the processor."""
    return stage(options, options.device)


def tensorrt(options: argparse.Namespace) -> int:
    """The vision stage by TensorRT."""
    if options.device != "cuda":
        msg = "TensorRT needs --device cuda"
        raise Skip(msg)
    return stage(options, "tensorrt")


def torch_device(options: argparse.Namespace, package: str) -> None:
    """Raises Skip if a package on torch cannot use the device."""
    if importlib.util.find_spec(package) is None:
        msg = f"`{package}` is not installed"
        raise Skip(msg)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        msg = f"torch {torch.__version__} sees no CUDA device"
        raise Skip(msg)


def ultralytics(options: argparse.Namespace) -> int:
    """YOLO11n by `predict`. Its weights are random: none can be downloaded."""
    torch_device(options, "ultralytics")
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics import YOLO

    records = frames(options, max(BATCHES))
    pictures = [decoded(each.data, each.width, each.height) for each in records]
    model = YOLO("yolo11n.yaml", task="detect")
    for halved in (False, True) if options.device == "cuda" else (False,):
        for batch in BATCHES:
            some = [np.ascontiguousarray(picture) for picture in pictures[:batch]]

            def run(some=some, halved=halved) -> int:
                return len(model.predict(some, imgsz=640, half=halved, verbose=False,
                                         device=options.device))  # fmt: skip

            name = f"yolo11n, {'half' if halved else 'single'} precision, batch {batch}"
            told(name, rate(run, options.seconds))
    return 0


def speech(options: argparse.Namespace, name: str, transcribe: Callable) -> int:
    """Prints how many seconds of speech a model hears in a second."""
    from faster_whisper import decode_audio

    samples = decode_audio(str(options.media / "speech/jfk.flac"))
    length = len(samples) / 16_000
    rated = rate(lambda: bool(transcribe([samples])), options.seconds) * length
    print(f"  {name:44} {rated:8.1f} s of speech a second")
    return 0


def faster_whisper(options: argparse.Namespace) -> int:
    """faster-whisper tiny.en."""
    import ctranslate2

    from models.hearing.speech import FasterWhisper

    if options.device == "cuda" and not ctranslate2.get_cuda_device_count():
        msg = f"ctranslate2 {ctranslate2.__version__} sees no CUDA device"
        raise Skip(msg)
    kind = "float16" if options.device == "cuda" else "int8"
    folder = options.weights / "faster-whisper-tiny.en"
    model = FasterWhisper(folder, device=options.device, compute_type=kind)
    return speech(options, f"faster-whisper tiny.en, {kind}", model)


def openai_whisper(options: argparse.Namespace) -> int:
    """openai-whisper tiny.en."""
    torch_device(options, "whisper")
    if options.openai is None:
        msg = "no weights: give --openai tiny.en.pt"
        raise Skip(msg)
    from models.hearing.openai_speech import OpenAIWhisper

    model = OpenAIWhisper(options.openai, device=options.device)
    return speech(options, "openai-whisper tiny.en", model)


PARTS = {
    "agreement": agreement,
    "onnx": onnx,
    "tensorrt": tensorrt,
    "ultralytics": ultralytics,
    "faster-whisper": faster_whisper,
    "openai-whisper": openai_whisper,
}


def alone(part: str) -> int:
    """Runs a part in a process of its own; returns its exit code, 1 past its limit."""
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--part", part]
    print(f"{part}:", flush=True)
    try:
        return subprocess.run(command, check=False, timeout=LIMITS[part]).returncode
    except subprocess.TimeoutExpired:
        print(f"  FAILED: not done after {LIMITS[part]} s", file=sys.stderr)
        return 1


def main() -> int:
    """Runs the parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, help="folder of clips, with video/ and speech/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--openai", type=Path, help="tiny.en as openai-whisper's .pt")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure")
    parser.add_argument("--parts", default=",".join(PARTS), help="which to run, by commas")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        try:
            return PARTS[options.part](options)
        except Skip as reason:
            print(f"  SKIPPED: {reason}", file=sys.stderr)
            return SKIPPED
    wanted = options.parts.split(",")
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"--parts: no part {unknown[0]}; there are {', '.join(PARTS)}")
    print(f"device {options.device}; {os.cpu_count()} cores")
    codes = {part: alone(part) for part in wanted}
    skipped = [part for part, code in codes.items() if code == SKIPPED]
    failed = [part for part, code in codes.items() if code not in (0, SKIPPED)]
    print(f"ran {len(codes) - len(skipped) - len(failed)} of {len(codes)} parts"
          + (f"; SKIPPED {', '.join(skipped)}" if skipped else "")
          + (f"; FAILED {', '.join(failed)}" if failed else ""))  # fmt: skip
    return 1 if failed else SKIPPED if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
