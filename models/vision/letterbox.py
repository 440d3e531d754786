"""Fits a picture of any size into a model's fixed input, and maps boxes back to the picture.

OpenCV resizes here because it is ten times faster than numpy; of the files under `models/`, only
this one and `person_crop.py` import it.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

GREY = 114  # the padding of YOLOX and ultralytics


class Fit(NamedTuple):
    """The picture's place in the model's input: input pixel = picture pixel * scale + left/top."""

    width: int
    height: int
    scale_x: float
    scale_y: float
    left: int
    top: int

    def to_fractions(self, corners: np.ndarray) -> np.ndarray:
        """Converts input pixels (n, 4: x1 y1 x2 y2) to fractions of the picture, clipped to it."""
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        size = np.array(
            [self.width * self.scale_x, self.height * self.scale_y] * 2,
            np.float32,
        )
        return np.clip((corners - shift) / size, 0.0, 1.0)


class Letterbox:
    """Fits pictures into `height` x `width` and keeps their aspect ratio.

    `centre` puts the picture in the middle (ultralytics), otherwise at the top left (YOLOX). `rgb`
    swaps the channels; `divide` scales the values. It reuses buffers: not thread-safe.
    """

    def __init__(
        self, height: int, width: int, *, centre: bool, rgb: bool, divide: float = 1.0
    ) -> None:
        self._height, self._width = height, width
        self._centre, self._rgb = centre, rgb
        self._factor = np.float32(1.0 / divide)
        self._small = np.empty((0, 0, 3), np.uint8)
        self._planes = [np.empty((0, 0), np.uint8)] * 3

    @property
    def background(self) -> np.float32:
        """The value of the padding in the model's input."""
        return np.float32(GREY) * self._factor

    def fit(self, height: int, width: int) -> Fit:
        """Returns the place of a picture of this size."""
        ratio = min(self._height / height, self._width / width)
        # YOLOX truncates and ultralytics rounds, as in the evaluation of the networks.
        whole = round if self._centre else int
        inner_h = min(self._height, max(1, whole(height * ratio)))
        inner_w = min(self._width, max(1, whole(width * ratio)))
        top = round((self._height - inner_h) / 2 - 0.1) if self._centre else 0
        left = round((self._width - inner_w) / 2 - 0.1) if self._centre else 0
        return Fit(width, height, inner_w / width, inner_h / height, left, top)

    def place(self, image: np.ndarray, out: np.ndarray, before: Fit | None = None) -> Fit:
        """Writes `image` (BGR uint8, h x w x 3) into `out` (float32 or float16, 3 x H x W).

        Writes the padding of `out` too, unless the place equals `before`, the place of the last
        picture in `out`. Returns the place.
        """
        fit = self.fit(*image.shape[:2])
        inner_w, inner_h = round(fit.width * fit.scale_x), round(fit.height * fit.scale_y)
        if self._small.shape[:2] != (inner_h, inner_w):
            self._small = np.empty((inner_h, inner_w, 3), np.uint8)
            self._planes = [np.empty((inner_h, inner_w), np.uint8) for _ in range(3)]
        if image.shape[:2] == (inner_h, inner_w):
            self._small[...] = image
        else:
            cv2.resize(image, (inner_w, inner_h), dst=self._small, interpolation=cv2.INTER_LINEAR)
        cv2.split(self._small, self._planes)
        bottom, right = fit.top + inner_h, fit.left + inner_w
        if fit != before:
            out[...] = self.background
        inner = out[:, fit.top : bottom, fit.left : right]
        for plane, target in zip(self._planes[:: -1 if self._rgb else 1], inner, strict=True):
            if self._factor == 1:
                target[...] = plane
            else:
                np.multiply(plane, self._factor, out=target, casting="unsafe")
        return fit
