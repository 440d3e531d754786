"""Every pose model keeps one promise: 17 keypoints of COCO for a person, whatever the box is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.vision.blazepose import BlazePose
from models.vision.detector import Detector
from models.vision.movenet import Movenet
from models.vision.person_crop import Person, Square, cut, square_around
from pipeline.errors import WeightsError
from pipeline.judge.pose import PACKED_BYTES, Joint, Pose, unpack
from pipeline.types import Box

Estimate = Callable[[Sequence[Person]], list[bytes]]
KINDS = {
    "movenet": (Movenet, "movenet_lightning_int8/movenet_single_pose_lightning_ptq.tflite"),
    "blazepose": (BlazePose, "blazepose/pose_landmark_lite.tflite"),
}
PAIRS = [(left, left + 1) for left in range(Joint.LEFT_EYE, Joint.LEFT_ANKLE + 1, 2)]
BODY = [joint for joint in Joint if joint >= Joint.LEFT_SHOULDER]
WHOLE = Box(label="person", score=0.9, x1=0.0, y1=0.0, x2=1.0, y2=1.0)


@pytest.fixture(scope="module")
def person(weights: Path, media: Path) -> Person:
    """A person who stands in an office, seen whole."""
    capture = cv2.VideoCapture(str(media / "video" / "office_a.mp4"))
    for _ in range(600):
        capture.grab()
    good, picture = capture.read()
    assert good
    found = Detector(weights / "yolox_nano/yolox_nano.onnx", threads=2)([picture])[0]
    return Person(picture, next(box for box in found if box.label == "person"))


@pytest.fixture(scope="module", params=list(KINDS))
def estimate(request: pytest.FixtureRequest, weights: Path) -> Estimate:
    """One adapter after the other."""
    kind, file = KINDS[request.param]
    return kind(weights / file, threads=1)


def pose(estimate: Estimate, person: Person) -> Pose:
    (found,) = estimate([person])
    keypoints = unpack(found)
    assert keypoints is not None
    return keypoints


def box(x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(label="person", score=0.9, x1=x1, y1=y1, x2=x2, y2=y2)


def middle(found: Pose, *joints: Joint) -> tuple[float, float]:
    """The middle of some keypoints, in fractions of the frame."""
    x, y = (sum(found[joint][axis] for joint in joints) / len(joints) for axis in (0, 1))
    return x, y


# --- what both adapters promise ---------------------------------------------------------------


def test_who_stands_has_the_head_above_the_hips_above_the_feet(
    estimate: Estimate, person: Person
) -> None:
    found = pose(estimate, person)
    heights = [
        middle(found, *joints)[1]
        for joints in (
            (Joint.NOSE,),
            (Joint.LEFT_SHOULDER, Joint.RIGHT_SHOULDER),
            (Joint.LEFT_HIP, Joint.RIGHT_HIP),
            (Joint.LEFT_KNEE, Joint.RIGHT_KNEE),
            (Joint.LEFT_ANKLE, Joint.RIGHT_ANKLE),
        )
    ]
    assert heights == sorted(heights)
    assert min(found[joint].score for joint in BODY) > 0.2


def test_the_keypoints_lie_in_or_at_the_box(estimate: Estimate, person: Person) -> None:
    at, slack = person.box, 0.1 * (person.box.y2 - person.box.y1)
    for joint in BODY:
        x, y, _ = pose(estimate, person)[joint]
        assert at.x1 - slack <= x <= at.x2 + slack, joint
        assert at.y1 - slack <= y <= at.y2 + slack, joint


def test_in_a_mirror_left_is_right(estimate: Estimate, person: Person) -> None:
    straight = pose(estimate, person)
    at = person.box
    mirrored = Person(
        np.ascontiguousarray(person.picture[:, ::-1]), box(1 - at.x2, at.y1, 1 - at.x1, at.y2)
    )
    swapped = pose(estimate, mirrored)
    height = at.y2 - at.y1
    away = [
        np.hypot(1 - swapped[mine].x - straight[other].x, swapped[mine].y - straight[other].y)
        for left, right in PAIRS
        for mine, other in ((left, right), (right, left))
    ]
    assert np.median(away) < 0.05 * height


@pytest.mark.parametrize("quarters", [1, 3])
def test_who_lies_has_the_pose_of_who_stands_turned(
    estimate: Estimate, person: Person, quarters: int
) -> None:
    """A picture that is turned to the left, and a person who lies to the left or to the right."""
    straight, at = pose(estimate, person), person.box
    height, width = person.picture.shape[:2]
    turned = np.ascontiguousarray(np.rot90(person.picture, quarters))
    place = box(at.y1, 1 - at.x2, at.y2, 1 - at.x1)
    if quarters == 3:
        place = box(1 - at.y2, at.x1, 1 - at.y1, at.x2)
    lying = pose(estimate, Person(turned, place))
    away = []
    for joint in BODY:
        x, y, _ = lying[joint]
        was = (1 - y, x) if quarters == 1 else (y, 1 - x)
        away.append(
            np.hypot((was[0] - straight[joint].x) * width, (was[1] - straight[joint].y) * height)
        )
    assert np.median(away) < 0.08 * (at.y2 - at.y1) * height


def test_a_batch_gives_what_single_persons_give(estimate: Estimate, person: Person) -> None:
    other = Person(person.picture, WHOLE)
    assert estimate([person, other, person]) == [
        estimate([each])[0] for each in (person, other, person)
    ]


def test_an_empty_batch_gives_nothing(estimate: Estimate) -> None:
    assert estimate([]) == []


@pytest.mark.parametrize(
    "place",
    [
        box(0.5, 0.5, 0.5, 0.6),  # no width
        box(0.5, 0.5, 0.6, 0.5),  # no height
        box(0.6, 0.5, 0.5, 0.6),  # turned round
        box(1.0, 0.0, 1.2, 0.5),  # right of the picture
        box(-0.3, 0.2, 0.0, 0.5),  # left of it
    ],
)
def test_a_box_without_a_part_of_the_picture_has_no_pose(
    estimate: Estimate, person: Person, place: Box
) -> None:
    assert estimate([Person(person.picture, place)]) == [b""]


@pytest.mark.parametrize(
    "place",
    [
        box(0.0, 0.0, 0.1, 0.3),  # in a corner: the margin reaches beyond the picture
        box(0.9, 0.7, 1.0, 1.0),
        box(-0.2, 0.1, 0.3, 1.4),  # partly outside
        box(0.5, 0.5, 0.501, 0.501),  # a pixel
        box(0.0, 0.0, 1.0, 0.001),  # a line of pixels
        WHOLE,
    ],
)
def test_any_box_with_a_part_of_the_picture_has_a_pose_in_the_frame(
    estimate: Estimate, person: Person, place: Box
) -> None:
    (packed,) = estimate([Person(person.picture, place)])
    assert len(packed) == PACKED_BYTES
    keypoints = unpack(packed)
    assert keypoints is not None
    assert all(0 <= value <= 1 for keypoint in keypoints for value in keypoint)


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (3, 5)])
def test_a_picture_of_any_size_is_looked_at(estimate: Estimate, size: tuple[int, int]) -> None:
    (found,) = estimate([Person(np.zeros((*size, 3), np.uint8), WHOLE)])
    assert len(found) == PACKED_BYTES


def test_a_grey_picture_has_no_sure_keypoint(estimate: Estimate) -> None:
    found = pose(estimate, Person(np.full((240, 320, 3), 114, np.uint8), box(0.3, 0.1, 0.6, 0.9)))
    assert max(keypoint.score for keypoint in found) < 0.4


def test_the_number_of_threads_changes_nothing(
    estimate: Estimate, person: Person, weights: Path
) -> None:
    kind, file = next(row for row in KINDS.values() if isinstance(estimate, row[0]))
    assert kind(weights / file, threads=2)([person]) == estimate([person])


def test_the_adapters_agree_on_a_person(person: Person, weights: Path) -> None:
    one, other = (pose(kind(weights / file), person) for kind, file in KINDS.values())
    height = person.box.y2 - person.box.y1
    away = [np.hypot(one[j].x - other[j].x, one[j].y - other[j].y) for j in BODY]
    assert np.median(away) < 0.08 * height


# --- what each file is ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_folder_of_weights_is_as_good_as_the_file(
    kind: str, weights: Path, person: Person
) -> None:
    make, file = KINDS[kind]
    assert make((weights / file).parent)([person]) == make(weights / file)([person])


@pytest.mark.parametrize(("kind", "other"), [("movenet", "blazepose"), ("blazepose", "movenet")])
def test_a_model_of_something_else_is_refused(kind: str, other: str, weights: Path) -> None:
    with pytest.raises(WeightsError, match="it is not"):
        KINDS[kind][0](weights / KINDS[other][1])
    with pytest.raises(WeightsError, match="it is not"):
        KINDS[kind][0](weights / "yamnet/yamnet_spectra_in.tflite")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_missing_and_a_cut_file_are_named(kind: str, weights: Path, tmp_path: Path) -> None:
    make, file = KINDS[kind]
    with pytest.raises(WeightsError, match=r"nowhere\.tflite"):
        make(tmp_path / "nowhere.tflite")
    (tmp_path / "half.tflite").write_bytes((weights / file).read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"half\.tflite"):
        make(tmp_path / "half.tflite")


# --- the cut ----------------------------------------------------------------------------------


def test_a_square_outside_the_picture_is_black_there() -> None:
    picture = np.full((40, 40, 3), 200, np.uint8)
    made = cut(picture, Square(-20, -20, 40), 40)
    assert (made[20:, 20:] == 200).all()
    assert (made[:20] == 0).all()
    assert (made[:, :20] == 0).all()


def test_the_cut_is_rgb() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0] = 255  # blue in BGR
    assert cut(picture, Square(0, 0, 8), 4)[0, 0].tolist() == [0, 0, 255]


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.tuples(*[st.floats(-0.5, 1.5)] * 4),
    st.floats(0, 0.5),
)
def test_a_square_holds_the_box_and_is_cut_whole(
    height: int, width: int, corners: tuple[float, float, float, float], margin: float
) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    one = Person(np.full((height, width, 3), 9, np.uint8), box(x1, y1, x2, y2))
    square = square_around(one, margin)
    inside = x1 < x2 and y1 < y2 and x2 > 0 and y2 > 0 and x1 < 1 and y1 < 1
    assert (square is not None) == inside
    if square is not None:
        assert square.side >= max((x2 - x1) * width, (y2 - y1) * height) - 0.5
        assert cut(one.picture, square, 16).shape == (16, 16, 3)
