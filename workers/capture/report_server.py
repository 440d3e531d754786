"""The HTTP server of the local endpoint: loopback only, few threads, a deadline a connection.

Nothing that a client does ends the server. A client without the token has `HEAD_TIMEOUT` seconds
and gives way to newer ones, so that it cannot keep out those who have it.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pipeline.errors import ConfigError, DiskFull, OutsideError
from workers.capture.report_api import (
    MAX_BODY_BYTES,
    Answer,
    Headers,
    ReportApi,
    error_answer,
    loopback,
)
from workers.capture.reports import ReportSource
from workers.runtime.local_http import LocalHttpServer
from workers.runtime.rate_limited_log import RateLimitedLog

MAX_CONNECTIONS = 64  # at once; then the oldest without the token is closed
MAX_REQUESTS = 16  # of them, those that showed the token; more wait for a place
HEAD_TIMEOUT = 2.0  # s that a connection may take in all before it has shown the token
READ_TIMEOUT = 5.0  # s that a read may wait for a byte
CONNECTION_TIMEOUT = 10.0  # s that a connection with the token may take, even while it sends
SERVE_LOOK_EVERY = 0.2  # s between checks of the stop event
# bytes of a refused body that are read, or the close would cut off the answer
MAX_UNREAD_BYTES = 1 << 20


class Endpoint(ThreadingMixIn, LocalHttpServer):
    """The HTTP server; the caller runs `serve` and `progress_loop` in threads of its own.

    Raises ConfigError for an address that is not loopback, OutsideError for one that is in use.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    timeout = SERVE_LOOK_EVERY
    head_timeout = HEAD_TIMEOUT
    whole = CONNECTION_TIMEOUT

    def __init__(self, listen: str, api: ReportApi, reports: ReportSource) -> None:
        host, port = _listen(listen)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.api = api
        self._reports = reports
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        self._lock = threading.Lock()  # guards the two below, in order of arrival
        self._strangers: dict[Any, float] = {}  # connections without the token -> when they began
        self._known: dict[Any, float] = {}  # those with it
        self._failed = RateLimitedLog("a request to the endpoint failed: %r")
        self.unkept = RateLimitedLog("a report or a mode could not be kept: %s")
        try:
            super().__init__((host, port), _Handler)
        except OSError as failed:
            msg = f"api.listen: {listen} cannot be used: {failed.strerror}; is a daemon running?"
            raise OutsideError(msg) from failed

    @property
    def url(self) -> str:
        """The server's address, with the port that the system chose if the config has port 0."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}"

    def serve(self, stop: threading.Event) -> None:
        """Answers requests until `stop` is set; an error in one request never ends it."""
        try:
            while not stop.is_set():
                self.handle_request()
                self._end_overdue()
        finally:
            self.server_close()

    def progress_loop(self, stop: threading.Event) -> None:
        """Publishes the progress of the sites' reports, once a hop, until `stop` is set."""
        while not stop.is_set():
            with suppress(DiskFull):  # no progress is published meanwhile; `publish` logs a warning
                self._reports.beat()
            stop.wait(SERVE_LOOK_EVERY)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for the connection; too many push out the oldest without the token."""
        with self._lock:
            if len(self._strangers) + len(self._known) >= MAX_CONNECTIONS and self._strangers:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                _shut(oldest)
            self._strangers[request] = time.monotonic()
        super().process_request(request, client_address)

    @contextmanager
    def place(self, request: Any) -> Iterator[None]:
        """Holds one of `MAX_REQUESTS` places for a connection that has shown the token.

        Raises ConnectionAbortedError if the connection was pushed out meanwhile.
        """
        with self._lock:
            if self._strangers.pop(request, None) is None:
                raise ConnectionAbortedError
            self._known[request] = time.monotonic()
        with self._places:
            yield

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection, whatever state it is in."""
        with self._lock:
            self._strangers.pop(request, None)
            self._known.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs an error that is not the client's: it is a defect in the answer to one request."""
        raised = sys.exc_info()[1]
        if raised is not None and not isinstance(raised, OSError):
            self.tell(raised)

    def tell(self, raised: BaseException) -> None:
        """Logs a defect with its traceback, at most once a minute."""
        self._failed.defect(raised)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        with self._lock:
            for connections, longest in (
                (self._strangers, self.head_timeout),
                (self._known, self.whole),
            ):
                for request, began in connections.items():
                    if now - began > longest:
                        _shut(request)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"
    server_version = "fusewatch"
    sys_version = ""
    timeout = READ_TIMEOUT

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_GET

    def _answer(self) -> None:
        self.close_connection = True
        path = self.path.partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = self._length()
        refused = self.server.api.refused(self.command, path, headers)
        if refused is None and length is None:
            refused = error_answer(411, "one Content-Length is needed")
        if refused is None and length is not None and length > MAX_BODY_BYTES:
            refused = error_answer(413, f"a body has {MAX_BODY_BYTES} bytes at most")
        if refused is None and path != "/healthz":
            with self.server.place(self.request):
                self._send(self._asked(path, headers, length or 0))
        else:
            self._send(refused or self._asked(path, headers, length or 0))
        if refused is not None and length != 0:
            self._discard()

    def _discard(self) -> None:
        """Reads the rest of a refused body, or the close would cut off the answer."""
        with suppress(OSError):  # the client has hung up: ENOTCONN, ECONNRESET, EPIPE
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            left = MAX_UNREAD_BYTES
            while left > 0 and (data := self.connection.recv(65536)):
                left -= len(data)

    def _asked(self, path: str, headers: Headers, length: int) -> Answer:
        body = self.rfile.read(length)
        if len(body) < length:
            return error_answer(400, "the body ended early")
        try:
            return self.server.api.answer(self.command, path, headers, body)
        except Exception as failed:
            if not isinstance(failed, OutsideError):
                self.server.tell(failed)
                return error_answer(500, "an error of the daemon: its log has the traceback")
            self.server.unkept.warn(failed)
            return error_answer(503, "the daemon cannot keep it now; try again")

    def _length(self) -> int | None:
        lengths = self.headers.get_all("content-length") or []
        if "transfer-encoding" in self.headers or len(lengths) > 1:
            return None
        if not lengths:
            return 0 if self.command != "POST" else None
        text = lengths[0].strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None

    def _send(self, answer: Answer) -> None:
        body = msgspec.json.encode(answer.body)
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.send_header("Cache-Control", "no-store")
        if answer.retry_after:
            self.send_header("Retry-After", str(answer.retry_after))
        if answer.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing: a request line may hold a secret that a client put there by mistake."""


def _listen(listen: str) -> tuple[str, int]:
    try:
        place = urlsplit(f"//{listen}")
        host, port = place.hostname or "", place.port
    except ValueError:
        host, port = "", None
    if port is None or not loopback(host):
        msg = f"api.listen: {listen!r} is not a loopback address with a port, like 127.0.0.1:8674"
        raise ConfigError(msg)
    return "127.0.0.1" if host == "localhost" else host, port


def _shut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
