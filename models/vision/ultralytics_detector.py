"""Detects objects with the `ultralytics` package: `.pt`, OpenVINO folders, TensorRT `.engine`.

The package and its weights are AGPL-3.0; a config that names this adapter accepts that licence. A
`.pt` file is a pickle, and loading it runs the code in it: load only your own. By default the
package sends usage data and installs missing packages; `models/__init__.py` switches both off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.vision.boxes import boxes
from pipeline.config.schema import Model
from pipeline.errors import ConfigError, OutsideError, WeightsError
from pipeline.types import Box

DEVICES = {"cpu": "cpu", "openvino": "cpu", "cuda": "cuda:0", "tensorrt": "cuda:0"}
SUFFIXES = (".pt", ".engine")
DEFAULT_SIZE = 640  # px; for a .pt, which takes any size


def load(path: Path, settings: Model) -> UltralyticsDetector:
    """The detector that a config names."""
    return UltralyticsDetector(path, providers=settings.providers, threads=settings.threads)


class UltralyticsDetector:
    """Detects objects: maps a batch of BGR uint8 pictures (h x w x 3) to a tuple of boxes each.

    It has the same contract as `models.vision.detector.Detector`. The first of `providers` selects
    the device. Pictures of one shape run together if the model allows it (`.pt`, exports with open
    batch). Raises OutsideError without the package or the device, WeightsError for a missing or
    broken model, ConfigError for an unknown provider.
    """

    def __init__(
        self,
        path: str | Path,
        providers: Sequence[str] = ("cpu",),
        threads: int = 0,
        min_score: float = 0.1,
        iou: float = 0.7,
        max_boxes: int = 100,
    ) -> None:
        path = Path(path)
        if not providers or providers[0] not in DEVICES:
            msg = f"providers {list(providers)}: choose one of {', '.join(DEVICES)}"
            raise ConfigError(msg)
        self._path = path
        self._settings = {
            "conf": max(min_score - 0.0005, 0.0),  # keeps scores that round up to min_score
            "iou": iou,
            "max_det": max_boxes,
            "device": DEVICES[providers[0]],
            "verbose": False,
        }
        self._min_score = min_score
        self._model = _load(path, threads)
        if path.suffix == ".pt":
            self._settings["imgsz"] = DEFAULT_SIZE
        names = self._first_run().names
        self._labels = tuple(names[number] for number in sorted(names))
        backend = self._model.predictor.model
        self._together = path.suffix == ".pt" or bool(getattr(backend, "dynamic", False))

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, by number."""
        return self._labels

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        """Returns the boxes of each picture, in order."""
        found: list[tuple[Box, ...]] = [()] * len(batch)
        for places in self._groups(batch):
            results = self._predict([np.ascontiguousarray(batch[place]) for place in places])
            for place, result in zip(places, results, strict=True):
                found[place] = self._boxes(result)
        return found

    def _groups(self, batch: Sequence[np.ndarray]) -> list[list[int]]:
        # In a batch of mixed shapes the padding differs, and so do the boxes.
        if not self._together:
            return [[place] for place in range(len(batch))]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(batch):
            groups.setdefault(picture.shape, []).append(place)
        return list(groups.values())

    def _predict(self, pictures: list[np.ndarray]) -> list[Any]:
        return list(self._model.predict(pictures, **self._settings))

    def _first_run(self) -> Any:
        """Loads the weights by running one grey picture; a missing device raises an error here."""
        grey = np.full((DEFAULT_SIZE, DEFAULT_SIZE, 3), 114, np.uint8)
        try:
            return self._predict([grey])[0]
        except ValueError as error:
            if "device" not in str(error).lower() or "cuda" not in str(error).lower():
                raise
            msg = f"device {self._settings['device']!r} is not there: torch sees no such GPU"
            raise OutsideError(msg) from error
        except (RuntimeError, OSError, ModuleNotFoundError) as error:
            msg = (
                f"{self._path.name}: ultralytics cannot run it: {str(error).splitlines()[0][:200]}"
            )
            raise WeightsError(msg) from error

    def _boxes(self, result: Any) -> tuple[Box, ...]:
        found = result.boxes
        scores = found.conf.cpu().numpy().astype(float).round(3)
        good = np.flatnonzero(scores >= self._min_score)
        labels = [self._labels[int(number)] for number in found.cls.cpu().numpy()[good]]
        return boxes(found.xyxyn.cpu().numpy()[good], scores[good], labels)


def _load(path: Path, threads: int) -> Any:
    folder = path.is_dir() and any(path.glob("*.xml"))
    if not path.exists():
        msg = f"{path}: no such model"
        raise WeightsError(msg)
    if not folder and path.suffix not in SUFFIXES:
        msg = f"{path}: a .pt, a .engine or a folder with OpenVINO's .xml is expected"
        raise WeightsError(msg)
    os.environ.setdefault("YOLO_VERBOSE", "false")
    try:
        import torch  # noqa: PLC0415 - optional, and heavy
        from ultralytics import YOLO  # noqa: PLC0415
    except ImportError as error:
        msg = f"ultralytics cannot be imported ({error.name}): pip install 'fusewatch[ultralytics]'"
        raise OutsideError(msg) from error
    if threads:
        torch.set_num_threads(threads)
    try:
        return YOLO(str(path), task="detect")
    except Exception as error:  # unpickling an unknown file may raise anything
        msg = f"{path.name}: ultralytics cannot load it: {type(error).__name__}"
        raise WeightsError(msg) from error
