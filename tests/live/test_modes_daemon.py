"""A daemon that the real command arms and disarms, and that is killed in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from pipeline.types import SECOND
from tests import reels
from tests.live.daemon import ROOT
from tests.live.processes import Process
from tests.live.servers import eventually
from workers.capture.running_daemons import running

pytestmark = [pytest.mark.live, pytest.mark.slow]

CONFIG = """
version: 1
api: {listen: "127.0.0.1:0"}
sites:
  office:
    modes: {default: disarmed}
    cameras:
      desk:
        source: "desk.mkv"
        zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}
    rules: [{rule: zone, zone: floor, severity: high, modes: [armed]}]
    incidents: {close_after: 2}
    fusion: {head: rules}
"""


class Daemon:
    """A daemon with fake models; a person stands before its camera for three minutes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.home = {"HOME": str(folder), "XDG_RUNTIME_DIR": ""}
        self.process = Process("daemon", folder / "daemon.log", self.home)
        self.config = folder / "site.yaml"
        self.config.write_text(CONFIG)
        shots = [(k / 5, 12) for k in range(900)]
        reels.film(folder / "desk.mkv", shots, size=(128, 96))

    def start(self) -> None:
        ready = self.process.times("ready")
        command = (sys.executable, "-m", "tests.live.faked_daemon", "well")
        self.process.start(*command, self.config, self.state)
        eventually(lambda: self.process.times("ready") > ready, within=60, every=0.1)
        eventually(lambda: running(self.home), within=10, every=0.1)

    def says(self, *words: str) -> str:
        """What a command prints; it finds the daemon by itself."""
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", *words],
            cwd=ROOT,
            env={**os.environ, **self.home, "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def status(self) -> dict[str, Any]:
        """The modes in `GET /v1/status`."""
        (found,) = running(self.home)
        call = HTTPConnection(found.url.removeprefix("http://"), timeout=10)
        call.request("GET", "/v1/status", headers={"Authorization": f"Bearer {self.token()}"})
        answer = json.loads(call.getresponse().read())
        call.close()
        return dict(answer["modes"])

    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def told(self) -> list[dict[str, Any]]:
        path = self.state / "alerts.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event["data"] for line in lines if (event := json.loads(line))["data"]["labels"]]

    def intrusions(self, state: str) -> list[dict[str, Any]]:
        return [d for d in self.told() if "intrusion" in d["labels"] and d["state"] == state]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.process.end()


def test_a_running_site_is_armed_kept_over_a_kill_and_disarmed(daemon: Daemon) -> None:
    daemon.start()
    time.sleep(4)
    assert daemon.told() == []
    assert daemon.says("mode", "office") == "office: disarmed, by schedule"

    assert daemon.status() == {}

    armed = time.time_ns()
    assert daemon.says("mode", "office", "armed", "--by", "ann").startswith(
        "office: armed, by hand"
    )
    (first, *_) = eventually(lambda: daemon.intrusions("opened"), within=10)  # type: ignore[misc]
    print(f"armed, and told {(time.time_ns() - armed) / SECOND:.1f} s later")
    assert first["modes"] == ["armed"]
    assert {site: mode["mode"] for site, mode in daemon.status().items()} == {"office": "armed"}

    daemon.process.kill()
    time.sleep(3)
    daemon.start()
    shown = daemon.says("mode", "office")
    assert shown.startswith("office: armed, by hand, since ")
    assert shown.endswith(", by ann")
    eventually(lambda: len(daemon.intrusions("opened")) > 1, within=15)

    daemon.says("mode", "office", "disarmed", "--for", "1h", "--by", "ben")
    opened = len(daemon.intrusions("opened"))
    eventually(lambda: len(daemon.intrusions("closed")) == opened, within=15)
    time.sleep(1)
    told = len(daemon.told())
    time.sleep(5)
    assert len(daemon.told()) == told

    daemon.says("mode", "office", "armed", "--by", "ann")
    daemon.says("snooze", "office", "zone-floor", "--for", "20s", "--by", "ann")
    assert "rule zone-floor snoozed" in daemon.says("mode", "office")
    assert daemon.process.stop(30) == 0, daemon.process.tail()
