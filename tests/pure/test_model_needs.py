"""Which models a config needs, by its sources and rules."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from pipeline.config.checks import problems
from pipeline.config.model_needs import (
    COMMON,
    ENCODERS,
    HEARING,
    MOST_POSES,
    needed_encoders,
    needed_models,
    pose_count,
)
from pipeline.config.rule_kinds import KeywordRule, PhraseRule, Rule, ZoneRule
from pipeline.config.schema import Camera, Config, Detect, Microphone, Site, Zone
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
    assert needed_encoders(config(microphones=True)) == set(COMMON)
    assert set(needed_models(config(microphones=True))) == {"detector", "sound", "speech", "text"}


def test_cameras_of_high_quality_need_their_own_detector() -> None:
    fine = {"door": Camera(source="device:1", detect=Detect(quality="high"))}
    high = Config(version=1, sites={"yard": Site(cameras=fine)})
    assert needed_encoders(high) == {"detector_high"}
    both = Config(version=1, sites={"yard": Site(cameras={**CAMERAS, **fine})})
    assert needed_encoders(both) == {"detector", "detector_high"}
    assert set(needed_models(both)) == {"detector", "detector_high"}
    assert needed_encoders(both, cameras=False) == set()


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


class FloorRule(ZoneRule, frozen=True, kw_only=True):
    """A rule that judges poses at the cameras of its zone."""

    def judges_poses(self, zones: Collection[str]) -> bool:
        return self.zone in zones


FLOOR = FloorRule(zone="floor")


def watched(poses: int | None, *zones: str) -> Camera:
    shapes = dict.fromkeys(zones, Zone(coordinates="0,0, 1,0, 1,1"))
    return Camera(source="device:0", detect=Detect(poses=poses), zones=shapes)


def posed(camera: Camera, *rules: Rule) -> Config:
    return Config(version=1, sites={"yard": Site(cameras={"gate": camera}, rules=rules)})


@pytest.mark.parametrize(
    ("camera", "count"),
    [
        (watched(None), 0),
        (watched(None, "floor"), MOST_POSES),
        (watched(0, "floor"), 0),
        (watched(7, "floor"), 7),
        (watched(1), 1),
    ],
)
def test_poses_are_estimated_where_a_rule_judges_them_or_the_camera_asks(
    camera: Camera, count: int
) -> None:
    assert pose_count(Site(cameras={"gate": camera}, rules=(FLOOR,)), camera) == count
    needed = needed_encoders(posed(camera, FLOOR))
    assert needed == ({"detector", "pose"} if count else {"detector"})


def test_a_camera_alone_may_ask_for_poses() -> None:
    asks = posed(watched(2))
    assert needed_encoders(asks) == {"detector", "pose"}
    assert set(needed_models(asks)) == {"detector", "pose"}
    assert needed_encoders(asks, WORKERS["fusion"]) == set()
    assert needed_encoders(asks, cameras=False) == set()


def test_a_rule_that_judges_poses_at_a_camera_without_them_is_refused() -> None:
    (found,) = problems(posed(watched(0, "floor"), FLOOR))
    assert "cameras.gate.detect.poses is 0" in found.message
    assert not list(problems(posed(watched(1, "floor"), FLOOR)))
    assert not list(problems(posed(watched(None, "floor"), FLOOR)))


def test_every_encoder_is_needed_by_some_config() -> None:
    assert set(ENCODERS) == {*COMMON, "detector_high", "pose"}
