"""`weights recommend` on this machine, with the shipped models: it measures and writes nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests import reels
from workers.cli import main

CONFIG = """\
version: 1
sites:
  shop:
    cameras:
      door: {source: "file:film.mkv", detect: {poses: 2}}
      gone: {source: "file:gone.mkv"}
    microphones: {room: {source: "file:room.wav"}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config beside a film; no model is here but those that ship."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FUSEWATCH_WEIGHTS", raising=False)
    path = tmp_path / "site" / "shop.yaml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def test_it_measures_what_is_here_and_names_what_is_not(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(config.parent.parent.rglob("*"))
    assert main(["weights", "recommend", str(config), "--seconds", "0.1", "--json"]) == 0
    said = capsys.readouterr()
    made = json.loads(said.out)
    assert (made["cameras"], made["microphones"]) == (2, 1)
    (speed,) = made["speed"]["detectors"]
    assert (speed["name"], speed["size"]) == ("yolox_nano", [416, 416])
    assert 0 < speed["look"] < 1
    assert speed["rate"] > 1
    missing = {one["name"]: one["why"] for one in made["speed"]["missing"]}
    assert (
        missing["yolox_s"] == "is not here: `fusewatch weights pull yolox_s` (35.9 MB, Apache-2.0)"
    )
    assert {"nanodet_plus_m_416", "rfdetr_nano", "movenet_lightning_int8"} <= set(missing)
    assert made["speed"]["sound"] > 0
    assert made["speed"]["pose"] is None
    assert made["best"]["detector"] == "yolox_nano"
    assert sorted(config.parent.parent.rglob("*")) == before


def test_cameras_are_read_when_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reels.film(config.parent / "film.mkv", [(k / 5, k % 16) for k in range(300)])
    command = ["weights", "recommend", str(config), "--seconds", "0.05", "--connect", "--json"]
    began = time.monotonic()
    assert main(command) == 0
    assert time.monotonic() - began < 60
    made = json.loads(capsys.readouterr().out)
    assert list(made["read"]) == ["shop/door"]
    assert 0 < made["read"]["shop/door"] < 2
    assert list(made["unread"]) == ["shop/gone"]


def test_a_length_that_is_no_length_is_wrong_use(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "recommend", str(config), "--seconds", "0"]) == 2
    assert "--seconds must be more than 0" in capsys.readouterr().err
