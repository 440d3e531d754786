"""Detects objects with ONNX Runtime, whatever family the file is of (`models.vision.families`).

Class names come from the metadata key `names`, as ultralytics writes it; a file with as many
classes as COCO and no names is assumed to have those of COCO.
"""

from __future__ import annotations

import ast
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from models.onnx_file import read_onnx
from models.onnx_session import open_session, session_options
from models.registry import REGISTRY
from models.vision.boxes import boxes, suppress
from models.vision.families import SIZES, Family, Rows, family_of, resized
from models.vision.letterbox import GREY, Fit, Letterbox, Preprocess
from models.vision.open_size import STEP, open_size, same
from pipeline.config.fields import PROVIDERS
from pipeline.config.schema import Model
from pipeline.errors import ConfigError, OutsideError, WeightsError
from pipeline.types import Box

MOST_LANES = 8  # pictures at once on the cores of a processor; each has tensors of its own
SAME_OBJECT = 0.6  # IoU from which two candidates are one object
MAX_CANDIDATES = 1000  # limit of NMS's input: its cost is quadratic
DEFAULT_SIZE = 640  # px; for a graph with open height and width, no `imgsz` and no given size


def load(path: Path, settings: Model) -> Detector:
    """The detector that a config names; a folder must hold one ONNX file."""
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        msg = f"models.detector.weights: {path} holds {len(files)} .onnx files: name the one to use"
        raise ConfigError(msg)
    known = REGISTRY.get(settings.weights)
    return Detector(
        files[0],
        providers=settings.providers,
        threads=settings.threads,
        side=known.side if known else 0,
    )


class Detector:
    """Detects objects: maps a batch of BGR uint8 pictures (h x w x 3) to a tuple of boxes each.

    Boxes are fractions of the picture, rounded to 1e-3, best first. A graph with a fixed batch size
    runs picture by picture; one with an open batch axis runs up to `max_batch` at once. `fitted`: a
    YOLOX graph on the CPU looks at the picture without the padding of its square. With
    `threads` 0, the CPU runs single pictures, one on each core at once. `side` in px is that of an
    input whose size the file leaves open. Not thread-safe. Raises WeightsError for a missing,
    broken or foreign file, OutsideError for a provider that this machine lacks, ConfigError for an
    unknown one.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] = ("cpu",),
        threads: int = 0,
        min_score: float = 0.1,
        max_boxes: int = 100,
        max_batch: int = 16,
        *,
        fitted: bool = True,
        side: int = 0,
    ) -> None:
        self._path = Path(path)
        self._min_score, self._max_boxes = min_score, max_boxes
        alone = tuple(providers) == ("cpu",) and threads == 0
        of = partial(_session, self._path.name, providers, 1 if alone else threads)
        model = _read(self._path, providers)
        self._session = of(model)
        entry, self._sizes = _inputs(self._session, self._path.name)
        meta = self._session.get_modelmeta().custom_metadata_map
        if meta.get("task", "detect") != "detect":
            msg = f"{self._path.name}: made for {meta['task']!r}, not for detection"
            raise WeightsError(msg)
        if entry.type not in ("tensor(float)", "tensor(float16)") or len(entry.shape) != 4:
            msg = f"{self._path.name}: takes {entry.type} {entry.shape}, not a picture"
            raise WeightsError(msg)
        self._input = entry.name
        dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        batch, _, height, width = entry.shape
        self._batch = 1 if isinstance(batch, int) or alone else max_batch
        if isinstance(batch, int) and batch != 1:
            msg = f"{self._path.name}: fixed batch of {batch}; export it with 1 or open"
            raise WeightsError(msg)
        self._size = _size(height, width, meta, side)
        self._inputs = [_Input(self._size, self._batch, dtype)]
        self._family = self._found(meta)
        opened_up = not (isinstance(height, int) and isinstance(width, int))
        if opened_up and not side and "imgsz" not in meta and self._family.one_size:
            msg = (
                f"{self._path.name}: its input has no fixed size, and such a network finds nothing "
                "at another size than its own; export it with a fixed one, or put `imgsz`, like "
                "[384, 384] for RF-DETR-Nano, into its metadata"
            )
            raise WeightsError(msg)
        self._families = {self._size: self._family}  # by the size of the input
        opened = self._opened(model, of) if fitted and tuple(providers) == ("cpu",) else None
        self._open = opened is not None
        self._session = opened or self._session
        cores = min(len(os.sched_getaffinity(0)), MOST_LANES) if alone else 1
        self._inputs = [
            _Input(self._size, self._batch, dtype, self._family.preprocess, step=STEP * self._open)
            for _ in range(cores)
        ]
        self._others = ThreadPoolExecutor(cores - 1, "detector") if cores > 1 else None

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, by number."""
        return tuple(label for label in self._family.labels if label)

    @property
    def family(self) -> str:
        """The name of the family that the file is of."""
        return self._family.name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels, at most."""
        return self._size

    @property
    def batch(self) -> int:
        """The most pictures that one run of the graph takes."""
        return self._batch

    def prepare(self, image: np.ndarray, slot: int = 0) -> Fit:
        """Writes one picture into the input tensor; benchmarks call it before `run`."""
        return self._inputs[0].prepare(image, slot)

    def run(self, count: int = 1) -> list[Rows]:
        """Runs only the graph, on the first `count` prepared pictures; the outputs for each."""
        return self._rows(self._inputs[0], count)

    def _rows(self, place: _Input, count: int) -> list[Rows]:
        return list(zip(*self._run(self._family.outputs, place, count), strict=True))

    def _run(self, outputs: Sequence[str], place: _Input, count: int) -> list[np.ndarray]:
        feed = {self._input: place.tensor[:count]}
        if self._sizes:
            height, width = self._size
            feed[self._sizes] = np.tile(np.array([[width, height]], np.int64), (count, 1))
        found: list[np.ndarray] = self._session.run(list(outputs), feed)
        return found

    def postprocess(self, output: Rows, fit: Fit) -> tuple[Box, ...]:
        """Converts one picture's part of the output of `run` to boxes."""
        if fit.input not in self._families:
            self._families[fit.input] = resized(self._family, fit.input)
        corners, scores, classes = self._families[fit.input].read(output, self._min_score)
        scores, names = scores.round(3), self._family.labels
        # Also drops NaN: a comparison with NaN is false.
        good = (scores >= self._min_score) & np.isfinite(corners).all(1)
        good &= (classes >= 0) & (classes < len(names))
        good = np.flatnonzero(good)
        best = good[np.argsort(-scores[good], kind="stable")[:MAX_CANDIDATES]]
        best = best[[bool(names[number]) for number in classes[best]]]
        corners, scores, classes = corners[best], scores[best], classes[best]
        if self._family.suppress:
            kept = suppress(corners, classes, SAME_OBJECT)[: self._max_boxes]
            corners, scores, classes = corners[kept], scores[kept], classes[kept]
        return boxes(fit.to_fractions(corners), scores, [names[number] for number in classes])[
            : self._max_boxes
        ]

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        """Returns the boxes of each picture, in order."""
        if self._others is None or len(batch) < 2:
            return self._seen(self._inputs[0], batch)
        # Each core takes every so many pictures. So a picture costs no waits of threads on each
        # other, which are a tenth and more of its CPU time.
        lanes = [batch[lane :: len(self._inputs)] for lane in range(len(self._inputs))]
        others = [
            self._others.submit(self._seen, place, lane)
            for place, lane in zip(self._inputs[1:], lanes[1:], strict=True)
            if lane
        ]
        found: list[tuple[Box, ...]] = [()] * len(batch)
        found[:: len(self._inputs)] = self._seen(self._inputs[0], lanes[0])
        for lane, other in enumerate(others, 1):
            found[lane :: len(self._inputs)] = other.result()
        return found

    def _seen(self, place: _Input, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        found: list[tuple[Box, ...]] = []
        for first in range(0, len(batch), self._batch):
            images = batch[first : first + self._batch]
            fits = [place.prepare(image, slot) for slot, image in enumerate(images)]
            outputs = self._rows(place, len(images))
            found += [self.postprocess(row, fit) for row, fit in zip(outputs, fits, strict=True)]
        return found

    def _found(self, meta: dict[str, str]) -> Family:
        """The family of the file, by one run on a grey picture."""
        self._inputs[0].tensor[...] = GREY / 255
        outputs = [output.name for output in self._session.get_outputs()]
        shapes = {
            name: found.shape
            for name, found in zip(outputs, self._run(outputs, self._inputs[0], 1), strict=True)
        }
        file = self._path.name
        return family_of(shapes, self._size, _names(meta, file), task="task" in meta, file=file)

    def _opened(
        self, model: bytes, of: Callable[[bytes], ort.InferenceSession]
    ) -> ort.InferenceSession | None:
        """A session that takes pictures without their padding; None if the graph does not allow it.

        Only a YOLOX with a square input of fixed size is opened.
        """
        side = self._size[0]
        fixed = all(isinstance(n, int) for n in self._session.get_inputs()[0].shape)
        square = self._size == (side, side) and side % STEP == 0
        if not (fixed and square and self._family.name == "yolox"):
            return None
        try:
            session = of(open_size(model))
        except WeightsError:
            return None
        return session if same(self._session, session, side) else None


class _Input:
    """The tensors of the graph's input, and the places of the pictures in them. Not thread-safe.

    With a `step`, a picture gets the smallest input that holds it, in steps of so many pixels.
    """

    def __init__(
        self,
        size: tuple[int, int],
        batch: int,
        dtype: type[np.generic],
        preprocess: Preprocess | None = None,
        step: int = 0,
    ) -> None:
        self._size, self._batch, self._dtype, self._step = size, batch, dtype, step
        self._preprocess = preprocess or Preprocess()
        self._whole = Letterbox(*size, self._preprocess)
        self._places: dict[tuple[int, int], tuple[Letterbox, np.ndarray, list[Fit | None]]] = {}
        self.tensor = self._place(size)[1]

    def prepare(self, image: np.ndarray, slot: int = 0) -> Fit:
        """Writes one picture into the tensor; returns its place."""
        letterbox, self.tensor, fits = self._place(self._needed(image))
        fits[slot] = fit = letterbox.place(image, self.tensor[slot], fits[slot])
        return fit

    def _needed(self, image: np.ndarray) -> tuple[int, int]:
        if not self._step:
            return self._size
        fit = self._whole.fit(*image.shape[:2])
        high, wide = round(fit.height * fit.scale_y), round(fit.width * fit.scale_x)
        return -(-high // self._step) * self._step, -(-wide // self._step) * self._step

    def _place(self, size: tuple[int, int]) -> tuple[Letterbox, np.ndarray, list[Fit | None]]:
        if size not in self._places:
            tensor = np.zeros((self._batch, 3, *size), self._dtype)
            self._places[size] = Letterbox(*size, self._preprocess), tensor, [None] * self._batch
        return self._places[size]


def _inputs(session: ort.InferenceSession, file: str) -> tuple[Any, str]:
    """The input for pictures, and the name of the input for their sizes, or an empty text."""
    pictures, sizes = [], ""
    for entry in session.get_inputs():
        if entry.name == SIZES and entry.type == "tensor(int64)":
            sizes = entry.name
        else:
            pictures.append(entry)
    if len(pictures) != 1:
        msg = f"{file}: not a detector: one picture input is expected"
        raise WeightsError(msg)
    return pictures[0], sizes


def _read(path: Path, providers: Sequence[str]) -> bytes:
    """Returns the bytes of the file; the providers are checked before."""
    unknown = [name for name in providers if name not in PROVIDERS]
    if unknown or not providers:
        known = ", ".join(PROVIDERS)
        msg = f"providers {list(providers)}: choose one or more of {known}"
        raise ConfigError(msg)
    there = ort.get_available_providers()
    missing = [name for name in providers if PROVIDERS[name] not in there]
    if missing:
        usable = ", ".join(name for name, full in PROVIDERS.items() if full in there)
        msg = f"provider {missing[0]!r} is not in this onnxruntime; it has: {usable}"
        raise OutsideError(msg)
    if not path.is_file():
        msg_0 = f"{path}: no such model file; try `fusewatch weights pull`"
        raise WeightsError(msg_0)
    if "cuda" in providers or "tensorrt" in providers:
        # CUDA and cuDNN may be packages of pip, which the loader of libraries does not search.
        # ONNX Runtime prints what it does not find; stdout is for alerts.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    return read_onnx(path)


def _session(
    name: str, providers: Sequence[str], threads: int, model: bytes
) -> ort.InferenceSession:
    wanted = [PROVIDERS[provider] for provider in providers]
    options = session_options(threads=threads, often=True)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between frames take the cores from the hearing and speech stages.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = open_session(model, options, wanted)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        msg = f"{name}: ONNX Runtime cannot load it: {_first_line(error)}"
        raise WeightsError(msg) from error
    # ONNX Runtime silently uses the CPU when a provider's library exists but fails to start.
    failed = [name for name in providers if PROVIDERS[name] not in session.get_providers()]
    if failed:
        msg = (
            f"provider {failed[0]!r} is built in but did not start here (driver or library missing)"
        )
        raise OutsideError(msg)
    return session


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _size(height: object, width: object, meta: dict[str, str], side: int) -> tuple[int, int]:
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    said = _literal(meta.get("imgsz", ""))
    if isinstance(said, list | tuple) and len(said) == 2 and all(isinstance(n, int) for n in said):
        return int(said[0]), int(said[1])
    return side or DEFAULT_SIZE, side or DEFAULT_SIZE


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None  # the caller treats unreadable metadata as missing


def _names(meta: dict[str, str], file: str) -> tuple[str, ...]:
    if "names" not in meta:
        return ()
    said = _literal(meta["names"])
    if isinstance(said, dict):
        said = [said.get(number) for number in range(len(said))]
    if not isinstance(said, list | tuple) or not all(isinstance(name, str) for name in said):
        msg = f"{file}: its metadata `names` is not a list of class names"
        raise WeightsError(msg)
    return tuple(said)
