"""Writes alerts as JSON lines: one CloudEvent a line, as subscribers get it.

A line is complete when its newline is on disk. When the file is opened, an incomplete line, left
by a kill or a power cut, is cut off. An alert that is sent again after a crash is not written
twice. A file that cannot be used makes its subscriber fail, and never ends the process.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from pipeline.bus.private import private_file, tighten
from pipeline.config.schema import Config, size_bytes
from pipeline.errors import OutsideError, Rejected, Retry
from pipeline.ports import Bus
from pipeline.types import Alert, content_id
from workers.delivery import cloudevent
from workers.delivery.delivery import Filter, Subscriber
from workers.runtime.storage_cap import StorageCap

OWN = "alerts.jsonl"  # the file in the state folder
LINE_BEGIN = b'{"specversion":"1.0",'
# bytes at the end whose ids are read; a crash repeats at most one step's alerts
TAIL_BYTES = 4 << 20
MAX_REMEMBERED_IDS = 10_000  # ids
LEAST = 1 << 20  # bytes of alerts.jsonl, however small the disk
LOCK_TIMEOUT = 2.0  # s that an append waits for another process
MAX_ASIDE = 100  # damaged files that are kept; with more the subscriber fails

_BLOCK = 64 << 10
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class _Named(msgspec.Struct):
    id: str


_named = msgspec.json.Decoder(_Named)
log = logging.getLogger("fusewatch.delivery")


class _Damaged(OutsideError):
    """The path is a folder, or a file with lines that are no alerts."""


def subscribers(settings: Config, folder: Path, _: Bus) -> Iterator[Subscriber]:
    """Yields a subscriber for each JSON lines file: `alerts.jsonl` in the state folder, and those
    of the config.

    `alerts.jsonl` and the older `alerts.jsonl.1` take at most a hundredth of the cap each. A file
    of the config belongs to the operator and grows without a limit.
    """
    cap = StorageCap(settings, folder)
    most = min(size_bytes(settings.storage.cap) // 100, max(cap() // 100, LEAST))
    given = [  # a name is a consumer group: another file before it must not change it
        (f"jsonl-{content_id(one.path)[:8]}", Path(one.path).expanduser(), one.sites)
        for one in settings.jsonl
    ]
    own = ("jsonl", folder / OWN, ())
    for name, path, sites in [own, *given]:
        ours = path == own[1]
        sink = Jsonl(path, most if ours else None, ours=ours)
        yield Subscriber(name=name, sink=sink, wants=Filter(sites=sites), flush=sink.flush)


def alert_files(settings: Config, folder: Path | None) -> list[Path]:
    """Returns the files that a daemon writes alerts to; `folder` is its state folder, or None for
    that of the config."""
    own = (folder or Path(settings.state)).expanduser() / OWN
    given = [Path(one.path).expanduser() for one in settings.jsonl]
    return [own, own.with_name(f"{OWN}.1"), *given]


class Jsonl:
    """A file as a Sink: `send` writes, `flush` makes durable.

    If logrotate moves the file, a new one is created. If a line would make the file longer than
    `most` bytes, the file is renamed to `NAME.1`, which replaces an older one. A damaged file is
    renamed to `NAME.damaged-1` (-2 ...) if it is `ours`; one of the operator is left as it is.
    Another process may append to the same file in this way: a lock (`flock`) keeps lines whole.
    `send` raises Retry while the file cannot be used; the line is then not in it. The constructor
    raises nothing: it logs a warning.
    """

    def __init__(self, path: Path, most: int | None = None, *, ours: bool = False) -> None:
        self._path = path
        self._most = most
        self._ours = ours
        self._older = path.with_name(f"{path.name}.1")
        self._ids: dict[str, None] = {}
        self._file = -1
        self._synced = True  # False after a failed sync: what the file holds may be lost
        try:
            self._open()
        except OutsideError as error:
            log.warning("%s; alerts wait for it", error)

    def send(self, alert: Alert, trace: str = "") -> None:
        """Appends the alert's line, unless its id is known; raises Rejected or Retry."""
        ident = cloudevent.event_id(alert)
        if ident in self._ids:
            return
        try:
            line = cloudevent.event_bytes(alert) + b"\n"
        except ValueError as error:
            raise Rejected(str(error)) from error
        try:
            while not self._appended(line):
                self.close()
                self._open()
        except OSError as error:
            msg = f"{self._path}: {error.strerror}"
            raise Retry(msg) from error
        except OutsideError as error:
            raise Retry(str(error)) from error
        self._remember(ident)

    def flush(self) -> None:
        """Syncs the file to disk; raises OutsideError, and then the alerts are to be sent again.

        After a failed sync nobody knows what is on disk. A file of ours is set aside then. To one
        of the operator the alerts are added once more.
        """
        try:
            if self._file >= 0:
                os.fsync(self._file)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # a pipe or a terminal cannot be synced
            self.close()
            self._ids.clear()
            self._synced = False
            msg = f"{self._path}: {error.strerror}"
            if self._ours:
                with suppress(OSError, OutsideError):
                    self._set_aside(msg)
            raise OutsideError(msg) from error

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        """Opens the file, and remembers the alerts at its end; raises OutsideError."""
        try:
            try:
                self._use()
            except _Damaged as damage:
                self.close()
                if not self._ours:
                    raise
                self._set_aside(str(damage))
                self._use()
        except OSError as error:
            self.close()
            msg = f"{self._path}: cannot be written: {error.strerror}"
            raise OutsideError(msg) from error

    def _use(self) -> None:
        if self._path.is_dir():
            msg = f"{self._path}: is a folder"
            raise _Damaged(msg)
        self._file = self._opened(os.O_RDWR | os.O_APPEND)
        with self._locked():
            _mend(self._file, self._path)
        self._remember_all(self._before())
        whole = self._remember_all(_tail(self._file))
        if not self._synced:
            self._ids.clear()
            self._synced = True
        if not whole:
            msg = f"{self._path}: holds lines that are no alerts"
            if self._ours:
                raise _Damaged(msg)
            log.warning("%s; new alerts are added behind them", msg)

    def _opened(self, flags: int) -> int:
        """Opens the file; our own is private, the operator's may be read by its group."""
        if self._ours:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            tighten(self._older)
            return private_file(self._path, flags)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, flags | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _before(self) -> list[bytes]:
        """The last lines of the rotated file: a crash may repeat their alerts too."""
        if self._most is None or not self._older.is_file():
            return []
        with self._older.open("rb") as older:
            return _tail(older.fileno())

    def _set_aside(self, why: str) -> None:
        """Renames the file, so that a new one can take its place; raises OutsideError."""
        for number in range(1, MAX_ASIDE + 1):
            aside = self._path.with_name(f"{self._path.name}.damaged-{number}")
            if not os.path.lexists(aside):
                os.rename(self._path, aside)
                log.warning("%s: it is now %s, and a new file is begun", why, aside.name)
                return
        msg = f"{why}, and {MAX_ASIDE} such files are kept already: remove some of them"
        raise OutsideError(msg)

    def _rotated(self, coming: int) -> bool:
        size = os.fstat(self._file).st_size
        if self._most is None or size == 0 or size + coming <= self._most:
            return False
        os.fsync(self._file)  # `flush` will sync only the new file
        os.replace(self._path, self._older)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the file's lock; a file system without locks is used without one."""
        until = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > until:
                    msg = f"{self._path}: is locked by another program"
                    raise OutsideError(msg) from error
                time.sleep(0.01)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                yield
                return
            else:
                break
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _appended(self, line: bytes) -> bool:
        """Appends the line, unless there is no open file or it has been renamed."""
        if self._file < 0:
            return False
        with self._locked():
            if self._moved() or self._rotated(len(line)):
                return False
            self._append(line)
            return True

    def _append(self, line: bytes) -> None:
        before = os.fstat(self._file).st_size
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def _moved(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            return True

    def _remember_all(self, lines: Iterable[bytes]) -> bool:
        """Remembers the ids of lines; returns whether each line is an alert."""
        good = True
        for line in lines:
            try:
                self._remember(_named.decode(line).id)
            except (msgspec.DecodeError, UnicodeDecodeError):
                good = False
        return good

    def _remember(self, ident: str) -> None:
        self._ids[ident] = None
        if len(self._ids) > MAX_REMEMBERED_IDS:
            del self._ids[next(iter(self._ids))]


def write_all(path: Path, alerts: Iterable[Alert]) -> None:
    """Replaces `path` by a file of these alerts, atomically.

    The file is written even without alerts. Raises OutsideError; ValueError as `event_bytes`.
    """
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = str(path.with_name(f".{path.name}.{secrets.token_hex(8)}.part"))
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "wb") as file:
            for alert in alerts:
                file.write(cloudevent.event_bytes(alert) + b"\n")
            file.flush()
            os.fsync(handle)
        os.replace(part, path)
        part = ""
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    finally:
        if part:
            Path(part).unlink(missing_ok=True)


def _mend(file: int, path: Path) -> None:
    """Cuts off all after the last whole line; raises _Damaged if it is no file of alerts."""
    size = os.fstat(file).st_size
    head = os.pread(file, len(LINE_BEGIN), 0)
    # A file system may keep the length of a lost write and fill it with zeros.
    if not (LINE_BEGIN.startswith(head) or head.strip(b"\0") == b""):
        msg = f"{path}: is not a file of Fusewatch's alerts"
        raise _Damaged(msg)
    end = size
    while end:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
        os.fsync(file)


def _tail(file: int) -> list[bytes]:
    size = os.fstat(file).st_size
    start = max(0, size - TAIL_BYTES)
    lines = os.pread(file, size - start, start).split(b"\n")[:-1]
    return lines[1:] if start else lines
