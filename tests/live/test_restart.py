"""A planned restart: the time in which nobody captured is no loss of a source."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import reels
from tests.live.daemon import daemon, said
from tests.live.servers import eventually

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("weights")]

DOWN = 22.0  # s
PICTURE = cv2.imencode(".jpg", np.full((96, 128, 3), 128, np.uint8))[1].tobytes()

CONFIG = """
version: 1
sites:
  office:
    cameras: {{desk: {{source: "{camera}"}}}}
api: {{listen: "127.0.0.1:0"}}
"""


class Slow(reels.Mjpeg):
    """A camera that sends a picture five times a second."""

    parts = (PICTURE,)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        head = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        with contextlib.suppress(OSError):
            while not self.server.ended.is_set():  # type: ignore[attr-defined]
                self.wfile.write(head % len(PICTURE) + PICTURE + b"\r\n")
                time.sleep(0.2)


@contextlib.contextmanager
def camera(port: int = 0) -> Iterator[int]:
    """The camera; gives its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Slow)
    server.ended = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.ended.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()


def states(state: Path) -> list[str]:
    start = "office/desk is "
    lines = [line["message"] for line in said(state)]
    return [line.removeprefix(start).split(":")[0] for line in lines if line.startswith(start)]


def test_a_camera_that_went_off_just_before_a_restart_is_not_told_as_lost(tmp_path: Path) -> None:
    """The usual case: the switch is moved, so camera and daemon are stopped, 22 s in all."""
    config, state = tmp_path / "office.yaml", tmp_path / "state"
    with camera() as port:
        config.write_text(CONFIG.format(camera=f"http://127.0.0.1:{port}/"))
        running = daemon(config, state)
        running.__enter__()
        eventually(lambda: "live" in states(state), within=60)
    eventually(lambda: states(state)[-1] == "lost", within=15)
    time.sleep(2)  # shorter than `lost_after`, which is 10 s
    running.__exit__(None, None, None)
    time.sleep(DOWN)
    with camera(port), daemon(config, state):
        eventually(lambda: "live" in states(state), within=60)
        time.sleep(3)
    assert (state / "alerts.jsonl").read_text() == ""
