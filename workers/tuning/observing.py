"""What was observed: a scene is seen and heard by the models, and a recording may have losses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.ports import Entry
from pipeline.stages import TABLE
from workers.bus.history import History
from workers.recordings.recording import Recording
from workers.replay.inputs import Input, SceneInput
from workers.replay.scene_replay import ReplayOptions, replay
from workers.runtime.printable import printable
from workers.stages.encoders import Encoders
from workers.stored.wanted_encoders import WantedEncoders

log = logging.getLogger("fusewatch")

LOOKING = tuple(row.name for row in TABLE if row.writes == topics.OBSERVATIONS)


class SceneModels(Protocol):
    """Gives the models that see and hear the scenes of a config, loaded when they are needed."""

    def for_scenes(self, settings: Config) -> Encoders: ...


def wanted_encoders(inputs: Sequence[Input]) -> WantedEncoders:
    """The models that see and hear the scenes of some inputs, to be loaded when one is played."""
    scenes = [one.scene for one in inputs if isinstance(one, SceneInput)]
    return WantedEncoders(
        cameras=any(scene.cameras for scene in scenes),
        microphones=any(scene.microphones for scene in scenes),
    )


def warn_of_losses(path: Path, stored: History) -> None:
    """Logs what of a recording could not be read, after it was read."""
    for loss in stored.losses if isinstance(stored, Recording) else ():
        log.warning("%s", printable(f"{path}: {loss}"))


def observe(
    settings: Config,
    one: SceneInput,
    encoders: Encoders,
    told: Callable[[Entry], object],
    heard: Callable[[int, int], None] = lambda done, all_: None,
) -> None:
    """Calls `told` with each entry of `observations.v1`, in the order of a replay of the scene.

    Sources that are not selected are neither seen nor heard. `heard` is called with the finished
    and the total event time, in ns.
    """
    bus = MemoryBus()
    reader = bus.reader(topics.OBSERVATIONS, "observe")

    def take(done: int, all_: int) -> None:
        while polled := reader.poll(1000):
            for event in polled:
                if isinstance(event, Entry):
                    told(event)
                    reader.commit(0, event.offset + 1, b"")
        heard(done, all_)

    study = ReplayOptions(stages=LOOKING, keep=one.selected.kept)
    replay(settings, one.scene, encoders, bus=bus, heard=take, study=study)
    length = one.scene.end - one.scene.start
    take(length, length)
