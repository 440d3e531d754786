"""A terminal of any size in which a command runs; its screen can be read and resized."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """What a terminal emulator shows of a running command; `raw` is all that it printed."""

    def __init__(self, command: Sequence[str], columns: int, lines: int, env: dict[str, str]):
        self._screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._ours, theirs = pty.openpty()
        self.raw = b""
        self._size(columns, lines)
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **env},
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the command has closed its end
            while some := os.read(self._ours, 65_536):
                with self._lock:
                    self.raw += some
                    self._stream.feed(some)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def lines(self) -> list[str]:
        """The lines on the screen, without spaces at their ends."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    def text(self) -> str:
        """The screen, without the empty lines at its end."""
        return "\n".join(self.lines()).rstrip()

    def resize(self, columns: int, lines: int) -> None:
        """Gives the terminal another size; its cursor stays on its line, as in xterm."""
        with self._lock:
            fewer = max(0, self._screen.lines - lines)
            up = max(0, self._screen.cursor.y + 1 - lines)
            self._screen.resize(lines, columns)
            self._screen.cursor.y -= min(fewer, self._screen.cursor.y) - up
            self._screen.cursor.x = min(self._screen.cursor.x, columns - 1)
        self._size(columns, lines)
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """Waits for the command and for the last of its output; returns its exit code."""
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@contextlib.contextmanager
def terminal(
    command: Sequence[str], columns: int = 80, lines: int = 24, **env: str
) -> Iterator[Terminal]:
    """Runs a command in a terminal; it is killed at the end if it still runs."""
    made = Terminal(command, columns, lines, env)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        made._reader.join(10)
        os.close(made._ours)
