"""Clients that mean harm to the HTTP endpoint; they know its port and nothing else of it."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

HOST = "127.0.0.1"
LINES = (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"TRACE", b"\x16\x03\x01", b"")
PATHS = (b"/v1/status", b"/v1/reports", b"/healthz", b"/", b"*", b"//x", b"/%00", b"/\xff" * 400)
HEADERS = (
    b"Host: 127.0.0.1",
    b"Host: [::1",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: \xb2",
    b"Transfer-Encoding: chunked",
    b"Authorization: Bearer \xff\xfe",
    b"Authorization: Bearer " + b"a" * 70_000,
    b"Expect: 100-continue",
    b": nothing",
    b"X" * 70_000,
    b" folded",
    b"Connection: upgrade",
)


class Dripper:
    """Sends a head, and then a byte at each `send`, so that no timeout of a read ends it."""

    def __init__(self, port: int, head: bytes = b"GET / HTTP/1.1\r\n") -> None:
        self._line = socket.create_connection((HOST, port), 10)
        self._line.sendall(head)

    def send(self) -> bool:
        """Whether the server still holds the connection."""
        self._line.settimeout(0.01)
        try:
            self._line.sendall(b"x")
            return self._line.recv(1) != b""
        except TimeoutError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Ends the connection."""
        self._line.close()


def hangs_up(port: int, times: int = 200) -> None:
    """Announces a body and closes without sending it."""
    ask = b"HEAD /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n"
    for _ in range(times):
        with socket.create_connection((HOST, port), 10) as line:
            line.sendall(ask)


def resets(port: int, times: int = 200) -> None:
    """Sends a request and resets the connection (SO_LINGER of 0 s)."""
    ask = b"POST /v1/reports HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n12"
    for _ in range(times):
        with socket.create_connection((HOST, port), 10) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.sendall(ask)


def says_nothing(port: int, times: int = 200) -> None:
    """Connects and closes."""
    for _ in range(times):
        socket.create_connection((HOST, port), 10).close()


def reads_nothing(port: int, times: int = 100) -> None:
    """Asks over and over in one connection and never reads an answer."""
    with socket.create_connection((HOST, port), 2) as line, suppress(OSError):
        for _ in range(times):
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20)


def sends_anything(port: int, times: int = 300, seed: int = 1) -> None:
    """Sends requests made by chance from good and bad parts, whole or cut off."""
    dice = random.Random(seed)
    for _ in range(times):
        parts = [b" ".join((dice.choice(LINES), dice.choice(PATHS), b"HTTP/1.1"))]
        parts += dice.choices(HEADERS, k=dice.randrange(6))
        whole = b"\r\n".join(parts) + b"\r\n\r\n" + dice.randbytes(dice.randrange(40))
        with socket.create_connection((HOST, port), 10) as line, suppress(OSError):
            line.sendall(whole[: dice.randrange(len(whole) + 1)] if dice.random() < 0.3 else whole)
            if dice.random() < 0.5:
                line.shutdown(socket.SHUT_WR)
                line.settimeout(0.05)
                line.recv(65536)


ATTACKS: tuple[Callable[[int], None], ...] = (
    hangs_up,
    resets,
    says_nothing,
    reads_nothing,
    sends_anything,
)
