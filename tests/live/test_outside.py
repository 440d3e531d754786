"""What happens outside a daemon costs no report that it has taken: floods, locks, full disks,
stops and wrong clocks. Each daemon is a process of its own, with fake models."""

from __future__ import annotations

import http.client
import http.server
import json
import random
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.live.processes import Process
from tests.live.servers import eventually, free_port
from tests.small_disk import fill, small_disk

pytestmark = [pytest.mark.live, pytest.mark.slow]

TOKEN = "a-token-of-sufficient-length"
SITE = """
  {name}:
    incidents: {{close_after: 1, max_duration: 30}}
    fusion: rules
    rules: [{{rule: keyword, words: {{en: [fire]}}, on: [report], severity: high, label: call}}]
"""


class Daemon:
    """A daemon that takes reports of the sites `north` and `south`; `camera` watches the north."""

    def __init__(self, folder: Path, state: Path, camera: str = "") -> None:
        self.port, self.state = free_port(), state
        self.clock = folder / "clock"
        self.clock.write_text("0")
        environment = {"FUSEWATCH_TEST_CLOCK": str(self.clock)}
        self.process = Process("daemon", folder / "daemon.log", environment)
        self.taken: set[str] = set()
        sites = "".join(SITE.format(name=name) for name in ("north", "south"))
        if camera:
            detect = "detect: {fps: 10, width: 1280}"
            source = f"    cameras: {{cam: {{source: '{camera}', {detect}}}}}\n"
            sites = sites.replace("  north:\n", f"  north:\n{source}")
        self.config = folder / "site.yaml"
        self.config.write_text(
            f'version: 1\napi: {{listen: "127.0.0.1:{self.port}", token: "{TOKEN}"}}\n'
            f'storage: {{cap: "100 MB"}}\nsites:{sites}'
        )

    def start(self, models: str = "well") -> None:
        ready = self.process.times("ready")
        command = (sys.executable, "-m", "tests.live.faked_daemon", models)
        self.process.start(*command, self.config, self.state)
        eventually(lambda: self.process.times("ready") > ready, within=60, every=0.1)
        eventually(lambda: self.ask("GET", "/healthz")[0] == 200, within=10, every=0.1)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """(status, JSON or the headers of a refusal); status 0 where nobody answers."""
        call = http.client.HTTPConnection("127.0.0.1", self.port, timeout=12)
        head = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        try:
            call.request(method, path, json.dumps(body) if body else None, head)
            answer = call.getresponse()
            read = json.loads(answer.read())
            return answer.status, read if answer.status < 400 else dict(answer.getheaders())
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            call.close()

    def report(self, text: str, site: str = "north") -> int:
        status, _ = self.ask("POST", "/v1/reports", {"site": site, "text": text})
        if status == 202:
            self.taken.add(text)
        return status

    def gauges(self) -> dict[str, float]:
        return dict(self.ask("GET", "/v1/status")[1]["gauges"])

    def told(self) -> set[str]:
        path = self.state / "alerts.jsonl"
        return set(re.findall(r'"(fire [0-9]+)"', path.read_text() if path.exists() else ""))

    def ends_well(self) -> None:
        """Every report that was taken is told, and a stop is a stop."""
        assert self.process.alive, self.process.tail()
        eventually(lambda: self.told() >= self.taken, within=40, every=0.2)
        assert self.process.stop(30) == 0, self.process.tail()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`started(state, camera="")`: a daemon; none is left at the end."""
    daemons: list[Daemon] = []

    def made(state: Path | None = None, camera: str = "", models: str = "well") -> Daemon:
        daemons.append(Daemon(tmp_path, state or tmp_path / "state", camera))
        daemons[-1].start(models)
        return daemons[-1]

    yield made
    for each in daemons:
        each.process.end()


@contextmanager
def noisy_camera() -> Iterator[str]:
    """An MJPEG camera whose pictures have 450 kB, ten in a second."""
    noise = np.random.default_rng(3).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    picture = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    stop = threading.Event()

    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            try:
                while not stop.wait(0.1):
                    self.wfile.write(head.encode() + picture + b"\r\n")
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes into the file, and does not finish."""
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as link:
        link.execute("BEGIN IMMEDIATE")
        yield
        link.execute("ROLLBACK")


def test_a_site_that_floods_waits_and_no_report_that_was_taken_is_lost(
    started: Callable[..., Daemon],
) -> None:
    daemon = started(models="slow-text")
    end, answers = time.monotonic() + 12, list[tuple[int, Any]]()
    text = "word " * 3000

    def flood() -> None:
        while time.monotonic() < end:
            answers.append(daemon.ask("POST", "/v1/reports", {"site": "south", "text": text}))

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        assert daemon.report(f"fire {number}") == 202, "the other site is taken all the time"
        time.sleep(1)
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {202, 429}
    assert all(int(head["Retry-After"]) > 0 for status, head in answers if status == 429)
    gauges = daemon.gauges()
    assert {gauges[name] for name in gauges if name.startswith("lost.")} == {0}
    assert {"lost.text", "lost.fusion", "lost.alert", "lost.delivery-jsonl"} <= gauges.keys()
    daemon.ends_well()


def test_a_lock_of_another_program_is_waited_for(started: Callable[..., Daemon]) -> None:
    daemon = started()
    assert daemon.report("fire 0") == 202
    files = sorted((daemon.state / "log").glob("*.db"))
    assert len(files) >= 5
    for number, path in enumerate(files, 1):
        with locked(path):
            status = daemon.report(f"fire {number}")
            assert status == (503 if path.stem == "reports.v1" else 202)
            time.sleep(8 if number in (2, 5) else 3)
        assert daemon.process.alive, daemon.process.tail()
    for path in files:
        begun = f"{path} is locked by another program (database is locked)"
        lines = [line["message"] for line in daemon.process.said()]
        assert sum(line.startswith(begun) for line in lines) <= 1, "one warning a wait"
    assert any("locked by another program no longer" in line for line in lines)
    with locked(files[0]):
        daemon.process.kill()
    with locked(files[-1]):
        begun_at = time.monotonic()
        waits = threading.Thread(target=daemon.start)
        waits.start()
        time.sleep(5)
    waits.join(60)
    assert time.monotonic() - begun_at < 60
    daemon.ends_well()


def test_a_disk_that_is_smaller_than_the_cap_costs_pictures_alone(
    tmp_path: Path, started: Callable[..., Daemon]
) -> None:
    with small_disk(tmp_path, 24) as disk, noisy_camera() as camera:
        daemon = started(disk / "state", camera)
        for number in range(8):
            assert daemon.report(f"fire {number}") == 202
            time.sleep(1.5)
        daemon.ends_well()
        assert (disk / "state/log/frames.v1.db").stat().st_size > 4 << 20, "pictures are kept too"


def test_a_disk_that_others_fill_costs_pictures_alone(
    tmp_path: Path, started: Callable[..., Daemon]
) -> None:
    with small_disk(tmp_path, 48) as disk, noisy_camera() as camera:
        daemon = started(disk / "state", camera)
        log = disk / "state/log"
        eventually(lambda: (log / "frames.v1.db").stat().st_size > 8 << 20, within=30)
        for number in range(9):
            if number in (2, 4, 6):
                fill(disk / f"theirs-{number}")
                time.sleep(2)
            assert daemon.report(f"fire {number}") == 202
            time.sleep(1)
        for file in disk.glob("theirs-*"):
            file.unlink()
        assert daemon.report("fire 9") == 202
        daemon.process.kill()  # and a full disk at the start
        fill(disk / "theirs")
        daemon.start()
        assert daemon.report("fire 10") == 202
        daemon.ends_well()


def test_kills_stops_and_wrong_clocks_lose_no_report(started: Callable[..., Daemon]) -> None:
    chance = random.Random(20261128)
    daemon = started()
    for number in range(24):
        match number % 6:
            case 1:
                daemon.clock.write_text(str(chance.choice([3600, 86_400, -3600, -86_400])))
            case 2:
                daemon.process.kill()
                daemon.start()
            case 3:
                with daemon.process.stopped():
                    time.sleep(chance.uniform(1, 7))
            case 4:
                daemon.clock.write_text("0")
        assert daemon.report(f"fire {number}") == 202
        if chance.random() < 0.5:
            daemon.process.kill()  # right after the answer
            daemon.start()
    daemon.ends_well()
    assert len(daemon.taken) == 24
