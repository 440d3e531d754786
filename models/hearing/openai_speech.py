"""Transcribes speech with openai-whisper (torch), the reference implementation: an optional extra.

It always uses the full 30 s window: torch's encoder refuses shorter ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import whisper

from models.hearing.transcript import (
    Decoding,
    Transcript,
    accept_transcript,
    cleaned_waveform,
    most_tokens,
)
from models.hearing.waveform import Samples
from pipeline.config.schema import Model
from pipeline.errors import WeightsError


def load(path: Path, settings: Model) -> OpenAIWhisper:
    """The model that a config names; it runs on one provider."""
    (device,) = settings.providers
    return OpenAIWhisper(path, threads=settings.threads, device=device)


class OpenAIWhisper:
    """Transcribes speech: maps a batch of waveforms to one Transcript each.

    A waveform is float32, 16 kHz mono, -1 to 1, at most 30 s; ValueError for a longer one. Decoding
    is greedy, at temperature 0. `path` is a `.pt` file with weights only; nothing is downloaded.
    Raises WeightsError if it is missing or something else. `threads` sets torch's thread count,
    which applies to the whole process; 0 leaves torch's default. A multilingual model detects the
    language of each utterance.
    """

    def __init__(self, path: str | Path, threads: int = 0, device: str = "cpu") -> None:
        path = Path(path)
        if not path.is_file():
            msg = f"{path}: no such file; openai-whisper needs the `.pt` of a model"
            raise WeightsError(msg)
        if threads:
            torch.set_num_threads(threads)
        try:
            # Older versions of `whisper.load_model` unpickle anything: read the file as data only.
            saved = torch.load(path, map_location=device, weights_only=True)
            sizes = whisper.model.ModelDimensions(**saved["dims"])
            self._whisper = whisper.model.Whisper(sizes)
            self._whisper.load_state_dict(saved["model_state_dict"])
        except Exception as error:  # torch has no error class for a file that is not a model
            msg = f"{path}: not a model of openai-whisper: {type(error).__name__}: {error}"
            raise WeightsError(msg) from error
        self._whisper = self._whisper.to(device).eval()

    def __call__(self, batch: Sequence[Samples]) -> list[Transcript]:
        return [self._one(waveform) for waveform in batch]

    def _one(self, waveform: Samples) -> Transcript:
        hearing = self._hear(cleaned_waveform(waveform))
        return accept_transcript(
            hearing, lambda: hearing
        )  # there is no larger window for a second decoding

    def _hear(self, waveform: Samples) -> Decoding:
        most = most_tokens(waveform)
        padded = whisper.pad_or_trim(waveform)
        mel = whisper.log_mel_spectrogram(
            padded, self._whisper.dims.n_mels, device=self._whisper.device
        )
        options = whisper.DecodingOptions(
            language=None if self._whisper.is_multilingual else "en",
            temperature=0.0,
            without_timestamps=True,
            sample_len=most,
            fp16=self._whisper.device.type == "cuda",
        )
        result = whisper.decode(self._whisper, mel, options)
        return Decoding(
            text=result.text,
            language=result.language,
            mean_logprob=result.avg_logprob,
            no_speech=result.no_speech_prob,
            unfinished=len(result.tokens) >= most,
        )
