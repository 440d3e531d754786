"""Reads chunks of MCAP files whose bytes may be damaged: no length in a file is believed.

https://mcap.dev/spec describes the format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import IO, Any

import lz4.frame
import msgspec
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode

MOST_CHUNK = 128 << 20  # bytes; of a chunk, packed or not
HEAD = struct.Struct("<BQ")  # opcode and length of every record
CHUNK_HEAD = struct.Struct("<QQQII")  # times, size, checksum, length of the compression's name
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_LENGTH = struct.Struct("<Q")


class Damaged(Exception):
    """A part of a file cannot be read; the message says why."""


class ChunkAt(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk in a file: its place, its times in ns, and which channels it has messages of."""

    at: int
    length: int  # of the whole record
    start: int
    end: int
    channels: frozenset[int]


class Message(msgspec.Struct, frozen=True):
    """One message of a chunk."""

    channel: int
    sequence: int
    time: int  # ns
    data: bytes


def parsed(read: Callable[[ReadDataStream], Any], data: bytes) -> Any:
    """Returns what `read` makes of the content of a record; raises Damaged."""
    try:
        return read(ReadDataStream(BytesIO(data)))
    except (McapError, struct.error, ValueError) as error:  # UnicodeDecodeError is a ValueError
        msg = f"a record of the file is damaged ({type(error).__name__})"
        raise Damaged(msg) from error


def read_at(file: IO[bytes], at: int, length: int) -> bytes:
    """Returns `length` bytes of a file; raises Damaged where it is shorter."""
    file.seek(at)
    data = file.read(length)
    if len(data) < length:
        msg = "the file ends before it"
        raise Damaged(msg)
    return data


def chunk_content(file: IO[bytes], chunk: ChunkAt) -> bytes:
    """Returns the unpacked records of a chunk; raises Damaged."""
    if not HEAD.size < chunk.length <= MOST_CHUNK:
        msg = f"its length of {chunk.length} bytes cannot be right"
        raise Damaged(msg)
    record = read_at(file, chunk.at, chunk.length)
    opcode, length = HEAD.unpack_from(record)
    if opcode != Opcode.CHUNK or length != chunk.length - HEAD.size:
        msg = "there is no chunk where the index says"
        raise Damaged(msg)
    return unpacked(record[HEAD.size :])


def unpacked(body: bytes) -> bytes:
    """Returns the records in the body of a chunk; raises Damaged."""
    try:
        _, _, size, checksum, named = CHUNK_HEAD.unpack_from(body)
        at = CHUNK_HEAD.size + named
        compression = body[CHUNK_HEAD.size : at].decode("ascii")
        (length,) = _LENGTH.unpack_from(body, at)
        packed = body[at + _LENGTH.size :]
    except (struct.error, UnicodeDecodeError) as error:
        msg = "its head is damaged"
        raise Damaged(msg) from error
    if length != len(packed) or size > MOST_CHUNK:
        msg = f"its size of {max(length, size)} bytes cannot be right"
        raise Damaged(msg)
    content = _unpack(compression, packed, size)
    if len(content) != size or (checksum and zlib.crc32(content) != checksum):
        msg = "its checksum does not match"
        raise Damaged(msg)
    return content


def _unpack(compression: str, packed: bytes, size: int) -> bytes:
    """Unpacks no more than `size` bytes, whatever the packed bytes claim."""
    try:
        match compression:
            case "":
                return packed
            case "zstd":
                claimed = zstandard.frame_content_size(packed)
                if claimed not in (-1, size):  # -1: it does not say
                    msg = f"it claims to unpack to {claimed} bytes"
                    raise Damaged(msg)
                return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size or 1)
            case "lz4":
                return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed, size + 1))
    except (zstandard.ZstdError, RuntimeError, ValueError, EOFError) as error:
        msg = "it cannot be unpacked"
        raise Damaged(msg) from error
    msg = f"its compression {compression[:20]!r} is not known"
    raise Damaged(msg)


def records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields opcode and content of each record of an unpacked chunk; raises Damaged."""
    at = 0
    while at < len(content):
        if at + HEAD.size > len(content):
            msg = "its last record is cut off"
            raise Damaged(msg)
        opcode, length = HEAD.unpack_from(content, at)
        at += HEAD.size
        if length > len(content) - at:
            msg = "a record in it is longer than the chunk"
            raise Damaged(msg)
        yield opcode, content[at : at + length]
        at += length


def message(body: bytes) -> Message:
    """Returns the message in the content of a record; raises Damaged."""
    if len(body) < MESSAGE_HEAD.size:
        msg = "a message in it is cut off"
        raise Damaged(msg)
    channel, sequence, time, _ = MESSAGE_HEAD.unpack_from(body)
    return Message(channel, sequence, time, body[MESSAGE_HEAD.size :])
