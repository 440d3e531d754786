"""A TCP proxy that holds back what a server says, and passes it on together with its end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

PATIENCE = 0.4  # s of silence of the server before its words are passed on


@contextlib.contextmanager
def late(server: str) -> Iterator[str]:
    """Yields the address of a proxy for `server` ("host:port")."""
    host, _, port = server.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, host, int(port)), daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, host: str, port: int) -> None:
    with contextlib.suppress(OSError):  # the end of the test closes the listener
        while True:
            client, _ = listening.accept()
            server = socket.create_connection((host, port))
            for which in ((_ask, client, server), (_answer, server, client)):
                threading.Thread(target=which[0], args=which[1:], daemon=True).start()


def _ask(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)


def _answer(server: socket.socket, client: socket.socket) -> None:
    server.settimeout(PATIENCE)
    held, ended = b"", False
    with server, client, contextlib.suppress(OSError):
        while not ended:
            try:
                data = server.recv(65536)
                held, ended = held + data, not data
            except TimeoutError:
                data = b""
            if held and not data:
                client.sendall(held)
                held = b""
