"""A folder of pictures by site: private, bounded, the oldest files give way first."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.bus.private import private_file, private_folder

SITE = r"[a-z0-9][a-z0-9_-]{0,39}"
KEPT_SHARE = 0.9  # of the cap; the oldest files give way down to this
MARKS_KEPT = 30 * 86_400.0  # s; longer than the log keeps alerts: no attempt comes after it


class PictureFolder:
    """The files `SITE/NAME` below `folder` whose NAME matches `ours`; other files are left alone.

    `cap` returns the most bytes of these files together. With `marks` a file that gives way becomes
    an empty one, so that its name stays known for `MARKS_KEPT`; otherwise it is deleted. Raises
    OSError.
    """

    def __init__(
        self, folder: Path, ours: re.Pattern[str], cap: Callable[[], int], *, marks: bool = False
    ) -> None:
        self._folder = folder
        self._ours = ours
        self._cap = cap
        self._marks = marks
        self._size = sum(size for _, size, _ in _files(folder, ours))

    def read(self, name: str) -> bytes | None:
        """Returns the bytes of `SITE/NAME`; None if there is no such file."""
        try:
            file = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(file, "rb") as opened:
            return opened.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes `SITE/NAME`, or replaces it; its bytes are durable on return."""
        part = self._part(name, data)
        os.replace(part, self._path(name))
        self._size += len(data)

    def write_first(self, name: str, data: bytes) -> bytes:
        """Writes `SITE/NAME` unless it exists, as another process may have made it.

        Returns what the file holds. It is durable on return, with its name.
        """
        part = self._part(name, data)
        try:
            os.link(part, self._path(name))
        except FileExistsError:
            return self.read(name) or b""
        finally:
            part.unlink(missing_ok=True)
        try:
            _sync(self._path(name).parent)
        except OSError:
            self._path(name).unlink()  # a name that may not last is none
            raise
        self._size += len(data)
        return data

    def trim(self) -> None:
        """Makes the oldest files give way when there are too many bytes."""
        cap = self._cap()
        if self._size <= cap:
            return
        files = _files(self._folder, self._ours)  # others may have deleted some
        self._size = sum(size for _, size, _ in files)
        wanted = round(self._size - cap * KEPT_SHARE)
        self._size -= evict(self._folder, self._ours, wanted, marks=self._marks)

    def _path(self, name: str) -> Path:
        path = self._folder / name
        if path.parent.is_symlink():
            msg = "a site's folder is a link to elsewhere"
            raise OSError(0, msg)
        return path

    def _part(self, name: str, data: bytes) -> Path:
        """Writes the bytes into a file of their own beside `SITE/NAME`."""
        path = self._path(name)
        private_folder(self._folder)
        private_folder(path.parent)
        part = _part_of(path)
        with os.fdopen(private_file(part, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return part


def evict(folder: Path, ours: re.Pattern[str], wanted: int, *, marks: bool = False) -> int:
    """Makes the oldest files give way until `wanted` bytes are freed; returns how many are.

    A missing file is no error. With `marks`, empty files are deleted after `MARKS_KEPT`.
    """
    freed = 0
    for changed, size, path in sorted(_files(folder, ours)):
        is_mark = marks and not size
        if is_mark and changed < time.time() - MARKS_KEPT:
            path.unlink(missing_ok=True)
        elif not is_mark and freed < wanted:
            _give_up(path, mark=marks)
            freed += size
    return freed


def _give_up(path: Path, *, mark: bool) -> None:
    """Deletes the file; with `mark` an empty one takes its place at once."""
    if mark and path.suffix != ".part":
        part = _part_of(path)
        try:
            os.close(private_file(part, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW))
            os.replace(part, path)
        except OSError:  # a disk without room even for a name
            part.unlink(missing_ok=True)
        else:
            return
    path.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    """A name beside `path` that no other process or thread uses."""
    return path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")


def _sync(folder: Path) -> None:
    """Makes the names in the folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _files(folder: Path, ours: re.Pattern[str]) -> list[tuple[float, int, Path]]:
    """(time of change, bytes, path) of each of these files; ignores links and other files."""
    if not folder.is_dir():
        return []
    found = []
    for site in folder.iterdir():
        if not re.fullmatch(SITE, site.name) or site.is_symlink() or not site.is_dir():
            continue
        for path in site.iterdir():
            if not ours.fullmatch(path.name):
                continue
            with suppress(FileNotFoundError):  # another thread was faster
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, status.st_size, path))
    return found
