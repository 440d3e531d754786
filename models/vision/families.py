"""The families of detectors: what each takes as input, and how its output is read.

The family of a file is found from the names and shapes of its outputs, by one run on grey pictures
(b pictures, n candidates, c classes):

    family            outputs                       input
    YOLOX             (b, n, 5 + c): raw offsets    BGR 0..255, top left
    NanoDet-Plus      (b, n, c + 32): distances     BGR by ImageNet's mean, stretched
    ultralytics       (b, 4 + c, n): centres        RGB 0..1, centred
    ultralytics, nms  (b, n, 6): corners            RGB 0..1, centred
    D-FINE, RT-DETR   labels, boxes, scores         RGB 0..1, stretched
    the same by       logits, pred_boxes            RGB 0..1, stretched
    Hugging Face
    RF-DETR           labels, dets                  RGB by ImageNet's mean, stretched
    the same by       logits, pred_boxes, 91        RGB by ImageNet's mean, stretched
    Hugging Face      classes

The grids of YOLOX have strides of 8, 16 and 32 pixels, those of NanoDet-Plus also of 64. Centres,
sizes and corners are in pixels of the input; those of `pred_boxes` and `dets` are in fractions.

YOLOX: Ge et al. 2021, arXiv:2107.08430. NanoDet-Plus: RangiLyu/nanodet; its distances are
distributions over 0..7 strides (generalised focal loss, Li et al. 2020, arXiv:2006.04388).
RT-DETR: Zhao et al. 2023, arXiv:2304.08069. D-FINE: Peng et al. 2024, arXiv:2410.13842. RF-DETR:
Robinson et al. 2025, arXiv:2511.09554.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.vision.letterbox import Preprocess
from pipeline.config.fields import OBJECTS
from pipeline.errors import WeightsError

STRIDES = (8, 16, 32)
NANODET_STRIDES = (*STRIDES, 64)
BINS = 8  # of the distribution of one distance of NanoDet-Plus
SIZES = "orig_target_sizes"  # the second input of the exports of D-FINE and RT-DETR
_IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # R, G, B: mean and deviation
# The category ids of COCO go to 90, and these are not used.
_UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_IDS = [number for number in range(91) if number not in _UNUSED_IDS]

Raw = tuple[np.ndarray, np.ndarray, np.ndarray]  # corners (n, 4) in input pixels, scores, classes
Rows = tuple[np.ndarray, ...]  # the outputs for one picture
Shapes = Mapping[str, tuple[int, ...]]  # of the outputs, in the order of the file


class Family(NamedTuple):
    """How the files of one kind are run and read.

    `outputs` are the names of the outputs that `read` takes. `read` converts them, for one picture,
    to candidates; those below the lowest score may be left out. `labels` are the class names by
    number; an empty name is no class. `suppress` says whether candidates overlap, so that they need
    non-maximum suppression. `one_size`: the networks see well at the size of their training alone.
    """

    name: str
    outputs: tuple[str, ...]
    read: Callable[[Rows, float], Raw]
    labels: tuple[str, ...]
    preprocess: Preprocess
    suppress: bool
    one_size: bool = False


def family_of(
    shapes: Shapes, size: tuple[int, int], names: Sequence[str], *, task: bool, file: str
) -> Family:
    """The family of a file with outputs of these shapes, and an input of `size` (height, width).

    `names` are the class names that the file has, if any; `task` says that it has the metadata
    `task`, which ultralytics always writes. Raises WeightsError for an unknown family.
    """
    if {"labels", "boxes", "scores"} <= shapes.keys():
        labels = tuple(names) or OBJECTS
        return Family(
            "detr", ("labels", "boxes", "scores"), _read_finished_detr, labels, _STRETCHED, False
        )
    for boxes, logits in (("pred_boxes", "logits"), ("dets", "labels")):
        if {boxes, logits} <= shapes.keys():
            classes = shapes[logits][-1]
            whole = classes == len(_COCO_IDS) + len(_UNUSED_IDS)
            # Of Hugging Face's exports, RF-DETR's alone have the ids of COCO.
            rf_detr = boxes == "dets" or (whole and not names)
            preprocess = _NORMALISED if rf_detr else _STRETCHED
            if boxes == "dets" and len(names) == classes - 1:
                labels = (*names, "")  # the last one of an RF-DETR trained anew is the background
            elif rf_detr and whole and not names:
                labels = coco_names(classes)
            else:
                labels = _labels(names, classes, file)
            reader = _DetrReader(size)
            return Family("detr", (boxes, logits), reader, labels, preprocess, False, rf_detr)
    output, shape = next(iter(shapes.items()))
    if len(shape) == 3 and (found := _single(output, shape, size, names, task=task, file=file)):
        return found
    cells = _cells(size, STRIDES)
    msg = (
        f"{file}: outputs {_said(shapes)} are neither YOLOX (b, {cells}, 5+classes), NanoDet-Plus "
        f"(b, {_cells(size, NANODET_STRIDES)}, classes+{4 * BINS}), ultralytics (b, 4+classes, "
        f"{cells}) or (b, n, 6), nor D-FINE, RT-DETR or RF-DETR (boxes and scores)"
    )
    raise WeightsError(msg)


def _said(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _single(
    output: str,
    shape: tuple[int, ...],
    size: tuple[int, int],
    names: Sequence[str],
    *,
    task: bool,
    file: str,
) -> Family | None:
    """The family of a file with one output of three axes."""
    cells = _cells(size, STRIDES)
    # `task` tells a YOLOX of one class from a list of boxes.
    if shape[1] == cells and shape[2] > 5 and not task:
        reader, labels = _YoloxReader(size), _labels(names, shape[2] - 5, file)
        return Family("yolox", (output,), reader, labels, Preprocess(), True)
    if shape[1] == _cells(size, NANODET_STRIDES) and shape[2] > 4 * BINS and not task:
        classes = shape[2] - 4 * BINS
        nano, labels = _NanoDetReader(size, classes), _labels(names, classes, file)
        return Family("nanodet", (output,), nano, labels, _NANODET, True)
    if shape[2] == cells and shape[1] > 4:
        labels = _labels(names, shape[1] - 4, file)
        return Family("ultralytics", (output,), _read_ultralytics, labels, _CENTRED, True)
    if shape[2] == 6:
        labels = tuple(names) or OBJECTS
        return Family("ultralytics", (output,), _read_finished, labels, _CENTRED, False)
    return None


_CENTRED = Preprocess(place="centre", rgb=True, spread=(255.0,) * 3)
_STRETCHED = Preprocess(place="stretch", rgb=True, spread=(255.0,) * 3)
_NORMALISED = Preprocess(place="stretch", rgb=True, mean=_IMAGENET[0], spread=_IMAGENET[1])
_NANODET = Preprocess(place="stretch", mean=_IMAGENET[0][::-1], spread=_IMAGENET[1][::-1])


def coco_names(classes: int) -> tuple[str, ...]:
    """The class names by the ids of COCO's annotations, which have gaps: an empty name."""
    by_id = dict(zip(_COCO_IDS, OBJECTS, strict=True))
    return tuple(by_id.get(number, "") for number in range(classes))


def _labels(names: Sequence[str], classes: int, file: str) -> tuple[str, ...]:
    labels = tuple(names) or (OBJECTS if classes == len(OBJECTS) else ())
    if len(labels) != classes:
        msg = f"{file}: {classes} classes but {len(labels)} names; put them into metadata `names`"
        raise WeightsError(msg)
    return labels


def _cells(size: tuple[int, int], strides: Sequence[int]) -> int:
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def _grids(size: tuple[int, int], strides: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Cell corners (n, 2) and strides (n, 1), row by row, the finest grid first."""
    grids, of_each = [], []
    for stride in strides:
        ys, xs = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        grids.append(np.stack([xs.ravel(), ys.ravel()], 1))
        of_each.append(np.full((xs.size, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(of_each).astype(np.float32)


def _around(centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Corners (n, 4) of boxes by their centres (n, 2) and halves of their sides (n, 2)."""
    return np.concatenate([centre - half, centre + half], 1)


def resized(family: Family, size: tuple[int, int]) -> Family:
    """The same family for another size of the input; only that of YOLOX may have several."""
    assert family.name == "yolox"  # noqa: S101
    return family._replace(read=_YoloxReader(size))


class _YoloxReader:
    def __init__(self, size: tuple[int, int]) -> None:
        self._grid, self._stride = _grids(size, STRIDES)

    def __call__(self, outputs: Rows, min_score: float) -> Raw:
        (rows,) = outputs
        # A score is objectness * class: rows with too low an objectness cannot pass.
        kept = np.flatnonzero(rows[:, 4] >= min_score)
        rows = rows[kept]
        classes = rows[:, 5:].argmax(1)
        scores = rows[:, 4] * rows[np.arange(len(rows)), classes + 5]
        stride = self._stride[kept]
        centre = (rows[:, :2] + self._grid[kept]) * stride
        half = np.exp(np.minimum(rows[:, 2:4], 16.0)) * stride / 2
        return _around(centre, half), scores, classes


class _NanoDetReader:
    def __init__(self, size: tuple[int, int], classes: int) -> None:
        grid, self._stride = _grids(size, NANODET_STRIDES)
        self._points, self._classes = grid * self._stride, classes

    def __call__(self, outputs: Rows, min_score: float) -> Raw:
        rows = outputs[0]
        classes = rows[:, : self._classes].argmax(1)
        scores = rows[np.arange(len(rows)), classes]
        # The comparison is one of rounded scores, as in the caller.
        kept = np.flatnonzero(scores.round(3) >= min_score)
        bins = rows[kept, self._classes :].reshape(-1, 4, BINS).astype(np.float32)
        spread = np.exp(bins - bins.max(2, keepdims=True))
        mean = (spread @ np.arange(BINS, dtype=np.float32)) / spread.sum(2)
        distances, points = mean * self._stride[kept], self._points[kept]
        corners = np.concatenate([points - distances[:, :2], points + distances[:, 2:]], 1)
        return corners, scores[kept], classes[kept]


class _DetrReader:
    """Reads centres and sizes in fractions of the input (n, 4), and logits (n, c), one a class."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._scale = np.array([size[1], size[0]], np.float32)

    def __call__(self, outputs: Rows, min_score: float) -> Raw:
        boxes, logits = (rows.astype(np.float32) for rows in outputs)
        # As in the originals: one query may be a candidate of several classes.
        scores = (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).round(3)
        query, classes = np.nonzero(scores >= min_score)
        centre, half = boxes[query, :2] * self._scale, boxes[query, 2:] * self._scale / 2
        return _around(centre, half), scores[query, classes], classes


def _read_finished_detr(outputs: Rows, _: float) -> Raw:
    classes, corners, scores = outputs
    return corners.astype(np.float32), scores.astype(np.float32), classes.astype(np.int64)


def _read_ultralytics(outputs: Rows, min_score: float) -> Raw:
    (columns,) = outputs
    scores = columns[4:].max(0)
    kept = np.flatnonzero(scores >= min_score)
    columns = columns[:, kept].astype(np.float32)
    corners = _around(columns[:2].T, columns[2:4].T / 2)
    return corners, columns[4:].max(0), columns[4:].argmax(0)


def _read_finished(outputs: Rows, _: float) -> Raw:
    rows = outputs[0].astype(np.float32)
    return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)
