"""Reads recordings as the history of a bus: the entries of a topic in the order of their offsets.

A recording is one file or a folder of files. What is damaged is passed over and named in `losses`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec
from mcap.opcode import Opcode
from mcap.records import Channel as McapChannel

from pipeline.errors import ConfigError, DecodeError, OutsideError
from pipeline.ports import Entry
from pipeline.topics import ALL_TOPICS, CHUNKS, OBSERVATIONS
from workers.recordings import chunk_reader
from workers.recordings.chunk_reader import ChunkAt, Damaged
from workers.recordings.entry_messages import (
    SCHEMAS,
    Channel,
    media_channel,
    put_together,
)
from workers.recordings.file_index import FileIndex, Loss, our_channel, read_index
from workers.recordings.folder_writer import LOST, NAME, Lost, file_name
from workers.recordings.foxglove import DecodeError as ProtobufError
from workers.recordings.foxglove import media_of
from workers.recordings.metadata import About, about_of

SUFFIX = ".mcap"
OBSERVED = ("Detections", "Sound", "Utterance", "Described")  # kinds of what a source gave


def open_recording(path: Path | Sequence[Path]) -> Recording:
    """Opens a file, a folder of files, or several of both.

    Raises ConfigError for what is no recording and for recordings that do not belong together,
    OutsideError for a file that cannot be read. Among the files of a folder, such a file is a loss.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    named = _files(paths)
    files = [_index(file, alone=len(named) == 1 or file in paths) for file in named]
    if not any(file.chunks for file in files):
        reasons = [str(loss) for file in files for loss in file.losses]
        said = "; ".join(reasons[:3]) or f"{files[0].path}: it holds no entry"
        msg = f"nothing of the recording can be read: {said}; name another one"
        raise ConfigError(msg)
    _check_one_log(files)
    return Recording(sorted(files, key=_begun))


def _index(file: Path, *, alone: bool) -> FileIndex:
    """The index of a file; of one that cannot be used, unless it is `alone`, the reason."""
    try:
        return read_index(file)
    except (ConfigError, OutsideError) as error:
        if alone:
            raise
        reason = str(error).removeprefix(f"{file}: ").partition(";")[0]
        return FileIndex(path=file, size=0, losses=[Loss(str(file), 0, reason)], usable=False)


class Recording:
    """The entries of a recording; `History` is the Protocol that it has.

    Reading holds one chunk in memory at a time. It raises OutsideError when a file has gone. Damage
    raises nothing: `losses` names it once it was met.
    """

    def __init__(self, files: Sequence[FileIndex]) -> None:
        self._files = files

    # -- what it holds

    @property
    def losses(self) -> Sequence[Loss]:
        """What could not be read so far; complete after `verify`, or when all was read."""
        return [loss for file in self._files for loss in file.losses]

    @property
    def unusable(self) -> Sequence[Loss]:
        """Why files of its folder cannot be used at all; `losses` has it, too."""
        return [loss for file in self._files if not file.usable for loss in file.losses]

    @property
    def files(self) -> Sequence[Path]:
        """The files, in the order of reading."""
        return [file.path for file in self._files]

    @property
    def unfinished(self) -> Sequence[Path]:
        """The files whose recorder was killed or still writes: what came last may be missing."""
        return [file.path for file in self._files if file.usable and not file.finished]

    @property
    def about(self) -> About:
        """What the first file that can be read says of the recording."""
        told = (about_of(file.metadata) for file in self._files)
        return next((about for about in told if about != About()), About())

    @property
    def span(self) -> tuple[int, int]:
        """The least and the greatest event time of its entries, ns."""
        chunks = [chunk for file in self._files for chunk in file.chunks]
        return min(chunk.start for chunk in chunks), max(chunk.end for chunk in chunks)

    @property
    def topics(self) -> Sequence[str]:
        """The topics of the bus of which it has entries."""
        return [topic for topic in ALL_TOPICS if topic in {of.topic for of in self._channels()}]

    @property
    def sites(self) -> Sequence[str]:
        """The sites that were recorded: of which it has observations, pictures or reports."""
        return sorted({of.site for of in self._observing()})

    @property
    def sources(self) -> Mapping[str, Sequence[str]]:
        """The cameras, microphones and reports of each site of which it has anything."""
        found: dict[str, set[str]] = {}
        for of in self._observing():
            sources = found.setdefault(of.site, set())
            if of.topic in CHUNKS or of.kind in OBSERVED:
                sources.add(of.source.partition("/")[0])  # a microphone hears `room/speech`, too
        return {site: sorted(found[site]) for site in sorted(found)}

    # -- History

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        """Yields the entries of a topic that start in `[start, end)` (event time, ns), and others.

        They come in the order of partition and offset. The others are neighbours: whole chunks are
        read, and at least one before and one after the span.
        """
        for partition in self._partitions(topic):
            yield from self._read(topic, partition, (start, end))

    def streams(self, topic: str, start: int, end: int) -> Sequence[Iterator[Entry]]:
        """Returns what `between` yields, each partition apart."""
        return [self._read(topic, number, (start, end)) for number in self._partitions(topic)]

    def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
        """Yields all entries of a topic; a recording does not know when they were appended."""
        for partition in self._partitions(topic):
            yield from self._read(topic, partition, None)

    def oldest(self, topic: str) -> Mapping[int, int]:
        """Returns the offset of the first entry of each partition."""
        found = {}
        for partition in self._partitions(topic):
            first = next(self._read(topic, partition, None), None)
            if first is not None:
                found[partition] = first.offset
        return found

    def last(self, topic: str) -> Mapping[int, Entry]:
        """Returns the last entry of each partition."""
        found = {}
        for partition in self._partitions(topic):
            for file, chunk in reversed(self._chunks(topic, partition)):
                with _opened(file) as content:
                    some = list(_entries(content, file, chunk, (topic, partition)))
                if some:
                    found[partition] = max(some, key=lambda one: one.offset)
                    break
        return found

    def verify(self) -> Sequence[Loss]:
        """Reads all chunks, and returns everything that cannot be read."""
        for topic in self.topics:
            for _ in self.appended(topic):
                pass
        return self.losses

    # -- reading

    def _channels(self) -> Iterator[Channel]:
        for file in self._files:
            yield from file.channels.values()

    def _observing(self) -> Iterator[Channel]:
        only = self.about.sites
        for of in self._channels():
            ours = of.kind != LOST and of.site and (not only or of.site in only)
            if ours and of.topic in (*CHUNKS, OBSERVATIONS):
                yield of

    def _partitions(self, topic: str) -> Sequence[int]:
        return sorted({of.partition for of in self._channels() if of.topic == topic})

    def _read(self, topic: str, partition: int, span: tuple[int, int] | None) -> Iterator[Entry]:
        """Yields the entries of a partition once each: a recorder that was killed repeats some."""
        last = -1
        for file, chunks in _within(self._chunks(topic, partition), span):
            with _opened(file) as content:
                for chunk in chunks:
                    for entry in _entries(content, file, chunk, (topic, partition)):
                        if entry.offset > last:
                            last = entry.offset
                            yield entry

    def _chunks(self, topic: str, partition: int) -> list[tuple[FileIndex, ChunkAt]]:
        found = []
        for file in self._files:
            wanted = {
                number
                for number, of in file.channels.items()
                if of.topic == topic and of.partition == partition
            }
            found += [(file, chunk) for chunk in file.chunks if chunk.channels & wanted]
        return found


def _within(
    chunks: Sequence[tuple[FileIndex, ChunkAt]], span: tuple[int, int] | None
) -> Iterator[tuple[FileIndex, list[ChunkAt]]]:
    """Yields each file with its chunks from the first to the last that the span touches."""
    if span is not None:
        touched = [
            number
            for number, (_, chunk) in enumerate(chunks)
            if chunk.end >= span[0] and chunk.start < span[1]
        ]
        first, last = (touched[0] - 1, touched[-1] + 1) if touched else (0, -1)
        chunks = chunks[max(0, first) : last + 1]
    files: dict[Path, tuple[FileIndex, list[ChunkAt]]] = {}
    for file, chunk in chunks:
        files.setdefault(file.path, (file, []))[1].append(chunk)
    yield from files.values()


def _opened(file: FileIndex) -> IO[bytes]:
    try:
        return file.path.open("rb")
    except OSError as error:
        msg = f"{file.path}: cannot be read any more: {error.strerror}"
        raise OutsideError(msg) from error


def _entries(
    content: IO[bytes], file: FileIndex, chunk: ChunkAt, of: tuple[str, int]
) -> Iterator[Entry]:
    """Yields the entries of a partition in one chunk; what is damaged becomes a loss."""
    media: dict[Channel, tuple[int, bytes]] = {}  # the last picture or sound of each source
    channels = dict(file.channels)
    try:
        for opcode, body in chunk_reader.records(chunk_reader.chunk_content(content, chunk)):
            if opcode == Opcode.CHANNEL:
                declared = chunk_reader.parsed(McapChannel.read, body)
                ours = our_channel(declared)
                if ours is not None:
                    channels[declared.id] = ours
            elif opcode == Opcode.MESSAGE:
                message = chunk_reader.message(body)
                channel = channels.get(message.channel)
                if channel is None:
                    file.lose(chunk.at, f"a chunk: no channel {message.channel} of ours is known")
                elif (channel.topic, channel.partition) != of:
                    continue
                elif channel.kind == LOST:
                    file.lose(chunk.at, _told(channel, message.data))
                elif channel.kind in SCHEMAS:
                    media[channel] = message.sequence, message.data
                else:
                    try:
                        yield _entry(channel, message, media)
                    except (DecodeError, ProtobufError) as error:
                        what = f"{channel.name}, message {message.sequence}: {error}"
                        file.lose(chunk.at, what)
    except Damaged as error:
        file.lose(chunk.at, f"a chunk: {error}")
    except OSError as error:
        msg = f"{file.path}: cannot be read: {error.strerror}"
        raise OutsideError(msg) from error


def _told(channel: Channel, data: bytes) -> str:
    """What the recorder says of entries that it could not record."""
    try:
        lost = msgspec.json.decode(data, type=Lost)
    except msgspec.DecodeError:
        return f"{channel.name}: a message cannot be read"
    return (
        f"{lost.topic}: {lost.count} entries from offset {lost.first} of partition "
        f"{lost.partition} on were not recorded: {lost.reason}"
    )


def _entry(
    channel: Channel, message: chunk_reader.Message, media: dict[Channel, tuple[int, bytes]]
) -> Entry:
    beside = media_channel(channel)
    found = None if beside is None else media.pop(beside, None)
    shown = None
    if beside is not None and found is not None and found[0] == message.sequence:
        shown = media_of(SCHEMAS[beside.kind], found[1])
    return put_together(message.data, shown)


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and those in the folders that are named, by name."""
    found: list[Path] = []
    for path in paths:
        try:
            inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        except OSError as error:
            msg = f"{path}: cannot be read: {error.strerror}"
            raise OutsideError(msg) from error
        if not inside:
            msg = f"{path}: holds no recording (*{SUFFIX}); `fusewatch record` makes some"
            raise ConfigError(msg)
        if not path.exists():
            msg = f"{path}: there is no such file; name a recording, or a folder of recordings"
            raise ConfigError(msg)
        found += inside
    if not found:
        msg = "no recording is named"
        raise ConfigError(msg)
    return sorted(dict.fromkeys(found), key=lambda file: file.name)


def _begun(file: FileIndex) -> str:
    """By what files are ordered: their names have the time of their begin. Of a file that was
    renamed, the time is in it."""
    if NAME.fullmatch(file.path.name):
        return file.path.name
    try:
        begun = datetime.fromisoformat(about_of(file.metadata).written)
    except ValueError:
        return file.path.name
    return file_name(round(begun.timestamp() * 1_000_000))


def _check_one_log(files: Collection[FileIndex]) -> None:
    """Refuses recordings of several logs: their offsets would be taken for each other."""
    logs: dict[str, Path] = {}
    for file in files:
        log = about_of(file.metadata).log
        if file.chunks and log:
            logs.setdefault(log, file.path)
    if len(logs) > 1:
        first, second, *_ = logs.values()
        msg = (
            f"{first} and {second} are not of one recording: of two logs, of a log that was made "
            "anew between them, or of two runs of `record`; name the files of one"
        )
        raise ConfigError(msg)
