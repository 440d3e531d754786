"""Keeps pictures and sound around incidents alone: decided when it is known what happened.

A file without an incident near it loses its pictures and its sound. Its observations stay for as
long as an incident that comes may need them as its run-up; then the file is deleted.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import ConfigError, DecodeError
from pipeline.ports import Entry
from pipeline.types import FOREVER, SECOND, Alert
from workers.recorder.kept_files import PART, KeptFiles
from workers.recordings.file_index import FileIndex, read_index
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import about_of
from workers.recordings.recording import Recording, open_recording
from workers.replay.observation_replay import span
from workers.replay.sent_alerts import limit_of

MARGIN = 60 * SECOND  # ns; before and after an incident
SETTLED = 60 * SECOND  # ns; so much later than a file, every incident near it is known
FILE_SECONDS = 60.0  # of a file: a whole one is kept or not


class _Incident(msgspec.Struct):
    start: int
    end: int  # while it is open, when it ends at the latest


class AroundIncidents:
    """Decides which files keep their pictures; `saw` takes every entry that is recorded.

    `clock` gives seconds since 1970.
    """

    def __init__(
        self, settings: Config, kept: KeptFiles, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._kept, self._clock = settings, kept, clock
        since, _ = span(settings, FOREVER, FOREVER)
        self._reach = FOREVER - since  # ns; so long before an incident its run-up begins
        self._incidents: dict[str, _Incident] = {}
        self._newest = 0  # ns; event time
        self._decided: dict[Path, tuple[int, int]] = {}  # without pictures -> its event times
        self._whole: set[Path] = set()
        self._recover()

    def saw(self, topic: str, entry: Entry) -> None:
        """Learns of incidents, and how far event time is."""
        if topic not in (topics.ALERTS, topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS):
            return
        if topic != topics.ALERTS:
            times = codec.span(entry.value)
            if times is not None:
                # A clock that jumps a year ahead must not age every file at once.
                ahead = times[1] - self._newest > self._reach and self._newest
                self._newest = self._newest + SECOND if ahead else max(self._newest, times[1])
            return
        try:
            alert = codec.decode(entry.value)
        except DecodeError:
            return
        if isinstance(alert, Alert):
            end = limit_of(self._settings, alert) if alert.end is None else alert.end
            known = self._incidents.get(alert.id, _Incident(alert.start, end))
            self._incidents[alert.id] = _Incident(min(known.start, alert.start), end)

    def decide(self, current: Path | None) -> None:
        """Strips and deletes files that are old enough to be decided."""
        for path in self._kept.paths():
            if path == current or path in self._whole:
                continue
            times = self._decided.get(path)
            if times is None:
                self._judge(path)
            elif times[1] + self._reach < self._newest and not self._near(times, self._reach):
                path.unlink(missing_ok=True)
                del self._decided[path]
        old = self._newest - 2 * self._reach
        self._incidents = {id_: one for id_, one in self._incidents.items() if one.end > old}

    def _near(self, times: tuple[int, int], before: int) -> bool:
        """Whether an incident begins up to `before` ns after a file, or ends shortly before it."""
        start, end = times
        return any(
            one.start - before < end and one.end + MARGIN > start
            for one in self._incidents.values()
        )

    def _judge(self, path: Path) -> None:
        try:
            index = read_index(path)
        except ConfigError:
            return
        times = _media_times(index)
        if times is None:
            times = _times(index)
            if times is not None:
                self._decided[path] = times
            else:
                self._whole.add(path)  # it holds nothing; `keep` will delete it
        elif times[1] + MARGIN + SETTLED < self._newest and self._is_settled(path):
            if self._near(times, MARGIN):
                self._whole.add(path)
            else:
                strip(path)
                self._decided[path] = times

    def _is_settled(self, path: Path) -> bool:
        """Whether the file is old enough by the wall clock, too: event times may jump."""
        try:
            return self._clock() - path.stat().st_mtime > SETTLED / SECOND
        except FileNotFoundError:
            return False

    def _recover(self) -> None:
        """After a restart: learns what the newest files say; older ones were decided before."""
        shutil.rmtree(self._kept.folder / PART, ignore_errors=True)
        paths = self._kept.paths()
        newest = math.ceil((self._reach / SECOND + 600) / FILE_SECONDS)
        self._whole.update(paths[:-newest])
        if paths[-newest:]:
            try:
                recording = open_recording(paths[-newest:])
            except ConfigError:
                return
            for entry in recording.appended(topics.ALERTS):
                self.saw(topics.ALERTS, entry)
            for entry in recording.last(topics.OBSERVATIONS).values():
                times = codec.span(entry.value)
                self._newest = max(self._newest, recording.span[1] if times is None else times[1])


def strip(path: Path) -> None:
    """Rewrites a recording without pictures and sound; it keeps its name. Raises OSError."""
    index = read_index(path)
    recording = Recording([index])
    part = path.parent / PART
    writer = FolderWriter(part, about_of(index.metadata), most_bytes=1 << 62, most_seconds=math.inf)
    try:
        for topic in recording.topics:
            if topic not in (topics.FRAMES, topics.AUDIO):
                for entry in recording.appended(topic):
                    writer.add(topic, entry)
        made = writer.current
        writer.close()
        if made is None:
            path.unlink()
        else:
            os.replace(made, path)
    finally:
        writer.abandon()
        shutil.rmtree(part, ignore_errors=True)


def _media_times(index: FileIndex) -> tuple[int, int] | None:
    media = {n for n, of in index.channels.items() if of.topic in (topics.FRAMES, topics.AUDIO)}
    found = [chunk for chunk in index.chunks if chunk.channels & media]
    if not found:
        return None
    return min(chunk.start for chunk in found), max(chunk.end for chunk in found)


def _times(index: FileIndex) -> tuple[int, int] | None:
    if not index.chunks:
        return None
    starts = [chunk.start for chunk in index.chunks]
    return min(starts), max(starts)
