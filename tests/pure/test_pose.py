"""Poses to bytes and back, and boxes with and without one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import DecodeError
from pipeline.judge.pose import JOINTS, PACKED_BYTES, Joint, pack, unpack
from pipeline.types import Detections
from tests import make

fraction = st.floats(0, 1)
pose = st.lists(st.tuples(fraction, fraction, fraction), min_size=JOINTS, max_size=JOINTS)


@given(pose)
def test_a_pose_comes_back_rounded_to_thousandths(points: list[tuple[float, ...]]) -> None:
    packed = pack(points)
    again = unpack(packed)
    assert len(packed) == PACKED_BYTES == 102
    assert again is not None
    for point, keypoint in zip(points, again, strict=True):
        assert keypoint == tuple(round(1000 * value) / 1000 for value in point)
    assert pack(again) == packed


def test_the_layout_is_x_y_score_of_each_keypoint_as_little_endian_uint16() -> None:
    points = [(0.001 * n, 0.257, 1.0) for n in range(JOINTS)]
    packed = pack(points)
    assert packed[:12] == b"\x00\x00\x01\x01\xe8\x03\x01\x00\x01\x01\xe8\x03"
    keypoints = unpack(packed)
    assert keypoints is not None
    assert keypoints[Joint.RIGHT_ANKLE] == (0.016, 0.257, 1.0)


def test_a_keypoint_outside_the_frame_lies_on_its_edge() -> None:
    keypoints = unpack(pack([(-0.2, 1.7, 1.01)] * JOINTS))
    assert keypoints is not None
    assert keypoints[Joint.NOSE] == (0.0, 1.0, 1.0)


def test_no_pose_is_no_bytes() -> None:
    assert unpack(b"") is None


@pytest.mark.parametrize("points", [[], [(0.5, 0.5, 1.0)] * 16, [(0.5, 0.5)] * JOINTS])
def test_another_number_of_numbers_is_refused(points: list[tuple[float, float, float]]) -> None:
    with pytest.raises(ValueError, match="a pose has 17 keypoints"):
        pack(points)


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pack([(float("nan"), 0.5, 0.5)] * JOINTS)


def test_another_number_of_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="102 bytes, not 101"):
        unpack(bytes(101))


def test_a_box_without_a_pose_is_stored_as_before_there_were_poses() -> None:
    stored = msgspec.msgpack.encode(make.box())
    assert list(msgspec.msgpack.decode(stored)) == ["label", "score", "x1", "y1", "x2", "y2"]


@pytest.mark.parametrize("size", [0, 1, 101, 103])
def test_a_record_with_a_pose_of_another_size_is_no_record(size: int) -> None:
    one = make.box(keypoints=bytes(102))
    value = codec.encode(make.detections(1.0, one))
    decoded = codec.decode(value)
    assert isinstance(decoded, Detections)
    assert decoded.boxes == (one,)
    raw = msgspec.msgpack.decode(value)
    raw["boxes"][0]["keypoints"] = bytes(size)
    with pytest.raises(DecodeError, match="keypoints"):
        codec.decode(msgspec.msgpack.encode(raw))
