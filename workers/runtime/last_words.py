"""Keeps what a library writes to stderr in the instant before it ends the process.

Lines on stderr go through a pipe that a thread of this process reads
(`workers/runtime/stderr_log.py`). After a crash nobody would read the rest. So a shell waits for
the end of the process, and then runs `workers/runtime/after_crash.py`, which writes the rest as
JSON lines. The shell needs 2 MB of memory. It is killed when the process ends well.

Two pieces of memory are shared with it: the bytes that were read and not logged yet, and the known
secrets, which are removed here, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_AFTER = str(Path(__file__).with_name("after_crash.py"))
# `read` ends when the process has ended: it alone has the other end of the pipe.
_WAIT = 'trap "" TERM INT HUP; read -r _; exec "$@"'


class LastWords:
    """The watcher of a pipe, `reading`, that writes to `saved` what is left in it after a crash."""

    def __init__(self, reading: int, saved: int) -> None:
        self._unlogged, self._secrets = os.memfd_create("unlogged"), os.memfd_create("secrets")
        shared = (reading, self._unlogged, self._secrets)
        waiting, self._life = os.pipe()
        self._watcher = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
            ["/bin/sh", "-c", _WAIT, "sh", sys.executable, "-I", _AFTER, *map(str, shared)],
            stdin=waiting,
            stdout=saved,
            stderr=subprocess.DEVNULL,
            pass_fds=shared,
            start_new_session=True,
        )
        os.close(waiting)

    def unlogged(self, some: bytes) -> None:
        """Shares the bytes that were read from the pipe and that are not logged yet."""
        with suppress(OSError):  # a limit on the size of files
            _share(self._unlogged, some)

    def secrets(self, known: Collection[str]) -> None:
        """Shares the secrets that must not be shown; if that fails, nothing will be shown."""
        try:
            _share(self._secrets, json.dumps(sorted(known)).encode())
        except OSError:
            self._watcher.kill()

    def close(self) -> None:
        """Ends the watcher: everything was logged."""
        self._watcher.kill()  # it does not hear SIGTERM
        self._watcher.wait()
        for number in (self._life, self._unlogged, self._secrets):
            os.close(number)


def _share(number: int, some: bytes) -> None:
    os.ftruncate(number, 0)
    os.pwrite(number, some, 0)
