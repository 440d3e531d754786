"""What the sound models promise: the Model port for YAMNet, calibrated labels from the head."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.hearing.sound import (
    CLASSES,
    MAX_REMEMBERED_PATCHES,
    PATCH,
    PATCH_STEP,
    SoundHead,
    Yamnet,
)
from models.hearing.waveform import RATE
from models.hearing.yamnet_features import HALF_STEP
from models.training.sound_clips import CLIP_LABELS, TONE, SoundClip, label_of, listen, read, tones
from models.training.sound_fit import MEANT_CLASSES, SHARE, folds, highest, prior
from models.training.tones import FAMILIES, made
from pipeline.config.fields import SOUNDS
from pipeline.errors import WeightsError


@pytest.fixture(scope="module")
def yamnet(weights: Path) -> Yamnet:
    return Yamnet(weights / "yamnet")


@pytest.fixture(scope="module")
def shot(media: Path) -> np.ndarray:
    samples = read(media / "audio/cc0_events/sounds_rifle_fire_02.ogg")
    return np.concatenate([np.zeros(8000, np.float32), samples])


def test_a_batch_gives_one_result_an_item(yamnet: Yamnet, shot: np.ndarray) -> None:
    results = yamnet([shot, np.zeros(PATCH, np.float32)])
    assert [scores.shape for scores in results] == [(CLASSES,), (CLASSES,)]
    assert all(scores.min() >= 0 and scores.max() <= 1 for scores in results)


def test_no_batch_gives_no_result(yamnet: Yamnet) -> None:
    assert yamnet([]) == []


def test_an_item_does_not_depend_on_its_neighbours(yamnet: Yamnet, shot: np.ndarray) -> None:
    noise = np.random.default_rng(1).standard_normal(PATCH).astype(np.float32) * 0.1
    (alone,) = yamnet([shot])
    np.testing.assert_array_equal(yamnet([noise, shot, noise])[1], alone)


def test_a_long_waveform_has_the_highest_score_of_its_patches(
    yamnet: Yamnet, shot: np.ndarray
) -> None:
    long = shot[: PATCH + 2 * PATCH_STEP]
    parts = yamnet([long[at : at + PATCH] for at in (0, PATCH_STEP, 2 * PATCH_STEP)])
    np.testing.assert_array_equal(yamnet([long])[0], np.max(parts, axis=0))


def test_less_than_a_patch_is_refused(yamnet: Yamnet) -> None:
    with pytest.raises(ValueError, match="15600 samples"):
        yamnet([np.zeros(PATCH - 1, np.float32)])


def test_a_missing_file_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"yamnet_spectra_in\.tflite"):
        Yamnet(tmp_path)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "yamnet_spectra_in.tflite"
    file.write_bytes(b"not a model" * 100)
    with pytest.raises(WeightsError, match="is damaged, or is none of"):
        Yamnet(file)


@given(arrays(np.uint8, CLASSES, elements=st.integers(0, 255)))
def test_no_two_labels_reach_the_alarm_at_once(steps: np.ndarray) -> None:
    labels = SoundHead.shipped()((steps / 256).astype(np.float32))
    assert tuple(labels) == SOUNDS
    assert all(0 <= p <= 1 and p == round(p, 3) for p in labels.values())
    assert sum(p >= 0.5 for p in labels.values()) <= 1


def test_the_coefficients_are_small() -> None:
    file = Path(__file__).parents[2] / "models/hearing/sound_head.npz"
    assert file.stat().st_size < 100_000


@pytest.fixture(scope="module")
def classes(weights: Path) -> list[str]:
    with (weights / "yamnet/yamnet_class_map.csv").open() as rows:
        return [row["display_name"] for row in csv.DictReader(rows)]


@pytest.mark.parametrize("label", SOUNDS)
def test_what_yamnet_is_sure_of_is_heard(classes: list[str], label: str) -> None:
    """All of a label's own classes at once, and nothing else: our clips have not unlearned it."""
    scores = np.zeros(CLASSES, np.float32)
    scores[[classes.index(name) for name in MEANT_CLASSES[label]]] = 0.6
    assert SoundHead.shipped()(scores)[label] >= 0.5


def test_before_any_clip_a_label_follows_its_own_classes_alone(classes: list[str]) -> None:
    mean, penalty = prior(classes)
    assert (penalty > 0).all()
    for column, kind in enumerate(CLIP_LABELS):
        follows = {classes[row] for row in np.flatnonzero(mean[:, column])}
        assert follows == (set() if kind == "nothing" else set(MEANT_CLASSES[kind]))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("audio/sesa_train/casual_001.flac", "nothing"),
        ("audio/sesa_train/siren_012.flac", "siren"),
        ("audio/screams/woman_2.ogg", "scream"),
        ("audio/cc0_events/sounds_ar_fire_01.ogg", "gunshot"),
        ("audio/cc0_events/sounds_explosion_distant_01.ogg", "explosion"),
        ("audio/cc0_events/sounds_node_dug_glass.1.ogg", "glass"),
        ("audio/cc0_events/sounds_fireworks_pop_01.ogg", "nothing"),
        ("speech/jfk.flac", "nothing"),
    ],
)
def test_a_clip_is_labelled_by_its_name(name: str, label: str) -> None:
    assert label_of(Path("media") / name) == label


def test_what_was_heard_before_is_answered_as_it_was(yamnet: Yamnet, shot: np.ndarray) -> None:
    first = yamnet.patches(shot).copy()
    yamnet.patches(shot)[:] = 0  # whoever got an answer may change it
    for seed in range(MAX_REMEMBERED_PATCHES + 2):  # more than is remembered
        yamnet([np.random.default_rng(seed).uniform(-1, 1, PATCH).astype(np.float32)])
    assert (yamnet.patches(shot) == first).all()


# Made tones


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tone_is_the_same_each_time_and_another_by_number_and_seed(family: str) -> None:
    one = made(family, 1)
    assert one.dtype == np.float32
    assert 4 * RATE <= len(one) <= 8 * RATE
    assert 0.05 < np.abs(one).max() <= 1
    np.testing.assert_array_equal(one, made(family, 1))
    assert not np.array_equal(one[:1000], made(family, 2)[:1000])
    assert not np.array_equal(one[:1000], made(family, 1, seed=2)[:1000])


def test_tones_are_a_kind_of_nothing_and_spread_over_the_folds() -> None:
    some = tones(5)
    assert {clip.label for clip in some} == {CLIP_LABELS.index("nothing")}
    kind = np.array([0, 1, 2, *(clip.kind for clip in some)])
    assert len(SHARE) == TONE + 1
    assert np.bincount(folds(kind)[3:]).tolist() == [10] * 5


def alarms(yamnet: Yamnet, some: list[SoundClip]) -> np.ndarray:
    """Whether each clip raises any label by the shipped head."""
    count = 2 if some[0].family else 1  # tones have half as many takes
    heard = listen(yamnet, some, count, 1, say=lambda _: None)
    head = SoundHead.shipped()
    scores = (1 + 2 * HALF_STEP) / (1 + np.exp(-heard.features)) - HALF_STEP  # undoes features()
    best = np.array([[*head(row.astype(np.float32)).values()] for row in scores])
    best[heard.quiet] = 0
    return highest(heard, np.arange(len(some)), best)[1].max(axis=1) >= 0.5


@pytest.mark.slow
def test_few_tones_of_another_seed_are_alarms(yamnet: Yamnet) -> None:
    assert alarms(yamnet, tones(4, seed=11)).mean() <= 0.2  # 0.5 before tones were in the fit


@pytest.mark.slow
@pytest.mark.parametrize("rhythm", [(8.0, 0.0), (0.5, 0.5), (1.5, 0.5)])
def test_few_plain_tones_are_alarms(yamnet: Yamnet, rhythm: tuple[float, float]) -> None:
    """A quarter of full scale over faint noise, from 0.9 to 3.1 kHz."""
    on, off = rhythm
    time = np.arange(8 * RATE) / RATE
    noise = np.random.default_rng(1).standard_normal(len(time)) * 1e-3
    some = [
        SoundClip(
            f"{hertz:.0f}",
            0,
            (0.25 * np.sin(2 * np.pi * hertz * time) * (time % (on + off) < on) + noise).astype(
                np.float32
            ),
        )
        for hertz in np.geomspace(900, 3100, 12)
    ]
    assert alarms(yamnet, some).sum() <= 1
