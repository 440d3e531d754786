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
MOST_HELD = 16 << 20  # bytes; the largest file that holds space


class DiskSpace:
    """The disk below `folder`, which must exist; `spare` bytes of it are to stay free.

    With a `spare` of 0 nothing is kept free, and no file is made.
    """

    def __init__(self, folder: Path, spare: int = 0) -> None:
        self.spare = spare
        self.held = min(spare, MOST_HELD)
        self._folder = folder
        self._file = folder / "reserve"

    def free(self) -> int:
        """Bytes that a user without privileges can still write."""
        return shutil.disk_usage(self._folder).free

    def missing(self) -> int:
        """Bytes that must be freed to keep `spare` free and the file full; 0 or less for none."""
        held = 0 if self._file.exists() else self.held
        return self.spare + held - self.free()

    def most_wal(self, wanted: int) -> int:
        """The largest WAL of a file whose records are to give way, `wanted` bytes at most.

        On a full disk it must still fit into its file, in the space that is held back.
        """
        return min(wanted, self.held // 2) if self.spare else wanted

    def release(self) -> bool:
        """Gives the file's space back to the disk; returns whether there was a file."""
        try:
            self._file.unlink()
        except OSError:
            return False
        return True

    def hold(self) -> None:
        """Makes the file again where the disk has room for it."""
        if not self.held or self._file.exists() or self.missing() > 0:
            return
        with suppress(OSError):  # the next call tries again
            file = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, self.held)
            finally:
                os.close(file)


def usual_spare(folder: Path) -> int:
    """The bytes that are to stay free on the disk of `folder`, which must exist."""
    return min(shutil.disk_usage(folder).total // SHARE, MOST_FREE)
