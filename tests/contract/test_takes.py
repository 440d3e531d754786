"""How single clips are heard for training: nothing of one split is heard in another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from models.fusion import features
from models.hearing.yamnet_features import OWN_CLASSES
from models.training import dataset
from pipeline.types import Presence
from workers.training import clip_augmentation, clip_manifest


def test_every_clip_is_heard_once_as_it_is_and_test_clips_not_otherwise(media: Path) -> None:
    known = clip_manifest.read(clip_manifest.manifest_path(media), media).of("test", "sound")
    jobs = list(clip_augmentation.jobs(media, 7))
    plain = [job for job in jobs if not job.take]
    assert all(not job.beside and not job.gain_db and not job.spoil for job in plain)
    assert len({job.clip for job in jobs}) == len(plain)
    assert [job.clip for job in jobs if job.split == "test"] == [str(media / c.path) for c in known]


def test_what_is_heard_beside_a_clip_is_ordinary_and_of_its_own_split(media: Path) -> None:
    clips = clip_manifest.read(clip_manifest.manifest_path(media), media).clips
    of = {str((media / clip.path).resolve()): clip for clip in clips if clip.path}
    pairs = [
        (job, of[other.file]) for job in clip_augmentation.jobs(media, 7) for other in job.beside
    ]
    assert len(pairs) > 1000
    for job, other in pairs:
        assert (other.split, other.label) == (job.split, "")


def test_ordinary_clips_are_heard_twice_as_often_and_a_seed_says_how(media: Path) -> None:
    jobs = list(clip_augmentation.jobs(media, 7))
    assert jobs == list(clip_augmentation.jobs(media, 7))
    assert jobs != list(clip_augmentation.jobs(media, 8))
    often = Counter((job.clip, job.label, job.split) for job in jobs)
    for (_, label, split), count in often.items():
        assert count == (1 if split == "test" else 4 if label else 8)


def test_a_window_in_which_nobody_suspects_the_clips_label_is_no_example() -> None:
    def row(truth: str | None, **scores: float) -> dataset.WindowRow:
        sound = np.full(features.SIZES["sound"], -0.78, np.float32)
        for label, score in scores.items():
            sound[OWN_CLASSES[label][0]] = np.log(score / (1 - score)) / 8
        tokens = features.Tokens({"sound": sound}, {"sound": Presence.PRESENT})
        return dataset.WindowRow(
            scene="x.flac#0", site="clip", start=0, end=4, truth=truth,
            states=tokens.states, vectors=dataset.packed(tokens),
        )  # fmt: skip

    assert clip_augmentation.doubtful(row("siren", scream=0.9))
    assert not clip_augmentation.doubtful(row("siren", siren=0.03))
    assert clip_augmentation.doubtful(row("siren", siren=0.01))
    assert not clip_augmentation.doubtful(row("", scream=0.9)), "what is ordinary is never doubted"
    assert not clip_augmentation.doubtful(row(None))
    assert not clip_augmentation.doubtful(row("intrusion")), "nor what is no sound"
