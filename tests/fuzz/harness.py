"""Runs cases in child processes, which may crash, hang or take too much memory."""

from __future__ import annotations

import faulthandler
import itertools
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, Protocol

import msgspec

MAX_GROWTH = 600 << 20  # bytes that a child may take on top of what its parent has
MAX_TOTAL = 3 << 30  # bytes of addresses on top of that, so that the machine does not suffer
KEPT = Path("build/fuzz")

Case = Callable[[int, random.Random], None]  # number, dice; any error is a finding


class Kind(Protocol):
    """One kind of cases."""

    name: str
    target: int  # cases of a whole run
    batch: int  # cases of a child
    patience: float  # s that one case may take
    files: bool  # a case writes a file named by its number, and a finding keeps it

    def opened(self) -> Case: ...


class Finding(msgspec.Struct, frozen=True):
    """A case that went wrong; `number` is its own."""

    kind: str
    number: int
    what: str


class Result(msgspec.Struct):
    """What came of a kind."""

    cases: int = 0
    seconds: float = 0.0
    findings: list[Finding] = []


def dice_of(seed: int, kind: str, number: int) -> random.Random:
    """The dice of one case: of the seed, the kind and the number alone."""
    return random.Random(f"{seed} {kind} {number}")


def run(kind: Kind, seed: int, folder: Path, numbers: Iterator[int], until: float) -> Result:
    """Runs the cases of `numbers`, a batch at a time on each core, until that monotonic time.

    The files of findings are copied to `KEPT`.
    """
    result, begun = Result(), time.monotonic()
    live: dict[int, _Child] = {}
    rests: list[list[int]] = []  # what children that ended early have left

    def ended(child: _Child) -> None:
        del live[child.pipe]
        rest = _end(child, kind, result, folder)
        rests.extend([rest] if rest else [])

    over = False
    while True:
        over = over or time.monotonic() > until
        while not over and len(live) < (os.cpu_count() or 1):
            batch = rests.pop() if rests else list(itertools.islice(numbers, kind.batch))
            over = not batch and not live
            if not batch:
                break
            child = _Child(kind, seed, batch)
            live[child.pipe] = child
        if not live:
            break
        for pipe in select.select(list(live), [], [], 0.5)[0]:
            if live[pipe].read():
                ended(live[pipe])
        for child in list(live.values()):
            if child.late():
                ended(child)
    result.seconds = time.monotonic() - begun
    return result


def _end(child: _Child, kind: Kind, result: Result, folder: Path) -> list[int]:
    """Counts what a child did and keeps its files; returns the cases that it did not reach."""
    found = child.end()
    result.cases += child.done
    result.findings += found
    faulty = {one.number for one in found}
    for number in faulty | {child.now} if kind.files else ():
        for path in folder.glob(f"{number}-*"):
            if number in faulty:
                KEPT.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, KEPT / f"{kind.name}-{path.name}")
            path.unlink()
    return child.batch[child.batch.index(child.now) + 1 :] if child.done else []


class _Child:
    """A process that runs a batch; it says the number of each case before it runs it."""

    def __init__(self, kind: Kind, seed: int, batch: list[int]) -> None:
        self.batch, self.now, self.done = batch, batch[0], 0
        self._kind, self._begun = kind, time.monotonic()
        self._words = b""
        self._said: list[Finding] = []
        self._hangs = False
        sys.stdout.flush()
        self.pipe, given = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self.pipe)
            _work(kind, seed, batch, given)
        os.close(given)

    def read(self) -> bool:
        """Reads what the child says; returns whether it has ended."""
        data = os.read(self.pipe, 65536)
        *lines, self._words = (self._words + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self._said.append(msgspec.json.decode(line, type=Finding))
            else:
                self.now, self.done, self._begun = int(line), self.done + 1, time.monotonic()
        return not data

    def late(self) -> bool:
        """Ends a child that hangs in a case; returns whether it did."""
        if time.monotonic() - self._begun > self._kind.patience:
            self._hangs = True
            os.kill(self._pid, signal.SIGABRT)  # it prints its traceback
            time.sleep(0.5)
            os.kill(self._pid, signal.SIGKILL)
        return self._hangs

    def end(self) -> list[Finding]:
        """Waits for the child; returns what it found, and how it ended."""
        os.close(self.pipe)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        what = f"no end within {self._kind.patience:g} s" if self._hangs else ""
        if code and not what:
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            what = f"the process ended: {name}"
        return [*self._said, *([Finding(self._kind.name, self.now, what)] if what else [])]


def _memory(what: str) -> int:
    """Bytes of memory (VmRSS, VmHWM) or of addresses (VmSize) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _work(kind: Kind, seed: int, batch: list[int], pipe: int) -> NoReturn:
    code = 1
    try:
        faulthandler.enable()
        warnings.simplefilter("error")
        begun = _memory("VmRSS")
        resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + MAX_TOTAL,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        case = kind.opened()
        for number in batch:
            os.write(pipe, b"%d\n" % number)
            what = _tried(case, number, dice_of(seed, kind.name, number))
            most = _memory("VmHWM")
            if not what and most - begun > MAX_GROWTH:
                what = f"took {(most - begun) >> 20} MB of memory"
            if what:
                os.write(pipe, msgspec.json.encode(Finding(kind.name, number, what)) + b"\n")
                begun = max(begun, most - MAX_GROWTH)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tried(case: Case, number: int, dice: random.Random) -> str:
    try:
        case(number, dice)
    except Exception:
        return traceback.format_exc(limit=-6)
    return ""
