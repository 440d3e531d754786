"""The mark of `fusewatch webhooks enable`: a small file in the state folder, one a subscriber.

A delivery makes the fingerprint of an address that answered 410 with this mark. So another mark
enables the subscriber, as another address does. The mark is not deleted: it may be read and written
again at any time, also after a kill, and several workers may share it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipeline.bus.private import private_file, private_folder
from pipeline.errors import OutsideError
from pipeline.types import rfc3339
from workers.runtime.rate_limited_log import RateLimitedLog

FOLDER = "enabled"  # in the state folder
MAX_BYTES = 100


class EnableMark:
    """The mark of one subscriber in the state folder `state`; calling it reads the mark.

    It is empty for a subscriber that was never enabled by hand. A file that cannot be read is
    logged, and the last mark holds.
    """

    def __init__(self, state: Path, name: str) -> None:
        self._path = state / FOLDER / name
        self._last = ""
        self._failed = RateLimitedLog(f"{self._path} cannot be read: %s")

    def __call__(self) -> str:
        """Reads the mark."""
        try:
            with self._path.open("rb") as file:
                self._last = file.read(MAX_BYTES).decode(errors="replace").strip()
        except FileNotFoundError:
            self._last = ""
        except OSError as error:
            self._failed.warn(error)
        return self._last

    def write(self, now: int) -> None:
        """Writes a new mark of the time `now` (ns UTC); durable on return. Raises OutsideError."""
        folder = self._path.parent
        part = folder / f".{self._path.name}.{secrets.token_hex(8)}.part"
        try:
            private_folder(folder)
            with os.fdopen(private_file(part, os.O_WRONLY | os.O_EXCL), "w") as file:
                file.write(f"{rfc3339(now)}\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
        except OSError as error:
            part.unlink(missing_ok=True)
            msg = f"{self._path}: cannot be written: {error.strerror}"
            raise OutsideError(msg) from error
