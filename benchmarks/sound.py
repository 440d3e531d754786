"""Counts sounds found and false alarms in composed scenes, with clips that the head has not seen.

`python benchmarks/sound.py MEDIA WEIGHTS [--scenes 40]`: for each of five folds a head is fitted
without the fold's clips, operating points included. Scenes are then made of those clips only: 25 s
with one alarm and one benign clip at random times and gains (-3 to +6 dB), half of them over a
benign bed 10 to 25 dB below. They run through `SoundStage` in chunks of 0.1 s. The scenes are
composed, not recorded.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import numpy as np

from models.hearing.sound import YAMNET_FILE, Floats, SoundHead, Yamnet
from models.hearing.waveform import RATE
from models.training.sound_clips import BEDS, CLIP_LABELS, SoundClip, clips, listen, tones
from models.training.sound_fit import calibrate, fit, folds, held_out, part, prior
from pipeline.config.fields import SOUNDS
from pipeline.types import SECOND, AudioChunk, Sound, ns
from workers.stages.sound import SoundStage

LASTS, HOP = 25, 0.1  # seconds


def scene(
    alarm: SoundClip, benign: SoundClip, bed: Floats | None, chance: np.random.Generator
) -> tuple:
    """Composes the microphone's samples; returns them and (start, end) of both clips in seconds."""
    whole = np.zeros(LASTS * RATE, np.float32)
    times = []
    for clip, earliest in ((alarm, 2.0), (benign, 14.0)):
        at = earliest + chance.uniform(0, 3)
        samples = clip.samples[: 8 * RATE] * 10 ** (chance.uniform(-3, 6) / 20)
        whole[int(at * RATE) : int(at * RATE) + len(samples)] += samples
        times.append((at, at + len(samples) / RATE))
    if bed is not None:
        level = np.sqrt(np.mean(np.square(alarm.samples))) * 10 ** (-chance.uniform(10, 25) / 20)
        whole += np.resize(bed, len(whole)) * level / (np.sqrt(np.mean(np.square(bed))) + 1e-9)
    return np.clip(whole, -1, 1), times


def sounds(samples: Floats, stage: SoundStage) -> list[Sound]:
    """Runs the samples through the stage; returns its Sound records."""
    state, out = stage.open({}), []
    for number in range(round(LASTS / HOP)):
        part = samples[round(number * HOP * RATE) : round((number + 1) * HOP * RATE)]
        chunk = AudioChunk(
            site="bench",
            source="room",
            start=ns(number * HOP),
            end=ns((number + 1) * HOP),
            seq=number,
            rate=RATE,
            channels=1,
            data=np.round(part * 32767).astype("<i2").tobytes(),
        )
        out += [record for record in state.on(chunk, None) if isinstance(record, Sound)]
    return out


def judge(heard: list[Sound], label: str, times: list, tally: Counter) -> None:
    """Counts alarms found in time, other labels at the alarm, and false alarms elsewhere."""
    start, end = times[0]
    raised = [(s.start / SECOND, name) for s in heard for name, p in s.labels.items() if p >= 0.5]
    tally[label, "scenes"] += 1
    tally[label, "found"] += any(n == label and start - 1 < t <= start + 2 for t, n in raised)
    for name in {n for t, n in raised if n != label and start - 1 < t < end + 2}:
        tally[label, f"also {name}"] += 1
    for name in {n for t, n in raised if t >= max(times[1][0] - 1, end + 2)}:
        tally["benign", name] += 1


def main() -> None:
    """Fits the heads, composes and runs the scenes, and prints the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--scenes", type=int, default=40, help="a fold")
    asked = parser.parse_args()
    with (asked.weights / "yamnet/yamnet_class_map.csv").open() as rows:
        meant = prior([row["display_name"] for row in csv.DictReader(rows)])
    recorded = clips(asked.media)
    known = [*recorded, *tones()]
    model = Yamnet(asked.weights / "yamnet" / YAMNET_FILE)
    kind = np.array([clip.kind for clip in known])
    heard = listen(model, known, 6, 30, say=lambda text: None)
    fold, tally = folds(kind), Counter()
    for number in range(fold.max() + 1):
        met = part(heard, fold[heard.clip] != number)
        slope, middle = calibrate(met, kind, held_out(met, kind, meant))
        weights, bias = fit(heard, kind, fold[heard.clip] != number, meant)
        stage = SoundStage(model, SoundHead(weights, bias, slope, middle))
        chance = np.random.default_rng([7, number])
        mine = [clip for clip, of in zip(recorded, fold, strict=False) if of == number]
        benign = [clip for clip in mine if clip.label == 0]
        beds = [clip.samples for clip in benign if Path(clip.name).name.startswith(BEDS)]
        kinds = sorted({clip.label for clip in mine} - {0})
        for each in range(asked.scenes):
            same = [clip for clip in mine if clip.label == kinds[each % len(kinds)]]
            alarm = same[int(chance.integers(len(same)))]
            other = benign[int(chance.integers(len(benign)))]
            bed = beds[int(chance.integers(len(beds)))] if beds and chance.random() < 0.5 else None
            samples, times = scene(alarm, other, bed, chance)
            judge(sounds(samples, stage), CLIP_LABELS[alarm.label], times, tally)
    total = sum(tally[name, "scenes"] for name in SOUNDS)
    for name in SOUNDS:
        also = {what: n for (of, what), n in tally.items() if of == name and "also" in what}
        print(f"{name:10} found {tally[name, 'found']} of {tally[name, 'scenes']}; {also}")
    false = {what: n for (of, what), n in tally.items() if of == "benign"}
    print(f"false at the {total} benign clips (composited): {false}")


if __name__ == "__main__":
    main()
