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
    input: tuple[int, int]  # px; height and width of the model's input

    def to_fractions(self, corners: np.ndarray) -> np.ndarray:
        """Converts input pixels (n, 4: x1 y1 x2 y2) to fractions of the picture, clipped to it."""
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        size = np.array(
            [self.width * self.scale_x, self.height * self.scale_y] * 2,
            np.float32,
        )
        return np.clip((corners - shift) / size, 0.0, 1.0)


class Preprocess(NamedTuple):
    """How a family wants its input: value = (pixel - `mean`) / `spread`, in the channels' order.

    `place`: `corner` puts the picture at the top left (YOLOX) and `centre` in the middle
    (ultralytics), both with its aspect ratio; `stretch` fills the input. `rgb` swaps the channels.
    """

    place: str = "corner"
    rgb: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Letterbox:
    """Fits pictures into `height` x `width`. It reuses buffers: not thread-safe."""

    def __init__(self, height: int, width: int, wanted: Preprocess) -> None:
        self._height, self._width = self.size = height, width
        self._wanted = wanted
        self._factors = [np.float32(1.0 / spread) for spread in wanted.spread]
        self._shifts = [
            np.float32(mean / spread)
            for mean, spread in zip(wanted.mean, wanted.spread, strict=True)
        ]
        self._small = np.empty((0, 0, 3), np.uint8)
        self._planes = [np.empty((0, 0), np.uint8)] * 3

    def fit(self, height: int, width: int) -> Fit:
        """Returns the place of a picture of this size."""
        if self._wanted.place == "stretch":
            return Fit(width, height, self._width / width, self._height / height, 0, 0, self.size)
        centre = self._wanted.place == "centre"
        ratio = min(self._height / height, self._width / width)
        # YOLOX truncates and ultralytics rounds, as in the evaluation of the networks.
        whole = round if centre else int
        inner_h = min(self._height, max(1, whole(height * ratio)))
        inner_w = min(self._width, max(1, whole(width * ratio)))
        top = round((self._height - inner_h) / 2 - 0.1) if centre else 0
        left = round((self._width - inner_w) / 2 - 0.1) if centre else 0
        return Fit(width, height, inner_w / width, inner_h / height, left, top, self.size)

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
        planes = self._planes[:: -1 if self._wanted.rgb else 1]
        for channel, plane, factor, shift in zip(
            out, planes, self._factors, self._shifts, strict=True
        ):
            if fit != before:
                channel[...] = GREY * factor - shift
            target = channel[fit.top : bottom, fit.left : right]
            if factor == 1:
                target[...] = plane
            else:
                np.multiply(plane, factor, out=target, casting="unsafe")
            if shift:
                target -= shift
        return fit
