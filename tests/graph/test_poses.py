"""Poses in the graph: who has one, what it costs where nobody is, and that every way of running
gives the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from models.vision.person_crop import Person
from pipeline.codec import decode, encode
from pipeline.config.schema import Detect
from pipeline.judge.pose import unpack
from pipeline.types import Box, Detections, FrameChunk, Record
from tests import make
from tests.fakes import FakePose
from tests.graph.conftest import Runner, last
from workers.runtime.status import Status
from workers.stages.vision import Policy, VisionStage

NEAR, FAR = make.box(x=0.2, height=0.8), make.box(x=0.8)
FAINT = make.box(x=0.5, score=0.05)


class CountedPose(FakePose):
    """A pose model that notes its batches."""

    def __init__(self) -> None:
        self.batches: list[list[Box]] = []

    def __call__(self, batch: Sequence[Person]) -> list[bytes]:
        self.batches.append([person.box for person in batch])
        return super().__call__(batch)


class Crowd:
    """Detects the same boxes in each bright picture."""

    def __init__(self, *boxes: Box) -> None:
        self._boxes = boxes

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        return [self._boxes if picture.mean() > 100 else () for picture in batch]


def frame(number: int, level: int = 200, source: str = "desk", look: str = "all") -> FrameChunk:
    picture = np.full((48, 64, 3), level, np.uint8)
    data = bytes(cv2.imencode(".jpg", picture)[1])
    made = make.frame(number / 5, data, source=source, width=64, height=48)
    return msgspec.structs.replace(made, look=look)


def looked(
    *frames: FrameChunk,
    boxes: Sequence[Box] = (NEAR, FAR),
    pose: Any = None,
    poses: int | None = 4,
    status: Status | None = None,
    policy: Policy = "all",
) -> list[Detections]:
    known = {("office", "desk"): Detect(poses=poses), ("office", "door"): Detect(poses=0)}
    stage = VisionStage(Crowd(*boxes), policy, status=status, known=known, pose=pose)
    state, made = stage.open({}), list[Record]()
    for record, inferred in zip(frames, stage.infer(frames), strict=True):
        made += state.on(record, inferred)
    return [record for record in made if isinstance(record, Detections)]


def test_the_persons_of_a_frame_have_poses() -> None:
    (found,) = looked(frame(1), pose=FakePose())
    assert [bool(box.keypoints) for box in found.boxes] == [True, True]
    assert unpack(found.boxes[0].keypoints) != unpack(found.boxes[1].keypoints)
    bare = [msgspec.structs.replace(box, keypoints=b"") for box in found.boxes]
    assert bare == [NEAR, FAR]
    assert decode(encode(found)) == found


def test_only_the_first_persons_have_a_pose() -> None:
    (found,) = looked(frame(1), pose=FakePose(), poses=1)
    assert [bool(box.keypoints) for box in found.boxes] == [True, False]


def test_all_persons_of_a_poll_are_estimated_together() -> None:
    pose = CountedPose()
    looked(frame(1), frame(2), frame(3, 0), pose=pose)
    assert pose.batches == [[NEAR, FAR, NEAR, FAR]]


def test_nobody_costs_nothing() -> None:
    pose = CountedPose()
    looked(frame(1, 0), frame(2, look=""), pose=pose)
    looked(frame(1), boxes=[make.box("dog"), FAINT], pose=pose)
    assert pose.batches == []


@pytest.mark.parametrize("poses", [0, None])
def test_a_camera_that_asks_for_none_needs_no_model(poses: int | None) -> None:
    (found,) = looked(frame(1), poses=poses)
    assert found.boxes == (NEAR, FAR)
    (found,) = looked(frame(1, source="door"))
    assert found.boxes == (NEAR, FAR)


def test_a_camera_that_asks_for_poses_without_a_model_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="pose was not loaded"):
        looked(frame(1))


def test_a_box_without_a_pose_stays_without_one() -> None:
    (found,) = looked(frame(1), pose=lambda batch: [b"" for _ in batch])
    assert found.boxes == (NEAR, FAR)


def test_poses_are_counted() -> None:
    status = Status()
    looked(frame(1), frame(2, 0), frame(3), pose=FakePose(), status=status)
    assert status.snapshot().counts["office"]["desk"]["posed"] == 4


def test_one_poll_or_many_give_the_same_poses() -> None:
    frames = [frame(n, 120 + 10 * n) for n in range(10)]
    together = looked(*frames, pose=FakePose())
    assert together == [looked(each, pose=FakePose())[0] for each in frames]


def written(config: Path, poses: int) -> Path:
    """A copy of the config whose camera estimates so many poses."""
    text = config.read_text()
    folder = config.parent / f"poses-{poses}"
    folder.mkdir()
    copy = folder / "office.yaml"
    copy.write_text(text.replace('"device:0"', f'"device:0"\n        detect: {{poses: {poses}}}'))
    return copy


def test_poses_alone_change_no_incident(
    runner: Runner, config: Path, scene: Callable[..., Path]
) -> None:
    played = scene(person=(3, 8), loud=(10, 11))
    plain, posed = (runner(written(config, poses), played) for poses in (0, 4))
    assert last(posed) == last(plain)
