"""Measures the gate of the microphones: what it forgets, how often it closes, and what it saves.

    python -m benchmarks.sound_gate MEDIA WEIGHTS [--every 1] [--composed 40] [--minutes 10]

- found: every clip of MEDIA/audio and MEDIA/speech (every n-th with `--every`) is laid into a quiet
  room, 6, 12 and 20 dB above its noise (RMS of the clip's loudest second), after 14 s of the room.
  A label counts if it reaches 0.5 in any second; voice if an utterance is found. Both runs hear the
  same samples, with the gate and without it. The heads were fitted to these clips: what matters is
  the difference of the runs. "More" are labels that only the gated run has.
- gated: the share of seconds, of made noises and of the microphones of composed scenes.
- CPU: of measuring, sound and voice, for an hour of a quiet microphone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from models.hearing.sound import YAMNET_FILE, SoundHead, Yamnet
from models.hearing.transcript import Transcript
from models.hearing.voice_activity import VoiceActivity
from models.hearing.waveform import RATE, Samples
from models.training.sound_clips import CLIP_LABELS, clips
from pipeline.config.schema import Hear
from pipeline.ports import Stage
from pipeline.topics import AUDIO
from pipeline.types import SECOND, AudioChunk, Record, Sound, Utterance
from workers.config import loader
from workers.media.pcm import Chunks
from workers.replay.scene_file import load_scene
from workers.replay.scene_records import scene_records
from workers.runtime.status import Status
from workers.stages.sound import ALARM, SoundStage
from workers.stages.speech import SpeechStage
from workers.training.compose import compose

ROOM = ("bench", "room")
START = 1_767_650_400 * SECOND
LEVELS = (6, 12, 20)  # dB above the noise
ROOM_DB = -55.0  # dBFS
BEFORE, LONGEST, AFTER = 14, 4, 3  # s
BLOCK = RATE // 10

Hears = dict[tuple[str, str], Hear]
KNOWN: Hears = {ROOM: Hear(audit=0)}


def noise(seconds: float, seed: int, slope: float = 1.0, db: float = ROOM_DB) -> Samples:
    """Noise whose power falls by `slope` * 3 dB an octave above 60 Hz."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hertz = np.maximum(np.arange(len(spectrum)) * RATE / count, 60)
    made = np.fft.irfft(spectrum / hertz ** (slope / 2), count)
    return (made / made.std() * 10 ** (db / 20)).astype(np.float32)


def chunks(samples: Samples, gate: str) -> Iterator[AudioChunk]:
    """What a live microphone publishes."""
    made = Chunks(*ROOM, RATE, hear=Hear(gate=gate))
    for low in range(0, len(samples) - BLOCK + 1, BLOCK):
        ended = START + (low + BLOCK) * SECOND // RATE
        chunk = made.push(samples[low : low + BLOCK], ended)
        assert chunk is not None
        yield chunk


def through(stage: Stage, records: Sequence[Record]) -> list[Record]:
    """What the stage gives of the records."""
    state = stage.open({})
    return [made for record in records for made in state.on(record, None)]


def labels(records: Sequence[Record]) -> set[str]:
    """The labels that reach the threshold in any second; `voice` for an utterance."""
    found = {"voice" for record in records if isinstance(record, Utterance)}
    sounds = [record for record in records if isinstance(record, Sound)]
    return found | {name for s in sounds for name, score in s.labels.items() if score >= ALARM}


def unsaid(batch: Sequence[Samples]) -> list[Transcript]:
    """Speech counts whatever is said."""
    return [Transcript("x", "en", 1.0)] * len(batch)


def no_meaning(batch: Sequence[str]) -> list[Samples]:
    """No embedding is needed."""
    return [np.zeros(1, np.float32)] * len(batch)


def stages(weights: Path, known: Hears, status: Status | None = None) -> tuple[Stage, Stage]:
    """The sound stage and the speech stage, without transcription."""
    yamnet = Yamnet(weights / "yamnet" / YAMNET_FILE)
    return (
        SoundStage(yamnet, SoundHead.shipped(), status, known),
        SpeechStage(VoiceActivity(), unsaid, no_meaning, status, known),
    )


def recall(media: Path, weights: Path, every: int) -> None:
    """Prints what the gated run finds of what the other one finds, by level and label."""
    both = stages(weights, KNOWN)
    for db in LEVELS:
        tally = Counter[tuple[str, str]]()
        for number, clip in enumerate(clips(media)[::every]):
            samples = clip.samples[: LONGEST * RATE]
            ends = np.cumsum(np.square(np.pad(samples, (RATE, 0)), dtype=np.float64))
            loudest = np.sqrt(max(float(np.max(ends[RATE:] - ends[:-RATE])), 1e-9) / RATE)
            whole = noise(BEFORE + LONGEST + AFTER, number)
            at = round((BEFORE + number % 10 / 10) * RATE)
            fits = samples[: len(whole) - at] / loudest * 10 ** ((ROOM_DB + db) / 20)
            whole[at : at + len(fits)] += fits
            found = [
                {word for stage in both for word in labels(through(stage, [*chunks(whole, gate)]))}
                for gate in ("off", "auto")
            ]
            kind = CLIP_LABELS[clip.label]
            for word in found[0]:
                group = word if word in (kind, "voice") else "another label"
                tally[group, "without"] += 1
                tally[group, "with"] += word in found[1]
            tally["only with the gate", "with"] += len(found[1] - found[0])
        print(f"+{db} dB:", end="")
        for word in sorted({word for word, _ in tally}):
            print(f"  {word} {tally[word, 'with']} of {tally[word, 'without']}", end="")
        print(flush=True)


def gated(records: Sequence[Record], weights: Path, known: Hears) -> tuple[int, int]:
    """The gated seconds and all of them."""
    sounds = [r for r in through(stages(weights, known)[0], records) if isinstance(r, Sound)]
    return sum(sound.gated for sound in sounds), len(sounds)


def shares(media: Path, weights: Path, composed: int) -> None:
    """Prints the shares of gated seconds; the first ten seconds of a noise do not count."""
    swelling = noise(120, 4) * (1 + 0.3 * np.sin(np.arange(120 * RATE) / RATE)).astype(np.float32)
    made = {
        "white noise": noise(120, 1, 0.0),
        "pink noise": noise(120, 2),
        "brown noise": noise(120, 3, 2.0),
        "pink noise that swells by 2 dB": swelling,
        "digital silence": np.zeros(120 * RATE, np.float32),
    }
    for name, samples in made.items():
        closed, seconds = gated([*chunks(samples, "auto")], weights, KNOWN)
        print(f"{name}: {closed / (seconds - 10):.2f} gated")
    if not composed:
        return
    with tempfile.TemporaryDirectory() as folder:
        for quiet in (False, True):
            out = Path(folder) / str(quiet)
            compose(media, out, scenes=composed, seed=13, quiet=quiet)
            site = loader.load(out / "config.yaml").sites
            counts = [0, 0]
            for path in sorted(out.glob("*/*.yaml")):
                scene = replace(load_scene(path), cameras={})
                deaf = replace(site[scene.site], cameras={})
                heard = [r for topic, r in scene_records(scene, deaf) if topic == AUDIO]
                known = {(scene.site, room): Hear(audit=0) for room in deaf.microphones}
                for place, value in enumerate(gated(heard, weights, known)):
                    counts[place] += value
            kind = "composed scenes without events" if quiet else "composed scenes"
            print(f"{kind}: {counts[0] / counts[1]:.2f} of {counts[1]} s gated", flush=True)


def cost(weights: Path, minutes: float) -> None:
    """Prints the CPU seconds of an hour of a quiet microphone, with the gate and without."""
    room = noise(minutes * 60, 5)
    for gate in ("off", "auto"):
        sound, speech = stages(weights, KNOWN)
        steps: dict[str, Callable[[Sequence[Record]], object]] = {
            "capture": lambda _, gate=gate: [*chunks(room, gate)],
            "sound": lambda records, stage=sound: through(stage, records),
            "voice": lambda records, stage=speech: through(stage, records),
        }
        records, told = [*chunks(room, gate)], []
        for name, step in steps.items():
            began = time.process_time()
            step(records)
            told.append((name, (time.process_time() - began) * 60 / minutes))
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in told)
        whole = sum(seconds for _, seconds in told)
        print(f"gate {gate}: {whole:.0f} CPU s an hour ({parts}), {whole / 36:.2f} % of a core")


def main() -> None:
    """Prints all three."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("media", type=Path)
    ask.add_argument("weights", type=Path)
    ask.add_argument("--every", type=int, default=1)
    ask.add_argument("--composed", type=int, default=40)
    ask.add_argument("--minutes", type=float, default=10)
    given = ask.parse_args()
    cost(given.weights, given.minutes)
    shares(given.media, given.weights, given.composed)
    recall(given.media, given.weights, given.every)


if __name__ == "__main__":
    main()
