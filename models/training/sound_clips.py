"""Labelled clips for training, placed and augmented as a microphone might record them.

Every clip is placed at random times, gains, speeds and distances on silence, noise or benign
backgrounds. YAMNet classifies every second of the result as `SoundStage` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from models.hearing.sound import PATCH, PATCH_STEP, Yamnet
from models.hearing.waveform import QUIET_DB, RATE
from models.hearing.yamnet_features import Floats, features
from models.training.tones import FAMILIES, made
from models.training.tones import SEED as TONE_SEED
from pipeline.config.fields import SOUNDS

CLIP_LABELS = ("nothing", *SOUNDS)
TONE = len(CLIP_LABELS)  # the kind of a tone made by formula; its label is "nothing"
RARE_LABELS = ("glass", "scream")
SEED = 20260105
TONES_A_FAMILY = 20
MAX_CLIP_SAMPLES = 12 * RATE  # samples used of a clip
PATCHES = 3  # patches per second k: [k-0.98 s, k+0.995 s)
BEDS = ("rain", "typing", "crowd_cheering", "train", "snoring", "applause", "LJ001", "jfk")

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SoundClip:
    """A labelled sound, 16 kHz mono; `label` is an index in CLIP_LABELS, `family` is of tones."""

    name: str
    label: int
    samples: Floats
    family: str = ""

    @property
    def kind(self) -> int:
        """The label, or TONE."""
        return TONE if self.family else self.label


@dataclass(frozen=True)
class ListenedClip:
    """Every second of every take: features `[n, 521]` and their metadata."""

    features: Floats
    clip: Ints
    take: Ints  # the number of the take; 0 is the clip alone, unchanged
    second: Ints  # second since the start of the take
    active: Bools  # the clip itself is audible in these patches
    quiet: Bools


def label_of(path: Path) -> str:
    """What the file name says: one of SOUNDS, or "nothing"."""
    name, folder = path.stem, path.parent.name
    if folder == "sesa_train":
        return {"casual": "nothing"}.get(name.split("_")[0], name.split("_")[0])
    if folder == "screams":
        return "scream"
    if "_fire_" in name:
        return "gunshot"
    return next((label for label in ("explosion", "glass") if label in name), "nothing")


def read(path: Path) -> Floats:
    """Returns a sound file as 16 kHz mono: the mean of its channels, resampled by soxr HQ."""
    with av.open(str(path)) as file:
        planar = av.AudioResampler(format="fltp")
        frames = [frame for raw in file.decode(audio=0) for frame in planar.resample(raw)]
        rate = file.streams.audio[0].rate
    whole = np.concatenate([frame.to_ndarray().mean(0) for frame in frames]).astype(np.float32)
    return whole if rate == RATE else soxr.resample(whole, rate, RATE, "HQ")


def clips(media: Path) -> list[SoundClip]:
    """Returns all labelled clips below MEDIA/audio and MEDIA/speech, by name."""
    files = [*media.glob("audio/*/*"), *media.glob("speech/*")]
    sounds = sorted(file for file in files if file.suffix in {".wav", ".ogg", ".flac"})
    return [
        SoundClip(str(file.relative_to(media)), CLIP_LABELS.index(label_of(file)), read(file))
        for file in sounds
    ]


def tones(count: int = TONES_A_FAMILY, seed: int = TONE_SEED) -> list[SoundClip]:
    """Returns `count` made tones of each family."""
    return [
        SoundClip(f"{family}/{number}", 0, made(family, number, seed), family)
        for family in FAMILIES
        for number in range(count)
    ]


def takes(
    clip: SoundClip, beds: Sequence[Floats], count: int, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    """Yields `count` takes: (what the microphone records, the clip's part of it)."""
    chance = np.random.default_rng([SEED, seed])
    for take in range(count):
        samples = clip.samples[:MAX_CLIP_SAMPLES]
        if take and chance.random() < 0.5:  # a smaller or larger object, a higher or lower voice
            speed = chance.uniform(0.8, 1.25)
            samples = soxr.resample(samples, RATE * speed, RATE, "HQ")
        gain = 10 ** (chance.uniform(-12, 9) / 20) if take else 1.0
        at = int((1 + chance.random()) * RATE)
        own = np.zeros((2 - (-(at + len(samples)) // RATE)) * RATE, np.float32)
        own[at : at + len(samples)] = samples * gain
        whole = own
        kind = chance.random()
        if take and kind < 0.5:
            bed = np.resize(
                np.roll(beds[int(chance.integers(len(beds)))], chance.integers(RATE)), len(own)
            )
            whole = own + bed * _ratio(own[at : at + len(samples)], bed, chance.uniform(3, 25))
        elif take and kind < 0.8:
            noise = chance.standard_normal(len(own)).astype(np.float32)
            whole = own + noise * np.float32(10 ** (chance.uniform(-75, -45) / 20))
        if take and chance.random() < 0.25:
            whole = _distant(whole, chance.uniform(1500, 6000))
        yield np.round(np.clip(whole, -1, 1) * 32767).astype(np.float32) / 32768, own


def _ratio(signal: Floats, bed: Floats, decibels: float) -> np.float32:
    loud, soft = np.sqrt(np.mean(signal**2)), np.sqrt(np.mean(bed**2)) + 1e-9
    return np.float32(loud / soft * 10 ** (-decibels / 20))


def _distant(samples: Floats, corner: float) -> Floats:
    """Applies a one-pole low-pass filter, like air and walls."""
    keep = np.exp(-2 * np.pi * corner / RATE)
    answer = (1 - keep) * keep ** np.arange(64)
    return np.convolve(samples, answer)[: len(samples)].astype(np.float32)


def listen(
    model: Yamnet, known: Sequence[SoundClip], common: int, rare: int, say: Callable[[str], None]
) -> ListenedClip:
    """Returns every second of `common` takes of each clip; `rare` takes for RARE_LABELS.

    Tones have half as many: they are varied by themselves.
    """
    beds = [clip.samples for clip in known if Path(clip.name).name.startswith(BEDS)]
    rows: list[tuple[int, int, int, bool, bool]] = []
    found: list[Floats] = []
    for number, clip in enumerate(known):
        count = rare if CLIP_LABELS[clip.label] in RARE_LABELS else common
        count = count // 2 if clip.family else count
        for take, (whole, own) in enumerate(takes(clip, beds, count, number)):
            scores = model.patches(whole[320:])  # patch j starts at 0.02 s + j/2 s
            levels = [
                _level(own[at : at + PATCH]) for at in range(320, len(own) - PATCH + 1, PATCH_STEP)
            ]
            loudest = max(levels)
            for second in range(1, (len(scores) + 1) // 2):
                patches = slice(2 * second - PATCHES + 1, 2 * second + 1)
                found.append(features(scores[patches].max(axis=0)))
                active = max(levels[patches]) > loudest - 15
                quiet = _level(whole[second * RATE : (second + 1) * RATE]) < QUIET_DB
                rows.append((number, take, second, active, quiet))
        say(f"\rheard {number + 1} of {len(known)} clips")
    say("")
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return ListenedClip(np.stack(found), *columns)


def _level(samples: Floats) -> float:
    return float(10 * np.log10(np.mean(samples**2) + 1e-12))
