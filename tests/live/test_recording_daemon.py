"""A daemon that records is killed at random moments: its files hold all that its log holds."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.bus import log_search
from pipeline.errors import ConfigError
from pipeline.types import FOREVER
from tests import reels
from tests.graph.conftest import CONFIG, FAKES
from tests.live.processes import Processes
from tests.live.servers import eventually
from workers.config import loader
from workers.delivery.cloudevent import event_bytes
from workers.recordings.recording import open_recording
from workers.replay.again import judge_again

pytestmark = [pytest.mark.live, pytest.mark.slow]

SECONDS = 600


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "logs") as all_:
        yield all_


def long_scene(folder: Path) -> Path:
    shots = [(k, 12 if 3 <= k % 60 < 9 else 1) for k in range(SECONDS)]
    reels.film(folder / "desk.mkv", [(float(at), shade) for at, shade in shots], size=(128, 96))
    path = folder / "scene.yaml"
    path.write_text(
        f"site: office\nstart: 2026-01-05T22:00:00Z\nduration: {SECONDS}\n"
        "cameras:\n  desk: {file: desk.mkv, fps: 1}\n"
    )
    return path


def test_kills_lose_nothing_that_the_log_has(processes: Processes, tmp_path: Path) -> None:
    config, state = tmp_path / "office.yaml", tmp_path / "state"
    config.write_text(CONFIG + "recording: {around: always}\n")
    scene, dice = long_scene(tmp_path), random.Random(4)
    command = (sys.executable, "-m", "tests.live.faked_daemon", "well", config, state, scene)
    daemon = processes.start("daemon", *command)

    def recorded() -> int:
        try:
            return len(list(open_recording(state / "recordings").appended(topics.FRAMES)))
        except ConfigError:
            return 0

    for _ in range(3):
        before = recorded()
        eventually(lambda least=before: recorded() > least or not daemon.alive, within=120)
        time.sleep(dice.uniform(0, 1))
        daemon.kill()
        daemon.start()
    assert daemon.wait(240) == 0
    recording = open_recording(state / "recordings")
    for topic in (*topics.CHUNKS, topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS):
        logged = [one for _, one in log_search.appended(state / "log", topic, 0, FOREVER)]
        assert list(recording.appended(topic)) == logged, topic
    start, end = recording.span
    again = judge_again(loader.load(config), FAKES, recording, start, end)
    assert not again.compared.differs
    sent = (state / "alerts.jsonl").read_bytes().splitlines()
    assert [event_bytes(alert) for alert in again.judged.alerts] == list(dict.fromkeys(sent))
