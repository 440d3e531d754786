"""One contract for both speech adapters: real speech becomes its words, everything else nothing.

faster-whisper runs everywhere; openai-whisper where it is installed, with the same weights.
"""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from ctranslate2 import get_cuda_device_count
from faster_whisper import decode_audio
from msgspec import structs

from models.hearing.speech import FasterWhisper
from models.hearing.transcript import Decoding, Transcript, accept_transcript, alike
from models.hearing.waveform import RATE, Samples
from pipeline.config.schema import Model
from pipeline.errors import WeightsError
from pipeline.words import words
from tests.word_errors import word_errors
from workers.stages.encoders import adapted

# openai-whisper 20250625 leaves its vocabulary file to the garbage collector to close.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*tiktoken:pytest.PytestUnraisableExceptionWarning"
)

NAME = "faster-whisper-tiny.en"
JFK = (
    "And so my fellow Americans ask not what your country can do for you "
    "ask what you can do for your country"
)
QUIET = [
    "cc0_events/rain.wav",
    "cc0_events/typing.wav",
    "cc0_events/sounds_dog_bark.ogg",
    "cc0_events/sounds_church_bells_01.ogg",
    "cc0_events/sounds_rifle_fire_01.ogg",
    "sesa_train/gunshot_011.flac",
    "sesa_train/siren_012.flac",
]


class Speech(Protocol):
    def __call__(self, batch: Sequence[Samples]) -> Sequence[Transcript]: ...


@pytest.fixture(scope="module", params=["faster-whisper", "openai-whisper"])
def speech(
    request: pytest.FixtureRequest, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Speech:
    if request.param == "faster-whisper":
        return FasterWhisper(weights / NAME, threads=2)
    if importlib.util.find_spec("whisper") is None:
        pytest.skip("openai-whisper is not installed: pip install '.[whisper]'")
    from models.hearing.openai_speech import OpenAIWhisper

    target = tmp_path_factory.mktemp("weights") / "tiny.en.pt"
    tool = weights.parent / "tools/whisper_ct2_to_openai.py"
    subprocess.run([sys.executable, tool, weights / NAME / "model.bin", target], check=True)
    return OpenAIWhisper(target, threads=2)


def said(media: Path) -> list[tuple[str, Samples, str]]:
    """Name, samples and words of the spoken clips."""
    folder = media / "speech"
    found = [("jfk", decode_audio(str(folder / "jfk.flac")), JFK)]
    with (folder / "lj_metadata.csv").open(newline="") as file:
        for name, text, _ in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE):
            found.append((name, decode_audio(str(folder / f"{name}.flac")), text))
    return found


def test_speech_becomes_its_words(speech: Speech, media: Path) -> None:
    wrong = number = 0
    for name, samples, text in said(media):
        (found,) = speech([samples])
        errors = word_errors(found.text, text)
        print(f"{type(speech).__name__} {name}: {errors} wrong, {found}")
        assert found.language == "en"
        assert 0.5 < found.confidence <= 1
        assert found.confidence == round(found.confidence, 3)
        wrong, number = wrong + errors, number + len(words(text))
    print(f"{type(speech).__name__}: WER {wrong / number:.3f} on {number} words")
    assert wrong / number < 0.08


def test_three_seconds_of_speech_become_their_words(speech: Speech, media: Path) -> None:
    wrong = number = 0
    for name, samples, text in said(media):
        (found,) = speech([samples[: 3 * RATE]])
        errors = word_errors(found.text, text, part=True)
        print(f"{type(speech).__name__} {name}, 3 s: {errors} wrong, {found}")
        wrong, number = wrong + errors, number + len(words(found.text))
    assert number >= 30
    assert wrong / number < 0.25  # the last word is cut in two


def test_silence_says_nothing(speech: Speech) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 3 * RATE).astype(np.float32)
    for samples in (np.zeros(3 * RATE, np.float32), np.zeros(0, np.float32), noise):
        assert speech([samples])[0].text == ""


@pytest.mark.parametrize("name", QUIET)
def test_noise_says_nothing_even_without_voice_activity(
    speech: Speech, media: Path, name: str
) -> None:
    samples = decode_audio(str(media / "audio" / name))[: 4 * RATE]
    assert speech([samples])[0] == Transcript("", "en", 0.0)


def test_the_same_samples_give_the_same_words(speech: Speech, media: Path) -> None:
    samples = decode_audio(str(media / "speech/jfk.flac"))[: 4 * RATE]
    assert len({*speech([samples, samples]), *speech([samples])}) == 1


def test_broken_samples_are_heard_as_silence(speech: Speech) -> None:
    assert speech([np.full(RATE, np.nan, np.float32)])[0].text == ""


def test_more_than_a_window_is_refused(speech: Speech) -> None:
    with pytest.raises(ValueError, match="30 s at most"):
        speech([np.zeros(31 * RATE, np.float32)])


def test_missing_and_broken_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.bin.*not found"):
        FasterWhisper(tmp_path)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(WeightsError, match="not a CTranslate2 Whisper model"):
        FasterWhisper(tmp_path)


def hearing(text: str, sure: float = 0.8, silent: float = 0.05, *, cut: bool = False) -> Decoding:
    return Decoding(
        text=text,
        language="en",
        mean_logprob=float(np.log(sure)),
        no_speech=silent,
        unfinished=cut,
    )


def never() -> Decoding:
    pytest.fail("heard again without need")


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (hearing(" Help me. "), "Help me."),
        (hearing("help help help help"), "help help help help"),
        (hearing("you", sure=0.3), ""),
        (hearing("Thank you.", sure=0.7, silent=0.8), ""),
        (hearing("S-S-S-S-S", silent=0.5), ""),
        (hearing("Oooooh", silent=0.5), ""),
        (hearing("... !"), ""),
        (hearing("by a similar process, by a similar process, by"), "by a similar process"),
    ],
)
def test_what_one_hearing_is_enough_for(first: Decoding, text: str) -> None:
    assert accept_transcript(first, never).text == text


def test_doubtful_words_are_heard_again_and_must_agree() -> None:
    doubtful = hearing("ask not what", sure=0.47)
    assert accept_transcript(doubtful, lambda: hearing("Ask not that!")).text == "Ask not that!"
    assert accept_transcript(doubtful, lambda: hearing("Thank you.")).text == ""


def test_a_loop_is_heard_again_and_must_end() -> None:
    loop = hearing("and so I am " * 30, silent=0.3)
    assert accept_transcript(loop, lambda: hearing("And so am I")).text == "And so am I"
    assert accept_transcript(loop, lambda: loop).text == ""
    assert (
        accept_transcript(hearing("and so", cut=True), lambda: hearing("and", sure=0.46)).text == ""
    )


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert words("Don\u2019t -- MOVE, 15th!") == ["don't", "move", "15th"]
    assert alike("Ask not!", "ask, not what") == pytest.approx(2 / 3)
    assert alike("", "") == 0
    assert word_errors("ask what", "ask not what") == 1
    assert word_errors("not what", "ask not what", part=True) == 0


def test_the_graph_hands_device_and_threads_on(weights: Path) -> None:
    model = Model(kind="faster-whisper", weights=str(weights / NAME), threads=1)
    (heard,) = adapted("speech", model)([np.zeros(RATE, np.float32)])
    assert heard.text == ""
    if get_cuda_device_count():
        pytest.skip("this machine has a GPU: what is refused here works there")
    with pytest.raises(WeightsError, match="that cuda can run"):
        adapted("speech", structs.replace(model, providers=("cuda",)))
