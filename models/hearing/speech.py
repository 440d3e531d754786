"""Transcribes speech with faster-whisper (CTranslate2), in a window that fits the utterance.

Whisper (Radford et al. 2022, arXiv:2212.04356) was trained on windows of 30 s. Every package pads
to 30 s, so one word costs as much as half a minute. But the encoder accepts shorter windows, since
its positions are sinusoids. An utterance is decoded in a window of its own length plus `SILENCE` of
silence: without the silence the decoder does not find the end and repeats itself. A doubtful result
is decoded again in the full window (`models/hearing/transcript.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from models.hearing.transcript import (
    FULL_WINDOW,
    Decoding,
    Transcript,
    accept_transcript,
    cleaned_waveform,
    most_tokens,
)
from models.hearing.waveform import RATE, Samples
from pipeline.config.schema import Model
from pipeline.errors import WeightsError

SILENCE = 8  # s of silence after the utterance; docs/explanations/speech.md compares other values
MODEL_FILES = ("model.bin", "config.json", "tokenizer.json")


def load(path: Path, settings: Model) -> FasterWhisper:
    """The model that a config names; it runs on one provider."""
    (device,) = settings.providers
    kind = "float16" if device == "cuda" else "int8"
    return FasterWhisper(path, threads=settings.threads, device=device, compute_type=kind)


class FasterWhisper:
    """Transcribes speech: maps a batch of waveforms to one Transcript each.

    A waveform is float32, 16 kHz mono, -1 to 1, at most 30 s; ValueError for a longer one. Decoding
    is greedy and never samples: the same waveform gives the same words. `path` is a folder with a
    CTranslate2 model; nothing is downloaded. Raises WeightsError if it is missing or unreadable.
    `threads` 0 means one per core, at most 4. A multilingual model detects the language of each
    utterance.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int = 0,
        device: str = "cpu",
        compute_type: str = "int8",
        room: float = SILENCE,
    ) -> None:
        path = Path(path)
        missing = [name for name in MODEL_FILES if not (path / name).is_file()]
        if missing:
            msg = f"{path}: {', '.join(missing)} not found; try `fusewatch weights pull`"
            raise WeightsError(msg)
        self._room = room
        try:
            self._whisper = WhisperModel(
                str(path),
                device=device,
                compute_type=compute_type,
                cpu_threads=threads or min(os.cpu_count() or 1, 4),
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            msg = f"{path}: not a CTranslate2 Whisper model that {device} can run: {error}"
            raise WeightsError(msg) from error

    def __call__(self, batch: Sequence[Samples]) -> list[Transcript]:
        return [self._one(waveform) for waveform in batch]

    def _one(self, waveform: Samples) -> Transcript:
        waveform = cleaned_waveform(waveform)
        seconds = len(waveform) / RATE
        first = self._hear(waveform, min(seconds + self._room, FULL_WINDOW))
        return accept_transcript(first, lambda: self._hear(waveform, FULL_WINDOW))

    def _hear(self, waveform: Samples, window: float) -> Decoding:
        """Decodes once, greedily, in a window of `window` seconds."""
        whisper = self._whisper
        padded = np.zeros(int(window * 50) * 320, np.float32)  # the encoder halves 10 ms frames
        padded[: len(waveform)] = waveform[: len(padded)]
        encoded = whisper.encode(whisper.feature_extractor(padded, padding=0))
        language = "en"
        if whisper.model.is_multilingual:
            language = whisper.model.detect_language(encoded)[0][0][0][2:-2]
        tokenizer = Tokenizer(
            whisper.hf_tokenizer,
            whisper.model.is_multilingual,
            task="transcribe",
            language=language,
        )
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        most = most_tokens(waveform)
        result = whisper.model.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=min(len(prompt) + most, whisper.max_length),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
        )[0]
        tokens = result.sequences_ids[0]
        return Decoding(
            text=tokenizer.decode(tokens),
            language=language,
            mean_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech=result.no_speech_prob,
            unfinished=len(tokens) >= min(most, whisper.max_length - len(prompt)),
        )
