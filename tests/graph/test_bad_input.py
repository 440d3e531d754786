"""Bad input through the whole graph: a clear error or a counted drop, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.ports import Entry
from pipeline.types import DeadLetter, FrameChunk
from tests import reels
from tests.graph.conftest import FAKES, Runner
from workers.config import loader
from workers.replay.scene_replay import Replayed, replay

Scene = Callable[..., Path]


class Spoiling(MemoryBus):
    """A bus on which some frames are damaged on their way: what a broken disk or camera does."""

    def __init__(self, spoil: Callable[[FrameChunk], FrameChunk]) -> None:
        super().__init__()
        self._spoil = spoil

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        record = codec.decode(value)
        if isinstance(record, FrameChunk):
            value = codec.encode(self._spoil(record))
        super().publish(topic, key, value, trace)


def truncated(frame: FrameChunk) -> FrameChunk:
    """Every fourth frame is cut in the middle: one of those that a change makes worth a look."""
    if frame.seq % 4 == 2:
        return msgspec.structs.replace(frame, data=frame.data[: len(frame.data) // 2])
    return frame


def last(played: Replayed) -> list[tuple[tuple[str, ...], int, int | None]]:
    revisions = {alert.id: alert for alert in played.alerts}
    return [(alert.labels, alert.start, alert.end) for alert in revisions.values()]


def test_a_truncated_jpeg_is_counted_and_told_and_the_person_is_still_seen(
    config: Path, scene: Scene
) -> None:
    path, settings = scene(person=(3, 6)), loader.load(config)
    bus = Spoiling(truncated)
    played = replay(settings, path, FAKES, bus=bus)
    assert [labels for labels, _, _ in last(played)] == [("intrusion",)]
    assert played.alerts[-1].state == "closed"
    counted = played.status.counted
    broken = counted("office", "desk", "dropped.undecodable")
    assert broken >= 3
    looked, still = (counted("office", "desk", what) for what in ("processed", "gated.still"))
    assert looked + broken + still == 100
    dead = [codec.decode(entry.value) for entry in bus.reader(topics.DEAD, "test").poll(1000)
            if isinstance(entry, Entry)]  # fmt: skip
    assert len(dead) == broken
    assert isinstance(dead[0], DeadLetter)
    assert "frame 2 cannot be decoded: no JPEG, or its header is broken" in dead[0].reason


def test_frames_that_are_all_broken_are_no_end_of_sound(config: Path, scene: Scene) -> None:
    bus = Spoiling(lambda frame: msgspec.structs.replace(frame, data=b"\xff\xd8\xff"))
    path = scene(person=(3, 6), loud=(8, 9))
    played = replay(loader.load(config), path, FAKES, bus=bus)
    assert [labels for labels, _, _ in last(played)] == [("gunshot",)]
    assert played.status.counted("office", "desk", "processed") == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_sound_that_is_no_number_costs_only_itself(
    config: Path, scene: Scene, tmp_path: Path, wrong: float
) -> None:
    path = scene(loud=(8, 9))
    settings = loader.load(config)
    whole = replay(settings, path, FAKES)
    at = np.arange(20 * 16_000)
    wave = np.where((at >= 8 * 16_000) & (at < 9 * 16_000), np.sin(at * 0.1728) * 0.95, 0)
    wave[2 * 16_000 : 3 * 16_000] = wrong
    wave[8 * 16_000 : 8 * 16_000 + 8] = wrong
    reels.sound(tmp_path / "room.wav", wave)
    played = replay(settings, path, FAKES)
    assert last(played) == last(whole)
    assert [labels for labels, _, _ in last(played)] == [("gunshot",)]
    assert played.status.counted("office", "room", "repaired.not-finite") == 16_008


def test_a_microphone_of_nothing_but_nan_is_silent_and_the_camera_goes_on(
    runner: Runner, config: Path, scene: Scene, tmp_path: Path
) -> None:
    path = scene(person=(3, 6))
    reels.sound(tmp_path / "room.wav", np.full(20 * 16_000, np.nan))
    events = runner(config, path)
    assert events[-1]["data"]["labels"] == ["intrusion"]
    assert events[-1]["data"]["state"] == "closed"


@pytest.mark.parametrize("first", [-7.0, 4.0])
def test_a_video_below_zero_or_that_rewinds_gives_the_alert_of_its_pictures(
    runner: Runner, config: Path, scene: Scene, tmp_path: Path, first: float
) -> None:
    path = scene()
    shots = [(first + k / 25, 12 if 75 <= k < 150 else 1) for k in range(250)]
    film = reels.film(tmp_path / "a.ts", shots, size=(128, 96), codec="mpeg2video", rate=25)
    again = reels.film(tmp_path / "b.ts", shots[:50], size=(128, 96), codec="mpeg2video", rate=25)
    (tmp_path / "desk.ts").write_bytes(film.read_bytes() + again.read_bytes())
    path.write_text(path.read_text().replace("desk.mkv", "desk.ts"))
    events = runner(config, path)
    assert [event["data"]["labels"] for event in events[-1:]] == [["intrusion"]]
    assert events[0]["time"] == "2026-01-05T22:00:03.600000000Z"


def test_a_video_that_changes_size_midway_is_one_camera(
    runner: Runner, config: Path, scene: Scene, tmp_path: Path
) -> None:
    path = scene()
    small = [(k / 25, 1) for k in range(125)]
    large = [(5 + k / 25, 12) for k in range(125)]
    reels.film(tmp_path / "a.ts", small, codec="mpeg2video", rate=25)
    reels.film(tmp_path / "b.ts", large, size=(160, 96), codec="mpeg2video", rate=25)
    data = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "desk.ts").write_bytes(data)
    path.write_text(path.read_text().replace("desk.mkv", "desk.ts"))
    events = runner(config, path)
    assert events[0]["data"]["labels"] == ["intrusion"]
    assert events[0]["time"] == "2026-01-05T22:00:05.600000000Z"
