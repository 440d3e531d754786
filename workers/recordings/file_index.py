"""The index of one recording file: its chunks, channels and metadata, and what is damaged.

A file that was finished has an index at its end. Of a file whose writer was killed, and of one
whose index is damaged, the records are walked instead; after damage the walk goes on at the next
chunk.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec
from mcap.opcode import Opcode
from mcap.records import Channel as McapChannel
from mcap.records import ChunkIndex, Footer, Header, Metadata, MetadataIndex

from pipeline.errors import ConfigError, OutsideError
from workers.recordings import chunk_reader
from workers.recordings.chunk_reader import CHUNK_HEAD, HEAD, ChunkAt, Damaged, parsed, read_at
from workers.recordings.entry_messages import Channel
from workers.recordings.mcap_writer import MAGIC, PROFILE

CHECKSUM = "crc"  # the key of a metadata record that holds the checksum of the others
_FOOTER = HEAD.size + 20  # bytes
_MOST_RECORD = 1 << 20  # bytes of a record beside chunks and the index
_MOST_BESIDE = 4 << 20  # bytes of any record between chunks
_MOST_INDEX = 256 << 20  # bytes; of the index of a file
_PACKED = b"\x04\x00\x00\x00zstd"  # the name of the compression, by which a walk finds a chunk
_NAMED = HEAD.size + CHUNK_HEAD.size - 4  # where it stands in a chunk
_AROUND = CHUNK_HEAD.size + 4 + 8  # bytes of a chunk beside the packed ones
_OPCODES = frozenset(int(opcode) for opcode in Opcode)


class Loss(msgspec.Struct, frozen=True):
    """What cannot be read of a recording: in which file, from which byte on, and why."""

    file: str
    at: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: at byte {self.at}: {self.reason}"


class FileIndex(msgspec.Struct, kw_only=True):
    """What one file holds; `channels` are those of ours, by their numbers in the file.

    It is not `usable` if nothing is known of it but why.
    """

    path: Path
    size: int
    chunks: list[ChunkAt] = []
    channels: dict[int, Channel] = {}
    metadata: list[tuple[str, Mapping[str, str]]] = []
    finished: bool = False  # its recorder has finished it: its end is there
    losses: list[Loss] = []
    usable: bool = True

    def lose(self, at: int, reason: str) -> None:
        """Notes a part that cannot be read, once."""
        loss = Loss(str(self.path), at, reason)
        if loss not in self.losses:
            self.losses.append(loss)

    def declare(self, channel: McapChannel) -> None:
        """Notes a channel, if it is one of ours."""
        found = our_channel(channel)
        if found is not None:
            self.channels[channel.id] = found


def our_channel(channel: McapChannel) -> Channel | None:
    """Returns what stands on a channel; None if this is no channel of ours."""
    named = channel.metadata
    try:
        return Channel(
            topic=named["topic"],
            partition=int(named["partition"]),
            site=named["site"],
            source=named["source"],
            kind=named["kind"],
        )
    except (KeyError, ValueError):
        return None


def checksum(metadata: Mapping[str, str]) -> str:
    """Returns the checksum of a metadata record, which the format itself does not protect."""
    kept = {key: text for key, text in metadata.items() if key != CHECKSUM}
    return f"{zlib.crc32(msgspec.json.encode(kept, order='sorted')):08x}"


def read_index(path: Path) -> FileIndex:
    """Returns the index of a file, with its losses.

    Raises ConfigError for a file that is no recording of ours, OutsideError for one that cannot be
    read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            index = FileIndex(path=path, size=size)
            begin = _begin(file, index)
            if begin is None:
                return index
            if not _read_summary(file, index):
                index.chunks, index.channels, index.metadata = [], {}, []
                _walk(file, index, begin)
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise OutsideError(msg) from error
    return index


def _begin(file: IO[bytes], index: FileIndex) -> int | None:
    """Checks the begin of the file; returns where the records begin, None if it is cut off."""
    file.seek(0)
    magic = file.read(len(MAGIC))
    if magic != MAGIC[: len(magic)]:
        msg = f"{index.path}: is no MCAP file; name a recording that `fusewatch record` has made"
        raise ConfigError(msg)
    try:
        opcode, length = HEAD.unpack(read_at(file, len(MAGIC), HEAD.size))
        if opcode != Opcode.HEADER or length > _MOST_RECORD:
            msg = "the header is damaged"
            raise Damaged(msg)
        header = parsed(Header.read, read_at(file, len(MAGIC) + HEAD.size, length))
    except Damaged as error:
        reason = "the file is empty" if not index.size else f"the begin of the file: {error}"
        index.lose(0, reason)
        return None if index.size < len(MAGIC) + HEAD.size else len(MAGIC)
    if header.profile != PROFILE:
        what = f"of the profile {header.profile[:40]!r}" if header.profile else "without a profile"
        msg = (
            f"{index.path}: is an MCAP file {what}, and no recording of Fusewatch; name one that "
            "`fusewatch record` has made"
        )
        raise ConfigError(msg)
    return len(MAGIC) + HEAD.size + int(length)


# -- the index at the end of a file


def _read_summary(file: IO[bytes], index: FileIndex) -> bool:
    """Reads the index at the end; returns whether there is one that can be believed."""
    try:
        end = read_at(file, max(0, index.size - _FOOTER - len(MAGIC)), _FOOTER + len(MAGIC))
        opcode, length = HEAD.unpack_from(end)
        if opcode != Opcode.FOOTER or end[_FOOTER:] != MAGIC or length != _FOOTER - HEAD.size:
            return False
        footer = parsed(Footer.read, end[HEAD.size : _FOOTER])
        size = index.size - len(MAGIC) - _FOOTER - footer.summary_start
        if not footer.summary_start or not 0 < size <= _MOST_INDEX:
            return False
        summary = read_at(file, footer.summary_start, size)
        if footer.summary_crc != zlib.crc32(end[: _FOOTER - 4], zlib.crc32(summary)):
            index.lose(footer.summary_start, "the index: its checksum does not match")
            return False
        for code, body in chunk_reader.records(summary):
            _indexed(file, index, code, body)
    except Damaged as error:
        index.lose(index.size, f"the index: {error}")
        return False
    index.finished = True
    return True


def _indexed(file: IO[bytes], index: FileIndex, code: int, body: bytes) -> None:
    if code == Opcode.CHANNEL:
        index.declare(parsed(McapChannel.read, body))
    elif code == Opcode.CHUNK_INDEX:
        at = parsed(ChunkIndex.read, body)
        index.chunks.append(
            ChunkAt(
                at=at.chunk_start_offset,
                length=at.chunk_length,
                start=at.message_start_time,
                end=at.message_end_time,
                channels=frozenset(at.message_index_offsets),
            )
        )
    elif code == Opcode.METADATA_INDEX:
        place = parsed(MetadataIndex.read, body)
        try:
            if not HEAD.size < place.length <= _MOST_RECORD:
                msg = "its length cannot be right"
                raise Damaged(msg)
            _keep_metadata(index, read_at(file, place.offset, place.length)[HEAD.size :])
        except Damaged as error:
            index.lose(place.offset, f"metadata {place.name[:40]!r}: {error}")


def _keep_metadata(index: FileIndex, body: bytes) -> None:
    found = parsed(Metadata.read, body)
    if CHECKSUM in found.metadata and found.metadata[CHECKSUM] != checksum(found.metadata):
        msg = "its checksum does not match"
        raise Damaged(msg)
    index.metadata.append((found.name, found.metadata))


# -- the walk through a file without an index


def _walk(file: IO[bytes], index: FileIndex, begin: int) -> None:
    """Finds the chunks of a file by their heads, and goes on behind what is damaged.

    It looks into each chunk: only its content has a checksum, and not its length or what stands
    beside it.
    """
    at = begin
    while at < index.size:
        try:
            opcode, length = HEAD.unpack(read_at(file, at, HEAD.size))
            most = index.size - at - HEAD.size
            if opcode != Opcode.CHUNK:
                most = min(most, _MOST_BESIDE)
            if opcode not in _OPCODES or length > most:
                msg = "a record is damaged or cut off"
                raise Damaged(msg)
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                index.finished = True
                break
            _walked(file, index, opcode, (at, HEAD.size + length))
        except Damaged as error:
            found = _next_chunk(file, at + 1)
            end = index.size if found is None else found
            index.lose(at, f"{error}; {end - at} bytes are passed over")
            at = end
            continue
        at += HEAD.size + length


def _walked(file: IO[bytes], index: FileIndex, opcode: int, place: tuple[int, int]) -> None:
    """Takes in one record of a walk, which begins at `place[0]` and has `place[1]` bytes."""
    at, length = place
    if opcode == Opcode.CHUNK:
        index.chunks.append(_looked_into(file, index, at, length))
    elif opcode in (Opcode.CHANNEL, Opcode.METADATA) and length <= _MOST_RECORD:
        body = read_at(file, at, length)[HEAD.size :]
        if opcode == Opcode.CHANNEL:
            index.declare(parsed(McapChannel.read, body))
        else:
            _keep_metadata(index, body)


def _looked_into(file: IO[bytes], index: FileIndex, at: int, length: int) -> ChunkAt:
    """Returns what a chunk holds; raises Damaged."""
    chunk = ChunkAt(at=at, length=length, start=0, end=0, channels=frozenset())
    used: set[int] = set()
    times: list[int] = []
    for opcode, body in chunk_reader.records(chunk_reader.chunk_content(file, chunk)):
        if opcode == Opcode.CHANNEL:
            index.declare(parsed(McapChannel.read, body))
        elif opcode == Opcode.MESSAGE:
            message = chunk_reader.message(body)
            used.add(message.channel)
            times.append(message.time)
    return msgspec.structs.replace(
        chunk,
        start=min(times, default=0),
        end=max(times, default=0),
        channels=frozenset(used),
    )


def _next_chunk(file: IO[bytes], after: int) -> int | None:
    """Returns where the next chunk begins whose head is whole; None if there is none."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = content.find(_PACKED, after + _NAMED)
        while found >= 0:
            at = found - _NAMED
            opcode, length = HEAD.unpack_from(content, at)
            place = found + len(_PACKED)
            packed = int.from_bytes(content[place : place + 8], "little")
            fits = HEAD.size + length <= min(len(content) - at, chunk_reader.MOST_CHUNK)
            if opcode == Opcode.CHUNK and fits and packed == length - _AROUND:
                return at
            found = content.find(_PACKED, found + 1)
    return None
