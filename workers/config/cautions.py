"""What a config asks for that may work badly, and what it costs; `check` and `run` say it."""

from __future__ import annotations

from collections.abc import Iterator

from models.vision.tile_grid import looks
from pipeline.config.problem import Problem, Way
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Camera, Config, Site

UNMEASURED = ("running", "abandoned-object", "vehicle-at-rest")
# What behaviours were measured with
FPS, WIDTH = 5, 640  # frames/s; px
SHAPES = {"16:9": (1920, 1080), "4:3": (1600, 1200)}


def cautions(config: Config) -> Iterator[Problem]:
    """Yields what may disappoint: behaviours that are often wrong, or that see too little."""
    for name, site in config.sites.items():
        way: Way = ("sites", name)
        for i, rule in enumerate(site.rules):
            if isinstance(rule, BehaviourRule):
                yield from _labels(rule, (*way, "rules", i, "labels"))
        for camera, settings in site.cameras.items():
            if _judged(site, settings):
                yield from _camera(settings, (*way, "cameras", camera, "detect"))


def costs(config: Config) -> Iterator[Problem]:
    """Yields what tiles cost."""
    for name, site in config.sites.items():
        for camera, settings in site.cameras.items():
            if (count := settings.detect.tiles) > 1:
                told = " or ".join(f"{looks(*px, count)} ({shape})" for shape, px in SHAPES.items())
                way: Way = ("sites", name, "cameras", camera, "detect", "tiles")
                what = f"the detector runs {told} times for each frame that is looked at"
                yield Problem(
                    way, f"{what}; `fusewatch weights recommend` measures what that costs"
                )


def _labels(rule: BehaviourRule, way: Way) -> Iterator[Problem]:
    if "fight" in rule.labels:
        what = "is experimental: on our clips it was wrong in 4 of 10"
        yield Problem((*way, "fight"), f"{what}; expect false alerts")
    for label in UNMEASURED:
        if label in rule.labels:
            what = "has not been measured on real videos"
            yield Problem((*way, label), f"{what}; watch its alerts before you rely on it")


def _judged(site: Site, camera: Camera) -> bool:
    """Whether a rule judges behaviours at this camera."""
    return any(
        isinstance(rule, BehaviourRule) and (not rule.zone or rule.zone in camera.zones)
        for rule in site.rules
    )


def _camera(camera: Camera, way: Way) -> Iterator[Problem]:
    detect = camera.detect
    told = "a rule judges behaviours at this camera, and they were measured at"
    if detect.fps < FPS:
        what = f"{told} {FPS} frames/s; fewer show a fall too late, or not at all"
        yield Problem((*way, "fps"), what)
    if detect.width < WIDTH:
        what = f"{told} {WIDTH} pixels; in smaller pictures persons who are far have no pose"
        yield Problem((*way, "width"), what)
    if detect.decode == "keyframes":
        what = f"{told} {FPS} frames/s; keyframes come every second or two; write `all` or `auto`"
        yield Problem((*way, "decode"), what)
