"""The voice model on real speech and real noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faster_whisper import decode_audio

from models.hearing.voice_activity import VoiceActivity
from models.hearing.waveform import FRAME_SAMPLES, RATE, Samples


@pytest.fixture(scope="module")
def voice() -> VoiceActivity:
    return VoiceActivity()


def test_speech_is_speech(voice: VoiceActivity, media: Path) -> None:
    (found,) = voice([decode_audio(str(media / "speech/LJ001-0001.flac"))[: 3 * RATE]])
    assert np.median(found) > 0.9


@pytest.mark.parametrize("name", ["rain.wav", "typing.wav", "sounds_rifle_fire_01.ogg"])
def test_noise_is_none(voice: VoiceActivity, media: Path, name: str) -> None:
    (found,) = voice([decode_audio(str(media / "audio/cc0_events" / name))[: 3 * RATE]])
    assert np.max(found) < 0.3


def test_frames_are_counted_from_the_end(voice: VoiceActivity, media: Path) -> None:
    samples = decode_audio(str(media / "speech/LJ001-0001.flac"))
    (one,) = voice([samples[: 3 * RATE]])
    assert len(one) == -(-3 * RATE // FRAME_SAMPLES)
    before = -len(samples[: 3 * RATE]) % FRAME_SAMPLES
    padded = np.concatenate([np.zeros(before, np.float32), samples[: 3 * RATE]])
    assert np.array_equal(one, voice([padded])[0])


def test_a_call_remembers_nothing_and_a_batch_mixes_nothing(
    voice: VoiceActivity, media: Path
) -> None:
    speech = decode_audio(str(media / "speech/LJ001-0001.flac"))[: 2 * RATE]
    silence = np.zeros(2 * RATE, np.float32)
    alone = voice([silence])[0]
    assert np.array_equal(voice([speech, silence])[1], alone)
    assert np.array_equal(voice([silence])[0], alone)


def test_the_waveform_is_left_as_it_was(voice: VoiceActivity) -> None:
    samples: Samples = np.full(FRAME_SAMPLES * 4, 0.5, np.float32)
    voice([samples])
    assert np.all(samples == 0.5)


def test_odd_waveforms(voice: VoiceActivity) -> None:
    nothing = np.zeros(0, np.float32)
    broken = np.full(RATE, np.nan, np.float32)
    found = voice([nothing, np.ones(1, np.float32), broken, np.full(RATE, np.inf, np.float32)])
    assert [len(one) for one in found] == [0, 1, 32, 32]
    assert all(np.isfinite(one).all() for one in found)
    with pytest.raises(ValueError, match="one dimension"):
        voice([np.zeros((2, RATE), np.float32)])
