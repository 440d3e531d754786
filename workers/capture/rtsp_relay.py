"""Relays one RTSP connection of FFmpeg, so that a camera cannot send it to another host.

FFmpeg follows each redirect of an RTSP server, sends the password there, and has no option against
it. So FFmpeg connects to a relay in this process, and the relay connects to the camera of the
config alone. Until the stream plays, the relay reads what the camera answers and ends the
connection at a redirect. After that it passes all bytes on.
"""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.errors import SourceLost

MAX_HEAD = 1 << 16  # bytes of the head of one message
MAX_BODY = 1 << 20  # bytes of the body of one message; a description has a few thousand
CONNECTED_WITHIN = 5.0  # s for FFmpeg to connect to the relay
SENT_WITHIN = 5.0  # s for the camera to take a request
AT_ONCE = 1 << 18  # bytes of one read
PAUSE = 0.01  # s; what comes meanwhile is passed on at once, which saves CPU time

REDIRECTED = (
    "the camera sends us to another address (a redirect), which is not followed over RTSP; "
    "write the address itself"
)
NO_RTSP = "the camera answers with something that is no RTSP; see the port and the scheme"

_END: Final = re.compile(rb"(?:\A|\n)\r*\n")  # of a head, as FFmpeg reads it
_STATUS: Final = re.compile(rb"RTSP/\d\.\d (\d{3})(?: .*)?")
_REQUEST: Final = re.compile(rb"([A-Z_]+) \S+ RTSP/\d\.\d")
_LENGTH: Final = re.compile(rb"content-length:\s*(\d{1,9})\s*", re.IGNORECASE)
_PLAY: Final = re.compile(rb"(?:\A|\r\n\r\n)PLAY ")
_UNAUTHORIZED = 401


class Handshake:
    """Reads what a camera says until the stream plays; refuses redirects.

    It splits messages exactly as FFmpeg does, and refuses what the two could split differently.
    """

    def __init__(self) -> None:
        self.done = False
        self._asked_to_play = False
        self._waiting = bytearray()
        self._passing = 0  # bytes of a body, or of a frame of media, that are still to come

    def asked(self, data: bytes) -> None:
        """Takes what FFmpeg sends to the camera."""
        self._asked_to_play = self._asked_to_play or _PLAY.search(data) is not None

    def answered(self, data: bytes) -> bytes:
        """Takes what the camera sends; returns what FFmpeg may have. Raises SourceLost."""
        self._waiting += data
        ready = bytearray()
        while self._waiting and not self.done:
            if not self._passing:
                self._passing = self._next()
                if not self._passing:
                    break
            ready += self._waiting[: self._passing]
            passed = min(self._passing, len(self._waiting))
            del self._waiting[:passed]
            self._passing -= passed
        if self.done:
            ready += self._waiting
            self._waiting.clear()
        return bytes(ready)

    def _next(self) -> int:
        """The bytes of the next message or frame of media; 0 if its head is not here yet."""
        if self._waiting.startswith(b"$"):
            return 4 + int.from_bytes(self._waiting[2:4]) if len(self._waiting) >= 4 else 0
        end = _END.search(self._waiting)
        if end is None:
            if len(self._waiting) > MAX_HEAD:
                raise SourceLost(NO_RTSP)
            return 0
        return end.end() + self._judged(bytes(self._waiting[: end.end()]))

    def _judged(self, head: bytes) -> int:
        """The length of the body of a message; raises SourceLost for a message that is refused."""
        first, *rest = head.replace(b"\r", b"").split(b"\n")
        if not first:
            return 0  # an empty line between two messages
        if b"\0" in head or any(line.startswith(b"$") for line in (first, *rest)):
            raise SourceLost(NO_RTSP)
        status, request = _STATUS.fullmatch(first), _REQUEST.fullmatch(first)
        if status is not None:
            self._check_status(int(status[1]))
        elif request is None:
            raise SourceLost(NO_RTSP)
        elif request[1] in (b"REDIRECT", b"ANNOUNCE"):
            raise SourceLost(REDIRECTED)
        return _length(rest)

    def _check_status(self, status: int) -> None:
        if 300 <= status < 400:
            raise SourceLost(REDIRECTED)
        self.done = self._asked_to_play and status != _UNAUTHORIZED


def _length(lines: list[bytes]) -> int:
    """The Content-Length of a head; raises SourceLost for one that may be read in two ways."""
    said = [line for line in lines if line.lower().startswith(b"content-length:")]
    read = {int(found[1]) for line in said if (found := _LENGTH.fullmatch(line))}
    if len(read) > 1 or (said and not read) or max(read, default=0) > MAX_BODY:
        raise SourceLost(NO_RTSP)
    return max(read, default=0)


class RtspRelay:
    """Passes one connection of this process on to `camera`, a connected socket.

    `url` is what FFmpeg opens. `reason` says why the relay ended the connection, if it did. The
    relay ends when either side ends; then both connections are closed.
    """

    def __init__(self, camera: socket.socket, target: str) -> None:
        parts = urlsplit(target)
        if parts.scheme == "rtsps":
            camera = encrypted(camera, parts.hostname or "")
        self.reason = ""
        self._camera = camera
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=8)
        port = self._listener.getsockname()[1]
        user, at, _ = parts.netloc.rpartition("@")
        rest = target[len(parts.scheme) + len("://") + len(parts.netloc) :]
        self.url = f"rtsp://{user}{at}127.0.0.1:{port}{rest}"
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the relay where FFmpeg has not connected, or has closed its side; waits for it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes a wait for the connection
        self._thread.join()

    def _run(self) -> None:
        with self._camera:
            with self._listener:
                player = _accepted(self._listener)
            if player is None:
                return
            with player:
                try:
                    _Pump(player, self._camera).run()
                except SourceLost as error:
                    self.reason = str(error)
                except OSError:  # one side is gone, so both are closed
                    pass


class _Pump:
    """Passes bytes between FFmpeg and the camera, in one thread, until one side ends."""

    def __init__(self, player: socket.socket, camera: socket.socket) -> None:
        self._player, self._camera = player, camera
        for line in (player, camera):
            line.setblocking(False)
        player.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handshake = Handshake()

    def run(self) -> None:
        """Raises SourceLost at a redirect; OSError where a connection breaks."""
        with selectors.PollSelector() as ready:
            ready.register(self._player, selectors.EVENT_READ)
            ready.register(self._camera, selectors.EVENT_READ)
            going = True
            while going:
                some = ready.select()
                if self._handshake.done:  # a picture is many packets: most of them come meanwhile
                    time.sleep(PAUSE)
                for key, _ in some:
                    asked = key.fileobj is self._player
                    going = going and (self._ask() if asked else self._answer())

    def _ask(self) -> bool:
        data = _received(self._player)
        if data:
            if not self._handshake.done:
                self._handshake.asked(data)
            _sent(self._camera, data, SENT_WITHIN)
        return data != b""

    def _answer(self) -> bool:
        data = _received(self._camera)
        if data:
            passed = data if self._handshake.done else self._handshake.answered(data)
            _sent(self._player, passed, None)
        return data != b""


def _received(line: socket.socket) -> bytes | None:
    """What has come; empty at the end, None if there is nothing yet."""
    try:
        data = line.recv(AT_ONCE)
        while data and isinstance(line, ssl.SSLSocket) and line.pending():
            data += line.recv(line.pending())
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    return data


def _sent(line: socket.socket, data: bytes, within: float | None) -> None:
    """Sends all of `data`; raises OSError where nothing of it is taken for `within` seconds."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[line.send(rest) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            _wait(line, selectors.EVENT_WRITE, within)
        except ssl.SSLWantReadError:
            _wait(line, selectors.EVENT_READ, within)


def _wait(line: socket.socket, event: int, within: float | None) -> None:
    with selectors.PollSelector() as ready:
        ready.register(line, event)
        if not ready.select(within):
            raise TimeoutError


def _accepted(listener: socket.socket) -> socket.socket | None:
    """The first connection from this process; None if none comes. All others are closed."""
    until = time.monotonic() + CONNECTED_WITHIN
    with suppress(OSError):  # TimeoutError, or `close` has shut the listener
        while (left := until - time.monotonic()) > 0:
            listener.settimeout(left)
            line, (_, port) = listener.accept()
            if _is_ours(port, listener.getsockname()[1]):
                return line
            line.close()
    return None


def _is_ours(port: int, to: int) -> bool:
    """Whether the connection from 127.0.0.1:`port` is one of this process (Linux alone knows)."""
    try:
        table = Path("/proc/self/net/tcp").read_text("ascii").splitlines()
    except FileNotFoundError:
        return True
    ends = [f"0100007F:{port:04X}", f"0100007F:{to:04X}"]
    inode = next((row[9] for line in table if (row := line.split())[1:3] == ends), "")
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if str(file.readlink()) == f"socket:[{inode}]":
                return True
    return False


def encrypted(camera: socket.socket, host: str, seconds: float = CONNECTED_WITHIN) -> ssl.SSLSocket:
    """The connection with TLS; the certificate is not checked: cameras sign their own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=1")  # old cameras have short keys
    line = context.wrap_socket(camera, server_hostname=host, do_handshake_on_connect=False)
    try:
        with ended_after(line, seconds):
            line.do_handshake()
    except (OSError, ValueError) as error:
        line.close()
        msg = "the camera does not answer with TLS; see the port, or use the scheme without the `s`"
        raise SourceLost(msg) from error
    return line


@contextmanager
def ended_after(line: socket.socket, seconds: float) -> Iterator[None]:
    """Ends the connection where the work in the block takes longer.

    The timeout of a socket is that of one read, and a camera may send a byte a second.
    """

    def end() -> None:
        with suppress(OSError):
            socket.socket.shutdown(line, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
