"""The free space of a disk, and a file that holds some of it back.

Deleting needs space, too: SQLite first writes what it deletes into its WAL. When another program
has filled the disk, the file is given up, and with its space our own records can give way.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

SHARE = 16  # a sixteenth of the disk is kept free,
MOST_FREE = 256 << 20  # or so many bytes of a large one
MOST_HELD = 8 << 20  # bytes; the largest file that holds space


class DiskSpace:
    """The disk below `folder`, which must exist; `spare` bytes of it are to stay free.

    With a `spare` of 0 nothing is kept free, and no file is made.
    """

    def __init__(self, folder: Path, spare: int = 0) -> None:
        self.spare = spare
        self._folder = folder
        self._held = folder / "reserve"

    def free(self) -> int:
        """Bytes that a user without privileges can still write."""
        return shutil.disk_usage(self._folder).free

    def release(self) -> bool:
        """Gives the file's space back to the disk; returns whether there was a file."""
        try:
            self._held.unlink()
        except OSError:
            return False
        return True

    def hold(self) -> None:
        """Makes the file again where the disk has room for it."""
        size = min(self.spare, MOST_HELD)
        if not size or self._held.exists() or self.free() < size + self.spare:
            return
        with suppress(OSError):  # the next call tries again
            file = os.open(self._held, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, size)
            finally:
                os.close(file)


def usual_spare(folder: Path) -> int:
    """The bytes that are to stay free on the disk of `folder`, which must exist."""
    return min(shutil.disk_usage(folder).total // SHARE, MOST_FREE)
