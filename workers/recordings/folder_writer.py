"""Writes entries of a bus into files of a folder: a new file after so many bytes or seconds.

The names sort by time. Open chunks are written every two seconds, so a kill of the process loses no
more than that.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.bus.private import private_folder
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.types import SiteConfig
from workers.recordings import foxglove
from workers.recordings.entry_messages import (
    SCHEMAS,
    Channel,
    Parts,
    media_channel,
    take_apart,
)
from workers.recordings.mcap_writer import McapWriter, Written
from workers.recordings.metadata import ABOUT, CONFIG, About, about_record, config_record
from workers.recordings.record_schemas import record_schema, schema_name

NAME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z\.mcap")  # of our files
GROUPS = {topics.FRAMES: "frames", topics.AUDIO: "audio"}  # of chunks; all else is in another
RECORDS = "records"
CHUNK_BYTES = 4 << 20
FLUSH_EVERY = 2.0  # s
MOST_BYTES, MOST_SECONDS = 256 << 20, 600.0  # of a file
LOST = "Lost"  # the type of what a recorder says of entries that it could not record


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """Entries that are not in the recording, and why; written into the file and read as a loss."""

    topic: str
    partition: int
    first: int  # the first offset
    count: int
    reason: str


def file_name(time: int) -> str:
    """Returns the name of a file that is begun at `time`, in microseconds."""
    seconds, rest = divmod(time, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{rest:06d}Z.mcap"


def time_of_name(name: str) -> int:
    """Returns the time of a name that matches `NAME`, in microseconds."""
    found = datetime.strptime(name, "%Y%m%dT%H%M%S.%fZ.mcap").replace(tzinfo=UTC)
    return int(found.timestamp()) * 1_000_000 + found.microsecond


def _newest_name(folder: Path) -> int:
    names = [path.name for path in folder.glob("*.mcap") if NAME.fullmatch(path.name)]
    return time_of_name(max(names)) if names else 0


class FolderWriter:
    """Writes files for this user alone into `folder`, and makes it if needed. Raises OSError.

    After an OSError the entries since the last `flush` are lost unless they are added again: the
    next entry begins a new file. `clock` gives ns UTC, `monotonic` seconds.
    """

    def __init__(
        self,
        folder: Path,
        about: About,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        self.folder = folder
        self._before = 0  # bytes of the files that are closed,
        self._records: Counter[str] = Counter()  # and their records, by topic
        self._about, self._clock, self._monotonic = about, clock, monotonic
        self._most_bytes, self._most_seconds = most_bytes, most_seconds
        self._library = f"fusewatch {metadata.version('fusewatch')}"
        self._file: McapWriter | None = None
        self._begun = self._flushed = 0.0
        self._last = _newest_name(folder)  # us
        self._channels: dict[Channel, int] = {}
        # The newest of each site; each file begins with them.
        self._configs: dict[str, tuple[Entry, SiteConfig]] = {}
        self._newest = 0  # ns; stands for the time of an entry without one

    @property
    def bytes(self) -> int:
        """What was written so far, in all files."""
        return self._before + (0 if self._file is None else self._file.size)

    @property
    def written(self) -> Mapping[str, int]:
        """The records in whole chunks, by topic; with those with which each file begins."""
        return self._records + self._counted(self._file)

    @property
    def current(self) -> Path | None:
        """The file that is being written."""
        return None if self._file is None else self._file.path

    def add(self, topic: str, entry: Entry) -> None:
        """Adds an entry; entries of a partition must come in the order of their offsets."""
        parts = take_apart(topic, entry)
        self._newest = self._newest or parts.time or 0
        file = self._opened()
        self._guarded(lambda: self._add(file, topic, entry, parts))

    def remember(self, config: Entry) -> None:
        """Takes an entry that says what judges a site: each file from now on begins with it."""
        self._note_config(config)

    def lost(self, lost: Lost) -> None:
        """Says in the file which entries it lacks."""
        file = self._opened()
        channel = Channel(topic=lost.topic, partition=lost.partition, site="", source="", kind=LOST)
        data = msgspec.json.encode(lost)

        def add() -> None:
            number = self._number(file, channel)
            file.add(RECORDS, [Written(number, self._now(), lost.first, data)])

        self._guarded(add)

    def tick(self) -> bool:
        """Writes open chunks and begins a new file, where it is time; returns whether it wrote."""
        file = self._file
        if file is None:
            return False
        now = self._monotonic()
        if file.size >= self._most_bytes or now - self._begun >= self._most_seconds or file.full:
            self.close()
            return True
        if now - self._flushed >= FLUSH_EVERY:
            self.flush()
            return True
        return False

    def flush(self) -> None:
        """Writes the open chunks; after it, a kill of the process loses nothing that was added."""
        self._flushed = self._monotonic()
        if self._file is not None:
            self._guarded(self._file.flush)

    def close(self) -> None:
        """Finishes the file; the next entry begins another."""
        file = self._file
        if file is not None:
            self._guarded(file.finish)
            self._before += file.size
            self._records += self._counted(file)
            self._file = None

    def abandon(self) -> None:
        """Closes the file as it is, without what is in its open chunks."""
        file, self._file = self._file, None
        if file is None:
            return
        file.close()
        if file.has_chunks:
            self._before += file.size
            self._records += self._counted(file)
        else:  # on a full disk one would be left at each attempt
            file.path.unlink(missing_ok=True)

    def _counted(self, file: McapWriter | None) -> Counter[str]:
        found: Counter[str] = Counter()
        counts: Mapping[int, int] = {} if file is None else file.counts
        for channel, number in self._channels.items():
            if channel.kind not in SCHEMAS and channel.kind != LOST:
                found[channel.topic] += counts.get(number, 0)
        return found

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError:
            self.abandon()
            raise

    def _opened(self) -> McapWriter:
        if self._file is None:
            if not self.folder.is_dir():  # one that exists may be somebody's: the files are private
                private_folder(self.folder)
            self._file = McapWriter(
                self.folder / self._name(), self._library, chunk_bytes=CHUNK_BYTES
            )
            self._begun = self._flushed = self._monotonic()
            self._channels = {}
            self._guarded(self._begin)
        return self._file

    def _begin(self) -> None:
        """Writes what each file begins with: what it is of, and what judges its sites."""
        assert self._file is not None  # noqa: S101, it was opened
        written = datetime.fromtimestamp(self._clock() / 1e9, UTC).isoformat()
        about = msgspec.structs.replace(self._about, written=written)
        self._file.metadata(ABOUT, about_record(about))
        for entry, config in sorted(self._configs.values(), key=lambda one: one[0].offset):
            self._file.metadata(CONFIG, config_record(config))
            self._put(self._file, topics.CONFIGS, entry, take_apart(topics.CONFIGS, entry))

    def _now(self) -> int:
        """An event time for what has none of its own, or one of long ago."""
        return self._newest or self._about.since or self._clock()

    def _name(self) -> str:
        """A name by the wall time, later than those before it, also if the clock goes back."""
        self._last = max(self._clock() // 1000, self._last + 1)
        return file_name(self._last)

    def _add(self, file: McapWriter, topic: str, entry: Entry, parts: Parts) -> None:
        if parts.time is not None and parts.channel.kind not in ("Progress", "SiteConfig"):
            self._newest = parts.time
        self._put(file, topic, entry, parts)
        if topic == topics.CONFIGS:
            self._note_config(entry)

    def _note_config(self, entry: Entry) -> None:
        try:
            config = codec.decode(entry.value)
        except DecodeError:
            return
        if isinstance(config, SiteConfig):
            if self._file is not None:
                self._file.metadata(CONFIG, config_record(config))
            self._configs[config.site] = entry, config

    def _put(self, file: McapWriter, topic: str, entry: Entry, parts: Parts) -> None:
        # What judges a site may be of long ago, and holds from here on.
        own = None if topic == topics.CONFIGS else parts.time
        time_ = self._now() if own is None else own
        messages = []
        beside = media_channel(parts.channel)
        if parts.media is not None and beside is not None:
            number = self._number(file, beside)
            messages.append(Written(number, time_, entry.offset, parts.media))
        number = self._number(file, parts.channel)
        messages.append(Written(number, time_, entry.offset, parts.record))
        file.add(GROUPS.get(topic, RECORDS), messages)

    def _number(self, file: McapWriter, channel: Channel) -> int:
        known = self._channels.get(channel)
        if known is None:
            known = self._channels[channel] = file.channel(
                channel.name,
                "protobuf" if channel.kind in SCHEMAS else "json",
                _schema(file, channel.kind),
                {
                    name: str(getattr(channel, name))
                    for name in ("topic", "partition", "site", "source", "kind")
                },
            )
        return known


def _schema(file: McapWriter, kind: str) -> int:
    if kind in SCHEMAS:
        name = SCHEMAS[kind]
        return file.schema(name, "protobuf", foxglove.schema(name))
    return file.schema(schema_name(kind), "jsonschema", record_schema(kind))
