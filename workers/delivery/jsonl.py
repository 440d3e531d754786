"""Writes alerts as JSON lines: one CloudEvent a line, as subscribers get it.

A line is complete when its newline is on disk. At start an incomplete line, left by a kill or a
power cut, is cut off. An alert that is sent again after a crash is not written twice.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pipeline.config.schema import Config, size_bytes
from pipeline.errors import ConfigError, OutsideError, Rejected, Retry
from pipeline.ports import Bus
from pipeline.types import Alert, content_id
from workers.delivery import cloudevent
from workers.delivery.delivery import Filter, Subscriber
from workers.runtime.state_folder import StorageCap

LINE_BEGIN = b'{"specversion":"1.0",'
# bytes at the end whose ids are read; a crash repeats at most one step's alerts
TAIL_BYTES = 4 << 20
MAX_REMEMBERED_IDS = 10_000  # ids
LEAST = 1 << 20  # bytes of alerts.jsonl, however small the disk

_BLOCK = 64 << 10


class _Named(msgspec.Struct):
    id: str


_named = msgspec.json.Decoder(_Named)


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
    own = ("jsonl", folder / "alerts.jsonl", ())
    for name, path, sites in [own, *given]:
        sink = Jsonl(path, most if path == own[1] else None)
        yield Subscriber(name=name, sink=sink, wants=Filter(sites=sites), flush=sink.flush)


class Jsonl:
    """A file as a Sink: `send` writes, `flush` makes durable.

    If logrotate moves the file, a new one is created. If a line would make the file longer than
    `most` bytes, the file is renamed to `NAME.1`, which replaces an older one.
    Raises OutsideError when the file cannot be opened, ConfigError when it is no file of alerts;
    `send` raises Retry when the disk does not take a line, which then is not in the file.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        self._path = path
        self._most = most
        self._older = path.with_name(f"{path.name}.1")
        self._ids: dict[str, None] = {}
        self._file = -1
        self._open()

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
            if self._moved() or self._rotated(len(line)):
                self.close()
                self._open()
            self._append(line)
        except OSError as error:
            msg = f"{self._path}: {error.strerror}"
            raise Retry(msg) from error
        except OutsideError as error:
            raise Retry(str(error)) from error
        self._remember(ident)

    def flush(self) -> None:
        """Syncs the file to disk; raises OutsideError."""
        try:
            os.fsync(self._file)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # a pipe or a terminal cannot be synced
            msg = f"{self._path}: {error.strerror}"
            raise OutsideError(msg) from error

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
            )
            _mend(self._file, self._path)
            for line in [*self._before(), *_tail(self._file)]:
                self._remember(_named.decode(line).id)
        except OSError as error:
            self.close()
            msg = f"{self._path}: cannot be written: {error.strerror}"
            raise OutsideError(msg) from error
        except msgspec.DecodeError as error:
            self.close()
            raise ConfigError(_foreign(self._path)) from error
        except ConfigError:
            self.close()
            raise

    def _before(self) -> list[bytes]:
        """The last lines of the rotated file: a crash may repeat their alerts too."""
        if self._most is None or not self._older.exists():
            return []
        with self._older.open("rb") as older:
            return _tail(older.fileno())

    def _rotated(self, coming: int) -> bool:
        size = os.fstat(self._file).st_size
        if self._most is None or size == 0 or size + coming <= self._most:
            return False
        os.fsync(self._file)  # `flush` will sync only the new file
        os.replace(self._path, self._older)
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
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)
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
    """Cuts off all after the last whole line; raises ConfigError if it is no file of alerts."""
    size = os.fstat(file).st_size
    head = os.pread(file, len(LINE_BEGIN), 0)
    # A file system may keep the length of a lost write and fill it with zeros.
    if not (LINE_BEGIN.startswith(head) or head.strip(b"\0") == b""):
        raise ConfigError(_foreign(path))
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


def _foreign(path: Path) -> str:
    return f"{path} is not a file of Fusewatch's alerts; it is left as it is: choose another path"
