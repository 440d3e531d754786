"""A file with two sound tracks: it is said which one is taken, and the config chooses another."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config.schema import Config, Microphone, Site
from pipeline.errors import SourceLost
from pipeline.topics import AUDIO
from pipeline.types import AudioChunk, ns
from tests import reels
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import parse
from workers.replay.scene_file import load_scene
from workers.replay.scene_records import scene_records
from workers.setup.doctor import doctor

RATE = 16_000
SAYS = "2 sound tracks, and the first is taken; `track` chooses another"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A file of two seconds: its first track is silent, its second is loud."""
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as file:
        tracks = [file.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for track, level in zip(tracks, (0, 8192), strict=True):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 2 * RATE), level, np.int16), layout="mono"
            )
            frame.rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
    return path


def played(path: Path, track: int | None) -> set[int]:
    now = [ns(1_767_650_400)]

    def wait(seconds: float) -> None:
        now[0] += ns(seconds)

    source = RecordedSource(
        parse(str(path), "microphone"), "office", microphone="room", track=track,
        clock=lambda: now[0], count=lambda *_: None, wait=wait,
    )  # fmt: skip
    return set(reels.samples(chunk for chunk in source if isinstance(chunk, AudioChunk)))


def replayed(path: Path, track: int | None) -> set[int]:
    scene = path.with_suffix(".yaml")
    chosen = f", track: {track}" if track else ""
    scene.write_text(
        "site: office\nstart: 2026-01-05T22:00:00Z\n"
        f"microphones: {{room: [{{file: {path.name}{chosen}}}]}}\n"
    )
    site = Site(microphones={"room": Microphone(source="x")})
    records = scene_records(load_scene(scene), site)
    return set(reels.samples(
        record for topic, record in records if topic == AUDIO and isinstance(record, AudioChunk)
    ))  # fmt: skip


@pytest.mark.parametrize("way", [played, replayed])
@pytest.mark.parametrize(("track", "level", "said"), [(None, 0, 1), (1, 0, 0), (2, 8192, 0)])
def test_it_is_said_once_that_there_are_two_unless_one_is_chosen(
    two: Path, caplog: pytest.LogCaptureFixture, way, track: int | None, level: int, said: int
) -> None:
    assert way(two, track) == {level}
    assert [SAYS in line for line in caplog.messages] == [True] * said


def test_doctor_tries_the_chosen_track(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    rooms = {
        "any": Microphone(source=f"file:{two}"),
        "second": Microphone(source=f"file:{two}", track=2),
        "third": Microphone(source=f"file:{two}", track=3),
    }
    config = Config(
        version=1, state=str(two.parent / "state"), sites={"office": Site(microphones=rooms)}
    )
    found = {each.name: each for each in doctor(config, {}, two.parent, two.parent)}
    assert found["microphone office/second"].ok
    assert "has 2 sound tracks, and track 3 is wanted" in found["microphone office/third"].detail
    assert sum(SAYS in line and "office/any" in line for line in caplog.messages) == 1


def test_a_track_that_is_not_there_is_told(two: Path) -> None:
    with pytest.raises(SourceLost, match="has 2 sound tracks, and track 3 is wanted"):
        played(two, 3)
