"""YAMNet hears what its makers say that it hears, from the sample to the score."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from models.hearing.sound import Floats, Yamnet, log_mel


@pytest.fixture(scope="module")
def recording(weights: Path) -> Floats:
    """The 0.975 s that come with the weights: s16le, 15,600 samples."""
    pcm = np.fromfile(weights / "yamnet/yamnet_test_audio.bin", "<i2")
    return pcm.astype(np.float32) / 32768


def test_the_front_end_gives_the_golden_spectrum(weights: Path, recording: Floats) -> None:
    """The makers' spectrum is of the recording at full scale and with an offset of 0.01."""
    golden = np.fromfile(weights / "yamnet/yamnet_test_spectra.bin", "<f4").reshape(96, 64)
    mine = log_mel(recording / np.abs(recording).max(), offset=0.01)
    np.testing.assert_allclose(mine, golden, atol=1e-5)


def test_the_golden_recording_is_speech(weights: Path, recording: Floats) -> None:
    with (weights / "yamnet/yamnet_class_map.csv").open() as rows:
        names = [row["display_name"] for row in csv.DictReader(rows)]
    (scores,) = Yamnet(weights / "yamnet")([recording])
    assert names[int(scores.argmax())] == "Speech"
    assert scores.max() == pytest.approx(0.969, abs=0.03)
