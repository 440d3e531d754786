"""The endpoint of a daemon: a process with fake models, which is told reports.

python -m tests.fuzz.endpoint CONFIG STATE
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fuzz.mutations import damaged
from tests.hostile_clients import HEADERS, HOST, LINES, PATHS

TOKEN = "a-token-of-sufficient-length"
CONFIG = """\
version: 1
sites:
  north: {{rules: [{{rule: keyword, words: {{en: [fire]}}}}]}}
  south: {{rules: [{{rule: keyword, words: {{en: [fire]}}}}]}}
api: {{listen: "127.0.0.1:{port}", token: "{token}"}}
"""
GOOD_EVERY = 250  # cases between two good reports
PATIENCE = 60.0  # s in which a good report is taken: a flood may be answered 429 or 503
MOST_THREADS, MOST_FILES = 4, 8  # more than before, when all is quiet again
BODIES = (
    b'{"site": "north", "author": "guard-1", "text": "a man at the fence"}',
    b'{"site": "south", "text": "\\u202e \\u0000 \\ud800"}',
    b'{"site": "north", "text": ""}',
    b'{"site": ["north"], "text": {}}',
    b"[" * 20_000,
    b'{"site": "north", "text": "' + b"x" * 16_000 + b'"}',
    b'{"site": "north", "text": "\xff\xfe"}',
    b"\x00" * 50,
    b"",
)


class Gone(Exception):
    """The daemon has ended, or does not answer any more."""


class Requests:
    """A case is one connection; a good report is taken after each `GOOD_EVERY` of them."""

    name, target, batch, patience = "requests", 5000, 500, 90.0
    files = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def opened(self) -> Callable[[int, random.Random], None]:
        """Starts a daemon, which ends with this process."""
        daemon = Daemon(self._folder / str(os.getpid()))
        daemon.start()

        def case(number: int, dice: random.Random) -> None:
            daemon.meets(dice)
            daemon.cases += 1
            if daemon.cases % GOOD_EVERY == 0 or daemon.cases == 1:
                daemon.well()

        return case


class Daemon:
    """A daemon as a process of its own; what it says is in `said`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.cases = 0
        self._folder = folder
        self._config = folder / "site.yaml"
        self._config.write_text(CONFIG.format(port=self.port, token=TOKEN))
        self._said = folder / "said"
        self._before = (0, 0)

    def start(self) -> None:
        """Starts it and waits until it takes a report."""
        command = [sys.executable, "-m", "tests.fuzz.endpoint", self._config, self._folder / "s"]
        with self._said.open("w") as said:
            self._process = subprocess.Popen(command, stderr=said, stdout=said)
        self._good()
        time.sleep(1)
        self._before = self._taken()

    def well(self) -> None:
        """Asserts that it takes a good report, has no defect and holds on to nothing."""
        self._good()
        end = time.monotonic() + 30  # connections that drip are closed after some seconds
        while any(now > before + most for now, before, most in self._growth()):
            assert time.monotonic() < end, f"threads, files: {self._before} -> {self._taken()}"
            time.sleep(0.2)
        said = self._said.read_text(errors="replace")
        assert "Traceback" not in said, said[-3000:]

    def _growth(self) -> Iterator[tuple[int, int, int]]:
        return zip(self._taken(), self._before, (MOST_THREADS, MOST_FILES), strict=True)

    def _taken(self) -> tuple[int, int]:
        """How many threads and open files it has."""
        of = Path(f"/proc/{self._process.pid}")
        try:
            return len(list((of / "task").iterdir())), len(list((of / "fd").iterdir()))
        except OSError:
            raise self._gone() from None

    def _gone(self) -> Gone:
        code = self._process.poll()
        return Gone(f"exit {code}: {self._said.read_text(errors='replace')[-3000:]}")

    def _good(self) -> None:
        end, last = time.monotonic() + PATIENCE, ""
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise self._gone()
            try:
                line = http.client.HTTPConnection(HOST, self.port, timeout=15)
                given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
                line.request("POST", "/v1/reports", BODIES[0], given)
                status, body = (answer := line.getresponse()).status, answer.read()
                line.close()
                if status == 202:
                    assert json.loads(body)["site"] == "north"
                    return
                last = f"{status} {body!r}"
                assert status in (429, 503), last
            except OSError as error:
                last = repr(error)
            time.sleep(0.2)
        msg = f"a good report was not taken within {PATIENCE:g} s: {last}"
        raise Gone(msg)

    def meets(self, dice: random.Random) -> None:
        """Sends one request made by chance, in one of the ways of a bad client."""
        try:
            line = socket.create_connection((HOST, self.port), 15)
        except OSError:
            raise self._gone() from None
        with line, suppress(OSError):
            whole = request(dice)
            if dice.random() < 0.25:
                whole = whole[: dice.randrange(len(whole) + 1)]
            line.sendall(whole)
            match dice.randrange(8):
                case 0:
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                case 1 | 2:
                    pass  # hangs up without reading
                case _:
                    line.shutdown(socket.SHUT_WR)
                    line.settimeout(5)
                    answer = b"".join(iter(lambda: line.recv(65536), b""))
                    assert not answer.startswith(b"HTTP/1.1 500"), answer[-500:]

    def stop(self) -> None:
        """Ends it; asserts that it ends well."""
        self._process.terminate()
        assert self._process.wait(60) == 0, self._said.read_text(errors="replace")[-3000:]


def request(dice: random.Random) -> bytes:
    """A request: nearly good, made of good and bad parts, or damaged bytes of a good one."""
    body = dice.choice(BODIES)
    if dice.random() < 0.3:
        body = damaged(dice, body, BODIES)
    token = b"Authorization: Bearer " + TOKEN.encode()
    good = [b"POST /v1/reports HTTP/1.1", b"Host: 127.0.0.1", token,
            b"Content-Type: application/json", b"Content-Length: %d" % len(body)]  # fmt: skip
    match dice.randrange(4):
        case 0:
            return b"\r\n".join(good) + b"\r\n\r\n" + body
        case 1:
            good[0] = b" ".join((dice.choice(LINES), dice.choice(PATHS), b"HTTP/1.1"))
            good += dice.choices(HEADERS, k=dice.randrange(4))
            return b"\r\n".join(good) + b"\r\n\r\n" + body
        case 2:
            parts = [b" ".join((dice.choice(LINES), dice.choice(PATHS), b"HTTP/1.1"))]
            parts += dice.choices((*HEADERS, *good[1:]), k=dice.randrange(7))
            return b"\r\n".join(parts) + b"\r\n\r\n" + body
    whole = b"\r\n".join(good) + b"\r\n\r\n" + body
    return damaged(dice, whole, (*HEADERS, *PATHS, *BODIES))


@contextmanager
def watched(parent: int) -> Iterator[None]:
    """Ends this process when its parent has ended."""
    import threading

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=look, daemon=True).start()
    yield


if __name__ == "__main__":
    from tests.graph.conftest import FAKES
    from workers import daemon

    with watched(os.getppid()):
        sys.exit(daemon.run(Path(sys.argv[1]), state=Path(sys.argv[2]), encoders=FAKES))
