"""Measures where a fixed camera's picture moves, and which frames are worth a look.

The model reads a small picture of the luma (160 x 90). It keeps several normal values for each
pixel (a mixture of Gaussians, OpenCV's MOG2: Zivkovic, Improved adaptive Gaussian mixture model
for background subtraction, ICPR 2004), so leaves, flicker and compression noise are learned. Light
that changes everywhere, or slowly over the picture, is taken out before. See
`docs/explanations/motion.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Detect
from pipeline.types import SECOND, Corners

WIDTH, HEIGHT = 160, 90  # px of the luma that is compared, whatever shape the picture has
COLUMNS, ROWS = 16, 9  # cells of the grid
MAX_REGIONS = 8
LOOKS = ("all", "first", "light", "motion", "heartbeat", "")  # of a frame; the strongest first
HEARTBEAT = 2 * SECOND  # ns of event time without a look until an unmoved frame is looked at
TAIL_LOOKS = 3  # frames after the last motion, or after a new begin, that are looked at too: so
# many boxes confirm a track, and so many looks without it end one
TAIL = 3 * SECOND // 5  # ns that these frames last at least

_SCALE, _DARK = 80.0, 16.0  # a level is _SCALE * ln(luma + _DARK): a change of light is a sum
_HISTORY = 60.0  # s in which the background forgets
_LIGHT = 20.0  # levels by which the whole picture changes at once: 28 % of its light
_LOCAL_LIGHT = 12.0  # levels that a soft change of light in one place may have
_ALIKE = 0.7  # correlation from which a picture shows the same place in another light
_MUCH = 0.45  # moved share of the picture from which the background is learnt anew
_NEIGHBOURS = 4  # moved pixels of 3 x 3 that a moved pixel has, itself included
_SMALL = 4  # px; a smaller patch is noise
_LARGE = 24  # px; a patch of this size is told at once, a smaller one in the second frame
_REST = 1.0  # s; what looks as it did so long ago is at rest, also where it is new
_STEP = 4.0  # levels by which a pixel differs then
_STEPPED = 0.05  # share of the pixels of a patch that differ, and at least _SMALL // 2
_NEAR = 8  # px within which a small patch has moved since the frame before
_MARGIN = 2  # px around a patch
_MANY = 24  # patches that are joined one by one
_CELL = WIDTH // COLUMNS  # px
_AROUND = np.ones((2 * _NEAR + 1, 2 * _NEAR + 1), np.uint8)
_MIXTURE: dict[str, Any] = {  # of MOG2, by the names of its setters
    "NMixtures": 4,
    "BackgroundRatio": 0.7,  # values that fill this share of the time are normal
    "VarThreshold": 16,  # squared deviations from which a pixel has moved
    "VarThresholdGen": 9,
    "VarInit": 6,
    "VarMin": 1.5,
    "VarMax": 60,
}

Area = tuple[int, int, int, int]  # px: left, top, right, bottom
Luma = NDArray[np.uint8]  # HEIGHT x WIDTH
Mask = NDArray[np.bool_]
Levels = NDArray[np.float32]

_NOTHING = np.zeros((ROWS, COLUMNS), np.uint8)
_LEVELS: Levels = (_SCALE * np.log(np.arange(256) + _DARK)).astype(np.float32)


class Motion(msgspec.Struct, frozen=True):
    """What moves in a frame; the fields are those of `FrameChunk`."""

    look: str
    motion: bytes
    regions: tuple[Corners, ...]


UNMEASURED = Motion(look="all", motion=b"", regions=())


def small_luma(picture: NDArray[np.uint8], quarters: int = 0) -> Luma:
    """Returns the luma that `MotionModel` reads, of a plane of luma or of BGR pixels.

    The picture is then turned left by `quarters` of a full turn.
    """
    size = (HEIGHT, WIDTH) if quarters % 2 else (WIDTH, HEIGHT)
    small: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if small.ndim == 3:
        small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(np.rot90(small, quarters))


def measured(
    model: MotionModel | None, luma: Callable[[], Luma], start: int, *, sparse: bool = False
) -> Motion:
    """What moves in a frame; without a model nothing is measured, and every frame is looked at."""
    return UNMEASURED if model is None else model(luma(), start, sparse=sparse)


def model_for(detect: Detect, fps: float) -> MotionModel | None:
    """A new model for a camera of these settings; None where the gate is off."""
    return None if detect.gate == "off" else MotionModel(fps)


class MotionModel:
    """The background of one camera; `fps` is the rate of its published frames.

    The results depend on the frames given so far and on nothing else.
    """

    def __init__(self, fps: float) -> None:
        self._slack = round(SECOND / fps / 2)  # ns; the times of frames jitter
        self._tail = max(TAIL, round(TAIL_LOOKS * SECOND / fps)) + self._slack  # ns
        self._rate = 1 / (fps * _HISTORY)  # share that one frame has in the background
        self._looked = 0  # ns; event time of the last look
        self._moved: int | None = None  # ns; event time of the last motion
        self._begun, self._why = 0, ""  # ns; since when there is this background, and why
        self._learnt = 0  # frames that the background is made of
        self._background: Any = None
        self._recent: deque[Levels] = deque(maxlen=max(1, round(_REST * fps)))
        self._before: Any = None  # where something differed in the frame before, and around it
        self._time = 0  # ns; start of the frame before

    def __call__(self, luma: Luma, start: int, *, sparse: bool = False) -> Motion:
        """Takes the next published frame, which starts at `start` (ns).

        A `sparse` frame is a keyframe, and those between the last one and this were not decoded. It
        is compared with the last one, and a small patch is told at once, since nobody knows where
        it was a moment ago.
        """
        gap, self._time = start - self._time, start
        levels: Any = cv2.blur(cv2.LUT(luma, _LEVELS), (3, 3))
        if not self._learnt:
            return self._anew(levels, start, "first")
        usual: Levels = self._background.getBackgroundImage()
        change: Any = cv2.subtract(levels, usual)
        light, local = _change_of_light(change)
        if abs(light) > _LIGHT:
            return self._anew(levels, start, _cause(levels, usual))
        levels = cv2.subtract(levels, local)
        mask = self._compared(levels, min(gap / SECOND / _HISTORY, 1.0) if sparse else self._rate)
        if np.count_nonzero(mask) > _MUCH * mask.size:
            return self._anew(levels, start, _cause(levels, usual))
        if sparse:
            self._before[:] = 255
            while len(self._recent) > 1:
                self._recent.popleft()
        stepped = cv2.absdiff(levels, self._recent[0]) > _STEP
        self._recent.append(levels)
        return self._told(mask, stepped, start)

    def _anew(self, levels: Levels, start: int, look: str) -> Motion:
        """Begins a new background with this frame."""
        self._background = cv2.createBackgroundSubtractorMOG2(detectShadows=False)
        for name, value in _MIXTURE.items():
            getattr(self._background, f"set{name}")(value)
        self._background.apply(levels, learningRate=1.0)
        self._learnt = 1
        self._recent.clear()
        self._recent.append(levels)
        self._before = np.full((HEIGHT, WIDTH), 255, np.uint8)
        self._looked, self._begun, self._why = start, start, look
        return Motion(look=look, motion=b"\xff" * (COLUMNS * ROWS), regions=((0.0, 0.0, 1.0, 1.0),))

    def _compared(self, levels: Levels, share: float) -> NDArray[np.uint8]:
        """Learns the frame by this share; returns the pixels that are not as usual."""
        self._learnt += 1
        rate = max(share, 1 / (2 * self._learnt))
        return self._background.apply(levels, learningRate=rate)  # type: ignore[no-any-return]

    def _told(self, mask: NDArray[np.uint8], stepped: Mask, start: int) -> Motion:
        moved, patches = self._patches(mask, stepped)
        share: Any = _NOTHING
        if patches:
            share = cv2.resize(moved, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
            self._moved = start
        look = ""
        if self._moved is not None and start - self._moved <= self._tail:
            look = "motion"
        elif start - self._begun <= self._tail:
            look = self._why  # nobody knows what has moved before
        elif start - self._looked >= HEARTBEAT - self._slack:
            look = "heartbeat"
        if look:
            self._looked = start
        return Motion(look=look, motion=share.tobytes(), regions=_regions(patches, share))

    def _patches(
        self, mask: NDArray[np.uint8], stepped: Mask
    ) -> tuple[NDArray[np.uint8], list[Area]]:
        """The pixels of the patches that count as motion, and a box around each."""
        count: Any = cv2.boxFilter(mask, cv2.CV_16U, (3, 3), normalize=False)
        solid: Any = mask * (count >= 255 * _NEIGHBOURS)  # uint8
        near: Any = self._before
        self._before = solid
        if not cv2.hasNonZero(solid):
            return solid, []
        self._before = cv2.dilate(solid, _AROUND)
        labelled = cv2.connectedComponentsWithStats(solid, connectivity=8, ltype=cv2.CV_16U)
        patches, labels, stats, _ = labelled
        area = stats[:, cv2.CC_STAT_AREA]
        steps = np.bincount(labels[stepped], minlength=patches)
        kept = (area >= _SMALL) & (steps >= np.maximum(_SMALL // 2, _STEPPED * area))
        small = kept & (area < _LARGE)
        small[0] = False
        if small.any():
            kept &= ~small | (np.bincount(labels[near > 0], minlength=patches) > 0)
        kept[0] = False  # what has not moved
        return np.where(kept, 255, 0).astype(np.uint8)[labels], _boxes(stats[kept])


def _change_of_light(change: Levels) -> tuple[float, Levels]:
    """What a change of light has added: over the whole picture, and to each pixel."""
    everywhere = round(_median(change[::3, ::3]), 3)
    bounded = np.clip(change, everywhere - _LOCAL_LIGHT, everywhere + _LOCAL_LIGHT)
    cells: Any = cv2.resize(bounded, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    soft: Any = cv2.resize(cv2.medianBlur(cells, 5), (WIDTH, HEIGHT))
    return everywhere, soft


def _median(values: Levels) -> float:
    """What `numpy.median` returns, in a third of its time for so few values."""
    half = values.size // 2
    low, high = np.partition(values, (half - 1, half), axis=None)[half - 1 : half + 1]
    return float((low + high) / 2)  # float32, as the values are


def _cause(levels: Levels, usual: Levels) -> str:
    """Why the picture is another: `light`, if the fine structure stayed; else a cut, `first`."""
    one, other = _fine(levels), _fine(usual)
    norm = float(np.sqrt(np.sum(one * one) * np.sum(other * other)))
    same = norm > 0 and round(float(np.sum(one * other)) / norm, 3) > _ALIKE
    return "light" if same else "first"


def _fine(levels: Levels) -> Levels:
    return levels - cv2.blur(levels, (25, 25))


def _boxes(stats: Any) -> list[Area]:
    """The boxes of some rows of OpenCV's statistics of components."""
    rows = stats[:, : cv2.CC_STAT_AREA].tolist()
    return [(x, y, x + width, y + height) for x, y, width, height in rows]


def _regions(patches: list[Area], share: NDArray[np.uint8]) -> tuple[Corners, ...]:
    """Up to MAX_REGIONS boxes around the patches, in fractions of the frame.

    Where there are many patches, boxes around the cells that hold them take their place.
    """
    if len(patches) > _MANY:
        patches = [
            (x1 * _CELL, y1 * _CELL, x2 * _CELL, y2 * _CELL)
            for x1, y1, x2, y2 in _boxes(cv2.connectedComponentsWithStats(share)[2][1:])
        ]
    boxes = [_grown(patch) for patch in sorted(patches)]
    while len(joined := _joined(boxes)) < len(boxes):
        boxes = joined
    while len(boxes) > MAX_REGIONS:
        boxes = _closest_joined(boxes)
    return tuple(
        (round(x1 / WIDTH, 3), round(y1 / HEIGHT, 3), round(x2 / WIDTH, 3), round(y2 / HEIGHT, 3))
        for x1, y1, x2, y2 in sorted(boxes)
    )


def _grown(box: Area) -> Area:
    x1, y1, x2, y2 = box
    return (
        max(0, x1 - _MARGIN),
        max(0, y1 - _MARGIN),
        min(WIDTH, x2 + _MARGIN),
        min(HEIGHT, y2 + _MARGIN),
    )


def _hull(one: Area, other: Area) -> Area:
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )


def _overlap(one: Area, other: Area) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _joined(boxes: list[Area]) -> list[Area]:
    """The boxes, those that overlap joined."""
    done: list[Area] = []
    for box in boxes:
        at = next((i for i, other in enumerate(done) if _overlap(box, other)), None)
        if at is None:
            done.append(box)
        else:
            done[at] = _hull(done[at], box)
    return done


def _closest_joined(boxes: list[Area]) -> list[Area]:
    """The boxes, two of them joined: those whose hull adds the smallest area."""
    pairs = [(i, k) for k in range(len(boxes)) for i in range(k)]
    i, k = min(pairs, key=lambda pair: _added(boxes[pair[0]], boxes[pair[1]]))
    rest = [box for n, box in enumerate(boxes) if n not in (i, k)]
    return [*rest, _hull(boxes[i], boxes[k])]


def _added(one: Area, other: Area) -> int:
    return _size(_hull(one, other)) - _size(one) - _size(other)


def _size(box: Area) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
