"""An entry that is taken apart for a recording comes back bit for bit, whatever its bytes are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.types import (
    Alert,
    Anomaly,
    AudioChunk,
    DeadLetter,
    Described,
    Detections,
    FrameChunk,
    Late,
    Mode,
    Progress,
    Record,
    Report,
    Roster,
    SiteConfig,
    Sound,
    Utterance,
)
from tests.recorded import JPEG, audio, frame
from workers.recordings import foxglove
from workers.recordings.entry_messages import (
    ENTRY,
    SCHEMAS,
    media_channel,
    put_together,
    take_apart,
)
from workers.recordings.record_schemas import record_schema

KINDS: tuple[type[Record], ...] = (
    FrameChunk, AudioChunk, Report, Detections, Utterance, Sound, Described, Progress, Roster, Mode,
    Late, DeadLetter, Anomaly, Alert, SiteConfig,
)  # fmt: skip
scalars: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
)
values = st.recursive(
    scalars | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.just("data"), inner, max_size=4)
        | st.dictionaries(st.integers(0, 2**40), inner, max_size=2)
    ),
    max_leaves=12,
)
names = st.text(max_size=8)


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type; of a mapping plain dicts, which alone can be encoded."""
    if get_origin(hint) is Mapping:
        key, value = get_args(hint)
        return st.dictionaries(st.from_type(key), st.from_type(value), max_size=3)
    return st.from_type(hint)


def back(entry: Entry, topic: str = topics.OBSERVATIONS) -> Entry:
    parts = take_apart(topic, entry)
    beside = media_channel(parts.channel)
    assert (parts.media is None) or beside is not None
    media = None
    if parts.media is not None and beside is not None:
        media = foxglove.media_of(SCHEMAS[beside.kind], parts.media)
    return put_together(parts.record, media)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_record_of_each_kind_comes_back(kind: type[Record], data: st.DataObject) -> None:
    hints = get_type_hints(kind, include_extras=True)
    fields = {name: of_type(hints[name]) for name in kind.__struct_fields__}
    record = data.draw(st.builds(kind, **fields))
    try:
        value = codec.encode(record)
    except OverflowError:  # hypothesis does not know our limits of numbers
        reject()
    entry = Entry(3, 2**40 + 7, "office/desk", value, "00-ab-cd-01")
    assert back(entry) == entry
    parts = take_apart(topics.OBSERVATIONS, entry)
    assert msgspec.json.decode(parts.record)["type"] == kind.__name__


@given(value=st.binary(max_size=200), key=names, trace=names, fault=names)
def test_any_bytes_come_back(value: bytes, key: str, trace: str, fault: str) -> None:
    entry = Entry(0, 1, key, value, trace, fault)
    assert back(entry) == entry


@given(value=values, kind=st.sampled_from(["FrameChunk", "AudioChunk", "Detections", "New", ""]))
def test_what_no_version_knows_comes_back(value: Any, kind: str) -> None:
    fields = {"type": kind, "site": "office", "start": 5, "data": value, "entry-like": value}
    entry = Entry(0, 1, "office", msgspec.msgpack.encode(fields))
    assert back(entry) == entry


@given(fields=st.dictionaries(names | st.sampled_from(["type", "data", ENTRY]), values, max_size=5))
def test_any_map_comes_back(fields: dict[str, Any]) -> None:
    entry = Entry(0, 1, "office", msgspec.msgpack.encode(fields))
    assert back(entry) == entry


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(
            b"\x83\xa4type\xaaFrameChunk\xa4data\xc4\x01\x00\xa4data\xc4\x01\x01", id="twice"
        ),
        pytest.param(b"\x82\xa4type\xa8Progress\xa4upto\xcd\x00\x05", id="a long form of 5"),
        pytest.param(b"\x82\xa4type\xa5Sound\xa1x\xca\x3f\x80\x00\x00", id="float32"),
        pytest.param(b"\x82\xa4type\xa5Sound\xa1x\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", id="NaN"),
        pytest.param(b"\x82\xa4type\xaaFrameChunk\xa4data\xc0", id="no picture"),
        pytest.param(b"\x82\xa4type\xaaFrameChunk\xa4data\xc4\x00", id="an empty picture"),
        pytest.param(b"\x82\xa4type\xaaFrameChunk\xa4data\xc5\x00\x02ab", id="long picture"),
        pytest.param(b"\x91" * 5000, id="deep"),
    ],
)
def test_another_spelling_comes_back(value: bytes) -> None:
    entry = Entry(0, 9, "office/desk", value)
    assert back(entry, topics.FRAMES) == entry


@pytest.mark.parametrize("record", [frame(5, 1), audio(5, 1)], ids=["picture", "sound"])
def test_a_picture_or_sound_stands_once(record: Any) -> None:
    newer = msgspec.to_builtins(record, builtin_types=(bytes,)) | {"type": type(record).__name__}
    odd = msgspec.msgpack.encode({**newer, "odd": 1.0}).replace(b"\xa3odd", b"\xd9\x03odd")
    for value in (codec.encode(record), odd):
        parts = take_apart(topics.FRAMES, Entry(0, 1, "office/desk", value))
        assert parts.media is not None
        assert parts.media.count(record.data) == 1
        assert len(parts.record) < len(JPEG)
        assert back(Entry(0, 1, "office/desk", value)).value == value


def test_a_record_whose_picture_is_missing_is_refused() -> None:
    parts = take_apart(topics.FRAMES, Entry(0, 1, "office/desk", codec.encode(frame(5, 1))))
    with pytest.raises(DecodeError, match="picture or sound is missing"):
        put_together(parts.record, None)


@given(junk=st.binary(max_size=80))
def test_what_is_no_message_is_refused(junk: bytes) -> None:
    with pytest.raises(DecodeError):
        put_together(junk, None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_schema_names_every_field_that_viewers_take(kind: type[Record]) -> None:
    schema = json.loads(record_schema(kind.__name__))
    assert schema["title"] == f"fusewatch.{kind.__name__}"
    assert ENTRY not in kind.__struct_fields__
    # `regions` is an array of arrays, which Foxglove refuses
    named = {*kind.__struct_fields__, "type", ENTRY} - {"regions"}
    assert named == schema["properties"].keys()
    text = json.dumps(schema)
    assert "$ref" not in text
    assert "anyOf" not in text
