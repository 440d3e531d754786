"""A camera that means harm steers no connection of ours, by real servers on real sockets."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config.schema import Camera, Microphone
from pipeline.errors import SourceLost
from pipeline.types import AudioChunk
from tests.hostile_cameras import (
    OTHER,
    SDP,
    Server,
    asks_a_relay,
    flat_jpeg,
    good_rtsp,
    played,
    rtsp,
    serving,
    watched_udp,
)
from workers.capture import stream_opening
from workers.capture.factory import source
from workers.capture.rtsp_relay import Handshake, RtspRelay
from workers.config.source_address import parse

PASSWORD = "s3cretpw"
LOGIN = f"ops:{PASSWORD}@"


def opened(address: str, kind: str = "microphone") -> object:
    settings = Microphone(source="") if kind == "microphone" else Camera(source="")
    names = ("", "room") if kind == "microphone" else ("desk", "")
    parsed = parse(address, kind)
    return source(parsed, "office", *names, settings, clock=lambda: 0, count=lambda *_: None)


def lost(address: str, kind: str = "microphone") -> str:
    """Why the source is lost; the reason quotes no part of the address."""
    with pytest.raises(SourceLost) as caught, contextlib.closing(opened(address, kind)) as made:  # type: ignore[type-var]
        for _ in made:  # type: ignore[attr-defined]
            pass
    said = str(caught.value)
    assert PASSWORD not in said
    assert "127.0.0" not in said
    return said


@pytest.fixture
def other() -> Iterator[Server]:
    """Another host, which answers nothing; it must not be asked."""
    with serving(lambda *_: b"", OTHER) as server:
        yield server
        assert server.requests == []


def moved(head: bytes, to: Server) -> bytes:
    return rtsp(head, b"Location: rtsp://%s:%d/x\r\n" % (OTHER.encode(), to.port), status=b"302 Go")


WAV = (  # a second of silence, 16 kHz mono, whose head promises more
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0"
    b"data\xff\xff\xff\x7f" + bytes(32_000)
)
FRAME = b"$\0\0\x05\r\n\r\nR"  # media that looks like the end of a head
SPELLINGS: dict[str, Callable[[bytes], bytes]] = {  # of the same redirect
    "plain": lambda told: told,
    "after media": lambda told: FRAME * 3 + told,
    "after an empty line": lambda told: b"\r\n\n" + told,
    "with bare line feeds": lambda told: told.replace(b"\r\n", b"\n"),
    "with a return in its first word": lambda told: b"R\rTSP" + told[4:],
    "with a tab": lambda told: told.replace(b" 302", b"\t302"),
    "with two spaces": lambda told: told.replace(b" 302", b"  302"),
    "after a space": lambda told: b" " + told,
    "with media inside its head": lambda told: told.replace(b"\r\n", b"\r\n" + FRAME, 1),
    "with media before its head": lambda told: b"\r" + FRAME + told,
    "behind a body that is none": lambda told: rtsp(b"", b"Content-Length: 0\r\n"
        b"Content-Length: %d\r\n" % len(told)) + told,
    "behind a length below zero": lambda told: rtsp(b"", b"Content-Length: -9\r\n") + told,
    "behind a request": lambda told: b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n" + told,
    "as 301": lambda told: told.replace(b"302", b"301"),
    "as 399": lambda told: told.replace(b"302", b"399"),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("at", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
def test_a_redirect_over_rtsp_is_not_followed(at: str, spelling: str, other: Server) -> None:
    def answer(method: str, head: bytes) -> bytes:
        if method != at:
            return good_rtsp(method, head)
        return SPELLINGS[spelling](moved(head, other))

    with serving(answer) as camera:
        said = lost(f"rtsp://{LOGIN}127.0.0.1:{camera.port}/x")
        assert any(request.startswith(at.encode()) for request in camera.requests)
    if at != "PLAY":
        assert "a redirect" in said or "no RTSP" in said


def test_a_redirect_after_the_password_was_asked_for_is_not_followed(other: Server) -> None:
    def answer(method: str, head: bytes) -> bytes:
        if method != "DESCRIBE":
            return good_rtsp(method, head)
        if b"Authorization" not in head:
            return rtsp(head, b'WWW-Authenticate: Basic realm="x"\r\n', status=b"401 No")
        return moved(head, other)

    with serving(answer) as camera:
        assert "a redirect" in lost(f"rtsp://{LOGIN}127.0.0.1:{camera.port}/x")
        assert any(b"Authorization: Basic" in request for request in camera.requests)


@pytest.mark.parametrize("method", [b"REDIRECT", b"ANNOUNCE"])
def test_a_camera_that_asks_us_to_go_elsewhere_is_lost(method: bytes, other: Server) -> None:
    def answer(asked: str, head: bytes) -> bytes:
        place = b"Location: rtsp://%s:%d/x\r\n" % (OTHER.encode(), other.port)
        ask = method + b" * RTSP/1.0\r\nCSeq: 5\r\n" + place + b"\r\n"
        return (ask if asked == "SETUP" else b"") + good_rtsp(asked, head)

    with serving(answer) as camera:
        assert "a redirect" in lost(f"rtsp://127.0.0.1:{camera.port}/x")


def test_an_honest_camera_is_heard_through_the_relay_byte_by_byte() -> None:
    handshake, heard = Handshake(), b""
    for method in ("OPTIONS", "DESCRIBE", "SETUP", "PLAY"):
        handshake.asked(f"{method} rtsp://h/x RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
        said = FRAME + good_rtsp(method, b"CSeq: 1\r\n")
        for byte in said:
            heard += handshake.answered(bytes([byte]))
        assert heard.endswith(said)
        assert handshake.done == (method == "PLAY")
    with serving(good_rtsp) as camera:
        chunks = []
        made = opened(f"rtsp://{LOGIN}127.0.0.1:{camera.port}/x?a=b")
        with contextlib.closing(made), pytest.raises(SourceLost, match="the stream"):  # type: ignore[type-var]
            chunks.extend(made)  # type: ignore[call-overload]
        assert sum(isinstance(chunk, AudioChunk) for chunk in chunks) > 1
        described = next(r for r in camera.requests if r.startswith(b"DESCRIBE"))
        assert b"/x?a=b RTSP/1.0" in described
        assert PASSWORD.encode() not in b"".join(camera.requests)


def test_nobody_else_is_let_through_a_relay() -> None:
    asks = "import sys; from tests.hostile_cameras import asks_a_relay as ask; "
    with serving(good_rtsp) as camera:
        line = socket.create_connection(("127.0.0.1", camera.port), 5)
        relay = RtspRelay(line, f"rtsp://127.0.0.1:{camera.port}/x")
        port = int(relay.url.split(":")[2].split("/")[0])
        stranger = [sys.executable, "-c", asks + f"sys.exit(ask({port}) != b'')"]
        assert subprocess.run(stranger, check=False, cwd=Path.cwd()).returncode == 0
        assert camera.requests == []
        assert asks_a_relay(port).startswith(b"RTSP/1.0 200 OK")
        relay.close()


def test_relays_leave_no_thread_and_no_file_behind() -> None:
    def count() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    def answer(method: str, head: bytes) -> bytes:
        return good_rtsp(method, head) if len(camera.requests) % 3 else b""

    with serving(answer) as camera:
        address = f"rtsp://127.0.0.1:{camera.port}/x"
        for round_ in range(60):
            with contextlib.suppress(SourceLost), contextlib.closing(opened(address)):  # type: ignore[type-var]
                pass
            if round_ == 9:
                before = count()
        for thread in threading.enumerate():
            if thread.name == "relay":
                thread.join(5)
        time.sleep(0.2)  # the threads of the server end too
        after = count()
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 3


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_a_camera_with_its_own_certificate_is_heard_over_tls(
    tmp_path: Path, *, speaks_tls: bool
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=camera"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(good_rtsp) as camera:
        address = f"rtsps://{LOGIN}127.0.0.1:{camera.port}/x"
        if not speaks_tls:
            assert "does not answer with TLS" in lost(address)
            return
        camera.socket = context.wrap_socket(camera.socket, server_side=True)
        with contextlib.closing(opened(address)) as made:  # type: ignore[type-var]
            assert isinstance(next(iter(made)), AudioChunk)  # type: ignore[call-overload]


def web(place: str, status: bytes = b"302 Found") -> bytes:
    lines = b"HTTP/1.1 %s\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return lines % (status, place.encode())


@pytest.mark.parametrize("status", [b"301 x", b"302 x", b"303 x", b"307 x", b"308 x"])
@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "tcp", "file"])
def test_a_redirect_to_another_host_is_refused_in_words(
    status: bytes, scheme: str, other: Server
) -> None:
    with serving(lambda *_: web(f"{scheme}://{OTHER}:{other.port}/x", status)) as camera:
        said = lost(f"http://{LOGIN}127.0.0.1:{camera.port}/x?token={PASSWORD}", "camera")
    assert "another host or port (a redirect)" in said


def test_a_redirect_to_another_port_of_the_same_host_is_refused() -> None:
    with serving(lambda *_: b"") as beside:
        place = f"http://127.0.0.1:{beside.port}/x"
        with serving(lambda *_: web(place)) as camera:
            assert "a redirect" in lost(f"http://{LOGIN}127.0.0.1:{camera.port}/x")
        assert beside.requests == []


def test_a_redirect_on_the_same_host_is_followed_with_the_password() -> None:
    def answer(_: str, head: bytes) -> bytes:
        if b"Authorization: Basic" not in head:
            ask = b'WWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n'
            return b"HTTP/1.1 401 No\r\nConnection: close\r\n" + ask + b"\r\n"
        if b" /x" in head:
            return web("/y?b")
        if b" /y?b" in head:
            return web(f"//evil:pw@127.0.0.1:{camera.port}/z")
        return played(WAV)

    with serving(answer) as camera:
        with contextlib.closing(opened(f"http://{LOGIN}127.0.0.1:{camera.port}/x")) as made:  # type: ignore[type-var]
            assert isinstance(next(iter(made)), AudioChunk)  # type: ignore[call-overload]
        assert any(b" /z" in request for request in camera.requests)


def test_a_redirect_on_the_same_host_is_followed_with_a_digest() -> None:
    def answer(_: str, head: bytes) -> bytes:
        if b"Authorization: Digest" not in head:
            ask = b'WWW-Authenticate: Digest realm="x", nonce="abc", qop="auth"\r\n'
            end = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            return b"HTTP/1.1 401 No\r\n" + ask + end
        return web("/y?b") if b" /x?a=b" in head else played(WAV)

    with serving(answer) as camera:
        with contextlib.closing(opened(f"http://{LOGIN}127.0.0.1:{camera.port}/x?a=b")) as made:  # type: ignore[type-var]
            assert isinstance(next(iter(made)), AudioChunk)  # type: ignore[call-overload]
        assert PASSWORD.encode() not in b"".join(camera.requests)


BEGINNINGS = {"http": b"HTTP/1.1 302 x\r\nX: ", "https": b"\x16\x03\x03\x40\0\x02\0"}


@pytest.mark.parametrize("scheme", BEGINNINGS)
def test_an_answer_that_comes_a_byte_a_time_is_given_up(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        line, _ = listener.accept()
        with line, contextlib.suppress(OSError):
            line.sendall(BEGINNINGS[scheme])
            while not stop.wait(0.05):
                line.sendall(b"\0" if scheme == "https" else b"x")

    monkeypatch.setattr(stream_opening, "STREAM_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        began = time.monotonic()
        with contextlib.suppress(SourceLost):
            assert stream_opening._redirect(f"{scheme}://127.0.0.1:{port_of(listener)}/") is None
        assert time.monotonic() - began < 3
        stop.set()
        thread.join()


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_redirects_without_end_are_given_up() -> None:
    with serving(lambda *_: web("/x")) as camera:
        assert "more than 5 times" in lost(f"http://127.0.0.1:{camera.port}/x")
        assert len(camera.requests) < 30


def test_no_proxy_of_the_environment_gets_an_address(
    monkeypatch: pytest.MonkeyPatch, other: Server
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://{OTHER}:{other.port}")
    with serving(lambda *_: b"") as camera:
        for scheme in ("http", "https"):
            lost(f"{scheme}://{LOGIN}127.0.0.1:{camera.port}/x")
        assert camera.requests


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"application/sdp", SDP.replace(b"audio 0", b"audio %d")),
        (b"application/vnd.apple.mpegurl", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
            b"http://127.0.0.2:%d/a.ts\n#EXT-X-ENDLIST\n"),
        (b"text/plain", b"ffconcat version 1.0\nfile http://127.0.0.2:%d/a.mkv\n"),
        (b"application/dash+xml", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"'
            b' type="static"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1">'
            b"<BaseURL>http://127.0.0.2:%d/a.mp4</BaseURL></Representation></AdaptationSet>"
            b"</Period></MPD>"),
        (b"text/xml", b'<?xml version="1.0"?><!DOCTYPE a SYSTEM "http://127.0.0.2:%d/a"><a/>'),
        (b"video/x-ms-asf", b"[Reference]\r\nRef1=http://127.0.0.2:%d/a.asf\r\n"),
        (b"audio/x-mpegurl", b"rtsp://127.0.0.2:%d/x\n"),
    ],
)  # fmt: skip
def test_a_text_that_names_another_place_opens_nothing(
    kind: bytes, body: bytes, other: Server
) -> None:
    with (
        serving(lambda *_: played(body % other.port, kind)) as camera,
        watched_udp() as opened_sockets,
    ):
        for path in ("x", "x.sdp", "x.m3u8", "x.mpd", "x.ffconcat"):
            said = lost(f"http://127.0.0.1:{camera.port}/{path}", "camera")
            assert "nothing that can be read as a stream" in said
    assert opened_sockets == set()


def test_a_camera_that_offers_udp_gets_none(other: Server) -> None:
    def answer(method: str, head: bytes) -> bytes:
        where = b"Transport: RTP/AVP/UDP;unicast;destination=127.0.0.2;source=127.0.0.2;"
        ports = b"client_port=%d-%d;server_port=%d-%d\r\n" % ((other.port,) * 4)
        if method == "SETUP":
            return rtsp(head, b"Session: 1\r\n" + where + ports)
        return good_rtsp(method, head)

    with serving(answer) as camera, watched_udp() as opened_sockets:
        lost(f"rtsp://127.0.0.1:{camera.port}/x")
        lost(f"rtsp://127.0.0.1:{camera.port}/x?udp")
    assert opened_sockets == set()


def test_a_picture_of_gigabytes_is_refused_and_costs_no_memory() -> None:
    picture = flat_jpeg(16_000, 16_000)
    part = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
    body = (part + picture + b"\r\n") * 3
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told: list[str] = []
    with serving(lambda *_: played(body, b"multipart/x-mixed-replace; boundary=b")) as camera:
        made = source(
            parse(f"http://127.0.0.1:{camera.port}/", "camera"), "office", "desk", "",
            Camera(source=""), clock=lambda: 0, count=lambda _, what: told.append(what),
        )  # fmt: skip
        with contextlib.closing(made), pytest.raises(SourceLost):
            assert list(made) == []
    assert told == ["dropped.undecodable"] * 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kB
