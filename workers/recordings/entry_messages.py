"""Takes an entry of the bus apart into messages of a recording, and puts it together again.

The record of an entry becomes a JSON object with the same fields in the same order. Its field
`entry` says where the entry stood on the bus. A picture or a piece of sound stands in a message of
its own, and `data` is null in the record. What this cannot give back bit for bit (another
encoding, bytes that are no record) is also kept as it was, in `entry.raw`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import msgspec

from pipeline.errors import DecodeError
from pipeline.ports import Entry
from workers.recordings import foxglove

PICTURE, SOUND, UNKNOWN = "picture", "sound", "unknown"  # kinds of channels beside record types
MEDIA = {"FrameChunk": PICTURE, "AudioChunk": SOUND}  # type of a record -> kind of its media
SCHEMAS = {PICTURE: foxglove.IMAGE, SOUND: foxglove.SOUND}  # kind of media -> protobuf message
ENTRY = "entry"  # the field that says where the entry stood
_EACH = "*"  # any index of a list, in a path
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_TIMES = {"Progress": "upto", "Mode": "said"}  # the event time of a record, where it is no `start`


_NO_MEDIA = "its picture or sound is missing"


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """What stands on one channel of a file: one kind of message of one source."""

    topic: str  # of the bus
    partition: int
    site: str
    source: str
    kind: str  # the type of its records, `picture`, `sound` or `unknown`

    @property
    def name(self) -> str:
        """The name of the channel, as viewers show it."""
        return "/".join(
            ("", self.site or "-", self.source or "-", self.topic.removesuffix(".v1"), self.kind)
        )


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as messages: its record, and its picture or sound if it has one."""

    channel: Channel
    time: int | None  # ns; event time of the record; none: it has none
    record: bytes  # JSON
    media: bytes | None = None  # protobuf, on the channel `media_channel(channel)`


class _Place(msgspec.Struct, omit_defaults=True):
    """The field `entry`: where the entry stood, and how its bytes come back."""

    partition: int
    offset: int
    key: str = ""
    trace: str = ""
    fault: str = ""
    paths: tuple[str, ...] = ()  # of the fields that are bytes
    raw: tuple[bytes, ...] | None = None  # the whole value, or what stands around the media


class _Placed(msgspec.Struct):
    entry: _Place


_json = msgspec.json.Encoder()
_any_fields = msgspec.json.Decoder(dict[str, Any])
_placed = msgspec.json.Decoder(_Placed)


def media_channel(channel: Channel) -> Channel | None:
    """Returns the channel of the pictures or the sound that belong to the records of `channel`."""
    kind = MEDIA.get(channel.kind)
    return None if kind is None else msgspec.structs.replace(channel, kind=kind)


def take_apart(topic: str, entry: Entry) -> Parts:
    """Returns the messages that stand for an entry."""
    fields = _fields(entry.value)
    channel = _channel(topic, entry, fields)
    time = fields.get(_TIMES.get(channel.kind, "start"))
    when = time if isinstance(time, int) and not isinstance(time, bool) else None
    data = fields.get("data") if channel.kind in MEDIA else None
    media = data if isinstance(data, bytes) else None
    if media is not None:
        fields["data"] = None
    place = _Place(entry.partition, entry.offset, entry.key, entry.trace, entry.fault)
    record = None if channel.kind in MEDIA and media is None else _told(fields, place)
    if record is None or not _gives(record, media, entry):
        place = msgspec.structs.replace(place, paths=(), raw=_around(entry.value, media))
        record = _shown(fields, place)
    return Parts(
        channel=channel,
        time=when,
        record=record,
        media=None if media is None else _message(channel, fields, media, when or 0),
    )


def put_together(record: bytes, media: bytes | None) -> Entry:
    """Returns the entry of a record's message; `media` is its picture or sound.

    Raises DecodeError if it is missing, or for a message that `take_apart` did not make.
    """
    try:
        place = _placed.decode(record).entry
        value = _value(record, place, media)
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError, RecursionError) as error:
        msg = f"not a message of a recording: {error}"
        raise DecodeError(msg) from error
    return Entry(place.partition, place.offset, place.key, value, place.trace, place.fault)


def _value(record: bytes, place: _Place, media: bytes | None) -> bytes:
    if place.raw is not None:
        if len(place.raw) > 1 and media is None:
            raise DecodeError(_NO_MEDIA)
        return (media or b"").join(place.raw)
    fields = _any_fields.decode(record)
    del fields[ENTRY]
    for path in place.paths:
        _restore(fields, path.split("/"))
    if fields.get("type") in MEDIA:
        if media is None:
            raise DecodeError(_NO_MEDIA)
        fields["data"] = media
    return msgspec.msgpack.encode(fields)


def _fields(value: bytes) -> dict[str, Any]:
    """The fields of an encoded record of any version; none if it is no record."""
    try:
        found = msgspec.msgpack.decode(value)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return {}
    named = isinstance(found, dict) and all(isinstance(name, str) for name in found)
    return found if named else {}


def _channel(topic: str, entry: Entry, fields: dict[str, Any]) -> Channel:
    kind, site, source = (fields.get(name) for name in ("type", "site", "source"))
    known = isinstance(kind, str) and _KIND.fullmatch(kind) is not None
    from_key, _, source_of_key = entry.key.partition("/")
    return Channel(
        topic=topic,
        partition=entry.partition,
        site=site if isinstance(site, str) else from_key,
        source=source if isinstance(source, str) else source_of_key,
        kind=str(kind) if known else UNKNOWN,
    )


def _told(fields: dict[str, Any], place: _Place) -> bytes | None:
    """The record's message; None if JSON cannot tell these fields."""
    if ENTRY in fields:
        return None
    try:
        place.paths = tuple(dict.fromkeys(_bytes_in(fields, "")))
        return _json.encode({**fields, ENTRY: place})
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None


def _shown(fields: dict[str, Any], place: _Place) -> bytes:
    """The message of an entry that is kept as it was; viewers show as much as JSON can tell."""
    try:
        return _json.encode({**fields, ENTRY: place})
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return _json.encode({ENTRY: place})


def _gives(record: bytes, media: bytes | None, entry: Entry) -> bool:
    try:
        return put_together(record, media) == entry
    except DecodeError:
        return False


def _around(value: bytes, media: bytes | None) -> tuple[bytes, ...]:
    """The value without the media in it, which stand in a message of their own."""
    if media is None:
        return (value,)
    before, _, after = value.partition(media) if media else (b"", b"", value)
    return (before, after)


def _bytes_in(value: object, path: str) -> Iterator[str]:
    """Yields the path of each value that is bytes; JSON has them as base64."""
    if isinstance(value, bytes):
        yield path
    elif isinstance(value, dict):
        for name, each in value.items():
            if isinstance(each, bytes | dict | list):
                yield from _bytes_in(each, f"{path}/{name}" if path else name)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, bytes | dict | list):
                yield from _bytes_in(each, f"{path}/{_EACH}" if path else _EACH)


def _restore(value: Any, path: list[str]) -> None:
    """Decodes the base64 at a path; what an optional field leaves out is passed over."""
    name, rest = path[0], path[1:]
    if name == _EACH and isinstance(value, list):
        places: list[Any] = list(range(len(value)))
    elif isinstance(value, dict) and name in value:
        places = [name]
    else:
        return
    for at in places:
        if rest:
            _restore(value[at], rest)
        elif isinstance(value[at], str):
            value[at] = b64decode(value[at], validate=True)


def _message(channel: Channel, fields: dict[str, Any], media: bytes, time: int) -> bytes:
    shown = min(max(time, 0), 253_402_300_799_000_000_000)  # what a Timestamp can hold
    if MEDIA[channel.kind] == PICTURE:
        return foxglove.image(shown, f"{channel.site}/{channel.source}", media)
    return foxglove.sound(shown, media, fields.get("rate"), fields.get("channels"))
