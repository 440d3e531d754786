"""Encodes and decodes records: MessagePack, with the record type's name in the field `type`."""

from __future__ import annotations

import msgspec

from pipeline import types
from pipeline.errors import DecodeError

CONTENT_TYPE = "application/msgpack"
SCHEMA_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[types.Any] = msgspec.msgpack.Decoder(types.Any)


def encode(record: types.Record) -> bytes:
    """Returns the encoded bytes of a record."""
    return _encoder.encode(record)


def decode(value: bytes) -> types.Any:
    """Returns the record in `value`; raises DecodeError with the reason, and no other error."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a Fusewatch record (schema {SCHEMA_VERSION}): {error}"
        raise DecodeError(msg) from error


class _Span(msgspec.Struct):
    start: int | None = None
    end: int | None = None


_span_decoder = msgspec.msgpack.Decoder(_Span)


def span(value: bytes) -> tuple[int, int] | None:
    """Returns the event span `[start, end)` of an encoded record, or None if it has none.

    The other fields are not decoded.
    """
    try:
        seen = _span_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if seen.start is None or seen.end is None else (seen.start, seen.end)


def overlaps(value: bytes, start: int, end: int) -> bool:
    """Returns whether an encoded record has a span that overlaps `[start, end)`."""
    seen = span(value)
    return seen is not None and seen[0] < end and seen[1] > start
