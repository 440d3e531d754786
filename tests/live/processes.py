"""A small supervisor: processes that are started, killed and started again, with their logs.

Not called `workers.py`: pytest puts this folder on the path, where that would hide our package.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KILLED = -signal.SIGKILL


class Process:
    """One command, over all its lives; what it says in any of them stands in `log`.

    `restarts` counts the lives after the first of each command. Nothing is started again by itself:
    whoever watches decides by `code` whether an end was in order.
    """

    def __init__(self, name: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, log
        self._environment = {**os.environ, "PYTHONFAULTHANDLER": "1", **environment}
        self.kills = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._command: Sequence[str | Path] = ()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """With which it ended; None while it runs, and before it ever ran."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} never ran"
        return self._process.pid

    def start(self, *command: str | Path) -> None:
        """Start it; without a command, the one that it had before."""
        assert not self.alive, f"{self.name} runs already"
        self._command = command or self._command
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def wait(self, seconds: float) -> int:
        """The code with which it ends; raises TimeoutExpired when it still runs after that."""
        assert self._process is not None, f"{self.name} never ran"
        return self._process.wait(seconds)

    def kill(self) -> None:
        """By SIGKILL; returns when it is gone. Whether it had ended by itself, `code` tells."""
        assert self._process is not None, f"{self.name} never ran"
        alive = self.alive
        self._process.kill()
        self.kills += (self._process.wait() == KILLED) and alive

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not run meanwhile: SIGSTOP, and then SIGCONT."""
        assert self._process is not None, f"{self.name} never ran"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self, within: float) -> int:
        """By SIGTERM; the code with which it ended. One that takes longer is killed, and fails."""
        assert self._process is not None, f"{self.name} never ran"
        self._process.terminate()
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.end()
            msg = f"{self.name} did not stop within {within} s:\n{self.tail()}"
            raise AssertionError(msg) from None

    def abort(self) -> None:
        """By SIGABRT: where each of its threads was stands at the end of its log."""
        if self._process is not None:
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()

    def end(self) -> None:
        """Whatever it does: it is gone when this returns, and that counts as no kill."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def said(self) -> list[dict[str, Any]]:
        """The JSON lines of its log, of all lives; a line that a kill cut is left out."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def times(self, message: str) -> int:
        """How often it said that."""
        return sum(line.get("message") == message for line in self.said())

    def status(self) -> dict[str, Any]:
        """The last `status` line: `gauges` and `counts`; after `stop`, the final one."""
        lines = [line for line in self.said() if line.get("message") == "status"]
        return lines[-1] if lines else {}

    def tail(self, characters: int = 3000) -> str:
        """The end of the log, for a failure's message."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""


class Processes:
    """`with Processes(folder) as all_:` none is left at the end; logs are `folder/NAME.log`."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._environment = folder, environment or {}
        self.all: dict[str, Process] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.all.values():
            process.end()

    def __getitem__(self, name: str) -> Process:
        return self.all[name]

    def start(self, name: str, *command: str | Path) -> Process:
        """A new process, or the next command of one that has ended."""
        if name not in self.all:
            self.all[name] = Process(name, self.folder / f"{name}.log", self._environment)
        self.all[name].start(*command)
        return self.all[name]

    def ended(self) -> list[Process]:
        """Those that do not run (any more)."""
        return [process for process in self.all.values() if not process.alive]

    def kills(self) -> Mapping[str, int]:
        """How often each was killed while it ran."""
        return {name: process.kills for name, process in self.all.items() if process.kills}

    def stop(self, names: Sequence[str], within: float = 60) -> dict[str, int]:
        """Stop these one after the other; the code of each."""
        return {name: self.all[name].stop(within) for name in names}
