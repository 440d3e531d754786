"""A media file is a scene: its picture is a camera's, its sound a microphone's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.types import SECOND, Alert
from tests import reels
from tests.graph.conftest import FAKES
from workers.config import loader
from workers.replay.inputs import Given, SceneInput, StoredInput, resolve
from workers.replay.scene_file import scene_time
from workers.replay.scene_replay import ReplayOptions, replay

TWO = """
version: 1
sites:
  office:
    cameras: {desk: {source: "device:0"}, door: {source: "device:1"}}
    microphones: {room: {source: "device:default"}}
  lobby:
    cameras: {desk: {source: "device:2"}}
"""


def resolved(config: Path, *paths: Path, **words: object) -> list[SceneInput]:
    given = Given(paths=paths, **words)  # type: ignore[arg-type]
    found = resolve(loader.load(config), config, given)
    assert all(isinstance(one, SceneInput) for one in found)
    return found  # type: ignore[return-value]


def alerts(config: Path, one: SceneInput) -> list[Alert]:
    return list(replay(loader.load(config), one.scene, FAKES).alerts)


@pytest.fixture
def clips(tmp_path: Path, scene: Callable[..., Path]) -> Path:
    """A folder with the video and the sound of a scene, and without its scene file."""
    scene(person=(3, 6), loud=(8, 9)).unlink()
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("desk.mkv", "room.wav"):
        (tmp_path / name).rename(folder / name)
    return folder


def test_a_video_and_a_sound_are_the_scene_that_a_file_would_name(
    config: Path, scene: Callable[..., Path], tmp_path: Path
) -> None:
    path = scene(person=(3, 6))
    (film,) = resolved(
        config, tmp_path / "desk.mkv", camera="desk", start="2026-01-05T23:00:00+01:00"
    )
    assert film.scene.start == scene_time("2026-01-05T22:00:00Z")
    assert film.scene.duration == 20 * SECOND
    path.write_text("\n".join(x for x in path.read_text().splitlines() if "room" not in x
                              and "microphones" not in x))  # fmt: skip
    told = alerts(config, film)
    assert told
    assert told == list(replay(loader.load(config), path, FAKES).alerts)


def test_a_sound_alone_is_heard_and_the_camera_is_lost(config: Path, clips: Path) -> None:
    (sound,) = resolved(config, clips / "room.wav", microphone="room")
    assert not sound.scene.cameras
    told = alerts(config, sound)
    assert told[-1].label == "gunshot"
    assert told[-1].presence["desk"] == "lost"


def test_what_is_the_only_one_is_taken_and_said(config: Path, clips: Path) -> None:
    film, sound = resolved(config, clips)
    assert list(film.scene.cameras) == ["desk"]
    assert list(sound.scene.microphones) == ["room"]
    assert any("goes to the camera desk of the site office" in line for line in film.said)
    assert any("begins at 2026-01-01T00:00:00Z" in line for line in film.said)
    assert any("goes to the microphone room" in line for line in sound.said)


def test_a_folder_gives_each_file_what_it_has(config: Path, clips: Path) -> None:
    (clips / "notes.txt").write_text("nothing\n")
    found = resolved(config, clips, camera="desk", microphone="room")
    assert [one.path.name for one in found] == ["desk.mkv", "room.wav"]
    assert [(list(f.scene.cameras), list(f.scene.microphones)) for f in found] == [
        (["desk"], []),
        ([], ["room"]),
    ]


def test_the_media_of_a_scene_in_a_folder_is_not_played_apart(
    config: Path, scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene()
    reels.sound(tmp_path / "other.wav", np.zeros(16_000, np.float32))
    names = [one.path.name for one in resolved(config, tmp_path, microphone="room")]
    assert names == ["other.wav", "scene.yaml"]  # and office.yaml is a config


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("desk.mkv", {"camera": "dsk"}, "--camera dsk: the config has no such camera; did you"),
        ("desk.mkv", {"camera": "hall"}, "there is desk"),
        ("desk.mkv", {"microphone": "room"}, "desk.mkv: holds no sound for --microphone room"),
        ("room.wav", {"camera": "desk"}, "room.wav: holds no picture for --camera desk"),
        ("desk.mkv", {"start": "2026-01-05T22:00:00"}, "must be a time with its zone"),
        ("desk.mkv", {"start": "9999-12-31T23:59:59Z"}, "from 1970 until 2100"),
        ("desk.mkv", {"start": "1900-01-01T00:00:00Z"}, "from 1970 until 2100"),
        ("desk.mkv", {"sites": ("ofice",)}, "the config has no such site; did you mean `office`"),
        ("desk.mkv", {"sources": ("hall",)}, "--source hall: the config has no such source"),
        ("nothing.mkv", {}, "nothing.mkv: there is no such file"),
        ("", {"camera": "desk"}, "--camera is for media files"),
        ("", {}, "name files, or --since TIME"),
        ("", {"until": "1m"}, "--until needs --since"),
    ],
)
def test_a_wrong_word_is_named(
    config: Path, clips: Path, name: str, words: dict[str, object], says: str
) -> None:
    paths = [clips / name] if name else []
    with pytest.raises(ConfigError) as caught:
        resolved(config, *paths, **words)
    assert says in str(caught.value)


def test_a_camera_of_two_sites_needs_the_site(tmp_path: Path, clips: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(TWO)
    with pytest.raises(ConfigError, match="name one of office, lobby by --site"):
        resolved(config, clips / "desk.mkv", camera="desk")
    with pytest.raises(ConfigError, match="name who takes it by --camera; there is desk, door"):
        resolved(config, clips / "desk.mkv")
    (one,) = resolved(config, clips / "desk.mkv", sites=("lobby",))
    assert (one.scene.site, list(one.scene.cameras)) == ("lobby", ["desk"])
    (one,) = resolved(config, clips / "desk.mkv", camera="door")
    assert one.scene.site == "office"


def test_an_empty_folder_is_named(config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: holds no scene file, media file or recording"):
        resolved(config, tmp_path / "empty")


def test_without_files_it_is_the_log(config: Path) -> None:
    (one,) = resolve(loader.load(config), config, Given(since="10m"))
    assert isinstance(one, StoredInput)
    assert (one.kind, one.name) == ("log", "office")


def test_a_source_that_is_left_out_is_not_expected(
    config: Path, scene: Callable[..., Path]
) -> None:
    (both,) = resolved(config, scene(person=(3, 6), loud=(8, 9)))
    settings = loader.load(config)
    (one,) = resolved(config, scene(person=(3, 6), loud=(8, 9)), sources=("room",))
    told = replay(settings, one.scene, FAKES, study=ReplayOptions(keep=one.selected.kept)).alerts
    assert {label for alert in told for label in alert.labels} == {"gunshot"}
    assert all(set(alert.presence) <= {"room", "room/speech", "reports"} for alert in told)
    whole = alerts(config, both)
    assert {label for alert in whole for label in alert.labels} > {"gunshot"}
