"""An HTTP server on this machine that answers by a script, for tests of downloads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATA = bytes(range(256)) * 4096  # 1 MiB
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the script of its server, the last entry again and again; notes what was asked."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def begin(self, status: int, size: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing: tests say what they saw."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = [whole]
        self.asked: list[tuple[str, str]] = []
        self.free = threading.Event()  # lets a stalled answer end

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of these tests."""


def whole(to: Handler) -> None:
    """The file, from where it is asked for."""
    start = int(to.headers.get("Range", "bytes=0-")[6:-1])
    if start:
        to.begin(206, len(DATA) - start, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    else:
        to.begin(200, len(DATA))
    to.wfile.write(DATA[start:])


def deaf(to: Handler) -> None:
    """The whole file, whatever range is asked for."""
    to.begin(200, len(DATA))
    to.wfile.write(DATA)


def elsewhere(to: Handler) -> None:
    """A range that nobody asked for."""
    to.begin(206, 10, Content_Range=f"bytes 0-9/{len(DATA)}")
    to.wfile.write(DATA[:10])


def cut(after: int) -> Answer:
    """Hangs up in the middle of the file."""

    def answer(to: Handler) -> None:
        start = int(to.headers.get("Range", "bytes=0-")[6:-1])
        status = 206 if start else 200
        left = len(DATA) - start
        to.begin(status, left, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        to.wfile.write(DATA[start : start + after])
        to.wfile.flush()
        to.close_connection = True

    return answer


def says(status: int, **headers: str) -> Answer:
    def answer(to: Handler) -> None:
        to.begin(status, 0, **headers)

    return answer


def stalls(to: Handler) -> None:
    """Some bytes, then nothing until the test is over."""
    to.begin(200, len(DATA))
    to.wfile.write(DATA[:1000])
    to.wfile.flush()
    to.server.free.wait()


def trickles(to: Handler) -> None:
    """The file in many small pieces."""
    start = int(to.headers.get("Range", "bytes=0-")[6:-1])
    to.begin(200, len(DATA) - start)
    for i in range(start, len(DATA), 997):
        to.wfile.write(DATA[i : i + 997])
        to.wfile.flush()


def endless(to: Handler) -> None:
    """More than it should be, and no end in sight."""
    to.send_response(200)
    to.end_headers()
    while True:
        to.wfile.write(DATA)


@contextmanager
def serving() -> Iterator[Server]:
    """A server with a thread of its own."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="files")
    thread.start()
    try:
        yield server
    finally:
        server.free.set()
        server.shutdown()
        server.server_close()
        thread.join()
