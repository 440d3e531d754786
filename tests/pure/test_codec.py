"""Records to bytes and back."""

from __future__ import annotations

import math
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec, types
from pipeline.errors import DecodeError
from pipeline.types import Alert, DeadLetter, Late, Presence, Record, SiteConfig, ns
from tests import make

ALL: list[Record] = [
    make.frame(1.0),
    make.audio(2.0),
    make.report(3.0, "zwei Männer \N{PILE OF POO}"),
    make.detections(1.0, make.box(), make.box("dog", 0.1)),
    make.detections(1.0),
    make.detections(1.0, make.box(keypoints=bytes(range(102)))),
    make.sound(1.0, gunshot=0.93, glass=0.0),
    make.utterance(2.0, "help"),
    make.described(2.0),
    make.progress(4.0, alive=False, reason="unplugged"),
    make.roster(),
    make.mode("armed", 1.0, until=9.0, said=5.0),
    Late(site="a", source="b", start=-5, kind="Sound", record=b"\x00"),
    DeadLetter(site="a", source="", topic="t", partition=0, offset=3, reason="r", value=b""),
    make.anomaly(1.0, text="he has a gun"),
    Alert(
        id="0123456789abcdef",
        source="fusion",
        site="a",
        revision=2,
        state="updated",
        time=ns(9),
        label="gunshot",
        labels=("gunshot", "intrusion"),
        rules=("sound",),
        severity="critical",
        score=0.912,
        start=ns(8),
        end=None,
        presence={"desk": Presence.LOST},
        contributions={"sound": 1.0},
    ),
    SiteConfig(site="a", source="config", start=ns(8), hash="0f", head="rules", settings="{}"),
]


def test_every_kind_of_record_is_tried() -> None:
    kinds = set(types.Any.__args__)
    assert {type(record) for record in ALL} == kinds


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_equal_and_encodes_equally(record: Record) -> None:
    value = codec.encode(record)
    again = codec.decode(value)
    assert again == record
    assert type(again) is type(record)
    assert codec.encode(again) == value


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_no_part_of_a_record_is_a_record(record: Record) -> None:
    value = codec.encode(record)
    for size in range(0, len(value), max(1, len(value) // 50)):
        with pytest.raises(DecodeError):
            codec.decode(value[:size])


@given(st.binary(max_size=300))
def test_bytes_from_anywhere_raise_decode_error_and_nothing_else(value: bytes) -> None:
    with pytest.raises(DecodeError, match="not a Fusewatch record"):
        codec.decode(value)
    assert codec.span(value) is None


@given(st.sampled_from(ALL), st.integers(0, 2000), st.integers(0, 255))
def test_a_flipped_byte_is_another_record_or_a_decode_error(
    record: Record, at: int, byte: int
) -> None:
    value = bytearray(codec.encode(record))
    value[at % len(value)] = byte
    with suppress(DecodeError):
        assert isinstance(codec.decode(bytes(value)), Record)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "Sound", "site": "a", "source": "b", "start": 1.5, "end": 2},
        {"type": "Sound", "site": "a", "source": "b", "start": "1", "end": 2},
        {"type": "Sound", "site": 1, "source": "b", "start": 1, "end": 2},
        {"type": "Sound", "site": "a", "source": "b", "start": 1},
        {"type": "Nothing", "site": "a", "source": "b", "start": 1, "end": 2},
        {"site": "a", "source": "b", "start": 1, "end": 2},
        [],
        "Sound",
    ],
)
def test_what_is_like_a_record_but_is_none_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        codec.decode(msgspec.msgpack.encode(value))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(DecodeError):
        codec.decode(b"\x81\xa4type" + b"\x91" * 100_000)


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    newer = {**msgspec.msgpack.decode(codec.encode(make.sound(1.0))), "colour": "red"}
    assert codec.decode(msgspec.msgpack.encode(newer)) == make.sound(1.0)


@pytest.mark.parametrize(
    ("record", "later"),
    [
        (make.detections(1.0, make.box()), {"luma": -1.0, "sharpness": -1.0}),
        (make.sound(1.0, gunshot=0.9), {"clipped": 0.0, "floor_db": -120.0}),
        (make.anomaly(1.0), {"head": ""}),
        (make.alert(), {"heads": ()}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_row_of_an_older_log_has_the_defaults(record: Record, later: dict[str, object]) -> None:
    row = msgspec.msgpack.decode(codec.encode(record))
    older = {name: value for name, value in row.items() if name not in later}
    assert len(older) == len(row) - len(later)
    again = codec.decode(msgspec.msgpack.encode(older))
    assert {name: getattr(again, name) for name in later} == later


@pytest.mark.parametrize(
    "record",
    [
        make.sound(1.0, gunshot=math.nan),
        make.sound(1.0, gunshot=math.inf),
        make.alert(score=-math.inf),
        make.alert(contributions={"sound": math.nan}),
        make.alert(severity="x"),
        make.alert(severity=""),
        make.anomaly(1, severity="critical "),
        make.alert(time=2**63),
        make.progress(2.0**34),
        types.Roster(site="a", source="b", sources=(), start=-(2**62) - 1),
    ],
)
def test_what_nobody_can_calculate_with_is_refused(record: types.Record) -> None:
    with pytest.raises(DecodeError, match=r"Expected `(float|int|str)`"):
        codec.decode(codec.encode(record))


def test_the_span_is_read_without_the_data() -> None:
    assert codec.span(codec.encode(make.frame(1.0, bytes(200_000)))) == (ns(1.0), ns(1.2))
    assert codec.span(codec.encode(make.progress(1.0))) is None
    assert codec.span(codec.encode(make.roster())) is None
    assert codec.overlaps(codec.encode(make.sound(1.0)), ns(1.9), ns(5))
    assert not codec.overlaps(codec.encode(make.sound(1.0)), ns(2), ns(5))
