"""Records for as long as a daemon or a worker runs, and keeps what the config says.

It reads the bus as a consumer of its own, so the pipeline never waits for it. Where it cannot
write, it waits and tries again, and the gauge `recording.waits` says for how long; what retention
deletes meanwhile is counted, and named in the file.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event

from pipeline import topics
from pipeline.bus import log_search, log_tail
from pipeline.config import schema
from pipeline.config.schema import Config, size_bytes
from pipeline.errors import ConfigError, OutsideError
from pipeline.ports import Entry
from workers.bus.history import History
from workers.recorder.around_incidents import FILE_SECONDS, AroundIncidents
from workers.recorder.begin import RECORDED, first_offset, local_offsets
from workers.recorder.kept_files import KeptFiles
from workers.recorder.recorder import Recorder
from workers.recorder.tails import LocalTail, Tail
from workers.recordings.folder_writer import MOST_SECONDS, FolderWriter
from workers.recordings.metadata import About
from workers.recordings.recording import Recording, open_recording
from workers.runtime.rate_limited_log import RateLimitedLog

log = logging.getLogger("fusewatch")

FOLDER = "recordings"  # in the state folder, if the config names no other
IDLE_WAIT = 0.25  # s between two looks at an idle bus
RETRY_AFTER = 5.0  # s after an error
KEEP_EVERY = 10.0  # s between two looks at what is kept,
KEEP_BYTES = 64 << 20  # or as soon as so many bytes were written: it may catch up in a hurry
LAST_TURN = 3.0  # s that it takes at the end for what came last
NEWEST = 3  # files that say where a restart goes on


def folder_of(recording: schema.Recording, state: Path) -> Path:
    """Returns the folder of the recordings."""
    return Path(recording.path).expanduser() if recording.path else state / FOLDER


class ContinuousRecorder:
    """Records from `tails` into the folder of the config; `gauge` sets its gauges.

    `log` names what is recorded; `configs` are the entries that say what judges the sites now.
    """

    def __init__(
        self,
        settings: Config,
        recording: schema.Recording,
        folder: Path,
        tails: Mapping[str, Tail],
        gauge: Callable[[str, float], object],
        *,
        log: str,
        configs: Iterable[Entry] = (),
    ) -> None:
        self._kept = KeptFiles(folder, size_bytes(recording.keep))
        self._gauge = gauge
        around = recording.around == "incidents"
        self._around = AroundIncidents(settings, self._kept) if around else None
        writer = FolderWriter(
            folder, About(log=log), most_seconds=FILE_SECONDS if around else MOST_SECONDS
        )
        for config in configs:
            writer.remember(config)
        self._recorder = Recorder(writer, tails, wanted=self._saw)
        self._trouble = RateLimitedLog("recording waits, and goes on when it can: %s")
        self._stuck = RateLimitedLog("pictures without an incident are kept for now: %s")
        self._due, self._looked_at = 0.0, 0  # s; bytes
        self._waits_until = 0.0  # s
        self._waits_since: float | None = None  # s

    def loop(self, stop: Event) -> None:
        """Records until `stop` is set; the last file is finished then."""
        try:
            while not stop.is_set():
                if not self._turn():
                    stop.wait(IDLE_WAIT)
            if self._waits_since is not None:  # there is no room; a restart goes on from here
                self._recorder.close()
                return
            until = time.monotonic() + LAST_TURN
            while self._recorder.step() and time.monotonic() < until:
                pass
            self._recorder.finish()
        except (OSError, OutsideError) as error:
            self._wait(error)
            self._recorder.close()

    def _turn(self) -> int:
        """Records what has come; returns how many entries, 0 where it has to wait."""
        now = time.monotonic()
        if now < self._waits_until:
            return 0
        try:
            written = self._recorder.writer.bytes
            if now >= self._due or written - self._looked_at >= KEEP_BYTES:
                self._due, self._looked_at = now + KEEP_EVERY, written
                self._keep()
            came = self._recorder.step()
        except (OSError, OutsideError) as error:
            self._wait(error)
            return 0
        if self._waits_since is not None:
            log.warning("recording goes on after %.0f s", now - self._waits_since)
            self._waits_since = None
            self._gauge("recording.waits", 0)
        return came

    def _wait(self, error: OSError | OutsideError) -> None:
        """Says why nothing can be recorded now, and goes back to what is on the disk."""
        if isinstance(error, OSError):
            error = OutsideError(f"{self._kept.folder}: {error.strerror or error}")
        self._trouble.warn(error)
        self._recorder.rewind()
        now = time.monotonic()
        self._waits_since = now if self._waits_since is None else self._waits_since
        self._waits_until, self._due = now + RETRY_AFTER, 0.0
        # At least 1: it waits from now on.
        self._gauge("recording.waits", max(1.0, round(now - self._waits_since)))

    def _keep(self) -> None:
        """Deletes what is not to be kept; raises OutsideError while the disk has no room."""
        current = self._recorder.writer.current
        if self._around is not None:
            try:
                self._around.decide(current)
            except OSError as error:  # what is rewritten needs room, which deleting gives
                self._stuck.warn(error)
        self._kept.trim(current)
        self._gauge("recording.bytes", self._kept.size())
        self._gauge("recording.lost", self._recorder.lost)
        if not self._kept.make_room(current):
            msg = (
                f"{self._kept.folder}: the disk is nearly full, and no older recording can be "
                "deleted"
            )
            raise OutsideError(msg)

    def _saw(self, topic: str, entry: Entry) -> bool:
        if self._around is not None:
            self._around.saw(topic, entry)
        return True


def local_recorder(
    settings: Config,
    recording: schema.Recording,
    state: Path,
    stored: History,
    gauge: Callable[[str, float], object],
) -> ContinuousRecorder:
    """Returns the recorder of the daemon whose state folder is `state`.

    It goes on where the newest files end, if they are of this log. `stored` is the log.
    """
    folder, log = folder_of(recording, state), state / "log"
    before = _newest(KeptFiles(folder, 0).paths())
    known = {} if before is None else _last(before)
    name = before.about.log if before is not None and _is_of(log, known) else ""
    if name and before is not None:
        since = before.span[0]
        offsets: Mapping[str, int] = {
            topic: known[topic].offset + 1 if topic in known else first_offset(log, topic, since)
            for topic in RECORDED
        }
    else:
        name, offsets = os.urandom(8).hex(), local_offsets(settings, log, stored, time.time_ns())
    tails = {topic: LocalTail(log, topic, offset) for topic, offset in offsets.items()}
    configs = stored.appended(topics.CONFIGS)
    return ContinuousRecorder(settings, recording, folder, tails, gauge, log=name, configs=configs)


def _newest(files: Sequence[Path]) -> Recording | None:
    if not files:
        return None
    try:
        return open_recording(files[-NEWEST:])
    except ConfigError:  # nothing in them can be read
        return None


def _last(recording: Recording) -> dict[str, Entry]:
    """The last entry of each topic."""
    found = {topic: recording.last(topic).get(0) for topic in recording.topics}
    return {topic: entry for topic, entry in found.items() if entry is not None}


def _is_of(log: Path, last: Mapping[str, Entry]) -> bool:
    """Whether the log has these entries, or had them before retention deleted them."""
    for topic, entry in last.items():
        if entry.offset >= log_tail.end(log, topic):
            return False
        found = log_search.at(log, topic, entry.offset)
        if found is not None and found[1].value != entry.value:
            return False
    return bool(last)
