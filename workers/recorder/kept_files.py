"""The files of a continuous recording: how much they take, and which give way.

Only files that a recorder has made are ever deleted: they have a name and a begin of its own.
"""

from __future__ import annotations

import shutil
import stat
from contextlib import suppress
from pathlib import Path

from pipeline.bus.disk_space import usual_spare
from workers.recordings.folder_writer import NAME
from workers.recordings.mcap_writer import MAGIC, PROFILE

PART = ".part"  # the folder, in that of the recordings, for files that are being rewritten
_PROFILE = len(PROFILE).to_bytes(4, "little") + PROFILE.encode()  # as a file has it
_BEGIN = len(MAGIC) + 1 + 8  # bytes before the profile


class KeptFiles:
    """The recordings in `folder`; `keep` is the most bytes of them. Raises OSError."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        self._known: set[Path] = set()  # that were looked into

    def paths(self) -> list[Path]:
        """The files, oldest first."""
        if not self.folder.is_dir():
            return []
        named = [path for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        self._known = {path for path in named if path in self._known or is_ours(path)}
        return sorted(self._known)

    def size(self) -> int:
        """Bytes of the files."""
        return sum(_size(path) for path in self.paths())

    def trim(self, current: Path | None) -> None:
        """Deletes the oldest files until the others fit; never `current`."""
        self._give(self.size() - self._keep, current)

    def make_room(self, current: Path | None) -> bool:
        """Deletes the oldest files until the disk has room; returns whether it has.

        Twice what the log keeps free: recordings give way before the log has to.
        """
        missing = self._missing()
        if missing > 0:
            self._give(missing, current)
        return missing <= 0 or self._missing() <= 0

    def _missing(self) -> int:
        folder = next(path for path in (self.folder, *self.folder.parents) if path.is_dir())
        return 2 * usual_spare(folder) - shutil.disk_usage(folder).free

    def _give(self, wanted: int, current: Path | None) -> None:
        for path in self.paths():
            if wanted <= 0:
                return
            if path != current:
                wanted -= _size(path)
                path.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Returns whether a recorder has made the file: by its name and its begin."""
    if not NAME.fullmatch(path.name):
        return False
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            begin = file.read(_BEGIN + len(_PROFILE))
    except OSError:
        return False
    # Its recorder may have been killed as it began: then there is less of it.
    return MAGIC.startswith(begin[: len(MAGIC)]) and _PROFILE.startswith(begin[_BEGIN:])


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.lstat().st_size
    return 0
