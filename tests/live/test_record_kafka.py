"""Recording from real brokers: by hand, and by a worker that is killed and goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import codec, topics
from pipeline.errors import ConfigError
from pipeline.types import Record
from tests.graph.conftest import CONFIG
from tests.live import brokered
from tests.live.processes import Processes
from tests.live.servers import eventually
from tests.recorded import BEGIN, second_of
from workers.cli import main
from workers.recordings.recording import Recording, open_recording

pytestmark = [pytest.mark.live, pytest.mark.slow]

FUSEWATCH = (sys.executable, "-m", "workers.cli")
SEEN = (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path / "logs") as all_:
        yield all_


@pytest.fixture
def config(tmp_path: Path, kafka: str) -> Path:
    path = tmp_path / "office.yaml"
    path.write_text(CONFIG)
    return brokered.over_kafka(path, kafka, "recording: {around: always}\n")


def publish(config: Path, seconds: range) -> list[tuple[str, Record]]:
    made = [each for second in seconds for each in second_of(second)]
    with brokered.watched(config) as bus:
        for topic, record in made:
            bus.publish(topic, topics.key_of(topic, record), codec.encode(record))
        bus.flush()
    return made


def is_recorded(recording: Recording, made: list[tuple[str, Record]]) -> None:
    """Each topic has each record once, and each source its records in order."""
    for topic in SEEN:
        found = [codec.decode(one.value) for one in recording.appended(topic)]
        wanted = [record for name, record in made if name == topic]
        assert len(found) == len(wanted), topic
        for source in {record.source for record in wanted}:
            assert [r for r in found if r.source == source] == [
                r for r in wanted if r.source == source
            ]


def test_what_the_brokers_hold_is_recorded_from_a_time_on(config: Path, tmp_path: Path) -> None:
    made = publish(config, range(40))
    since = ("--since", "2026-01-01T00:00:20Z", "--for", "10s")
    assert main(["record", str(config), "--out", str(tmp_path / "out"), *since]) == 0
    recording = open_recording(tmp_path / "out")
    assert recording.losses == []
    observed = [record for name, record in made if name == topics.OBSERVATIONS]
    assert len(list(recording.appended(topics.OBSERVATIONS))) == len(observed)
    frames = [codec.decode(one.value) for one in recording.appended(topics.FRAMES)]
    starts = {frame.start // 10**9 - BEGIN for frame in frames}
    assert starts == set(range(20, 30))


def test_a_worker_that_is_killed_goes_on(
    config: Path, processes: Processes, tmp_path: Path
) -> None:
    out = tmp_path / "state" / "recordings"
    command = (*FUSEWATCH, "worker", "record", str(config), "--state", str(tmp_path / "state"))
    made = publish(config, range(10))
    worker = processes.start("record", *command)

    def frames() -> int:
        try:
            return len(list(open_recording(out).appended(topics.FRAMES)))
        except ConfigError:  # nothing is written yet
            return 0

    eventually(lambda: frames() == 20, within=120, every=0.5)
    worker.kill()
    made += publish(config, range(10, 25))
    again = processes.start("again", *command)
    eventually(lambda: frames() == 50, within=120, every=0.5)
    assert again.stop(60) == 0
    recording = open_recording(out)
    is_recorded(recording, made)
    assert len(recording.losses) <= 1
