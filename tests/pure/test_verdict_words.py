"""What carried a verdict, in words: each phrase is true of the window that it was made of."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.fusion import occlusion
from models.fusion.features import NAMES, SIZES, Floats, Tokens
from models.fusion.labels import MODALITIES
from models.fusion.occlusion import FAMILIES
from models.fusion.sound_words import class_names, phrase_of, sounds_like
from models.fusion.verdict_words import MAX_PHRASE, MAX_PHRASES, TOGETHER, why
from models.hearing.yamnet_features import CLASSES, features
from pipeline.types import Presence

SILENT = float(features(np.zeros(1, np.float32))[0]) / 8


def window(**vectors: Floats) -> Tokens:
    states = {m: Presence.PRESENT if m in vectors else Presence.LOST for m in MODALITIES}
    return Tokens(vectors, states)


def vision(**numbers: float) -> Floats:
    """A daylight picture; `most_person=2` is two people, speeds are in heights a second."""
    logs = ("most", "mean", "speed", "motion", "zone")
    made = np.zeros(SIZES["vision"], np.float32)
    ordinary = {"luma.mean": 0.45, "luma.least": 0.45, "sharpness.mean": 3.0}
    given = {name.replace("_", "."): number for name, number in numbers.items()}
    for name, number in {**ordinary, **given}.items():
        log = name.split(".")[0] in logs
        made[NAMES["vision"].index(name)] = math.log1p(number) if log else number
    return made


def sound(*, db: float = -50.0, rise: float = 0.0, **scores: float) -> Floats:
    """A calm room; `Screaming=0.8` is a score of YAMNet."""
    given = np.zeros(CLASSES, np.float32)
    for name, score in scores.items():
        given[class_names().index(name.replace("_", " "))] = score
    rest = [db / 60, -50 / 60, rise / 30, 0.0, -1.0, 0.0]
    made = np.concatenate([features(given) / 8, np.array(rest, np.float32)])
    return made.astype(np.float16).astype(np.float32)  # as tokens are


def told(made: Tokens, fallen: Mapping[str, float], **falls: float) -> tuple[str, ...]:
    """The words if the log odds fall so much without these parts, and by 0 without any other."""
    falls = falls or dict.fromkeys(made.vectors, 3.0)
    parts = occlusion.parts(made, made.vectors)
    assert fallen.keys() <= {p.name for p in parts}
    return why(made, falls, [(p, fallen.get(p.name, 0.0)) for p in parts])


def test_two_people_move_fast_while_somebody_screams() -> None:
    made = window(
        vision=vision(most_person=2, speed_most=2.5, speed_mean=2), sound=sound(Screaming=0.8)
    )
    words = told(made, {"person": 2, "speed": 3, "scream": 2})
    assert "; ".join(words) == "two people moving fast; a scream at the same time"


SEEN = [
    ({"most_person": 1}, ["person"], "a person"),
    ({"most_person": 1, "most_vehicle": 3}, ["vehicle"], "three vehicles"),
    ({"most_person": 1, "most_bag": 1}, ["person", "bag"], "a person and a bag"),
    ({"most_person": 30}, ["person"], "more than 20 people"),
    ({"most_person": 1, "speed_most": 2, "speed_mean": 0.4}, ["speed"], "a person moving fast"),
    ({"most_person": 1, "speed_most": 1, "speed_mean": 0.4}, ["speed"], "a person moving"),
    (
        {"most_person": 2, "speed_most": 2, "speed_mean": 0.4},
        ["speed"],
        "two people, one or more moving fast",
    ),
    (
        {"most_person": 2, "speed_most": 0.1, "speed_mean": 0.1},
        ["speed"],
        "two people hardly moving",
    ),
    ({"most_bag": 1, "still_share": 1}, ["still"], "a bag standing still"),
    (
        {"most_bag": 2, "still_share": 0.5},
        ["still"],
        "two bags, one or more standing still",
    ),
    ({"most_person": 3, "zone_most": 1}, ["zone"], "three people, one in a zone"),
    ({"most_person": 3, "zone_most": 3}, ["zone"], "three people in a zone"),
    (
        {"most_person": 1, "zone_most": 1, "forbidden_most": 0.9},
        ["zone", "forbidden"],
        "a person in a zone found by a camera rule",
    ),
    (
        {"most_person": 1, "most_other": 1, "forbidden_most": 0.9},
        ["forbidden"],
        "a person or an object found by a camera rule",
    ),
    (
        {"most_person": 8, "most_vehicle": 3, "forbidden_most": 0.9},
        ["forbidden"],
        "8 people and 3 vehicles, one or more found by a camera rule",
    ),
    (
        {"most_person": 8, "most_vehicle": 3, "most_bag": 1, "forbidden_most": 0.9},
        ["forbidden"],
        "objects of several kinds, one or more found by a camera rule",
    ),
    ({"forbidden_most": 0.9}, ["forbidden"], "something found by a camera rule"),
    (
        {"most_person": 1, "behaviour_known": 1, "behaviour_lying_most": 0.7},
        ["posture"],
        "a person lying",
    ),
    (
        {"most_person": 1, "behaviour_known": 1, "behaviour_fall_most": 0.7},
        ["posture"],
        "a person coming down",
    ),
    (
        {"most_person": 1, "behaviour_known": 1, "behaviour_tilt_most": 0.3},
        ["posture"],
        "the posture of people",
    ),
    (
        {"most_person": 2, "behaviour_known": 1, "behaviour_limbs_most": 0.9},
        ["limbs"],
        "arms and legs moving fast",
    ),
    (
        {"most_person": 2, "behaviour_known": 1, "behaviour_nearness_most": 0.9},
        ["limbs"],
        "the movements of people",
    ),
    ({"luma_mean": 0.05, "luma_least": 0.05}, ["picture"], "dark pictures"),
    ({"luma_mean": 0.95, "luma_least": 0.95}, ["picture"], "bright pictures"),
    (
        {"luma_mean": 0.4, "luma_least": 0.3},
        ["picture"],
        "the light and sharpness of the pictures",
    ),
]


@pytest.mark.parametrize(("numbers", "fallen", "words"), SEEN, ids=[words for *_, words in SEEN])
def test_what_was_seen(numbers: dict[str, float], fallen: list[str], words: str) -> None:
    assert told(window(vision=vision(**numbers)), dict.fromkeys(fallen, 3.0)) == (words,)


HEARD: list[tuple[dict[str, float], str, str]] = [
    ({"Screaming": 0.8}, "scream", "a scream"),
    ({"Screaming": 0.3}, "scream", "perhaps a scream"),
    ({"Screaming": 0.8, "Shout": 0.7, "Yell": 0.7}, "scream", "a scream or a shout"),
    ({"Screaming": 0.8, "Shout": 0.5}, "scream", "a scream"),
    ({"Crow": 0.8}, "animal", 'a sound like "Crow"'),
    ({"Crow": 0.8, "Owl": 0.8}, "animal", 'a sound like "Crow" or "Owl"'),
    ({"Silence": 0.8}, "background", "a moment of silence"),
    ({"db": -5, "rise": 20}, "loudness", "a sudden loud sound"),
    ({"db": -5}, "loudness", "a loud sound"),
    ({"db": -30, "rise": 20}, "loudness", "a sudden sound"),
    ({"db": -30}, "loudness", "the loudness of the sound"),
]


@pytest.mark.parametrize(("numbers", "fallen", "words"), HEARD, ids=[words for *_, words in HEARD])
def test_what_was_heard(numbers: dict[str, float], fallen: str, words: str) -> None:
    assert told(window(sound=sound(**numbers)), {fallen: 3.0}) == (words,)


def test_a_clipped_microphone_is_told() -> None:
    made = sound()
    made[NAMES["sound"].index("clipped")] = 0.1
    assert told(window(sound=made), {"clipped": 1.0}, sound=1.0) == (
        "a sound too loud for the microphone",
    )


def test_words_are_told_of_but_never_quoted() -> None:
    said, written = np.ones(SIZES["speech"], np.float32), np.ones(SIZES["report"], np.float32)
    written[NAMES["report"].index("count")] = math.log1p(2)
    assert told(window(speech=said), {"text": 2.0}) == ("the words that were spoken",)
    assert told(window(report=written), {"text": 2.0}) == ("the words of two reports",)


def test_a_small_fall_is_not_told_and_the_modality_is_named_instead() -> None:
    made = window(sound=sound(Screaming=0.8, Music=0.9))
    assert told(made, {"scream": 0.4}, sound=3.0) == ("the sound as a whole (music or a scream)",)
    assert told(made, {"scream": 0.8}, sound=3.0) == ("a scream",)
    silent = window(sound=sound())
    assert told(silent, {}, sound=3.0) == ("the sound as a whole",)


def test_no_important_modality_stays_untold() -> None:
    made = window(vision=vision(most_person=1), sound=sound(Screaming=0.8))
    words = told(made, {"person": 3.0}, vision=3.0, sound=1.5)
    assert words == ("a person", f"the sound as a whole (a scream){TOGETHER}")
    assert told(made, {"person": 3.0}, vision=3.0, sound=0.1) == ("a person",)


def test_the_gravest_comes_first() -> None:
    made = window(vision=vision(most_person=1), sound=sound(Screaming=0.8))
    assert told(made, {"person": 2.0, "scream": 4.0}) == ("a scream", f"a person{TOGETHER}")
    # noise below the digits that count changes nothing
    assert told(made, {"person": 2.001, "scream": 2.0}) == told(made, {"person": 2, "scream": 2})


def test_where_each_modality_could_be_missed_all_are_named() -> None:
    made = window(vision=vision(), sound=sound())
    words = told(made, {}, vision=0.0, sound=0.0)
    assert words == ("the pictures and the sound as a whole",)


def test_a_sound_that_was_hardly_heard_is_no_part() -> None:
    made = window(sound=sound(Screaming=0.05))
    assert "scream" not in {p.name for p in occlusion.parts(made, ["sound"])}


def test_a_part_is_taken_out_and_nothing_else() -> None:
    made = window(vision=vision(most_person=2, most_bag=1), sound=sound(Screaming=0.8, Crow=0.7))
    by_name = {p.name: p for p in occlusion.parts(made, made.vectors)}
    changed = np.flatnonzero(by_name["person"].vector != made.vectors["vision"])
    assert [NAMES["vision"][i] for i in changed] == ["most.person"]
    (changed,) = np.flatnonzero(by_name["scream"].vector != made.vectors["sound"])
    assert class_names()[changed] == "Screaming"
    assert by_name["scream"].vector[changed] == pytest.approx(SILENT, abs=1e-3)


def test_every_sound_is_in_one_family() -> None:
    assert sorted(n for classes in FAMILIES.values() for n in classes) == list(range(CLASSES))


def test_every_sound_has_words_that_fit() -> None:
    for number, name in enumerate(class_names()):
        alone = np.zeros(CLASSES, np.float32)
        alone[number] = 0.3
        words = sounds_like(alone, range(CLASSES))
        assert words == f"perhaps {phrase_of(name)}"
        assert len(words + TOGETHER) <= MAX_PHRASE


NUMBERS = st.floats(-65504, 65504, width=16) | st.sampled_from([0.0, math.nan, math.inf])


@st.composite
def windows(draw: st.DrawFn) -> Tokens:
    there = draw(st.lists(st.sampled_from(MODALITIES), min_size=1, unique=True))
    return window(**{m: draw(arrays(np.float32, SIZES[m], elements=NUMBERS)) for m in there})


@given(windows(), st.data())
def test_any_window_has_a_few_short_phrases(made: Tokens, data: st.DataObject) -> None:
    falls = st.floats(allow_nan=True, allow_infinity=True, width=32)
    parts = occlusion.parts(made, made.vectors)
    words = why(
        made, {m: data.draw(falls) for m in made.vectors}, [(p, data.draw(falls)) for p in parts]
    )
    assert 1 <= len(words) <= MAX_PHRASES
    for phrase in words:
        assert 0 < len(phrase) <= MAX_PHRASE
        assert phrase.strip() == phrase
        assert not any(unicodedata.category(c).startswith("C") for c in phrase)
        assert "no people" not in phrase
    assert len(set(words)) == len(words)
