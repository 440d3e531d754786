"""Lag of consumer groups, computed from committed offsets. Imports no client."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

import msgspec


class Lag(msgspec.Struct, frozen=True):
    """The number of records of a topic that a group has not read; `members` are those alive now."""

    group: str  # the brokers' name: a foreign group may read our topics too
    records: int
    members: int


def reached(offset: int, note: str) -> int:
    """Returns the offset that a group has reached, given its committed `offset` and `note`.

    Fusewatch commits the oldest offset that it still needs. Each of its notes (of a stage or of a
    delivery) begins with the checksum of the rest and the offset that was reached.
    """
    try:
        body = base64.b64decode(note[1:], validate=True)
        crc, there = struct.unpack_from(">IQ", body)
    except (binascii.Error, struct.error, ValueError):
        return offset  # another program's commit, or a commit without state
    return max(offset, there) if crc == zlib.crc32(body[4:]) else offset
