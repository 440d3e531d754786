"""Records to bytes and back: MessagePack, the type's name in the field `type`."""

from __future__ import annotations

import msgspec

from pipeline import types
from pipeline.errors import DecodeError

CONTENT_TYPE = "application/msgpack"
SCHEMA_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(types.Any)


def encode(record: types.Record) -> bytes:
    """The wire form of a record."""
    return _encoder.encode(record)


def decode(value: bytes) -> types.Any:
    """The record in `value`; raises DecodeError with the reason and never anything else."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a Fusewatch record (schema {SCHEMA_VERSION}): {error}"
        raise DecodeError(msg) from error
