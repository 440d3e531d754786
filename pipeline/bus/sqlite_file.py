"""Opens, checks and writes a SQLite file in WAL mode, and limits its size.

The local log and the spool use it. Errors of the disk and of the file are raised as OutsideError,
with a message for the operator. A lock of another program (a backup, a copy) is waited for.
`lock` keeps other processes of ours out.
https://www.sqlite.org/wal.html documents WAL, https://www.sqlite.org/pragma.html the settings.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Literal, TypeVar

import msgspec

from pipeline.bus.private import FILE, private_file, tighten
from pipeline.bus.waits import Waits
from pipeline.errors import DiskFull, FileBusy, LogInUse, OutsideError

_FULL, _CORRUPT, _NOT_A_DATABASE = 13, 11, 26  # SQLite's primary result codes
_BUSY = {5, 6}  # BUSY LOCKED
_UNSURE = {10, 14}  # IOERR CANTOPEN: the disk may be full
_OUTSIDE = {3, 7, 8, 10, 14}  # PERM NOMEM READONLY IOERR CANTOPEN
_LOCK_TIMEOUT = 2.0  # s that SQLite itself waits for a lock
_CHECKPOINT_TIMEOUT = 100  # ms that a checkpoint waits for readers
_CHECKPOINT_AGAIN = 1.0  # s after one that a reader prevented
_BATCH = 32  # pages that move in one transaction
_PROBE = bytes(64 << 10)
# KiB; a reader reads each record once. By default each of its 20 connections would keep 2 MB.
_READER_CACHE = 256

T = TypeVar("T")


class FileKind(msgspec.Struct, frozen=True, kw_only=True):
    """What all files of one kind have in common."""

    name: str  # for errors: "log", "spool"
    application: int  # in the file's header, as https://www.sqlite.org/fileformat.html says
    schema: str  # of the newest version
    upgrades: tuple[str, ...] = ()  # the first one upgrades version 1 to version 2, and so on
    page_size: int = 4096  # bytes
    secure_delete: Literal["OFF", "FAST"]  # Debian's default rewrites every page that it frees
    cap: str  # the setting that limits the size of the file
    anew: str  # for errors: the effect of moving a damaged file away
    refusal: str  # the error for a foreign database; may use {path}, {version} and {expected}

    @property
    def version(self) -> int:
        """The newest version; files are always written in this version."""
        return 1 + len(self.upgrades)


class SqliteFile:
    """The connection that writes a file. It has no lock: one thread at a time may use it.

    A new file gets the schema, an older one is upgraded. What is written outlives a killed process,
    and with `durable` a power cut too (fsync). Raises OutsideError (DiskFull, FileBusy) for what
    disk or file do to us, also when the file is of another kind or of a version to come.
    """

    def __init__(
        self, path: Path, kind: FileKind, *, durable: bool = False, waits: Waits | None = None
    ) -> None:
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._kind = kind
        self._durable = durable
        self._waits = waits or Waits()
        self._checkpoint_due = 0.0
        with self.outside():
            _make_private(path)
            self.connection = connect(path)
            self.execute = self.connection.execute
        try:
            self.patiently(self._open)
            self._page_size = self.patiently(lambda: self.pragma("page_size"))
        except BaseException:
            self.close()
            raise

    def patiently(
        self, work: Callable[[], T], longest: float = math.inf, *, writes: bool = False
    ) -> T:
        """The result of `work`, which is tried again while another program has the file locked.

        A lock against writers lets readers go on. Raises FileBusy after `longest` seconds, or when
        the process is to stop.
        """

        def once() -> T:
            with self.outside():
                return work()

        what = f"{self._path} is locked by another program{'' if writes else ', for readers too,'}"
        return self._waits.retried(once, FileBusy, what, longest)

    def _open(self) -> None:
        run, kind = self.execute, self._kind
        tables = run("SELECT count(*) FROM sqlite_master").fetchone()[0]
        ours = self.pragma("application_id") == kind.application
        version = self.pragma("user_version")
        if tables and not (ours and 1 <= version <= kind.version):
            told = {"path": self._path, "version": version, "expected": kind.version}
            raise OutsideError(kind.refusal.format(**told))
        run(f"PRAGMA page_size = {kind.page_size}")
        run("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        run("PRAGMA wal_autocheckpoint = 0")  # `bound_wal` does it, by bytes
        run(f"PRAGMA secure_delete = {kind.secure_delete}")
        if not tables:
            head = f"PRAGMA application_id = {kind.application};"
            self._script(f"{kind.schema} {head}", kind.version)
            return
        for reached, upgrade in enumerate(kind.upgrades[version - 1 :], version + 1):
            self._script(upgrade, reached)

    def _script(self, script: str, version: int) -> None:
        self.connection.executescript(f"BEGIN; {script} PRAGMA user_version = {version}; COMMIT;")

    @contextmanager
    def transaction(
        self, *, durable: bool = False, longest: float = math.inf
    ) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; `durable` makes this one outlive a power cut.

        Waits `longest` seconds for another program's lock, then raises FileBusy.
        """
        durable = durable and not self._durable  # where each one does, nothing is to be done
        with self.outside():
            if durable:
                self.execute("PRAGMA synchronous = FULL")
            try:
                self.patiently(lambda: self.execute("BEGIN IMMEDIATE"), longest, writes=True)
                yield self.connection
                self.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.execute("ROLLBACK")
                raise
            finally:
                if durable:
                    self.execute("PRAGMA synchronous = NORMAL")

    def pragma(self, name: str) -> int:
        """Returns the number that SQLite gives for `PRAGMA name`."""
        return int(self.execute(f"PRAGMA {name}").fetchone()[0])

    def allocated(self) -> int:
        """Returns the bytes of all pages of the file, used and free."""
        return self.pragma("page_count") * self._page_size

    def free(self) -> int:
        """Returns the bytes of the free pages, which SQLite will use again."""
        return self.pragma("freelist_count") * self._page_size

    def live(self) -> int:
        """Returns the bytes of the pages that are in use."""
        return self.allocated() - self.free()

    def shrink(self, spare: int, pages: int) -> bool:
        """Returns at most `pages` free pages to the disk if more than `spare` bytes are free.

        Returns whether it did. Outside a transaction a full disk ends it early: a page that moves
        is in the WAL first.
        """
        if self.free() <= spare:
            return False
        before = self.allocated()
        if self.connection.in_transaction:
            self._vacuum(pages)
        else:
            with suppress(DiskFull):
                for left in range(pages, 0, -_BATCH):
                    with self.transaction():
                        self._vacuum(min(left, _BATCH))
        return self.allocated() < before

    def _vacuum(self, pages: int) -> None:
        with self.outside():
            for _ in range(pages):  # one page per call: Python runs only one step of such a PRAGMA
                self.execute("PRAGMA incremental_vacuum(1)")

    def size(self) -> int:
        """Bytes of the file on disk, without its WAL; any thread may call it."""
        return _size(self._path)

    def wal_size(self) -> int:
        """Bytes of the WAL on disk; any thread may call it."""
        return _size(self._wal)

    def bound_wal(self, most: int) -> None:
        """Moves the WAL into the file when it is longer than `most` bytes.

        Where a reader of another program or a full disk prevents it, a later call does it: what is
        in the WAL is safe.
        """
        if self.wal_size() > most and time.monotonic() >= self._checkpoint_due:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Moves the WAL into the file now, unless a reader or a full disk prevents it."""
        done = False
        with suppress(DiskFull, FileBusy), self.outside():
            self.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT}")
            try:
                done = not self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            finally:
                self.execute(f"PRAGMA busy_timeout = {round(1000 * _LOCK_TIMEOUT)}")
        self._checkpoint_due = 0.0 if done else time.monotonic() + _CHECKPOINT_AGAIN

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Raises errors of the disk or the file as OutsideError (DiskFull), others unchanged."""
        try:
            yield
        except sqlite3.Error as error:
            code, path, kind = getattr(error, "sqlite_errorcode", 0) & 0xFF, self._path, self._kind
            if code in _BUSY:
                msg = f"{path} is locked by another program ({error})"
                raise FileBusy(msg) from error
            if code == _FULL or (code in _UNSURE and disk_is_full(path.parent)):
                msg = (
                    f"no space left for {path}: free some, or lower `{kind.cap}` in the config. "
                    f"Nothing that was acknowledged is lost (ENOSPC; SQLite says: {error})"
                )
                raise DiskFull(msg) from error
            if code in (_CORRUPT, _NOT_A_DATABASE):
                msg = (
                    f"{path} is damaged, or no {kind.name} of Fusewatch ({error}). Nothing was "
                    f"deleted: move the file away to {kind.anew}"
                )
            elif code in _OUTSIDE:
                msg = f"{path}: {error}"
            else:
                raise
            raise OutsideError(msg) from error


def _make_private(path: Path) -> None:
    """Creates the file for this user alone; -wal and -shm get the mode of the file."""
    try:
        # Only a new file is opened: closing an open one would drop SQLite's locks on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE))
    except FileExistsError:
        for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            tighten(each)
    except OSError:
        pass  # SQLite's own message is better


def connect(path: Path) -> sqlite3.Connection:
    """A connection that any thread may use, and that begins no transaction by itself."""
    return sqlite3.connect(
        path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
    )


class LockedConnection:
    """A connection and the lock held while it is used: closing it in use crashes the process."""

    def __init__(self, path: Path) -> None:
        self.lock = RLock()
        self.connection = connect(path)
        self.connection.execute(f"PRAGMA cache_size = {-_READER_CACHE}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def disk_is_full(folder: Path) -> bool:
    """Whether the disk or a quota of it refuses 64 KiB in `folder`; SQLite does not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(_PROBE)
            probe.flush()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def lock(file: Path, folder: Path) -> int:
    """Locks `file` against other processes and returns its descriptor; closing it unlocks it.

    The lock ends with the process, also after a kill. Creates the folder of `file` if it is
    missing. Raises LogInUse if another process has the lock; the error names its pid.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = private_file(file, os.O_RDWR)
    except OSError as error:
        msg = f"cannot write in {file.parent}: {error.strerror}"
        raise OutsideError(msg) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(held, 32).decode(errors="replace").strip()
        os.close(held)
        msg = f"{folder} is in use by another Fusewatch process (pid {owner or 'unknown'})"
        raise LogInUse(msg) from error
    with suppress(
        OSError
    ):  # the pid is only for the error of other processes: a full disk must not end this one
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    return held
