"""Measures seconds an utterance through the speech stage, bare faster-whisper and openai-whisper.

    python -m benchmarks.speech MEDIA WEIGHTS [--openai tiny.en.pt] [--threads 2] [--runs 5]

All three decode greedily, warm, in one process, with the same weights (faster-whisper-tiny.en; for
openai-whisper they are converted first). The stage does more than the bare models: it cuts PCM
chunks into seconds, detects voice, splits, and embeds the text. The clips are `jfk.flac` (11 s) and
cuts of 3 s.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from models.hearing.speech import FasterWhisper
from models.hearing.voice_activity import VoiceActivity
from models.hearing.waveform import RATE
from models.language.text import TextEncoder
from pipeline.types import SECOND, AudioChunk, Progress, Utterance
from pipeline.words import words
from tests.word_errors import word_errors
from workers.stages.speech import SpeechStage

CHUNK = RATE // 10  # samples
JFK = (
    "And so my fellow Americans ask not what your country can do for you "
    "ask what you can do for your country"
)

Transcribe = Callable[[np.ndarray], str]


def stage(weights: Path, threads: int) -> Transcribe:
    """A function that runs PCM chunks of 0.1 s through the stage and returns all words."""
    speech = SpeechStage(
        VoiceActivity(),
        FasterWhisper(weights / "faster-whisper-tiny.en", threads=threads),
        TextEncoder(weights / "all-MiniLM-L6-v2-int8", threads=threads),
    )

    def run(samples: np.ndarray) -> str:
        state, said = speech.open({}), []
        for record in (*chunks(samples), done(samples)):
            said += [made for made in state.on(record, None) if isinstance(made, Utterance)]
        return " ".join(utterance.text for utterance in said)

    return run


def chunks(samples: np.ndarray) -> Iterator[AudioChunk]:
    """Cuts the samples into a microphone's chunks of 0.1 s."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    for seq, at in enumerate(range(0, len(pcm), CHUNK)):
        part = pcm[at : at + CHUNK]
        start, end = at * SECOND // RATE, (at + len(part)) * SECOND // RATE
        yield AudioChunk(
            site="bench", source="room", start=start, end=end, seq=seq, rate=RATE, channels=1,
            data=part.tobytes(),
        )  # fmt: skip


def done(samples: np.ndarray) -> Progress:
    """The Progress after the end of the recording."""
    upto = (len(samples) // RATE + 5) * SECOND
    return Progress(site="bench", source="room", upto=upto)


def bare_faster_whisper(weights: Path, threads: int) -> Transcribe:
    """`WhisperModel.transcribe` as in its README, but greedy and without sampling."""
    from faster_whisper import WhisperModel

    model = WhisperModel(
        str(weights / "faster-whisper-tiny.en"),
        device="cpu",
        compute_type="int8",
        cpu_threads=threads,
        local_files_only=True,
    )

    def run(samples: np.ndarray) -> str:
        found, _ = model.transcribe(samples, beam_size=1, temperature=0.0, language="en")
        return " ".join(segment.text.strip() for segment in found)

    return run


def bare_openai_whisper(weights: Path, threads: int) -> Transcribe:
    """`transcribe` of openai-whisper, greedy; raises ImportError if it is not installed."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    model = whisper.load_model(str(weights), device="cpu")

    def run(samples: np.ndarray) -> str:
        said = model.transcribe(
            samples.astype(np.float32), language="en", temperature=0.0, fp16=False
        )
        return str(said["text"]).strip()

    return run


def clips(media: Path) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yields name, samples and reference text; an LJ cut has the text of its whole clip."""
    from faster_whisper import decode_audio

    folder = media / "speech"
    jfk = decode_audio(str(folder / "jfk.flac"))
    yield "jfk, 11 s", jfk, JFK
    yield "jfk, first 3 s", jfk[: 3 * RATE], "And so my fellow Americans"
    with (folder / "lj_metadata.csv").open(newline="") as file:
        for name, text, _ in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE):
            samples = decode_audio(str(folder / f"{name}.flac"))
            yield f"{name}, first 3 s", samples[: 3 * RATE], text
            yield f"{name}, {len(samples) / RATE:.0f} s", samples, text


def main() -> None:
    """Prints median seconds, their ratio and the words for each clip."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("media", type=Path, help="folder of clips, with speech/")
    asked.add_argument("weights", type=Path, help="folder of model files")
    asked.add_argument("--openai", type=Path, help="the same weights as openai-whisper's .pt")
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--runs", type=int, default=5)
    args = asked.parse_args()
    ways: dict[str, Transcribe] = {
        "Fusewatch": stage(args.weights, args.threads),
        "faster-whisper": bare_faster_whisper(args.weights, args.threads),
    }
    if args.openai:
        ways["openai-whisper"] = bare_openai_whisper(args.openai, args.threads)
    else:
        print("NOT MEASURED: openai-whisper, since no --openai weights were given")
    for name, samples, text in clips(args.media):
        took = measured(ways, samples, args.runs)
        best = min(median for way, (median, _) in took.items() if way != "Fusewatch")
        print(f"{name}: Fusewatch takes {took['Fusewatch'][0] / best:.2f} of the faster one's time")
        for way, (median, said) in took.items():
            wrong = word_errors(said, text, part="first 3 s" in name)
            print(f"  {way:15} {median:6.3f} s  {wrong} of {len(words(said))} words wrong  {said}")


def measured(
    ways: dict[str, Transcribe], samples: np.ndarray, runs: int
) -> dict[str, tuple[float, str]]:
    """Median seconds and words of each way; they run in turn, so that other load affects all."""
    took: dict[str, list[float]] = {way: [] for way in ways}
    said = {way: transcribe(samples) for way, transcribe in ways.items()}  # warm
    for _ in range(runs):
        for way, transcribe in ways.items():
            begun = time.perf_counter()
            transcribe(samples)
            took[way].append(time.perf_counter() - begun)
    return {way: (statistics.median(took[way]), said[way]) for way in ways}


if __name__ == "__main__":
    main()
