"""A daemon that records: its files hold what its log holds, and are judged as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from pipeline import codec, topics
from pipeline.bus import log_search
from pipeline.ports import Entry
from pipeline.types import FOREVER, SECOND, event_start
from tests.graph.conftest import FAKES
from tests.make import box, detections
from workers import daemon
from workers.config import loader
from workers.delivery.cloudevent import event_bytes
from workers.recorder.recorder import stand_in
from workers.recordings.recording import open_recording
from workers.replay.again import judge_again
from workers.replay.observation_replay import rejudge

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


def test_the_times_of_another_site_stand_for_its_records(config: Path, scene: Scene) -> None:
    state = config.parent / "state"
    played = scene(person=(3, 9), loud=(8, 9), spoken=(4, 6))
    assert daemon.run(config, scene=played, state=state, encoders=FAKES) == 0
    text = config.read_text()
    config.write_text(text + "  home: {cameras: {door: {source: 'device:1'}}}\n")
    settings = loader.load(config)
    logged = [e for _, e in log_search.appended(state / "log", topics.OBSERVATIONS, 0, FOREVER)]
    mixed: list[Entry] = []
    for entry in logged:  # the other site is a little ahead
        mixed.append(msgspec.structs.replace(entry, offset=len(mixed)))
        time = event_start(codec.decode(entry.value)) + SECOND // 3
        value = codec.encode(detections(time / SECOND, box(), site="home", source="door"))
        mixed.append(Entry(0, len(mixed), "home", value))
    kept = [one if one.key == "office" else stand_in(one) for one in mixed]
    whole = rejudge(settings, FAKES, mixed, 0, FOREVER)
    part = rejudge(settings, FAKES, [one for one in kept if one is not None], 0, FOREVER)
    ours = [alert for alert in whole.alerts if alert.site == "office"]
    assert len(ours) > 2
    assert [alert for alert in part.alerts if alert.site == "office"] == ours
