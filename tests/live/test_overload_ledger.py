"""The ledger of each source in a daemon whose vision and hearing are overloaded, over a kill.

Snapshots are taken as fast as the daemon answers. Each is compared with what its log holds.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.bus.kafka.state import reached
from pipeline.topics import AUDIO, FRAMES
from tests import reels
from tests.live.processes import Process
from tests.live.servers import eventually
from workers.capture.running_daemons import running

pytestmark = [pytest.mark.live, pytest.mark.slow]

CAMERAS, MICROPHONES, SECONDS = 6, 2, 25
READERS = {FRAMES: "vision", AUDIO: "sound"}
BEFORE_THE_LOG = 12  # chunks of one source that are captured and not stored yet, at most
CONFIG = """
version: 1
api: {{listen: "127.0.0.1:0"}}
sites:
  hall:
    cameras: {{{cameras}}}
    microphones: {{{microphones}}}
    rules: [{{rule: sound, labels: {{gunshot: 0.5}}}}]
    fusion: {{head: rules}}
"""


class Overloaded:
    """The daemon, whose sources need three times its detector and 2.6 times its ears."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.home = {"HOME": str(folder), "XDG_RUNTIME_DIR": ""}
        self.process = Process("daemon", folder / "daemon.log", self.home)
        self.config = folder / "hall.yaml"
        gate = {k: "auto" if k % 2 else "off" for k in range(CAMERAS)}
        cameras = (f'c{k}: {{source: "film.mkv", detect: {{gate: "{gate[k]}"}}}}' for k in gate)
        rooms = (f'm{k}: {{source: "room.wav"}}' for k in range(MICROPHONES))
        self.config.write_text(
            CONFIG.format(cameras=", ".join(cameras), microphones=", ".join(rooms))
        )
        shots = [(k / 5, 12 if k // 20 % 2 else 2 + k % 2) for k in range(SECONDS * 5)]
        reels.film(folder / "film.mkv", shots, size=(128, 96))
        reels.sound(folder / "room.wav", np.full(SECONDS * 16_000, 0.3))

    def start(self) -> None:
        command = (sys.executable, "-m", "tests.live.faked_daemon", "overloaded")
        self.process.start(*command, self.config, self.state)
        eventually(lambda: running(self.home), within=60, every=0.1)

    def snapshot(self) -> dict[str, Any]:
        (found,) = running(self.home)
        call = HTTPConnection(found.url.removeprefix("http://"), timeout=10)
        token = (self.state / "token").read_text().strip()
        call.request("GET", "/v1/status", headers={"Authorization": f"Bearer {token}"})
        with closing(call):
            return json.loads(call.getresponse().read())  # type: ignore[no-any-return]

    def place(self, topic: str) -> int:
        """The offset that the stage of the topic had answered when it committed last."""
        with closing(sqlite3.connect(self.state / f"log/{topic}.db")) as file:
            sql = "SELECT offset, note FROM commits WHERE reader = ?"
            row = file.execute(sql, (READERS[topic],)).fetchone()
        return reached(row[0], row[1].decode()) if row else 0

    def stored(self, topic: str, since: int) -> Counter[str]:
        """The chunks in the log from an offset on, by source."""
        with closing(sqlite3.connect(self.state / f"log/{topic}.db")) as file:
            sql = "SELECT key, count(*) FROM entries WHERE offset >= ? AND stop NOT NULL GROUP BY 1"
            return Counter({key.partition("/")[2]: n for key, n in file.execute(sql, (since,))})

    def closes(self) -> dict[str, Any]:
        """Takes a snapshot and compares it with the log."""
        before = {topic: self.place(topic) for topic in READERS}
        now = self.snapshot()
        after = {name: n for t in READERS for name, n in self.stored(t, before[t]).items()}
        for source, waiting in now["waiting"].get("hall", {}).items():
            of = now["counts"]["hall"][source]
            gone = sum(n for what, n in of.items() if what.startswith(("gated.", "dropped.")))
            came = of.get("captured", 0) + of.get("captured.earlier", 0)
            assert came == of.get("processed", 0) + gone + waiting, (source, of)
            assert 0 <= waiting <= after.get(source, 0) + BEFORE_THE_LOG, (source, of)
        return now

    def unanswered(self) -> Counter[str]:
        """What a killed daemon has left in its log, by source."""
        return Counter(
            {name: n for t in READERS for name, n in self.stored(t, self.place(t)).items()}
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Overloaded]:
    made = Overloaded(tmp_path)
    yield made
    made.process.end()


def test_the_ledger_closes_at_every_moment_under_load_and_over_a_kill(site: Overloaded) -> None:
    site.start()
    taken, until = 0, time.monotonic() + 12
    while time.monotonic() < until:
        site.closes()
        taken += 1
    site.process.kill()
    left = site.unanswered()
    site.start()
    first = site.closes()["counts"]["hall"]
    assert Counter({of: c.get("captured.earlier", 0) for of, c in first.items()}) == left
    assert left.total() > 0

    until = time.monotonic() + 180
    while time.monotonic() < until:
        now = site.closes()
        taken += 1
        ended = all(of["state"] == "ended" for of in now["sources"]["hall"].values())
        if ended and not any(now["waiting"]["hall"].values()):
            break
    assert not any(now["waiting"]["hall"].values()), "every frame and chunk was answered"
    counts = now["counts"]["hall"]
    for camera in (f"c{k}" for k in range(CAMERAS)):
        assert counts[camera]["dropped.stale"] > 0
    assert sum(counts[f"m{k}"].get("dropped.behind", 0) for k in range(MICROPHONES)) > 0
    assert sum(counts[f"m{k}/speech"].get("dropped.behind", 0) for k in range(MICROPHONES)) > 0
    assert taken > 100
    print(f"{taken} snapshots; after the kill {left.total()} waited; {counts}")
