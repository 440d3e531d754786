"""The shape of the frame: in observations where it is not 16:9, and where lengths are compared."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec
import pytest

from pipeline import codec
from pipeline.behaviour.rule import BehaviourJudge
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Detect
from pipeline.errors import DecodeError
from pipeline.tracking.frame_shape import WIDE, aspect_of, shape_of
from pipeline.types import SECOND, Detections
from tests import actors
from tests.actors import FPS, Step, person, played
from tests.make import box, detections
from workers.stages.camera_tracks import CameraTracks

SHAPES = {"4:3": (640, 480), "9:16": (360, 640), "16:9": (640, 360)}
FALL: Sequence[Step] = (("stands", 2), ("lies", 0.8), ("lies", 3))
SITS: Sequence[Step] = (("stands", 2), ("on floor", 0.8), ("on floor", 4))


@pytest.mark.parametrize("size", [(640, 360), (1920, 1080), (854, 480), (1366, 768), (480, 272)])
def test_a_frame_of_16_to_9_says_nothing(size: tuple[int, int]) -> None:
    record = detections(1)
    shaped = msgspec.structs.replace(record, aspect=aspect_of(*size))
    assert codec.encode(shaped) == codec.encode(record)
    assert shape_of(shaped) == WIDE


@pytest.mark.parametrize(
    ("size", "aspect"),
    [((640, 480), 1.333), ((360, 640), 0.562), ((640, 352), 1.818), ((2, 4000), 0.001)],
)
def test_another_shape_is_told_and_kept(size: tuple[int, int], aspect: float) -> None:
    record = msgspec.structs.replace(detections(1), aspect=aspect_of(*size))
    assert shape_of(record) == aspect
    assert codec.decode(codec.encode(record)) == record


@pytest.mark.parametrize("size", [(0, 480), (640, 0), (-4, 3)])
def test_a_frame_that_claims_no_size_has_no_shape(size: tuple[int, int]) -> None:
    assert aspect_of(*size) is msgspec.UNSET


@pytest.mark.parametrize("aspect", [0, -1.5, float("nan"), 1e9])
def test_an_impossible_shape_is_no_record(aspect: float) -> None:
    value = msgspec.msgpack.encode({**msgspec.to_builtins(detections(1)), "aspect": aspect})
    with pytest.raises(DecodeError):
        codec.decode(value)


def shaped(steps: Sequence[Step], shape: str, *, posed: bool = True) -> list[Detections]:
    """The frames of a person, as a camera of this shape sees them."""
    width, height = SHAPES[shape]
    boxes = [person(body, posed=posed, aspect=width / height) for body in played(steps)]
    return [
        msgspec.structs.replace(detections(k / FPS, each), aspect=aspect_of(width, height))
        for k, each in enumerate(boxes)
    ]


def told(frames: Sequence[Detections]) -> list[tuple[str, str]]:
    """Labels and reasons of what a rule tells."""
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    rule = BehaviourRule(labels={"fall": 0.5, "lying": 0.5}, seconds=2)
    judge = BehaviourJudge(
        "behaviour", rule, None, camera="desk", timezone=ZoneInfo("UTC"), horizon=120
    )
    found = []
    for record in frames:
        seen = tracks.see(record)
        assert seen is not None
        found += [(each.label, each.reason) for each in judge.see(seen)]
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("posed", [True, False])
def test_a_fall_is_the_same_fall_in_every_shape_of_frame(shape: str, posed: bool) -> None:
    assert told(shaped(FALL, shape, posed=posed)) == told(shaped(FALL, "16:9", posed=posed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("posed", [True, False])
def test_who_sits_down_on_the_floor_lies_in_no_shape_of_frame(shape: str, posed: bool) -> None:
    assert told(shaped(SITS, shape, posed=posed)) == []


def test_a_corridor_camera_that_was_taken_for_16_to_9_told_wrongly() -> None:
    """The reason why the shape is carried: without it, widths count three times too much."""
    frames = [msgspec.structs.replace(f, aspect=msgspec.UNSET) for f in shaped(SITS, "9:16")]
    assert told(frames) != []


def test_a_camera_that_is_turned_is_judged_by_its_new_shape() -> None:
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    wide = tracks.see(detections(0, box()))
    high = tracks.see(msgspec.structs.replace(detections(1, box()), aspect=0.562))
    assert wide is not None
    assert high is not None
    assert (wide.aspect, high.aspect) == (WIDE, 0.562)


@pytest.mark.parametrize("shape", SHAPES)
def test_movement_counts_in_heights_in_every_shape(shape: str) -> None:
    width, height = SHAPES[shape]
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    step = 0.02 / (width / height)  # 0.02 of the height of the frame, sideways
    frames = [detections(k / FPS, box(x=0.3 + k * step, width=0.1)) for k in range(20)]
    seen = None
    for frame in frames:
        seen = tracks.see(msgspec.structs.replace(frame, aspect=aspect_of(width, height)))
    assert seen is not None
    (track,) = seen.tracks
    assert track.moved(60 * SECOND) == pytest.approx(17 * 0.02 / 0.3, abs=0.07)


def test_the_made_persons_are_of_16_to_9() -> None:
    assert actors.ASPECT == WIDE
