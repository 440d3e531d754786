"""A daemon that records: its files hold what its log holds, and are judged as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline import topics
from pipeline.bus import log_search
from pipeline.types import FOREVER
from tests.graph.conftest import FAKES
from workers import daemon
from workers.config import loader
from workers.delivery.cloudevent import event_bytes
from workers.recordings.recording import open_recording
from workers.replay.again import judge_again

Scene = Callable[..., Path]


def test_a_daemon_records_all_that_is_in_its_log(config: Path, scene: Scene) -> None:
    config.write_text(config.read_text() + "recording: {around: always}\n")
    state = config.parent / "state"
    played = scene(person=(3, 9), loud=(8, 9), spoken=(4, 6))
    assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
    recording = open_recording(state / "recordings")
    for topic in (*topics.CHUNKS, topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS):
        logged = [one for _, one in log_search.appended(state / "log", topic, 0, FOREVER)]
        assert list(recording.appended(topic)) == logged, topic
    assert recording.losses == []
    config_hash = [dict(data)["hash"] for file in recording.files for data in _configs(file)]
    assert config_hash


def _configs(file: Path) -> list[dict[str, str]]:
    from mcap.reader import make_reader

    with file.open("rb") as opened:
        found = list(make_reader(opened).iter_metadata())
    return [one.metadata for one in found if one.name == "fusewatch.config"]


def test_a_recording_judged_again_tells_what_was_told(config: Path, scene: Scene) -> None:
    config.write_text(config.read_text() + "recording: {around: always}\n")
    state = config.parent / "state"
    played = scene(person=(3, 9), loud=(8, 9), spoken=(4, 6))
    assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
    recording = open_recording(state / "recordings")
    start, end = recording.span
    again = judge_again(loader.load(config), FAKES, recording, start, end)
    assert not again.compared.differs
    assert again.compared.sent_revisions == len(again.judged.alerts) > 2
    sent = (state / "alerts.jsonl").read_bytes().splitlines()
    assert [event_bytes(alert) for alert in again.judged.alerts] == sent


def test_without_the_setting_nothing_is_recorded(config: Path, scene: Scene) -> None:
    state = config.parent / "state"
    assert daemon.run(config, scene=scene(), state=state, encoders=FAKES) == 0
    assert not (state / "recordings").exists()
