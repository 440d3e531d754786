"""A real terminal (pty) for a program: what it shows, and what a person types."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One end of a pty; `shown` is all that the program has written, without colours."""

    def __init__(self, end: int, program: subprocess.Popen[bytes]) -> None:
        self._end = end
        self._raw = b""
        self._read_to = 0
        self.program = program

    @property
    def shown(self) -> str:
        return _ESCAPES.sub("", self._raw.decode(errors="replace")).replace("\r\n", "\n")

    def expect(self, text: str, within: float = 60.0) -> None:
        """Waits until the program has written `text`, after what was expected before."""
        deadline = time.monotonic() + within
        while (found := self.shown.find(text, self._read_to)) < 0:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.shown[self._read_to :]!r}"
            self._fill(left)
        self._read_to = found + len(text)

    def expect_no_echo(self, within: float = 60.0) -> None:
        """Waits until what is typed is not shown: the program asks for a password."""
        deadline = time.monotonic() + within
        while termios.tcgetattr(self._end)[3] & termios.ECHO:
            assert time.monotonic() < deadline, "what is typed would be shown"
            self._fill(0.05)

    def type(self, line: str) -> None:
        os.write(self._end, f"{line}\n".encode())

    def ended(self, within: float = 60.0) -> int:
        """Waits for the end of the program; gives its code."""
        deadline = time.monotonic() + within
        while self.program.poll() is None and time.monotonic() < deadline:
            self._fill(0.1)
        self._fill(0.1)
        return self.program.wait(1)

    def _fill(self, wait: float) -> None:
        if select.select([self._end], [], [], wait)[0]:
            with contextlib.suppress(OSError):  # Linux: all others have closed the terminal
                self._raw += os.read(self._end, 65536)


@contextlib.contextmanager
def terminal(words: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Iterator[Terminal]:
    """Runs a program in a terminal; it is killed at the end if it still runs."""
    ours, theirs = pty.openpty()
    # Ctrl-C is to reach the program, and it alone, also where a shell started the tests in the
    # background and so makes them ignore it.
    alone = ["setsid", "--ctty", "env", "--default-signal=INT", *words]
    program = subprocess.Popen(alone, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield Terminal(ours, program)
    finally:
        program.kill()
        program.wait()
        os.close(ours)
