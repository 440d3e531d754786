"""What brokers tell of topics and groups; imports no client."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

import msgspec


class Lag(msgspec.Struct, frozen=True):
    """How many records of a topic a group has not read yet; `members` are at it now."""

    group: str  # as the brokers know it: a reader of our topics need not be ours
    records: int
    members: int


def reached(offset: int, note: str) -> int:
    """How far a group has read that committed `offset` with `note`.

    A commit of ours stands at the oldest record that is still needed; every note of ours, a stage's
    and a delivery's, begins with the checksum of the rest and the offset that was reached.
    """
    try:
        body = base64.b64decode(note[1:], validate=True)
        crc, there = struct.unpack_from(">IQ", body)
    except (binascii.Error, struct.error, ValueError):
        return offset  # another program's commit, or none of a state
    return max(offset, there) if crc == zlib.crc32(body[4:]) else offset
