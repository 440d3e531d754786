"""Turns SQLite's disk errors into messages for the operator, and locks a folder for one process."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import DiskFull, OutsideError

_FULL, _CORRUPT, _NOT_A_DATABASE = 13, 11, 26  # SQLite's primary result codes
_OUTSIDE = {3, 5, 6, 7, 8, 10, 14}  # PERM BUSY LOCKED NOMEM READONLY IOERR CANTOPEN


@contextmanager
def outside(path: Path, *, cap: str, what: str, anew: str) -> Iterator[None]:
    """Turns errors of the disk or the file into OutsideError (DiskFull); a bug is raised unchanged.

    `cap` is the setting that bounds the file, `what` names the kind of file, and `anew` says what
    moving it away does.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == _FULL:
            msg = (
                f"no space left for {path}: free some, or lower `{cap}` in the config. "
                "Nothing that was acknowledged is lost"
            )
            raise DiskFull(msg) from error
        if code in (_CORRUPT, _NOT_A_DATABASE):
            msg = (
                f"{path} is damaged, or no {what} of Fusewatch ({error}). Nothing was deleted: "
                f"move the file away to {anew}"
            )
        elif code in _OUTSIDE:
            msg = f"{path}: {error}"
        else:
            raise
        raise OutsideError(msg) from error


def lock(file: Path, folder: Path) -> int:
    """Locks `file` against other processes and returns its descriptor.

    The lock ends when the descriptor is closed, or when the process ends in any way. Creates the
    parent folder. Raises OutsideError when `folder` is in use, with the pid of the other process.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        msg = f"cannot write in {file.parent}: {error.strerror}"
        raise OutsideError(msg) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(held, 32).decode(errors="replace").strip()
        os.close(held)
        msg = f"{folder} is in use by another Fusewatch process (pid {owner or 'unknown'})"
        raise OutsideError(msg) from error
    with suppress(OSError):  # the pid only improves a message: ignore a full disk
        os.ftruncate(held, 0)
        os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    return held
