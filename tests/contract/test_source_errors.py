"""Why a source gives nothing: each cause in words of its own, by real servers and files.

`run` and `doctor` open sources by the same readers, so these are the reasons of both.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.config.schema import Camera, Config, Microphone, Site
from pipeline.errors import SourceLost
from tests.reels import film, mjpeg
from workers.capture import stream_opening
from workers.capture.factory import source
from workers.config.source_address import parse
from workers.setup.doctor import doctor

PASSWORD = "s3cretpw"


@contextlib.contextmanager
def answering(status: int, body: bytes = b"", kind: str = "text/html") -> Iterator[str]:
    """An HTTP server that gives every request the same answer; yields host and port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reason(address: str, kind: str) -> str:
    """Why the reader of a camera, or of a microphone, loses the source at once."""
    names = ("desk", "") if kind == "camera" else ("", "room")
    settings = Camera(source=address) if kind == "camera" else Microphone(source=address)
    parsed = parse(address, kind)
    try:
        opened = source(parsed, "office", *names, settings, clock=lambda: 0, count=lambda *_: None)
        with contextlib.closing(opened):
            next(iter(opened))
    except SourceLost as lost:
        told = str(lost)
    else:
        pytest.fail("the source works")
    assert PASSWORD not in told
    return told


@pytest.mark.parametrize("kind", ["camera", "microphone"])
@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "refuses this user or password (401)"),
        (403, "refuses access (403)"),
        (404, "has nothing at this path (404)"),
        (400, "refuses the request (an error 4xx)"),
        (503, "answers that it failed (an error 5xx)"),
    ],
)
def test_an_answer_of_the_server_is_told_by_its_number(kind: str, status: int, says: str) -> None:
    with answering(status) as host:
        assert says in reason(f"http://ops:{PASSWORD}@{host}/live", kind)


def test_who_gave_no_user_is_told_to_give_one() -> None:
    with answering(401) as host:
        assert "asks for a user and a password (401)" in reason(f"http://{host}/live", "camera")


@pytest.mark.parametrize("kind", ["camera", "microphone"])
def test_a_web_page_is_no_stream(kind: str) -> None:
    with answering(200, b"<html><body>Welcome to your camera</body></html>") as host:
        assert "nothing that can be read as a stream" in reason(f"http://{host}/", kind)


@pytest.mark.parametrize("kind", ["camera", "microphone"])
@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_closed_port_an_unknown_host_and_silence_are_three_causes(
    kind: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Connection refused; nothing listens on port 1 there" in reason(
        f"{scheme}://ops:{PASSWORD}@127.0.0.1:1/live", kind
    )
    assert "the host's name is not known" in reason(f"{scheme}://no-such-host.invalid/live", kind)
    monkeypatch.setattr(stream_opening, "STREAM_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes calls, and never answers
        port = silent.getsockname()[1]
        assert "does not answer within" in reason(f"{scheme}://127.0.0.1:{port}/live", kind)


@pytest.mark.parametrize("kind", ["camera", "microphone"])
@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda path: None, "the file is not there"),
        (lambda path: path.mkdir(), "the path leads to no file"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(b"text" * 500), "the file is no video and no sound"),
    ],
)
def test_a_file_that_cannot_be_played_is_told_why(
    tmp_path: Path, kind: str, made: Callable[[Path], object], says: str
) -> None:
    made(tmp_path / "x.mp4")
    assert says in reason(f"file:{tmp_path}/x.mp4", kind)


def test_a_film_without_sound_is_no_microphone(tmp_path: Path) -> None:
    film(tmp_path / "x.mkv", [(n / 10, n) for n in range(10)])
    assert reason(f"file:{tmp_path}/x.mkv", "microphone") == "the file holds no sound"


def test_a_camera_of_this_machine_that_is_not_there_is_named() -> None:
    assert "there is no /dev/video99 on this machine" in reason("device:99", "camera")


def test_one_bad_source_hides_no_other(tmp_path: Path) -> None:
    picture = cv2.imencode(".jpg", np.full((960, 1280, 3), 200, np.uint8))[1].tobytes()
    with answering(404) as nothing, answering(401) as locked, mjpeg(picture) as good:
        site = Site(
            cameras={
                "colon": Camera(source="a:b.mp4"),
                "unset": Camera(source="rtsp://u:${NOT_SET}@h/x"),
                "nothing": Camera(source=f"http://{nothing}/x"),
                "locked": Camera(source=f"http://{locked}/x"),
                "good": Camera(source=good),
            }
        )
        config = Config(version=1, state=str(tmp_path / "state"), sites={"office": site})
        told = {check.name: check for check in doctor(config, {}, tmp_path)}
    right = {name for name in site.cameras if told[f"camera office/{name}"].ok}
    assert right == {"good"}
    details = {name: told[f"camera office/{name}"].detail for name in site.cameras}
    assert "no path may hold a `:`" in details["colon"]
    assert "variable NOT_SET is not set" in details["unset"]
    assert "(404)" in details["nothing"]
    assert "(401)" in details["locked"]
    assert "a frame of 1280 x 960 after" in details["good"]
    assert "looked at as 640 x 480" in details["good"]
    assert "of observations" in told["storage"].detail
    assert "of pictures" in told["storage"].detail
