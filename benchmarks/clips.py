"""Plays clips through the real vision stage, for the benchmark of behaviours."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.fields import BEHAVIOURS
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Camera, Config, Fusion, Site
from pipeline.types import Detections
from workers.replay.scene_file import load_scene
from workers.replay.scene_replay import ReplayOptions, replay
from workers.stages.encoders import Encoders, load_encoders

SHIPPED = 0.5  # the operating point of every behaviour
SITE, CAMERA = "here", "eye"
START = "2026-01-01T00:00:00Z"
CONFIG = Config(
    version=1,
    sites={
        SITE: Site(
            cameras={CAMERA: Camera(source="device:0")},
            rules=(BehaviourRule(labels={"fall": SHIPPED, "lying": SHIPPED}),),
            fusion=Fusion(head="rules"),
        )
    },
)


def models() -> Encoders:
    """The models of the vision stage."""
    return load_encoders(CONFIG.models, recorded=True, needed=("detector", "pose"))


SHOWN = {"plaza": ("vehicle-at-rest",)}  # a van and a car stand on that square all along


def beyond_shown(site: str, labels: Iterable[str]) -> tuple[str, ...]:
    """The labels of an alert that the video of a composed site does not truly show all along."""
    return tuple(label for label in labels if label not in SHOWN.get(site, ()))


def with_behaviours(config: Config) -> Config:
    """The config with a rule that tells every behaviour at every site with a camera."""
    rule = BehaviourRule(labels=dict.fromkeys(BEHAVIOURS, SHIPPED))
    sites = {
        name: structs.replace(site, rules=(*site.rules, rule)) if site.cameras else site
        for name, site in config.sites.items()
    }
    return structs.replace(config, sites=sites)


def observed(path: Path, encoders: Encoders) -> list[Detections]:
    """What the vision stage publishes of a file."""
    bus = MemoryBus()
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.yaml"
        file = str(path.resolve())
        scene.write_text(
            f"site: {SITE}\nstart: {START}\ncameras:\n  {CAMERA}: {{file: '{file}'}}\n"
        )
        replay(
            CONFIG, load_scene(scene), encoders, bus=bus, study=ReplayOptions(stages=("vision",))
        )
    found = []
    reader = bus.reader(topics.OBSERVATIONS, "benchmark")
    while entries := reader.poll(1000):
        records = [codec.decode(entry.value) for entry in entries if hasattr(entry, "value")]
        found += [record for record in records if isinstance(record, Detections)]
    return found


def wilson(hits: int, count: int, z: float = 1.96) -> str:
    """The 95 % interval of a share (Wilson 1927), in percent."""
    if not count:
        return "none"
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return f"{100 * max(0.0, centre - half):.0f} to {100 * min(1.0, centre + half):.0f} %"
