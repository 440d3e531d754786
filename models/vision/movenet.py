"""Estimates poses with MoveNet (Google), 17 keypoints of COCO, with LiteRT.

The network takes one person in a square, RGB 0 to 255, and gives y, x and score of each keypoint in
fractions of the square. Model card: MoveNet.SinglePose, Google 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.tflite_file import open_tflite, shape
from models.vision.person_crop import Guess, Person, estimated
from pipeline.config.schema import Model
from pipeline.errors import WeightsError
from pipeline.judge.pose import JOINTS, Joint

FILE = "movenet_single_pose_lightning_ptq.tflite"
MARGIN = 0.1  # of the longer side of the box: scores and places are steadiest from 0.05 to 0.15


def load(path: Path, settings: Model) -> Movenet:
    """The model that a config names."""
    return Movenet(path, threads=settings.threads)


class Movenet:
    """Estimates poses: maps a batch of Person to the bytes of `Box.keypoints`, one a person.

    The bytes are empty where the box and the picture have no area in common. `path` is the .tflite
    file or its folder; with `threads` 0 LiteRT chooses the number. Not thread-safe. Raises
    WeightsError if the file is missing, broken or another model.
    """

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        self._interpreter = open_tflite(file, threads)
        (takes, *_), (gives, *_) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        size = shape(takes)[1:2]
        if (
            shape(takes) != (1, *size, *size, 3)
            or takes["dtype"] is not np.uint8
            or shape(gives) != (1, 1, JOINTS, 3)
        ):
            msg = f"{file} takes {shape(takes)} and gives {shape(gives)}: it is not MoveNet"
            raise WeightsError(msg)
        self._in, self._out, self._size = takes["index"], gives["index"], size[0]

    def __call__(self, batch: Sequence[Person]) -> list[bytes]:
        """Returns the pose of each person, in order."""
        return [estimated(person, MARGIN, self._size, self._run) for person in batch]

    def _run(self, picture: np.ndarray) -> Guess:
        self._interpreter.set_tensor(self._in, picture[None])
        self._interpreter.invoke()
        points = self._interpreter.get_tensor(self._out)[0, 0][:, [1, 0, 2]]
        return Guess(points, float(points[Joint.LEFT_SHOULDER :, 2].mean()))
