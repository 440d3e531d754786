"""NanoDet-Plus by ONNX Runtime, for comparison only: `benchmarks.detection` runs it.

Its output holds, for each point of grids of stride 8, 16, 32 and 64, 80 class scores and the four
distances to the sides of the box, each as a distribution over 0..7 strides (generalised focal loss,
Li et al. 2020, arXiv:2006.04388). The picture is stretched to the input and normalised as in
`config/nanodet-plus-m_416.yml` of RangiLyu/nanodet.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from models.onnx_file import read_onnx
from models.vision.boxes import boxes, suppress
from pipeline.config.fields import OBJECTS
from pipeline.types import Box

STRIDES = (8, 16, 32, 64)
BINS = 8  # of a distance's distribution
MEAN = np.array([103.53, 116.28, 123.675], np.float32)  # B, G, R
SPREAD = np.array([57.375, 57.12, 58.395], np.float32)


class NanoDet:
    """Detects objects: BGR uint8 pictures (h x w x 3) to boxes, in the steps of `Detector`."""

    def __init__(self, path: Path, threads: int, min_score: float, iou: float = 0.6) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        self._session = ort.InferenceSession(read_onnx(path), options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        self._height, self._width = self._session.get_inputs()[0].shape[2:]
        self._min_score, self._iou = min_score, iou
        self._tensor = np.empty((1, 3, self._height, self._width), np.float32)
        points, strides = [], []
        for stride in STRIDES:
            rows, columns = -(-self._height // stride), -(-self._width // stride)
            ys, xs = np.mgrid[:rows, :columns]
            points.append(np.stack([xs.ravel(), ys.ravel()], 1) * stride)
            strides.append(np.full(xs.size, stride))
        self._points = np.concatenate(points).astype(np.float32)
        self._strides = np.concatenate(strides).astype(np.float32)

    def prepare(self, picture: np.ndarray) -> None:
        """Writes the picture into the input tensor."""
        small = cv2.resize(picture, (self._width, self._height))
        self._tensor[0] = ((small - MEAN) / SPREAD).transpose(2, 0, 1)

    def run(self) -> np.ndarray:
        """Runs only the graph."""
        return self._session.run(None, {self._input: self._tensor})[0]

    def postprocess(self, rows: np.ndarray) -> tuple[Box, ...]:
        """Converts the output for one picture to boxes."""
        classes = rows[:, : len(OBJECTS)].argmax(1)
        scores = rows[np.arange(len(rows)), classes]
        kept = np.flatnonzero(scores >= self._min_score)
        kept = kept[np.argsort(-scores[kept], kind="stable")[:1000]]
        spread = np.exp(rows[kept, len(OBJECTS) :].reshape(-1, 4, BINS))
        distances = (spread @ np.arange(BINS)) / spread.sum(2) * self._strides[kept, None]
        corners = np.concatenate(
            [self._points[kept] - distances[:, :2], self._points[kept] + distances[:, 2:]], 1
        )
        left = suppress(corners, classes[kept], self._iou)[:100]
        size = np.array([self._width, self._height] * 2, np.float32)
        labels = [OBJECTS[number] for number in classes[kept][left]]
        return boxes(corners[left] / size, scores[kept][left], labels)
