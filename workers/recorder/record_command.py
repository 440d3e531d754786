"""The command `record`: records what a running daemon or the workers over Kafka put on their bus.

The daemon goes on meanwhile: its log is read, and nothing is kept in it for the recorder.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.bus import log_tail
from pipeline.bus.disk_space import usual_spare
from pipeline.bus.private import FOLDER
from pipeline.config import schema
from pipeline.config.schema import Config
from pipeline.errors import ConfigError, DecodeError, OutsideError
from pipeline.ports import Entry
from pipeline.types import FOREVER, SECOND, Progress, event_start, ns
from workers.bus.connect import kafka_bus
from workers.bus.history import history
from workers.bus.time_option import length, moment
from workers.config import loader
from workers.config.secrets import Secrets
from workers.recorder.begin import RECORDED, RUN_UP, local_offsets, run_up_begin
from workers.recorder.recorder import Recorder
from workers.recorder.tails import KafkaTail, LocalTail, Tail
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About
from workers.runtime.printable import printable
from workers.stored.recorded_sites import check_sites, stored_sites
from workers.stored.selection import Selection

GROUP = "record-by-hand"  # begin of the consumer groups of `record` over Kafka
IDLE_WAIT = 0.1  # s between two looks at an idle bus
LAST_ANSWERS = 60.0  # s that the stages get to judge the end of the recording
ROOM_BYTES = 8 << 20  # that are written between two looks at the room on the disk
GONE_AFTER = 5.0  # s without a process that uses the log: the daemon has ended


class RecordOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `record`; `for_` and `since` as they were written."""

    out: Path
    site: str | None = None
    for_: str | None = None
    since: str | None = None
    state: Path | None = None


def record_command(path: Path, options: RecordOptions, *, as_json: bool) -> int:
    """Records until it is stopped, or for the given time, and prints what it recorded; returns 0.

    Raises ConfigError, and OutsideError when it has to end early; what was recorded until then is
    printed, too.
    """
    settings = loader.load(path)
    now = time.time_ns()
    since = now if options.since is None else moment(options.since, "--since", now)
    until = FOREVER if options.for_ is None else since + length(options.for_, "--for")
    _check(settings, options, since, now)
    sites = (options.site,) if options.site else tuple(settings.sites)
    about = About(log=os.urandom(8).hex(), since=since, sites=sites if options.site else ())
    writer = FolderWriter(options.out, about)
    end = _End(settings, sites, until)
    with (
        _folder(options.out),
        _tails(settings, path, options, since) as (tails, live, wanted),
    ):
        recorder = Recorder(
            writer,
            tails,
            sites=sites if options.site else (),
            wanted=lambda topic, entry: end.wants(topic, entry) and wanted(topic, entry),
        )
        room = partial(_check_room, options.out, _log_of(settings, options))
        try:
            _follow(recorder, end, live, room)
        except (OSError, OutsideError) as error:
            if any(options.out.glob("*.mcap")):
                recorder.entries = dict(recorder.writer.written)
                sys.stdout.write(_said(options.out, recorder, as_json=as_json) + "\n")
            if isinstance(error, OutsideError):
                raise
            msg = (
                f"--out {options.out}: cannot be written any more ({error.strerror}); what came "
                "after the last whole chunk is not recorded"
            )
            raise OutsideError(msg) from error
    sys.stdout.write(_said(options.out, recorder, as_json=as_json) + "\n")
    return 0


def _log_of(settings: Config, options: RecordOptions) -> Path | None:
    """The folder of the log that is recorded; None for brokers."""
    if isinstance(settings.bus, schema.KafkaBus):
        return None
    return (options.state or Path(settings.state)).expanduser() / "log"


def _check_room(out: Path, log: Path | None) -> None:
    """Raises OutsideError before the recording takes the room that a log on the same disk needs.

    Twice what the log keeps free, as in `KeptFiles`: recordings give way before the log has to.
    """
    folder = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    if log is None or not log.is_dir() or folder.stat().st_dev != log.stat().st_dev:
        return
    free, wanted = shutil.disk_usage(folder).free, 2 * usual_spare(folder)
    if free < wanted:
        msg = (
            f"--out {out}: the disk has {free / 1e6:.0f} MB left, and {wanted / 1e6:.0f} MB stay "
            "free for the log of the daemon on it: record to another disk, or make room"
        )
        raise OutsideError(msg)


def _check(settings: Config, options: RecordOptions, since: int, now: int) -> None:
    if options.site is not None and options.site not in settings.sites:
        known = ", ".join(settings.sites)
        msg = f"--site {options.site}: the config has no such site; it has {known}"
        raise ConfigError(msg)
    if since > now:
        msg = f"--since {options.since}: is in the future; leave it out to record from now on"
        raise ConfigError(msg)
    if options.out.is_file() or any(options.out.glob("*.mcap")):
        msg = f"--out {options.out}: must be a folder without recordings; name another one"
        raise ConfigError(msg)


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Makes the folder; it is gone again if the recording cannot begin."""
    there = out.is_dir()
    try:
        out.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    except OSError as error:
        msg = f"--out {out}: cannot be made: {error.strerror}; name another folder"
        raise OutsideError(msg) from error
    try:
        yield
    except BaseException:  # also Ctrl-C
        if not there:
            with suppress(OSError):
                out.rmdir()  # never with files in it
        raise


def _follow(
    recorder: Recorder, end: _End, live: Callable[[], bool], check_room: Callable[[], None]
) -> None:
    """Records until all is there, a signal comes, or nothing uses the bus any more.

    The file is finished then, also after an OutsideError; after an OSError it has whole chunks.
    """
    stop = threading.Event()
    looked_at = -ROOM_BYTES
    with _stopped_by_signals(stop):
        try:
            while not stop.is_set():
                if recorder.writer.bytes - looked_at >= ROOM_BYTES:
                    looked_at = recorder.writer.bytes
                    check_room()
                came = recorder.step()
                if not came and not recorder.behind() and (end.reached() or not live()):
                    break
                if not came:
                    stop.wait(IDLE_WAIT)
            recorder.finish()
        except OutsideError:
            with suppress(OSError):
                recorder.finish()
            raise
        except OSError:
            recorder.rewind()
            recorder.close()
            raise


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the recording as `--for` does: its file is finished."""
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _tails(
    settings: Config, path: Path, options: RecordOptions, since: int
) -> Iterator[tuple[Mapping[str, Tail], Callable[[], bool], Callable[[str, Entry], bool]]]:
    """The tails of the config's bus, whether more may come, and which entries are wanted."""
    chosen = Selection(sites=(options.site,) if options.site else ())
    if isinstance(settings.bus, schema.KafkaBus):
        with history(settings, path, options.state) as stored:
            check_sites(settings, chosen, stored_sites(stored), "what the brokers hold", then=False)
            begin = run_up_begin(settings, stored, since)
        bus = kafka_bus(settings.bus, Secrets(base=path.parent))
        try:
            # A name of its own: a group that was used before would go on where it ended.
            group = f"{GROUP}-{os.urandom(4).hex()}"
            known = [topic for topic in RECORDED if bus.exists(topic)]
            yield (
                {topic: KafkaTail(bus, topic, group) for topic in known},
                lambda: True,
                _From(begin, since).wants,
            )
        finally:
            bus.close()
        return
    log = (options.state or Path(settings.state)).expanduser() / "log"
    running = log_tail.in_use(log)
    if not log.is_dir() or (not running and options.since is None):
        msg = (
            f"no daemon uses {log.parent}: start `fusewatch run {path}`, or name its folder by "
            "--state; --since 10m records what a log still holds"
        )
        raise ConfigError(msg)
    with history(settings, path, options.state) as stored:
        check_sites(settings, chosen, stored_sites(stored), "the log", then=False)
        offsets = local_offsets(settings, log, stored, since)
    tails = {topic: LocalTail(log, topic, offset) for topic, offset in offsets.items()}
    yield tails, _Life(log).goes_on, lambda topic, entry: True


class _Life:
    """Whether a daemon uses the log."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._last = time.monotonic() if log_tail.in_use(log) else -math.inf

    def goes_on(self) -> bool:
        """Returns False when no process has used the log for some seconds."""
        now = time.monotonic()
        if now - self._last < 1.0 or log_tail.in_use(self._log):
            self._last = now if now - self._last >= 1.0 else self._last
            return True
        return now - self._last < GONE_AFTER


class _From:
    """Which entries of a topic on brokers are recorded: from the first of a time on."""

    def __init__(self, begin: int, since: int) -> None:
        self._begin, self._since = begin, since
        self._open: set[tuple[str, int]] = set()

    def wants(self, topic: str, entry: Entry) -> bool:
        """Returns whether the entry, or one before it in its partition, is of the time."""
        place = topic, entry.partition
        if place in self._open or topic == topics.CONFIGS:
            return True
        try:
            start = event_start(codec.decode(entry.value))
        except DecodeError:
            return False
        if start < (self._begin if topic in RUN_UP else self._since):
            return False
        self._open.add(place)
        return True


class _End:
    """When a recording is over: at `until` (ns), and when its end is judged.

    Pictures, sound and reports are recorded until then. What stages make of them comes later: it is
    recorded until fusion promises that nothing of that time comes, and all incidents can be closed.
    """

    def __init__(self, settings: Config, sites: tuple[str, ...], until: int) -> None:
        closing = max(settings.sites[site].incidents.close_after for site in sites)
        self._until, self._judged = until, until + ns(closing) + SECOND
        self._upto = dict.fromkeys(sites, 0)

    def wants(self, topic: str, entry: Entry) -> bool:
        """Returns whether an entry belongs to the recording; learns from it how far fusion is."""
        if self._until == FOREVER:
            return True
        try:
            record = codec.decode(entry.value)
        except DecodeError:
            return True
        if topic == topics.ANOMALIES and isinstance(record, Progress):
            self._upto[record.site] = max(record.upto, self._upto.get(record.site, 0))
        return topic not in topics.CHUNKS or event_start(record) < self._until

    def reached(self) -> bool:
        """Returns whether the recording is complete, or the stages do not get there."""
        now = time.time_ns()
        if now < self._until:
            return False
        judged = all(upto >= self._judged for upto in self._upto.values())
        return judged or now > self._until + ns(LAST_ANSWERS)


def _said(out: Path, recorder: Recorder, *, as_json: bool) -> str:
    files = sorted(out.glob("*.mcap"))
    row = {
        "out": str(out),
        "files": [file.name for file in files],
        "bytes": sum(file.stat().st_size for file in files),
        "entries": {topic: count for topic, count in recorder.entries.items() if count},
        "lost": recorder.lost,
    }
    if as_json:
        return json.dumps(row)
    told = ", ".join(
        f"{count} {topic.removesuffix('.v1')}" for topic, count in recorder.entries.items() if count
    )
    lost = f"; {recorder.lost} entries were deleted before they were read" if recorder.lost else ""
    size = sum(file.stat().st_size for file in files) / 1e6
    number = f"{len(files)} file{'s' if len(files) != 1 else ''}"
    return printable(f"{out}: {number}, {size:.1f} MB: {told or 'nothing came'}{lost}")
