"""Plays a scene through the stages that look and listen, and gives what they observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.model_needs import needed_encoders
from pipeline.config.schema import Config
from pipeline.ports import Entry
from pipeline.stages import TABLE
from workers.replay.scene_file import Scene
from workers.replay.scene_replay import ReplayOptions, replay
from workers.stages.encoders import Encoders, load_encoders

LOOKING = tuple(row.name for row in TABLE if row.writes == topics.OBSERVATIONS)


def encoders_of(settings: Config, scenes: Sequence[Scene]) -> Encoders:
    """Loads the models that see and hear these scenes; none without a scene.

    Raises WeightsError and ConfigError.
    """
    needed = needed_encoders(
        settings,
        LOOKING,
        cameras=any(scene.cameras for scene in scenes),
        microphones=any(scene.microphones for scene in scenes),
    )
    return load_encoders(
        settings.models, recorded=True, stages=LOOKING, needed=needed if scenes else ()
    )


def observe(
    settings: Config,
    scene: Scene,
    encoders: Encoders,
    told: Callable[[Entry], object],
    heard: Callable[[int, int], None] = lambda done, all_: None,
) -> None:
    """Calls `told` with each entry of `observations.v1`, in the order of a replay of the scene.

    `heard` is called with the finished and the total event time, in ns.
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

    played = replay(
        settings, scene, encoders, bus=bus, heard=take, study=ReplayOptions(stages=LOOKING)
    )
    length = played.scene.end - played.scene.start
    take(length, length)
