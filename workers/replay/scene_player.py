"""Plays a scene into a live bus: lossless by back-pressure, and resumes after a kill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import SECOND, AudioChunk, FrameChunk, Mode, Progress, Record, Roster
from workers.capture.capture import Publish
from workers.replay.scene_records import Scene, fits, load_scene, scene_records
from workers.replay.scene_replay import slices_of
from workers.runtime.status import Status

MAX_AHEAD = 24  # entries; limit of a stage's backlog
STAGES_LOOK_EVERY = 0.005  # s between checks of the stages' backlog


def scene_of(settings: Config, path: Path) -> Scene:
    """Loads a scene; raises ConfigError when its site or a source is not in the config."""
    scene = load_scene(path)
    if scene.site not in settings.sites:
        known = ", ".join(sorted(settings.sites))
        msg = f"{path}: site: {scene.site!r} is not in the config, which has {known}"
        raise ConfigError(msg)
    fits(scene, settings.sites[scene.site])
    return scene


class ScenePlayer:
    """Publishes a scene's records as fast as the stages take them, or at `speed` times real time.

    `store` publishes durably, `last` returns the last stored value of (topic, key), and `full`
    tells the player to wait. `over` is set at the end of the scene.
    """

    def __init__(
        self,
        settings: Config,
        scene: Scene,
        *,
        store: Publish,
        last: Callable[[str, str], bytes | None],
        full: Callable[[], bool],
        status: Status,
        speed: float | None,
    ) -> None:
        self.over = threading.Event()
        self._site = settings.sites[scene.site]
        self._scene, self._store, self._last, self._full = scene, store, last, full
        self._status, self._speed = status, speed

    def play(self, stop: threading.Event) -> None:
        """Plays to the end of the scene, or until `stop` is set."""
        records = scene_records(self._scene, self._site, after=self._resumed(), status=self._status)
        began, first = time.monotonic(), None
        self._tell("playing")
        for upto, slice_ in slices_of(records):
            first = upto if first is None else first
            while self._full() or self._early(began, upto - first):
                if stop.wait(STAGES_LOOK_EVERY):
                    return
            for topic in dict.fromkeys(topic for topic, _ in slice_):
                self._store(topic, [record for of, record in slice_ if of == topic])
            for _, record in slice_:
                if isinstance(record, FrameChunk | AudioChunk):
                    self._status.reach(record.site, record.source, "captured", record.start)
        self._tell("ended", "the scene is over")
        self.over.set()

    def _tell(self, state: str, reason: str = "") -> None:
        for name in (*self._site.cameras, *self._site.microphones):
            self._status.source(self._scene.site, name, state, reason)

    def _early(self, began: float, event: int) -> bool:
        return bool(self._speed) and time.monotonic() - began < event / SECOND / (self._speed or 1)

    def _resumed(self) -> dict[tuple[str, str], int]:
        """Returns the last published start of each source in the log; later records are still
        due."""
        after = {}
        for topic, names in (
            (topics.FRAMES, self._site.cameras),
            (topics.AUDIO, self._site.microphones),
            (topics.REPORTS, (REPORTS_SOURCE,)),
        ):
            for name in names:
                value = self._last(topic, f"{self._scene.site}/{name}")
                if value is not None:
                    after[topic, name] = _stands_at(codec.decode(value))
        return after


def _stands_at(record: Record) -> int:
    """Returns the event time up to which a source has been published. Ns."""
    match record:
        case Progress():
            return record.upto - 1
        case Roster():
            return record.start - 1
        case Mode():
            return record.said - 1
        case _:
            return int(record.start)  # type: ignore[attr-defined]
