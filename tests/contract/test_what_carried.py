"""A learned head says what carried its verdict: what it says is what it looked at."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.fusion import sound_words
from models.fusion.features import NAMES, SIZES, Floats
from models.fusion.labels import MODALITIES
from models.fusion.learned_head import MIN_THRESHOLD, SHIPPED_FOLDER, LearnedHead
from models.fusion.verdict_words import MAX_PHRASE
from models.hearing.yamnet_features import CLASSES, features
from models.training import dataset
from models.training.rehearsal import REHEARSAL_FILE
from pipeline.errors import WeightsError
from tests.windows import tiny_head, tokens


def head_of(bias: float) -> LearnedHead:
    with tempfile.TemporaryDirectory() as folder:
        return LearnedHead.read(tiny_head(Path(folder), {}, bias=bias))


HEADS = (LearnedHead.shipped(), head_of(3.0))


def heard(**scores: float) -> Floats:
    given = np.zeros(CLASSES, np.float32)
    for name, score in scores.items():
        given[sound_words.class_names().index(name)] = score
    calm = np.array([-0.5, -0.8, 0, 0, -1, 0], np.float32)
    return np.concatenate([features(given) / 8, calm])


LOOKS = [
    ("vision", "most.person", "two people"),
    ("vision", "most.vehicle", "two vehicles"),
    ("vision", "speed.most", "objects of several kinds, one or more moving fast"),
    ("vision", "zone.most", "objects of several kinds, two in a zone"),
    ("vision", "still.share", "objects of several kinds standing still"),
    ("sound", "yamnet.11", "a scream"),
    ("sound", "yamnet.437", "something shattering"),
    ("speech", "text.7", "the words that were spoken"),
    ("report", "text.7", "the words of two reports"),
    ("vision", "frames", "the pictures as a whole (objects of several kinds)"),
    ("speech", "confidence", "the spoken words as a whole"),
]


@pytest.mark.parametrize(("modality", "feature", "words"), LOOKS, ids=[f for _, f, _ in LOOKS])
def test_a_head_that_looks_at_one_feature_names_it(
    tmp_path: Path, modality: str, feature: str, words: str
) -> None:
    looks = {modality: feature}
    head = LearnedHead.read(tiny_head(tmp_path, {modality: 9}, bias=-6, looks_at=looks))
    window = tokens(vision=1.2, sound=0, speech=1.1, report=1.1)
    window.vectors["vision"][NAMES["vision"].index("speed.mean")] = 0
    window.vectors["sound"][:] = heard(Screaming=0.999, Shatter=0.998)
    verdict = head.judge(window)
    assert verdict.score >= head.threshold
    assert verdict.contributions[modality] == 1
    assert verdict.why == (words,)


def test_an_unlikely_window_has_no_words(tmp_path: Path) -> None:
    head = LearnedHead.read(tiny_head(tmp_path, {"sound": 1}, bias=-4))
    assert head.judge(tokens(sound=1)).why == ()


def test_what_the_shipped_head_says_of_a_person_and_of_a_scream() -> None:
    head = LearnedHead.shipped()
    window = tokens(vision=0, sound=0)
    window.vectors["sound"][:] = heard()
    for name, number in {
        "most.person": math.log1p(1),
        "mean.person": math.log1p(1),
        "zone.most": math.log1p(1),
        "zone.mean": math.log1p(1),
        "forbidden.most": 0.9,
        "forbidden.share": 1.0,
        "luma.mean": 0.5,
        "luma.least": 0.5,
        "sharpness.mean": 3.0,
        "frames": 1.79,
    }.items():
        window.vectors["vision"][NAMES["vision"].index(name)] = number
    assert head.judge(window).why == ("a person found by a camera rule",)
    alone = tokens(sound=0)
    alone.vectors["sound"][:] = heard(Screaming=0.9, Shout=0.6, Yell=0.6)
    verdict = head.judge(alone)
    assert verdict.label == "scream"
    assert verdict.why[0] == "a scream"


def test_the_shipped_head_has_the_same_words_for_each_likely_window_every_time() -> None:
    head, again = LearnedHead.shipped(), LearnedHead.shipped()
    rows = dataset.read([SHIPPED_FOLDER / REHEARSAL_FILE])
    verdicts = [head.judge(row.tokens()) for row in rows]
    assert verdicts == [again.judge(row.tokens()) for row in rows]
    likely = [v for v in verdicts if v.contributions]
    assert len(likely) > 80
    assert all(verdict.why for verdict in likely)
    by_part = [v for v in likely if "as a whole" not in v.why[0]]
    assert len(by_part) > 0.9 * len(likely)


def test_a_missing_list_of_sounds_is_told_when_the_head_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_words, "CLASS_MAP", tmp_path / "gone.csv")
    sound_words.class_names.cache_clear()
    with pytest.raises(WeightsError, match=r"gone\.csv cannot be read .*install Fusewatch again"):
        LearnedHead.shipped()
    sound_words.class_names.cache_clear()


def test_a_list_of_other_sounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "few.csv").write_text("index,mid,display_name\n0,/m/09x0r,Speech\n")
    monkeypatch.setattr(sound_words, "CLASS_MAP", tmp_path / "few.csv")
    sound_words.class_names.cache_clear()
    with pytest.raises(WeightsError, match=r"few\.csv names 1 classes, not 521"):
        LearnedHead.shipped()
    sound_words.class_names.cache_clear()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            m: arrays(np.float16, SIZES[m], elements=st.floats(-65504, 65504, width=16))
            for m in MODALITIES
        },
    )
)
def test_no_likely_anomaly_is_without_words(vectors: dict[str, Floats]) -> None:
    window = tokens(**dict.fromkeys(vectors, 0))
    for modality, vector in vectors.items():
        window.vectors[modality][:] = vector
    for head in HEADS:
        verdict = head.judge(window)
        assert bool(verdict.why) is (verdict.score >= MIN_THRESHOLD)
        assert all(len(phrase) <= MAX_PHRASE for phrase in verdict.why)


def test_vectors_are_not_changed_by_judging() -> None:
    window = tokens(sound=0)
    window.vectors["sound"][:] = heard(Screaming=0.9)
    before = window.vectors["sound"].copy()
    LearnedHead.shipped().judge(window)
    assert np.array_equal(window.vectors["sound"], before)
    assert window.vectors["sound"].shape == (SIZES["sound"],)
