"""The three example sites as one config over Kafka, and the scenes that are played there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.live.likeness import BEGIN, STEP
from tests.live.processes import ROOT
from workers.config.yaml_reader import read_yaml

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="
SUBSCRIBER = "subscriber"
EXAMPLES = ("office", "retail", "plaza")


def merged(folder: Path, **bus: Any) -> dict[str, Any]:
    """The three example configs as one, on a Kafka bus."""
    examples = [read_yaml(ROOT / f"deploy/examples/{name}.yaml")[0] for name in EXAMPLES]
    sites = {name: site for one in examples for name, site in one["sites"].items()}
    for site in sites.values():
        site["incidents"] = {"close_after": 2}  # s; so that a scene has several to compare
        for camera in site["cameras"].values():
            # Audited frames are picked by their time, and a scene that is played later has others.
            camera.setdefault("detect", {})["audit"] = 0
        for microphone in site["microphones"].values():
            # So are audited seconds, and those in which the gate hears the usual noise.
            microphone["hear"] = {"gate": "off"}
    return {
        "version": 1,
        "state": str(folder / "state"),
        "sites": sites,
        "api": {"listen": "127.0.0.1:0"},
        "bus": {"kind": "kafka", **bus},
    }


def written(folder: Path, prefix: str, addresses: str, url: str) -> Path:
    """The config of a run. JSON is YAML."""
    brokers = addresses.split(",")
    copies = min(3, len(brokers))
    settings = merged(
        folder,
        brokers=brokers,
        prefix=prefix,
        replication=copies,
        min_insync=2 if copies > 2 else 1,
        # By 6, and not by 12, do the three cameras fall to two workers however they share them.
        partitions={"frames": 6},
    )
    settings["webhooks"] = [{"url": url, "secret": SECRET, "name": SUBSCRIBER}]
    path = folder / "three.yaml"
    path.write_text(json.dumps(settings, indent=1))
    return path


def scenes_of(folder: Path) -> dict[str, list[Path]]:
    """The scene files by site."""
    found: dict[str, list[Path]] = {name: [] for name in EXAMPLES}
    for path in sorted(folder.glob("*.yaml")):
        found[read_yaml(path)[0]["site"]].append(path)
    return found


def later(scene: Path, count: int, folder: Path) -> Path:
    """The same scene, begun `count` STEPs later, so that it may follow others."""
    given, _ = read_yaml(scene)
    assert datetime.fromisoformat(given["start"]) == BEGIN, f"{scene}: begins at another time"
    assert timedelta(seconds=given["duration"]) < STEP / 2
    given["start"] = (BEGIN + count * STEP).isoformat()
    rooms = given.get("microphones", {}).values()
    for clip in (*given["cameras"].values(), *(clip for room in rooms for clip in room)):
        clip["file"] = str((scene.parent / clip["file"]).resolve())
    path = folder / f"{count:03}-{scene.name}"
    path.write_text(json.dumps(given))
    return path


@dataclass
class Site:
    """Plays its scenes one after the other, by a capture worker each; over and over if asked."""

    name: str
    scenes: list[Path]
    folder: Path
    played: list[str] = field(default_factory=list)

    def next(self) -> Path:
        scene = self.scenes[len(self.played) % len(self.scenes)]
        path = later(scene, len(self.played), self.folder)
        self.played.append(scene.stem)
        return path

    @property
    def through(self) -> bool:
        """Every scene was begun at least once."""
        return len(self.played) >= len(self.scenes)
