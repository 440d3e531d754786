"""Which models a config needs, by its sources and rules."""

from __future__ import annotations

import pytest

from pipeline.config.model_needs import ENCODERS, HEARING, needed_encoders, needed_models
from pipeline.config.rule_kinds import KeywordRule, PhraseRule, Rule
from pipeline.config.schema import Camera, Config, Microphone, Site
from pipeline.stages import WORKERS

CAMERAS = {"gate": Camera(source="device:0")}
MICROPHONES = {"hall": Microphone(source="device:default")}
KEYWORD = KeywordRule(words={"en": ("help",)})
PHRASE = PhraseRule(phrases=("help me",))


def config(*rules: Rule, cameras: bool = True, microphones: bool = False) -> Config:
    site = Site(
        cameras=CAMERAS if cameras else {},
        microphones=MICROPHONES if microphones else {},
        rules=rules,
    )
    return Config(version=1, sites={"other": Site(), "yard": site})


def test_a_camera_needs_the_detector_alone() -> None:
    assert needed_encoders(config()) == {"detector"}
    assert needed_encoders(config(KEYWORD)) == {"detector"}
    assert set(needed_models(config(KEYWORD))) == {"detector"}


def test_a_phrase_needs_the_text_model() -> None:
    assert needed_encoders(config(PHRASE)) == {"detector", "text"}
    assert needed_encoders(config(PHRASE, cameras=False)) == {"text"}


def test_a_microphone_needs_all_that_hears_and_the_text_model() -> None:
    assert needed_encoders(config(cameras=False, microphones=True)) == {*HEARING, "text"}
    assert needed_encoders(config(microphones=True)) == set(ENCODERS)
    assert set(needed_models(config(microphones=True))) == {"detector", "sound", "speech", "text"}


def test_a_recording_needs_what_its_sources_need_and_the_text_model_of_its_site() -> None:
    both = config(microphones=True)
    assert needed_encoders(both, cameras=False) == {*HEARING, "text"}
    assert needed_encoders(both, microphones=False) == {"detector", "text"}
    assert needed_encoders(config(), cameras=False) == set()


@pytest.mark.parametrize(
    ("worker", "seeing", "hearing"),
    [
        ("capture", set(), set()),
        ("vision", {"detector"}, set()),
        ("hearing", set(), {*HEARING, "text"}),
        ("text", set(), {"text"}),
        ("fusion", set(), {"text"}),
        ("alert", set(), set()),
        ("delivery", set(), set()),
    ],
)
def test_a_worker_needs_its_part_of_it(worker: str, seeing: set[str], hearing: set[str]) -> None:
    stages = WORKERS[worker]
    assert needed_encoders(config(KEYWORD), stages) == seeing
    assert needed_encoders(config(cameras=False, microphones=True), stages) == hearing
