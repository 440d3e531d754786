"""Scenes for evaluation: their truth is read with file and line, and spoilt on purpose alike."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.types import AudioChunk, FrameChunk, Record, ns
from tests import make
from workers.replay.scene_records import load_scene
from workers.training import corruptions
from workers.training.ground_truth import truth

SCENE = "site: office\nstart: 1970-01-01T00:01:40Z\nduration: 20\n"


def told(folder: Path, more: str) -> list[tuple[int, int, str]]:
    path = folder / "scene.yaml"
    path.write_text(SCENE + more)
    return truth(load_scene(path))


def test_a_truth_is_in_seconds_of_the_scene(tmp_path: Path) -> None:
    given = "truth: [{start: 2.5, end: 4, label: siren}]\n"
    assert told(tmp_path, given) == [(ns(102.5), ns(104), "siren")]


def test_a_quiet_scene_says_so(tmp_path: Path) -> None:
    assert told(tmp_path, "truth: []\n") == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("", r"write `truth: \[\]`"),
        ("truth:\n  - {start: 3, end: 3, label: siren}\n", r":5: truth\[0\]: must have 0 <= st"),
        ("truth:\n  - {start: -1, end: 3, label: siren}\n", r":5: truth\[0\]: must have 0 <= st"),
        ("truth:\n  - {start: 1, end: 21, label: siren}\n", r":5: truth\[0\]: .* end <= 20, "),
        ("truth:\n  - {start: 1, end: .inf, label: siren}\n", r":5: truth\[0\]\.end"),
        ("truth:\n  - {start: 1, end: 2, label: sirene}\n", r":5: .*did you mean 'siren'"),
        ("truth:\n  - {start: 1, end: 2}\n", r":5: truth\[0\]"),
    ],
)
def test_a_truth_that_is_none_is_refused(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        told(tmp_path, more)


def picture() -> FrameChunk:
    pixels = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return make.frame(1, cv2.imencode(".jpg", pixels)[1].tobytes(), width=64, height=48)


def pixels(chunk: Record) -> np.ndarray:
    assert isinstance(chunk, FrameChunk)
    return cv2.imdecode(np.frombuffer(chunk.data, np.uint8), cv2.IMREAD_COLOR)


def samples(chunk: Record) -> np.ndarray:
    assert isinstance(chunk, AudioChunk)
    return np.frombuffer(chunk.data, "<i2").astype(float)


@pytest.mark.parametrize("kind", corruptions.CORRUPTIONS)
def test_it_is_spoilt_the_same_each_time(kind: str) -> None:
    for record in (picture(), make.audio(1)):
        assert corruptions.corruption(kind, 3)(record) == corruptions.corruption(kind, 3)(record)


def test_what_it_does_not_touch_stays_as_it_is() -> None:
    frame, audio = picture(), make.audio(1)
    assert all(
        corruptions.corruption(kind)(audio) is audio for kind in ("dark", "blur", "shifted", "")
    )
    assert all(corruptions.corruption(kind)(frame) is frame for kind in ("noise", "shifted", ""))
    report = make.report(1)
    assert all(corruptions.corruption(kind)(report) is report for kind in corruptions.CORRUPTIONS)


def test_a_dark_picture_keeps_a_little_of_its_light() -> None:
    before, after = pixels(picture()), pixels(corruptions.corruption("dark")(picture()))
    assert after.mean() == pytest.approx(before.mean() * corruptions.DARK, rel=0.2)


def test_a_blurred_picture_keeps_its_light_and_loses_its_edges() -> None:
    before, after = pixels(picture()), pixels(corruptions.corruption("blur")(picture()))
    assert after.mean() == pytest.approx(before.mean(), abs=3)
    assert cv2.Laplacian(after, cv2.CV_64F).var() < cv2.Laplacian(before, cv2.CV_64F).var() / 50


def test_noise_is_as_loud_as_it_says_and_another_for_another_take() -> None:
    one, other = (samples(corruptions.corruption("noise", take)(make.audio(1))) for take in (0, 1))
    loud = 20 * np.log10(np.sqrt((one**2).mean()) / 32768)
    assert loud == pytest.approx(corruptions.NOISE_DB, abs=0.5)
    assert not np.array_equal(one, other)


def test_what_is_dropped_leaves_silence_of_the_same_length_as_often_as_it_says() -> None:
    loud = np.full(8000, 1000, "<i2").tobytes()
    chunks = [make.audio(at / 2, loud) for at in range(500)]
    after = [corruptions.corruption("dropped")(chunk) for chunk in chunks]
    silent = [not samples(chunk).any() for chunk in after]
    assert np.mean(silent) == pytest.approx(corruptions.DROPPED, abs=0.07)
    assert {len(samples(chunk)) for chunk in after} == {8000}


def test_a_way_that_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'wet'; there are dark, blur"):
        corruptions.corruption("wet")
