"""Estimates poses with BlazePose (Google), whose landmarks are mapped to 17 keypoints of COCO.

The network takes one person in a square, RGB 0 to 1, and gives 39 landmarks (x, y, z, visibility,
presence), x and y in pixels of the square, and the probability that a person is there. It is the
landmark model alone: a detector has found the person. Bazarevsky et al. 2020, arXiv:2006.10204.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.tflite_file import open_tflite, shape
from models.vision.person_crop import Guess, Person, estimated
from pipeline.config.schema import Model
from pipeline.errors import WeightsError

FILE = "pose_landmark_lite.tflite"
MARGIN = 0.2  # of the longer side of the box: the network was trained with more room than MoveNet
LANDMARKS, NUMBERS = 39, 5
# nose, eyes, ears, shoulders, elbows, wrists, hips, knees and ankles among the landmarks
COCO = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]


def load(path: Path, settings: Model) -> BlazePose:
    """The model that a config names."""
    return BlazePose(path, threads=settings.threads)


class BlazePose:
    """Estimates poses: maps a batch of Person to the bytes of `Box.keypoints`, one a person.

    It has the same contract as `models.vision.movenet.Movenet`. The score of a keypoint is its
    visibility times the probability that a person is there.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        self._interpreter = open_tflite(file, threads)
        (takes, *_) = self._interpreter.get_input_details()
        gives = {shape(out): out["index"] for out in self._interpreter.get_output_details()}
        size = shape(takes)[1:2]
        landmarks, there = (1, LANDMARKS * NUMBERS), (1, 1)
        if (
            shape(takes) != (1, *size, *size, 3)
            or takes["dtype"] is not np.float32
            or not {landmarks, there} <= gives.keys()
        ):
            msg = f"{file} takes {shape(takes)} and gives {list(gives)}: it is not BlazePose"
            raise WeightsError(msg)
        self._in, self._size = takes["index"], size[0]
        self._landmarks, self._there = gives[landmarks], gives[there]

    def __call__(self, batch: Sequence[Person]) -> list[bytes]:
        """Returns the pose of each person, in order."""
        return [estimated(person, MARGIN, self._size, self._run) for person in batch]

    def _run(self, picture: np.ndarray) -> Guess:
        self._interpreter.set_tensor(self._in, picture[None].astype(np.float32) / 255)
        self._interpreter.invoke()
        found = self._interpreter.get_tensor(self._landmarks).reshape(LANDMARKS, NUMBERS)[COCO]
        there = float(self._interpreter.get_tensor(self._there)[0, 0])
        visible = there / (1 + np.exp(-found[:, 3]))
        return Guess(np.column_stack([found[:, :2] / self._size, visible]), there)
