"""Augments single clips for training on sounds, beside the scenes.

A clip alone shows what a sound is, but no site records it alone. So a clip is also used louder or
softer, with normal sounds and with noise. Test clips are used once, unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.hearing.yamnet_features import OWN_CLASSES
from models.training import dataset
from workers.replay.scene_file import SceneClip
from workers.training import clip_manifest, feature_extraction, scene_mixer
from workers.training.clip_manifest import by_name

TAKES = {"train": 8, "val": 8, "test": 1}  # uses of a clip; the first one is unchanged
UNSUSPECTED = math.log(0.02 / 0.98) / 8  # a lower feature is a score below 0.02
FEWER_TAKES = 2  # labelled clips, which are more numerous, have this many times fewer takes


def jobs(media: Path, seed: int) -> Iterator[feature_extraction.ExtractionJob]:
    """Yields every clip of the manifest alone, and outside the test split also augmented.

    Augmented clips are louder or softer, with normal sounds of their own split, and with noise.
    """
    clips = [
        clip
        for clip in clip_manifest.read(clip_manifest.manifest_path(media), media).clips
        if clip.kind in ("sound", "speech")
    ]
    for number, clip in enumerate(clips):
        if clip.kind == "speech":  # used only beside others: alone it would be words
            continue
        ordinary = by_name([c for c in clips if c.split == clip.split and not c.label])
        for take in range(max(1, TAKES[clip.split] // (FEWER_TAKES if clip.label else 1))):
            alone = feature_extraction.ExtractionJob(
                scene="",
                split=clip.split,
                clip=str(media / clip.path),
                label=clip.label,
                take=take,
            )
            chance = np.random.default_rng([seed, number, take])
            yield _beside(alone, media, ordinary, chance) if take else alone


def doubtful(row: dataset.WindowRow) -> bool:
    """Returns whether a window is no example of its clip's label: YAMNet gives it no score.

    The label belongs to the whole clip. A head that learns the crowd around a siren as siren takes
    every crowd for one.
    """
    own = OWN_CLASSES.get(row.truth or "")
    if own is None:
        return False
    sound = row.tokens().vectors.get("sound")
    return sound is None or float(sound[list(own)].max()) < UNSUSPECTED


def _beside(
    job: feature_extraction.ExtractionJob,
    media: Path,
    ordinary: Sequence[Sequence[clip_manifest.Clip]],
    chance: np.random.Generator,
) -> feature_extraction.ExtractionJob:
    """Returns the clip as a scene may contain it."""
    shares = np.array([min(len(kind), scene_mixer.MAX_CLIPS_OF_KIND) for kind in ordinary], float)
    beside = []
    for _ in range(int(chance.integers(0, 3))):
        kind = ordinary[int(chance.choice(len(ordinary), p=shares / shares.sum()))]
        other = kind[int(chance.integers(len(kind)))]
        loud = (-24, -12) if scene_mixer.FAR.search(other.path.lower()) else (-18, 0)
        beside.append(
            SceneClip(
                file=str((media / other.path).resolve()),
                at=round(float(chance.uniform(0, 4)), 3),
                gain_db=round(float(chance.uniform(*loud)), 1),
            )
        )
    return msgspec.structs.replace(
        job,
        beside=tuple(beside),
        gain_db=round(float(chance.uniform(-12, 6) if job.label else chance.uniform(-15, 3)), 1),
        spoil="noise" if chance.random() < 0.25 else "",
    )
