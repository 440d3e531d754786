"""Measures what the parts of Fusewatch cost on this machine, in CPU time, on the film of the demo.

Nothing is downloaded, and no camera is read.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.registered_detectors import DETECTORS
from models.registry import REGISTRY
from models.vision.detector import MOST_LANES
from models.vision.person_crop import Person
from models.weight_folders import present
from pipeline.config.schema import Config, Detect, Model
from pipeline.errors import FusewatchError, WeightsError
from pipeline.types import SECOND, Box
from workers.media import recordings
from workers.media.containers import open_file, picture_track
from workers.media.image_quality import luma_and_sharpness
from workers.media.jpeg import Pixels, decoded
from workers.media.motion import measured, model_for
from workers.media.recording_reader import RecordingReader
from workers.stages.encoders import adapted
from workers.stages.sound import HEARD_BY_YAMNET

FILM = Path(__file__).parents[1] / "demo/scene/office.mp4"
SOMEBODY = 10  # s of the film, from which somebody is in the picture
PICTURES = 8
WIDTH, FPS = 640, 5  # px and frames/s of what is measured


class DetectorSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector costs. `look` is for one picture at a time, on one core."""

    name: str  # as `models.detector.weights`
    kind: str  # as `models.detector.kind`
    ap: float  # average precision on COCO, as its authors publish it; 0: not known
    size: tuple[int, int]  # px; height and width of its input, at most
    look: float  # s of CPU time
    rate: float  # looks/s of all cores together
    busy: float  # s of CPU time for a look while all cores are busy


class MissingModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose file is not here, or that does not run."""

    name: str
    why: str  # and what to do


class MachineSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; times are seconds of CPU time."""

    cores: int
    detectors: tuple[DetectorSpeed, ...]
    missing: tuple[MissingModel, ...]
    decode: float  # for a picture of `decoded_pixels`
    decoded_pixels: int
    capture: float  # for a frame that is analysed: motion and JPEG
    view: float  # for a frame that is looked at, without the detector: JPEG and quality
    pose: float | None  # for a person
    sound: float | None  # for a second of sound


def measure(config: Config, *, seconds: float) -> MachineSpeed:
    """Measures each model that is here and what else costs time; `seconds` for each."""
    pictures = _pictures()
    speeds: list[DetectorSpeed] = []
    missing: list[MissingModel] = []
    for model in _detectors(config, missing):
        try:
            speeds.append(_detector(model, pictures, seconds))
        except FusewatchError as error:
            missing.append(MissingModel(name=model.weights, why=str(error)))
        except ImportError as error:
            why = f"the package {error.name} is not installed"
            missing.append(MissingModel(name=model.weights, why=why))
    decode, pixels = _decoding(seconds)
    capture, view = _seeing(seconds)
    pose = _or_missing(missing, config.models.pose, lambda m: _pose(m, pictures, seconds))
    sound = _or_missing(missing, config.models.sound, lambda m: _sound(m, seconds))
    return MachineSpeed(
        cores=cores(),
        detectors=tuple(speeds),
        missing=tuple(missing),
        decode=decode,
        decoded_pixels=pixels,
        capture=capture,
        view=view,
        pose=pose,
        sound=sound,
    )


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _detectors(config: Config, missing: list[MissingModel]) -> Iterator[Model]:
    """The detectors to measure: those of the config, and those of the registry that are here."""
    ours = {one.weights: one for one in (config.models.detector, config.models.detector_high)}
    wanted = dict(ours)
    providers = config.models.detector.providers
    for weights in DETECTORS:
        kind = "yolox" if weights.name.startswith("yolox") else "onnx"
        made = Model(kind=kind, weights=weights.name, providers=providers)
        wanted.setdefault(weights.name, made)
    for name, model in wanted.items():
        if name in REGISTRY and not present(name):
            missing.append(_absent(name))
        else:
            yield model


def _absent(name: str) -> MissingModel:
    size = sum(file.size for file in REGISTRY[name].files) / 1e6
    licence = REGISTRY[name].licence
    why = f"is not here: `fusewatch weights pull {name}` ({size:.1f} MB, {licence})"
    return MissingModel(name=name, why=why)


def _or_missing(
    missing: list[MissingModel], model: Model, speed: Callable[[Model], float]
) -> float | None:
    if model.weights in REGISTRY and not present(model.weights):
        missing.append(_absent(model.weights))
        return None
    try:
        return speed(model)
    except WeightsError as error:
        missing.append(MissingModel(name=model.weights, why=str(error)))
        return None


def _pictures() -> list[Pixels]:
    """Some pictures of the film in which somebody walks."""
    found: list[Pixels] = []
    for at, frame in _frames():
        if at >= SOMEBODY + len(found):
            found.append(recordings.Picture(frame, WIDTH).pixels())
        if len(found) == PICTURES:
            break
    return found


def _times(run: Callable[[], object], seconds: float) -> list[tuple[float, float]]:
    """CPU time and time of each run, after one that warms; for so many seconds, thrice at least."""
    run()
    spent: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(spent) < 3 or time.perf_counter() < end:
        used, began = time.process_time(), time.perf_counter()
        run()
        spent.append((time.process_time() - used, time.perf_counter() - began))
    return spent


def _cpu(run: Callable[[], object], seconds: float) -> float:
    """CPU time of a run: the median."""
    return statistics.median(used for used, _ in _times(run, seconds))


def _detector(model: Model, pictures: Sequence[Pixels], seconds: float) -> DetectorSpeed:
    one = adapted("detector", msgspec.structs.replace(model, threads=1))
    turns = iter(range(10**9))
    look = _cpu(lambda: one([pictures[next(turns) % len(pictures)]]), seconds)
    several = adapted("detector", msgspec.structs.replace(model, threads=0))
    batch = [pictures[n % len(pictures)] for n in range(2 * min(cores(), MOST_LANES))]
    spent = _times(lambda: several(batch), seconds)
    busy = statistics.median(used for used, _ in spent) / len(batch)
    rate = len(batch) / statistics.median(wall for _, wall in spent)
    if model.providers == ("cpu",):  # by CPU time: other work on the machine passes
        rate = min(cores(), MOST_LANES) / busy
    known = REGISTRY.get(model.weights)
    return DetectorSpeed(
        name=model.weights,
        kind=model.kind,
        ap=known.ap if known else 0.0,
        size=getattr(one, "size", (0, 0)),
        look=look,
        rate=rate,
        busy=busy,
    )


def _frames() -> Iterator[tuple[Fraction, Any]]:
    """The frames of the film, with their times."""
    with closing(open_file(FILM)) as container:
        stream = picture_track(container)
        for _, at, frame in RecordingReader(container, [stream], lambda *_: None):
            if at is not None:
                yield at, frame


def _decoding(seconds: float) -> tuple[float, int]:
    """CPU time of decoding one picture of the film, and its pixels."""
    count, pixels = 0, 0
    used, end = time.process_time(), time.perf_counter() + seconds
    for _, frame in _frames():
        count, pixels = count + 1, frame.width * frame.height
        if time.perf_counter() > end:
            break
    return (time.process_time() - used) / count, pixels


def _seeing(seconds: float) -> tuple[float, float]:
    """CPU time of a frame in capture, without decoding, and in vision, without the detector."""
    motion, due = model_for(Detect(), FPS), Fraction(0)
    capture, view = [], []
    end = time.perf_counter() + seconds
    for at, frame in _frames():
        if at < due:
            continue
        due += Fraction(1, FPS)
        began = time.process_time()
        picture = recordings.Picture(frame, WIDTH)
        measured(motion, picture.luma, round(at * SECOND))
        jpeg = picture.jpeg()
        shown = time.process_time()
        luma_and_sharpness(decoded(jpeg.data, jpeg.width, jpeg.height))
        capture.append(shown - began)
        view.append(time.process_time() - shown)
        if time.perf_counter() > end:
            break
    return statistics.mean(capture), statistics.mean(view)


def _pose(model: Model, pictures: Sequence[Pixels], seconds: float) -> float:
    pose = adapted("pose", model)
    upright = Box(label="person", score=0.9, x1=0.4, y1=0.2, x2=0.6, y2=0.95)
    return _cpu(lambda: pose([Person(pictures[0], upright)]), seconds)


def _sound(model: Model, seconds: float) -> float:
    sound, dice = adapted("sound", model), np.random.default_rng(1)
    length = HEARD_BY_YAMNET.stop - HEARD_BY_YAMNET.start

    def hear() -> None:  # always another one: the model remembers what it has heard
        sound([dice.normal(0, 0.1, length).astype(np.float32)])

    return _cpu(hear, seconds)
