"""The number of threads decides no byte of what the shipped models say; so a replay chooses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.hearing.sound import Yamnet
from models.hearing.speech import FasterWhisper
from models.hearing.waveform import RATE, Samples
from models.language.text import TextEncoder
from models.vision.detector import Detector
from pipeline.config.schema import Model, Models
from workers.media import recordings
from workers.media.jpeg import Pixels
from workers.stages.encoders import _fixed


@pytest.fixture(scope="module")
def pictures(media: Path) -> list[Pixels]:
    """Real pictures of two shapes, an odd number of them."""

    def of(name: str) -> Iterator[Pixels]:
        with closing(
            recordings.Video(media / "video" / name, 960, loop=False, count=lambda _: None)
        ) as video:
            for second in (2, 9, 15):
                shown = video.at(Fraction(second))
                assert not isinstance(shown, str)
                yield shown.pixels()

    return [*of("office_a.mp4"), *of("Retail02_short.mp4"), *of("vtest_first25s.mp4")]


@pytest.fixture(scope="module")
def spoken(media: Path) -> Samples:
    (first, *_) = sorted((media / "speech").glob("LJ*.flac"))
    return np.concatenate(list(recordings.sound(first, lambda *_: None)))[: 4 * RATE]


@pytest.mark.parametrize("file", ["yolox_nano/yolox_nano.onnx"])
def test_a_detector_finds_the_same_boxes(weights: Path, file: str, pictures: list[Pixels]) -> None:
    found = [Detector(weights / file, threads=threads)(pictures) for threads in (0, 1, 2)]
    assert any(found[0])
    assert found[0] == found[1] == found[2]


def test_yamnet_gives_the_same_scores(weights: Path, spoken: Samples) -> None:
    one, two = (
        Yamnet(weights / "yamnet", threads=threads).patches(spoken).tobytes() for threads in (1, 2)
    )
    assert one == two


def test_whisper_hears_the_same_words_as_surely(weights: Path, spoken: Samples) -> None:
    one, two = (
        FasterWhisper(weights / "faster-whisper-tiny.en", threads=threads)([spoken])
        for threads in (1, 2)
    )
    assert one == two
    assert one[0].text


def test_a_text_has_the_same_embedding(weights: Path) -> None:
    texts = ["somebody help me", "there is an intruder in the building"]
    one, two = (
        TextEncoder(weights / "all-MiniLM-L6-v2-int8", threads=threads)(texts) for threads in (1, 2)
    )
    assert [each.tobytes() for each in one] == [each.tobytes() for each in two]


def test_a_replay_fixes_the_threads_that_the_config_leaves_open() -> None:
    found = _fixed(Models(sound=Model(kind="yamnet", weights="yamnet", threads=3)))
    assert (found.detector.threads, found.sound.threads, found.speech.threads) == (0, 3, 1)
    on_gpu = Model(kind="yolox", weights="yolox_nano", providers=("cuda", "cpu"))
    assert _fixed(Models(detector=on_gpu)).detector.threads == 2
    foreign = Model(kind="ultralytics", weights="own.pt")
    assert _fixed(Models(detector=foreign)).detector.threads == 2
