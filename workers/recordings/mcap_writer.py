"""Writes one MCAP file: whole chunks only, so that what was written stays readable after a kill.

https://mcap.dev/spec describes the format. Each chunk holds the channels that it uses, so a chunk
can be read although another is damaged. Messages of different groups never share a chunk, so
whoever reads the records need not read the pictures.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    Message,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

from pipeline.bus.private import private_file

MAGIC = b"\x89MCAP0\r\n"
PROFILE = "fusewatch"
LEVEL = 1  # of zstd: pictures do not get smaller at a higher one
MOST_CHANNELS = 60_000  # of a file; the format numbers them with 16 bits
_SEQUENCE = 0xFFFFFFFF  # the format numbers messages with 32 bits


class Written(msgspec.Struct, frozen=True):
    """One message: its channel, the event time in ns, the offset on the bus and the bytes."""

    channel: int
    time: int
    offset: int
    data: bytes


class _Group:
    """The open chunk of one group."""

    def __init__(self) -> None:
        self.builder = RecordBuilder()
        self.indexes: dict[int, MessageIndex] = {}
        self.start, self.end = 2**64 - 1, 0

    def add(self, message: Message) -> None:
        index = self.indexes.get(message.channel_id)
        if index is None:
            index = self.indexes[message.channel_id] = MessageIndex(message.channel_id, [])
        index.records.append((message.log_time, self.builder.count))
        message.write(self.builder)
        self.start, self.end = min(self.start, message.log_time), max(self.end, message.log_time)


class McapWriter:
    """The file at `path`, which must not exist; only this user may read it. Raises OSError.

    An error while writing takes back what was written of the last chunk, so that the file stays
    readable. `chunk_bytes` is the size at which a chunk is finished.
    """

    def __init__(self, path: Path, library: str, *, chunk_bytes: int = 1 << 20) -> None:
        self.path = path
        self.size = 0  # bytes written
        self.start, self.end = 2**64 - 1, 0  # ns; the least and greatest time of its messages
        self._chunk_bytes = chunk_bytes
        self._file = private_file(path, os.O_WRONLY | os.O_EXCL | os.O_NOFOLLOW)
        self._zstd = zstandard.ZstdCompressor(level=LEVEL)
        self._crc = 0  # of all bytes, as the format asks for
        self._groups: dict[str, _Group] = {}
        self._schemas: dict[str, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._chunks: list[ChunkIndex] = []
        self._metadata: list[MetadataIndex] = []
        self._counts: dict[int, int] = {}
        try:
            self._write(MAGIC + _encoded(Header(profile=PROFILE, library=library)))
        except OSError:  # on a full disk an empty file would be left at each attempt
            self.close()
            path.unlink(missing_ok=True)
            raise

    @property
    def full(self) -> bool:
        """Whether the format has no number left for another channel."""
        return len(self._channels) >= MOST_CHANNELS

    @property
    def has_chunks(self) -> bool:
        """Whether a chunk was written."""
        return bool(self._chunks)

    @property
    def counts(self) -> Mapping[int, int]:
        """The messages in whole chunks, by channel."""
        return self._counts

    def schema(self, name: str, encoding: str, data: bytes) -> int:
        """Writes a schema once, and returns its number."""
        known = self._schemas.get(name)
        if known is None:
            number = len(self._schemas) + 1
            known = Schema(id=number, name=name, encoding=encoding, data=data)
            self._write(_encoded(known))
            self._schemas[name] = known
        return int(known.id)

    def channel(self, name: str, encoding: str, schema: int, metadata: Mapping[str, str]) -> int:
        """Declares a channel and returns its number."""
        number = len(self._channels) + 1
        self._channels[number] = Channel(
            id=number,
            topic=name,
            message_encoding=encoding,
            schema_id=schema,
            metadata=dict(metadata),
        )
        return number

    def metadata(self, name: str, data: Mapping[str, str]) -> None:
        """Writes a metadata record."""
        record = _encoded(Metadata(name=name, metadata=dict(data)))
        at = self.size
        self._write(record)
        self._metadata.append(MetadataIndex(offset=at, length=len(record), name=name))

    def add(self, group: str, messages: Sequence[Written]) -> None:
        """Adds messages that stand in one chunk."""
        of = self._groups.get(group)
        if of is None:
            of = self._groups[group] = _Group()
        for message in messages:
            if message.channel not in of.indexes:
                self._channels[message.channel].write(of.builder)
            time = min(max(message.time, 0), 2**63 - 1)
            of.add(
                Message(
                    channel_id=message.channel,
                    log_time=time,
                    publish_time=time,
                    sequence=message.offset & _SEQUENCE,
                    data=message.data,
                )
            )
        if of.builder.count >= self._chunk_bytes:
            self._finish_chunk(group)

    def flush(self) -> None:
        """Writes the open chunks; after it, a kill of the process loses nothing that was added."""
        for group in list(self._groups):
            self._finish_chunk(group)

    def finish(self) -> None:
        """Writes the open chunks and the index, makes all durable, and closes the file."""
        self.flush()
        self._write(_encoded(DataEnd(data_section_crc=self._crc)))
        self._write(self._summary() + MAGIC)
        os.fsync(self._file)
        self.close()

    def close(self) -> None:
        """Closes the file without an index; what is in open chunks is lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _finish_chunk(self, group: str) -> None:
        of = self._groups.pop(group)
        content: bytes = of.builder.end()  # type: ignore[no-untyped-call]
        packed = self._zstd.compress(content)
        chunk = _encoded(
            Chunk(
                compression="zstd",
                data=packed,
                message_start_time=of.start,
                message_end_time=of.end,
                uncompressed_crc=zlib.crc32(content),
                uncompressed_size=len(content),
            )
        )
        at, offsets, indexes = self.size, {}, b""
        for number, index in of.indexes.items():
            offsets[number] = at + len(chunk) + len(indexes)
            indexes += _encoded(index)
        self._write(chunk + indexes)
        for number, index in of.indexes.items():
            self._counts[number] = self._counts.get(number, 0) + len(index.records)
        self.start, self.end = min(self.start, of.start), max(self.end, of.end)
        self._chunks.append(
            ChunkIndex(
                chunk_length=len(chunk),
                chunk_start_offset=at,
                compression="zstd",
                compressed_size=len(packed),
                message_end_time=of.end,
                message_index_length=len(indexes),
                message_index_offsets=offsets,
                message_start_time=of.start,
                uncompressed_size=len(content),
            )
        )

    def _summary(self) -> bytes:
        """The index of the file, and its footer."""
        start = self.size
        used = [self._channels[number] for number in sorted(self._counts)]
        statistics = Statistics(
            attachment_count=0,
            channel_count=len(used),
            channel_message_counts=dict(self._counts),
            chunk_count=len(self._chunks),
            message_count=sum(self._counts.values()),
            message_end_time=self.end,
            message_start_time=self.start if self._counts else 0,
            metadata_count=len(self._metadata),
            schema_count=len(self._schemas),
        )
        groups: list[tuple[Opcode, Sequence[Any]]] = [
            (Opcode.SCHEMA, list(self._schemas.values())),
            (Opcode.CHANNEL, used),
            (Opcode.STATISTICS, [statistics]),
            (Opcode.CHUNK_INDEX, self._chunks),
            (Opcode.METADATA_INDEX, self._metadata),
        ]
        body, offsets = b"", b""
        for opcode, records in groups:
            part = b"".join(_encoded(record) for record in records)
            if part:
                at = SummaryOffset(
                    group_opcode=opcode, group_start=start + len(body), group_length=len(part)
                )
                offsets += _encoded(at)
            body += part
        at_offsets = start + len(body)
        footer = Footer(summary_start=start, summary_offset_start=at_offsets, summary_crc=0)
        # The checksum covers all of the summary and the footer up to the checksum itself.
        summary = body + offsets + _encoded(footer)[:-4]
        return summary + zlib.crc32(summary).to_bytes(4, "little")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self._crc = zlib.crc32(data, self._crc)
        self.size += len(data)


def _encoded(record: Any) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return bytes(builder.end())  # type: ignore[no-untyped-call]
