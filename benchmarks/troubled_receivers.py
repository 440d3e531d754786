"""Five receivers of webhooks, four of them in trouble, for `benchmarks.subscribers`."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from workers.delivery.receiver import Received, Receiver, Reply

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"  # noqa: S105 - of the receivers below
NAMES = ("good", "flaky", "hanging", "resetting", "away")
FAILS = 0.3  # of the requests to `flaky`


class Resetting:
    """A listener that reads a little of each request and resets the connection (RST)."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._over = False
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if self._over:
                    return
                connection.recv(16)
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        """Ends it; its port is free then."""
        self._over = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._socket.close()


class Town:
    """The five receivers, by name. `well` heals one; `got` has the time of each first receipt."""

    def __init__(self, after: ExitStack, seed: int) -> None:
        self._after = after
        self._chance = random.Random(seed)  # noqa: S311
        self.got: dict[str, dict[str, int]] = {name: {} for name in NAMES}
        self.receivers: dict[str, Receiver] = {}
        self._well = {name: threading.Event() for name in NAMES}
        self._resetting = Resetting()
        with socket.create_server(("127.0.0.1", 0)) as free:
            away = free.getsockname()[1]
        after.callback(lambda: self._well["resetting"].is_set() or self._resetting.close())
        for name, answer in (
            ("good", lambda received: Reply()),
            ("flaky", self._flaky),
            ("hanging", self._hanging),
        ):
            self._open(name, answer)
        after.callback(self._well["hanging"].set)
        self.ports = {name: _port(one) for name, one in self.receivers.items()}
        self.ports |= {"resetting": self._resetting.port, "away": away}

    def _open(self, name: str, answer: Callable[[Received], Reply], port: int = 0) -> None:
        def heard(event: dict[str, object]) -> None:
            self.got[name][str(event["id"])] = time.time_ns()

        made = Receiver(SECRET, heard=heard, answer=answer, port=port)
        self.receivers[name] = self._after.enter_context(made)

    def well(self, name: str) -> None:
        """From now on the receiver takes all."""
        self._well[name].set()
        if name == "resetting":
            self._resetting.close()
        if name in ("resetting", "away"):
            self._open(name, lambda received: Reply(), self.ports[name])

    def _flaky(self, received: Received) -> Reply:
        fails = not self._well["flaky"].is_set() and self._chance.random() < FAILS
        return Reply(503 if fails else 204)

    def _hanging(self, received: Received) -> Reply:
        if self._well["hanging"].is_set():
            return Reply()
        self._well["hanging"].wait()
        return Reply(503)  # its client has gone


def _port(receiver: Receiver) -> int:
    return int(receiver.url.rpartition(":")[2].partition("/")[0])
