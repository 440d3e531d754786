"""Detects objects with ONNX Runtime: one adapter for YOLOX and for ultralytics' ONNX exports.

The family of a file is found from its output shape, by one run on grey pictures:

    YOLOX             (b, n, 5 + c)   raw offsets on grids of stride 8, 16, 32; BGR 0..255, top left
    ultralytics       (b, 4 + c, n)   centre x, y, w, h in input pixels; RGB 0..1, centred
    ultralytics, nms  (b, n, 6)       x1, y1, x2, y2, score, class; RGB 0..1, centred

YOLOX: Ge et al. 2021, arXiv:2107.08430. Class names come from the metadata key `names`, as
ultralytics writes it; a file with 80 classes and no names is assumed to have those of COCO.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from models.onnx_file import read_onnx
from models.onnx_session import open_session, session_options
from models.vision.boxes import boxes, suppress
from models.vision.letterbox import Fit, Letterbox
from pipeline.config.fields import OBJECTS, PROVIDERS
from pipeline.config.schema import Model
from pipeline.errors import ConfigError, OutsideError, WeightsError
from pipeline.types import Box

STRIDES = (8, 16, 32)
MAX_CANDIDATES = 1000  # limit of NMS's input: its cost is quadratic
DEFAULT_SIZE = 640  # px; for a graph with open height and width and no `imgsz`

Raw = tuple[np.ndarray, np.ndarray, np.ndarray]  # corners (n, 4) in input pixels, scores, classes


def load(path: Path, settings: Model) -> Detector:
    """The detector that a config names; a folder must hold one ONNX file."""
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
    if len(files) != 1:
        msg = f"models.detector.weights: {path} holds {len(files)} .onnx files: name the one to use"
        raise ConfigError(msg)
    return Detector(files[0], providers=settings.providers, threads=settings.threads)


class Detector:
    """Detects objects: maps a batch of BGR uint8 pictures (h x w x 3) to a tuple of boxes each.

    Boxes are fractions of the picture, rounded to 1e-3, best first. A graph with a fixed batch size
    runs picture by picture; one with an open batch axis runs up to `max_batch` at once. `threads` 0
    means one per core. Not thread-safe. Raises WeightsError for a missing, broken or foreign file,
    OutsideError for a provider that this machine lacks, ConfigError for an unknown one.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] = ("cpu",),
        threads: int = 0,
        min_score: float = 0.1,
        iou: float = 0.6,
        max_boxes: int = 100,
        max_batch: int = 16,
    ) -> None:
        self._path = Path(path)
        self._min_score, self._iou, self._max_boxes = min_score, iou, max_boxes
        self._session = _open(self._path, providers, threads)
        if len(self._session.get_inputs()) != 1 or len(self._session.get_outputs()) < 1:
            msg = f"{self._path.name}: not a detector: one picture input is expected"
            raise WeightsError(msg)
        entry = self._session.get_inputs()[0]
        meta = self._session.get_modelmeta().custom_metadata_map
        if meta.get("task", "detect") != "detect":
            msg = f"{self._path.name}: made for {meta['task']!r}, not for detection"
            raise WeightsError(msg)
        if entry.type not in ("tensor(float)", "tensor(float16)") or len(entry.shape) != 4:
            msg = f"{self._path.name}: takes {entry.type} {entry.shape}, not a picture"
            raise WeightsError(msg)
        self._input, self._output = entry.name, self._session.get_outputs()[0].name
        self._dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        batch, _, height, width = entry.shape
        self._batch = 1 if isinstance(batch, int) else max_batch
        if isinstance(batch, int) and batch != 1:
            msg = f"{self._path.name}: fixed batch of {batch}; export it with 1 or open"
            raise WeightsError(msg)
        self._size = _size(height, width, meta)
        self._tensor = np.zeros((self._batch, 3, *self._size), self._dtype)
        self._read, ultralytics = self._family(meta)
        self._fits: list[Fit | None] = [None] * self._batch  # places of the pictures in the tensor
        self._letterbox = Letterbox(
            *self._size, centre=ultralytics, rgb=ultralytics, divide=255.0 if ultralytics else 1.0
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, by number."""
        return self._labels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input in pixels."""
        return self._size

    @property
    def batch(self) -> int:
        """The most pictures that one run of the graph takes."""
        return self._batch

    def prepare(self, image: np.ndarray, slot: int = 0) -> Fit:
        """Writes one picture into the input tensor; benchmarks call it before `run`."""
        fit = self._letterbox.place(image, self._tensor[slot], self._fits[slot])
        self._fits[slot] = fit
        return fit

    def run(self, count: int = 1) -> np.ndarray:
        """Runs only the graph, on the first `count` prepared pictures."""
        return self._session.run([self._output], {self._input: self._tensor[:count]})[0]

    def postprocess(self, output: np.ndarray, fit: Fit) -> tuple[Box, ...]:
        """Converts one picture's part of the output of `run` to boxes."""
        corners, scores, classes = self._read(output)
        scores = scores.round(3)
        # Also drops NaN: a comparison with NaN is false.
        good = np.flatnonzero((scores >= self._min_score) & np.isfinite(corners).all(1))
        best = good[np.argsort(-scores[good], kind="stable")[:MAX_CANDIDATES]]
        corners, scores, classes = corners[best], scores[best], classes[best]
        if self._read != self._read_finished:
            kept = suppress(corners, classes, self._iou)[: self._max_boxes]
            corners, scores, classes = corners[kept], scores[kept], classes[kept]
        return boxes(fit.to_fractions(corners), scores, [self._labels[c] for c in classes])[
            : self._max_boxes
        ]

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        """Returns the boxes of each picture, in order."""
        found: list[tuple[Box, ...]] = []
        for first in range(0, len(batch), self._batch):
            images = batch[first : first + self._batch]
            fits = [self.prepare(image, slot) for slot, image in enumerate(images)]
            outputs = self.run(len(images))
            found += [self.postprocess(row, fit) for row, fit in zip(outputs, fits, strict=True)]
        return found

    def _family(self, meta: dict[str, str]):
        """Returns the reader for the outputs, and whether the input format is ultralytics'."""
        self._tensor[...] = 114 / 255
        shape = self.run(1).shape
        height, width = self._size
        cells = sum((height // s) * (width // s) for s in STRIDES)
        names = _names(meta, self._path.name)
        # ultralytics always writes `task`; this tells a YOLOX of one class from a list of boxes.
        if len(shape) == 3 and shape[1] == cells and shape[2] > 5 and "task" not in meta:
            self._grid, self._stride = _grids(height, width)
            self._labels = _labels(names, shape[2] - 5, self._path.name)
            return self._read_yolox, False
        if len(shape) == 3 and shape[2] == cells and shape[1] > 4:
            self._labels = _labels(names, shape[1] - 4, self._path.name)
            return self._read_ultralytics, True
        if len(shape) == 3 and shape[2] == 6:
            self._labels = names or OBJECTS
            return self._read_finished, True
        msg = (
            f"{self._path.name}: output {shape} is neither YOLOX (b, {cells}, 5+classes) nor "
            f"ultralytics (b, 4+classes, {cells}) or (b, n, 6)"
        )
        raise WeightsError(msg)

    def _read_yolox(self, rows: np.ndarray) -> Raw:
        # A score is objectness * class: rows with too low an objectness cannot pass.
        kept = np.flatnonzero(rows[:, 4] >= self._min_score)
        rows = rows[kept]
        classes = rows[:, 5:].argmax(1)
        scores = rows[:, 4] * rows[np.arange(len(rows)), classes + 5]
        stride = self._stride[kept]
        centre = (rows[:, :2] + self._grid[kept]) * stride
        half = np.exp(np.minimum(rows[:, 2:4], 16.0)) * stride / 2
        return np.concatenate([centre - half, centre + half], 1), scores, classes

    def _read_ultralytics(self, columns: np.ndarray) -> Raw:
        scores = columns[4:].max(0)
        kept = np.flatnonzero(scores >= self._min_score)
        columns = columns[:, kept].astype(np.float32)
        centre, half = columns[:2].T, columns[2:4].T / 2
        corners = np.concatenate([centre - half, centre + half], 1)
        return corners, columns[4:].max(0), columns[4:].argmax(0)

    def _read_finished(self, rows: np.ndarray) -> Raw:
        rows = rows.astype(np.float32)
        classes = rows[:, 5].astype(np.int64)
        known = (classes >= 0) & (classes < len(self._labels))
        return rows[:, :4], np.where(known, rows[:, 4], 0.0), classes


def _open(path: Path, providers: Sequence[str], threads: int) -> ort.InferenceSession:
    unknown = [name for name in providers if name not in PROVIDERS]
    if unknown or not providers:
        known = ", ".join(PROVIDERS)
        msg = f"providers {list(providers)}: choose one or more of {known}"
        raise ConfigError(msg)
    wanted = [PROVIDERS[name] for name in providers]
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
    model = read_onnx(path)
    options = session_options(threads=threads, often=True)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between frames take the cores from the hearing and speech stages.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = open_session(model, options, wanted)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        msg = f"{path.name}: ONNX Runtime cannot load it: {_first_line(error)}"
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


def _size(height: object, width: object, meta: dict[str, str]) -> tuple[int, int]:
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    said = _literal(meta.get("imgsz", ""))
    if isinstance(said, list | tuple) and len(said) == 2 and all(isinstance(n, int) for n in said):
        return int(said[0]), int(said[1])
    return DEFAULT_SIZE, DEFAULT_SIZE


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


def _labels(names: tuple[str, ...], classes: int, file: str) -> tuple[str, ...]:
    labels = names or (OBJECTS if classes == len(OBJECTS) else ())
    if len(labels) != classes:
        msg = f"{file}: {classes} classes but {len(labels)} names; put them into metadata `names`"
        raise WeightsError(msg)
    return labels


def _grids(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns cell corners (n, 2) and strides (n, 1) in the order of YOLOX's rows."""
    grids, strides = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[: height // stride, : width // stride]
        grids.append(np.stack([xs.ravel(), ys.ravel()], 1))
        strides.append(np.full((xs.size, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides).astype(np.float32)
