"""Which models a config needs: those for its cameras, its microphones, and its texts.

A site without microphones has no sound and no speech. Its reports are compared with words without a
model; a phrase rule compares meanings, and needs the text model. Poses are estimated where a rule
judges them, and where a camera asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.rule_kinds import PhraseRule
from pipeline.config.schema import Camera, Config, Model, Site
from pipeline.stages import ALL_STAGES, TABLE

SEEING, HEARING = ("detector",), ("sound", "sound_head", "voice", "speech")
TEXT, POSE, HIGH = "text", "pose", "detector_high"
COMMON = (*SEEING, *HEARING, TEXT)  # what a site with cameras and microphones may always need
ENCODERS = (*COMMON, HIGH, POSE)  # the fields of `workers.stages.encoders.Encoders`
MOST_POSES = 4  # persons of a frame, where a rule judges poses and the camera sets no number


def pose_count(site: Site, camera: Camera) -> int:
    """The most persons of a frame of this camera whose poses are estimated."""
    if camera.detect.poses is not None:
        return camera.detect.poses
    return MOST_POSES if any(rule.judges_poses(camera.zones) for rule in site.rules) else 0


def needed_encoders(
    config: Config,
    stages: Sequence[str] = ALL_STAGES,
    *,
    cameras: bool = True,
    microphones: bool = True,
) -> frozenset[str]:
    """The encoders that `stages` need for the sources and rules of `config`.

    `cameras` or `microphones` is false for a recording that has none of them. The text model
    follows the config alone: a report has the same embedding live and in a replay.
    """
    sites = config.sites.values()
    needed: set[str] = set()
    seeing = [camera for site in sites for camera in site.cameras.values()] if cameras else []
    if any(camera.detect.quality == "normal" for camera in seeing):
        needed.update(SEEING)
    if any(camera.detect.quality == "high" for camera in seeing):
        needed.add(HIGH)
    if cameras and any(pose_count(site, one) for site in sites for one in site.cameras.values()):
        needed.add(POSE)
    heard = any(site.microphones for site in sites)
    if microphones and heard:
        needed.update(HEARING)
    if heard or any(isinstance(rule, PhraseRule) for site in sites for rule in site.rules):
        needed.add(TEXT)
    used = {name for row in TABLE if row.name in stages for name in row.encoders}
    return frozenset(needed & used)


def needed_models(config: Config, stages: Sequence[str] = ALL_STAGES) -> Mapping[str, Model]:
    """The settings below `models` that `stages` need, by name."""
    needed = needed_encoders(config, stages)
    names = config.models.__struct_fields__
    return {name: getattr(config.models, name) for name in names if name in needed}
