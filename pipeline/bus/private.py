"""Files and folders that only this user may read, whatever the umask is and whatever they were.

What is kept holds pictures and words of people. An existing file or folder is tightened if it
belongs to this user; one of another user is left as it is.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

FOLDER, FILE, OTHERS = 0o700, 0o600, 0o077


def private_folder(folder: Path) -> None:
    """Creates `folder` for this user alone, or tightens it; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    tighten(folder)


def private_file(path: Path, flags: int) -> int:
    """Opens `path` as `os.open` does; creates it for this user alone, or tightens it.

    Never use it on a SQLite file that is open: closing the descriptor would drop SQLite's locks.
    """
    opened = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, FILE)
    try:
        status = os.fstat(opened)
        if stat.S_ISREG(status.st_mode) and _is_open(status):
            os.fchmod(opened, stat.S_IMODE(status.st_mode) & ~OTHERS)
    except BaseException:
        os.close(opened)
        raise
    return opened


def tighten(path: Path) -> None:
    """Takes the rights of other users away, if there is such a file or folder.

    A link and what belongs to another user are left.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode) or not _is_open(status):
        return
    os.chmod(path, stat.S_IMODE(status.st_mode) & ~OTHERS)


def _is_open(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and bool(status.st_mode & OTHERS)
