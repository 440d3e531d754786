"""Cameras that mean harm: scripted RTSP and HTTP servers, and another host that listens.

They know an address and nothing of what connects to it.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

OTHER = "127.0.0.2"  # another host on the same machine
SDP = (
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 0 RTP/AVP 0\r\na=control:track1\r\n"
)
Answer = Callable[[str, bytes], bytes]  # method, whole request -> what is sent


class Server(socketserver.ThreadingTCPServer):
    """Answers each request of each connection by `answer`; an empty answer ends the connection."""

    daemon_threads = True

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        super().__init__((host, 0), _Line)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])


class _Line(socketserver.StreamRequestHandler):
    server: Server
    timeout = 1  # s without a request, then the connection ends

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while head := self._head():
                self.server.requests.append(head)
                data = self.server.answer(head.split(b" ")[0].decode("ascii", "replace"), head)
                if not data:
                    return
                self.wfile.write(data)
                if b"Connection: close" in data:
                    return

    def _head(self) -> bytes:
        lines = []
        while (line := self.rfile.readline(9000)) not in (b"\r\n", b""):
            lines.append(line)
        return b"".join(lines)


@contextlib.contextmanager
def serving(answer: Answer, host: str = "127.0.0.1") -> Iterator[Server]:
    """Runs a server."""
    with Server(answer, host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def rtsp(head: bytes, text: bytes, *, status: bytes = b"200 OK", body: bytes = b"") -> bytes:
    """An RTSP answer to the request `head`, with these lines and this body."""
    number = next((x for x in head.split(b"\r\n") if x.lower().startswith(b"cseq")), b"CSeq: 1")
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"RTSP/1.0 %s\r\n%s\r\n%s%s\r\n%s" % (status, number, text, length, body)


def good_rtsp(method: str, head: bytes) -> bytes:
    """What an honest camera with one sound answers; it plays one packet and ends."""
    match method:
        case "OPTIONS":
            return rtsp(head, b"Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n")
        case "DESCRIBE":
            return rtsp(head, b"Content-Type: application/sdp\r\n", body=SDP)
        case "SETUP":
            transport = b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            return rtsp(head, b"Session: 1\r\n" + transport)
        case "PLAY":
            packets = (
                b"\x80\x00" + n.to_bytes(2) + (n * 160).to_bytes(4) + b"\0\0\0\x07" + bytes(160)
                for n in range(100)
            )
            frames = b"".join(b"$\0" + len(p).to_bytes(2) + p for p in packets)
            return rtsp(head, b"Session: 1\r\n") + frames
    return b""


def played(body: bytes, kind: bytes = b"audio/wav") -> bytes:
    """An HTTP answer that holds `body` and ends the connection."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n%s" % (kind, body)


def udp_sockets() -> set[str]:
    """The inodes of the UDP sockets of this process."""
    mine = set()
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            mine.add(str(file.readlink()))
    rows = [
        line.split()
        for table in ("udp", "udp6")
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if f"socket:[{row[9]}]" in mine}


@contextlib.contextmanager
def watched_udp() -> Iterator[set[str]]:
    """The UDP sockets that this process opens meanwhile."""
    before, seen, stop = udp_sockets(), set[str](), threading.Event()

    def watch() -> None:
        while not stop.wait(0.001):
            seen.update(udp_sockets() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def asks_a_relay(port: int) -> bytes:
    """What a stranger gets from a port of 127.0.0.1 on which we listen for a moment."""
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.settimeout(5)
        with contextlib.suppress(OSError):
            line.sendall(b"OPTIONS rtsp://127.0.0.1/ RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            return line.recv(100)
    return b""


def flat_jpeg(width: int, height: int) -> bytes:
    """A grey JPEG in which each block takes two bits."""

    def part(mark: int, data: bytes) -> bytes:
        return bytes([255, mark]) + (len(data) + 2).to_bytes(2) + data

    blocks = -(-width // 16) * -(-height // 16) * 6
    table = bytes([1]) + bytes(16)
    size = b"\x08" + height.to_bytes(2) + width.to_bytes(2)
    head = part(0xDB, b"\0" + b"\x10" * 64)
    head += part(0xC0, size + b"\x03\x01\x22\0\x02\x11\0\x03\x11\0")
    head += part(0xC4, b"\0" + table) + part(0xC4, b"\x10" + table)
    scan = part(0xDA, b"\x03\x01\0\x02\0\x03\0\0\x3f\0")
    return b"\xff\xd8" + head + scan + bytes(blocks * 2 // 8 + 1) + b"\xff\xd9"
