"""What is proposed for a config, from made-up speeds of a machine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Camera, Config, Detect, Hear, Microphone, Site
from workers.setup.machine_speed import DetectorSpeed, MachineSpeed, MissingModel
from workers.setup.recommendation import STREAM, Recommendation, lines, recommend

PIXELS = STREAM[0] * STREAM[1]


def detector(name: str, ap: float, ms: float, cores: int = 2, **more: Any) -> DetectorSpeed:
    return DetectorSpeed(
        name=name,
        kind="onnx",
        ap=ap,
        size=(416, 416),
        look=ms / 1e3,
        busy=ms / 1e3,
        **{"rate": cores * 1e3 / ms, **more},
    )


SMALL, MIDDLE, LARGE = (
    detector("small", 0.26, 10),
    detector("middle", 0.30, 30),
    detector("large", 0.48, 400),
)


def machine(*detectors: DetectorSpeed, cores: int = 2, **more: Any) -> MachineSpeed:
    """Decoding takes a tenth of a ms for a frame, so 25 frames/s take 0.0025 cores."""
    given = {"decode": 1e-4, "capture": 0.0, "view": 0.0, "pose": 0.005, "sound": 0.004}
    return MachineSpeed(
        cores=cores, detectors=detectors, missing=(), decoded_pixels=PIXELS, **{**given, **more}
    )


def config(cameras: int = 1, microphones: int = 0, **detect: Any) -> Config:
    site = Site(
        cameras={
            f"c{n}": Camera(source="device:0", detect=Detect(**detect)) for n in range(cameras)
        },
        microphones={f"m{n}": Microphone(source="device:default") for n in range(microphones)},
    )
    return Config(version=1, sites={"shop": site})


def made(of: Config, speed: MachineSpeed) -> Recommendation:
    return recommend(of, speed, {}, {})


def test_the_best_detector_that_bears_the_worst_case_is_proposed() -> None:
    found = made(config(1), machine(SMALL, MIDDLE, LARGE))
    assert found.best is not None
    assert (found.best.detector, found.best.fps, found.best.fits) == ("middle", 5, "worst")
    assert found.best.worst.cores == pytest.approx(5 * 0.030 + 0.0025)
    assert found.best.usual.cores == pytest.approx(0.25 * 5 * 0.030 + 0.0025)
    assert (found.best.worst.looks, found.best.usual.looks) == (5, 1.25)


def test_more_cores_bear_a_better_one() -> None:
    large = detector("large", 0.48, 400, cores=8)
    found = made(config(1), machine(SMALL, MIDDLE, large, cores=8))
    assert found.best is not None
    assert found.best.detector == "large"


def test_where_the_worst_case_is_too_much_the_usual_one_must_fit() -> None:
    found = made(config(30), machine(SMALL, MIDDLE))
    assert found.best is not None  # 1.5 cores at worst, and 1.4 may be used
    assert (found.best.detector, found.best.fits) == ("middle", "usual")
    assert [choice.fits for choice in found.choices] == ["usual", "usual"]


def test_fewer_poses_come_before_fewer_frames() -> None:
    heavy = machine(SMALL, pose=0.1)
    found = made(config(2, poses=4, gate="off"), heavy)  # 4.1 cores at worst, usually 1.1
    assert found.best is not None
    assert (found.best.poses, found.best.fps, found.best.fits) == (None, 5, "usual")
    found = made(config(6, poses=4, gate="off"), machine(SMALL, pose=0.02))
    assert found.best is not None
    assert (found.best.poses, found.best.fps, found.best.fits) == (None, 5, "usual")


def test_where_nothing_else_helps_there_are_fewer_frames() -> None:
    found = made(config(60, gate="off"), machine(SMALL))
    assert found.best is not None
    assert (found.best.fps, found.best.fits) == (2, "worst")


def test_a_machine_that_is_too_small_gets_no_proposal() -> None:
    found = made(config(1000, gate="off"), machine(SMALL))
    assert found.best is None
    assert any("this machine is not enough" in line for line in lines(found))
    none = made(config(1), machine())
    assert none.best is None
    assert any("no detector is here" in line for line in lines(none))


def test_a_device_bears_no_more_looks_than_it_makes() -> None:
    """A GPU takes little CPU time."""
    device = detector("device", 0.4, 1, rate=20.0)
    assert [c.fits for c in made(config(2), machine(device)).choices] == ["worst"]
    assert [c.fits for c in made(config(3), machine(device)).choices] == ["usual"]


def test_tiles_poses_sound_and_gates_count() -> None:
    speed = machine(SMALL)

    def worst(of: Config) -> float:
        return made(of, speed).choices[0].worst.cores

    def usual(of: Config) -> float:
        return made(of, speed).choices[0].usual.cores

    assert worst(config(1, tiles=2)) - worst(config(1)) == pytest.approx(5 * 2 * 0.010)
    assert worst(config(1, poses=4)) - worst(config(1)) == pytest.approx(5 * 4 * 0.005)
    assert usual(config(1, poses=4)) - usual(config(1)) == pytest.approx(0.25 * 5 * 0.005)
    assert worst(config(0, 3)) == pytest.approx(3 * 0.004)
    assert usual(config(0, 3)) == pytest.approx(0.25 * 3 * 0.004)
    loud = Microphone(source="device:default", hear=Hear(gate="off"))
    site = Site(microphones={"m": loud})
    assert usual(Config(version=1, sites={"s": site})) == pytest.approx(0.004)
    assert usual(config(1, gate="off")) == pytest.approx(worst(config(1)))
    assert worst(config(1, decode="keyframes")) < worst(config(1))


def test_what_a_camera_was_measured_to_take_counts_in_place_of_the_guess() -> None:
    found = recommend(config(2), machine(SMALL), {("shop", "c0"): 0.5}, {("shop", "c1"): "is lost"})
    assert found.choices[0].worst.cores == pytest.approx(2 * 5 * 0.010 + 0.5 + 0.0025)
    told = "\n".join(lines(found))
    assert "reading shop/c0: 0.50 cores" in told
    assert "reading shop/c1: not measured: is lost" in told
    assert "1 camera not read" in told


def test_cameras_of_high_quality_alone_get_a_detector_for_that() -> None:
    found = made(config(1, quality="high"), machine(SMALL, MIDDLE))
    assert found.setting == "detector_high"
    assert "models: {detector_high: {kind: onnx, weights: middle}}" in "\n".join(lines(found))


def test_of_both_qualities_each_camera_costs_its_own_detector() -> None:
    both = config(1)
    high = Camera(source="device:1", detect=Detect(quality="high"))
    site = both.sites["shop"]
    site = msgspec.structs.replace(site, cameras={**site.cameras, "high": high})
    both = msgspec.structs.replace(both, sites={"shop": site})
    nanodet = detector(both.models.detector_high.weights, 0.304, 30)
    found = made(both, machine(SMALL, nanodet))
    small = next(choice for choice in found.choices if choice.detector == "small")
    assert small.worst.cores == pytest.approx(5 * 0.010 + 5 * 0.030 + 2 * 0.0025)
    assert found.setting == "detector"
    told = made(both, machine(SMALL)).assumed
    assert any("`quality: high` is not in the load" in line for line in told)


def test_an_own_file_whose_precision_is_not_known_is_listed_and_not_proposed() -> None:
    own = detector("mine.onnx", 0.0, 5)
    found = made(config(1), machine(SMALL, own))
    assert [choice.detector for choice in found.choices] == ["mine.onnx", "small"]
    assert found.best is not None
    assert found.best.detector == "small"
    alone = made(config(1), machine(own)).best
    assert alone is not None
    assert alone.detector == "mine.onnx"


def test_the_text_names_what_is_missing_and_what_was_assumed() -> None:
    speed = machine(SMALL, pose=None, sound=None)
    speed = msgspec.structs.replace(
        speed, missing=(MissingModel(name="middle", why="is not here: `fusewatch weights pull`"),)
    )
    of = config(1, 1, poses=2, tiles=2)
    rule = BehaviourRule(labels={"fall": 0.5})
    site = msgspec.structs.replace(of.sites["shop"], rules=(rule,))
    told = "\n".join(lines(made(msgspec.structs.replace(of, sites={"shop": site}), speed)))
    for words in (
        "1 camera, 1 microphone",
        "middle: is not here: `fusewatch weights pull`",
        "a pose: not measured; a second of sound: not measured",
        "poses are not in the load",
        "sound is not in the load",
        "tiles are counted for frames of 16:9",
        "behaviours were measured at 5 frames/s",
        "worst case: every frame is looked at",
        "usual case: 25% of the frames",
        "(nothing was written)",
    ):
        assert words in told
    assert max(map(len, told.splitlines())) <= 180
