"""Extracts windows for training and evaluation: runs scenes and clips through the daemon's stages.

A recording head takes the place of the learned one and stores its queries. So training data and the
running system use the same code (`tests/graph` proves it).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import msgspec

from models import weights
from models.fusion import features
from models.fusion.head import RULES_HEAD, Head
from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery
from models.registry import REGISTRY
from models.training import dataset
from models.vision.person_crop import Person
from pipeline.config.model_needs import needed_encoders, needed_models
from pipeline.config.schema import Config, Microphone, Models, Site
from pipeline.errors import ConfigError, OutsideError
from pipeline.ports import Model
from pipeline.stages import TABLE
from pipeline.topics import ALERTS, FRAMES
from pipeline.types import SECOND, Box, Window
from workers.config import loader
from workers.media import recordings
from workers.media.jpeg import Pixels
from workers.replay.scene_file import Scene, SceneClip, load_scene
from workers.replay.scene_replay import ReplayOptions, replay
from workers.runtime.process_pool import pool
from workers.stages.absent_encoders import no_voice
from workers.stages.encoders import Encoders, load_encoders
from workers.training import corruptions
from workers.training.ground_truth import truth
from workers.training.video_cache import VideoCache

NO_THRESHOLD = 2.0  # a threshold above every score
SILENCE_BEFORE_CLIP = 1.25  # s of silence before a single clip
LOOK = tuple(row.name for row in TABLE if row.writes != ALERTS)  # all that asks a head
LISTENING_STAGES = tuple(row.name for row in TABLE if row.name in LOOK and row.reads != FRAMES)


class RecordingHead:
    """A head that stores its queries; it returns an inner head's verdicts, or finds nothing."""

    def __init__(self, head: Head | None = None) -> None:
        self._head = head
        self.version = RULES_HEAD if head is None else head.version
        self.threshold = NO_THRESHOLD if head is None else head.threshold
        self.asked: list[tuple[Window, features.Tokens]] = []

    def score(self, question: HeadQuery) -> float:
        """Returns the score of the verdict on a window."""
        return self([question])[0].score

    def __call__(self, batch: Sequence[HeadQuery]) -> Sequence[Verdict]:
        for question in batch:
            # A window is queried first as a whole, then perhaps its newest hop alone.
            if not self.asked or self.asked[-1][0].end != question.window.end:
                self.asked.append((question.window, features.tokens(question)))
        if self._head is not None:
            return self._head(batch)
        return [Verdict(score=0.0, label="", contributions={}) for _ in batch]


class ExtractionJob(msgspec.Struct, frozen=True, kw_only=True):
    """A scene to encode.

    `spoil` names a corruption (corruptions.KINDS); "" is none. `take` is its seed.
    """

    scene: str
    split: str = "test"
    spoil: str = ""
    only: str = ""
    clip: str = ""  # a sound file that is the whole scene, with its label
    label: str = ""
    gain_db: float = 0.0
    beside: tuple[SceneClip, ...] = ()  # normal sounds that are mixed with it
    take: int = 0


def rows(config: Config, job: ExtractionJob, encoders: Encoders) -> list[dataset.WindowRow]:
    """Returns the windows of one scene or clip, with their truth. Raises ConfigError."""
    if job.clip:
        config, scene = _alone(job)
        length = scene.duration - round((SILENCE_BEFORE_CLIP + 2) * SECOND)
        begin = scene.start + round(SILENCE_BEFORE_CLIP * SECOND)
        spans = [(begin, begin + length, job.label)] if job.label else []
    else:
        scene = load_scene(Path(job.scene))
        spans = truth(scene)
    if scene.site not in config.sites:
        msg = f"{scene.path}: site: {scene.site!r} is not in the config"
        raise ConfigError(msg)
    config, scene = _part(config, scene, job.only)
    if job.spoil == "shifted":
        scene = corruptions.shifted(scene)
    notes = RecordingHead()
    study = ReplayOptions(
        heads={scene.site: notes},
        spoil=corruptions.corruption(job.spoil, job.take),
        film=_films,
        stages=LISTENING_STAGES if job.clip else LOOK,
    )
    replay(config, scene, encoders, study=study)
    return [
        dataset.WindowRow(
            scene=f"{job.clip}#{job.take}" if job.clip else scene.path.stem,
            site=scene.site,
            camera=next((Path(camera.file).stem for camera in scene.cameras.values()), ""),
            split=job.split,
            start=window.start,
            end=window.end,
            truth=dataset.truth_of(window.start, window.end, spans),
            states=tokens.states,
            vectors=dataset.packed(tokens),
        )
        for window, tokens in notes.asked
        if scene.start <= window.start < scene.end
    ]


def _part(config: Config, scene: Scene, only: str) -> tuple[Config, Scene]:
    """Returns the site and the scene without microphones, or without cameras."""
    if not only:
        return config, scene
    gone = {"seen": "microphones", "heard": "cameras"}[only]
    site = msgspec.structs.replace(config.sites[scene.site], **{gone: {}})
    config = msgspec.structs.replace(config, sites={scene.site: site})
    return config, msgspec.structs.replace(scene, **{gone: {}})


def _alone(job: ExtractionJob) -> tuple[Config, Scene]:
    """Returns a site with one microphone that records only the clip."""
    path = Path(job.clip)
    try:
        seconds = float(recordings.clip_length(path, whole=True))
    except recordings.Unplayable as error:
        raise ConfigError(str(error)) from error
    scene = Scene(
        path=path,
        site="clip",
        start=1_767_225_600 * SECOND,  # 2026-01-01: a clip has no time
        duration=round((seconds + SILENCE_BEFORE_CLIP + 2) * SECOND),
        cameras={},
        microphones={
            "mic": (
                SceneClip(file=path.name, at=SILENCE_BEFORE_CLIP, gain_db=job.gain_db),
                *job.beside,
            )
        },
        reports=(),
    )
    site = Site(microphones={"mic": Microphone(source="device:default")})
    return Config(version=1, sites={"clip": site}), scene


def encode(
    config: Path,
    jobs: Sequence[ExtractionJob],
    *,
    told: Callable[[int, int], None],
    processes: int = 0,
) -> Iterator[list[dataset.WindowRow]]:
    """Yields the windows of each job, in order; one process per core, each loads the models once.

    Clips alone need no config: `Path()`. `told` is called with the numbers of finished and of all
    jobs. Raises ConfigError as scenes and configs do, and OutsideError when a process was killed.
    """
    _there(config)
    with pool(_ready, str(config) if config.name else "", count=processes) as workers:
        try:
            for done, made in enumerate(workers.map(_work, jobs), 1):
                told(done, len(jobs))
                yield made
        except BrokenProcessPool as error:
            msg = "a process that encodes scenes was killed: is there memory for one a core?"
            raise OutsideError(msg) from error


def _there(config: Path) -> None:
    """Downloads the weights in this process, where an error fits in one line."""
    models = needed_models(loader.load(config)).values() if config.name else [Models().sound]
    for model in models:
        if model.weights in REGISTRY:
            weights.find(model.weights)


_films = VideoCache()  # of this process: all scenes use the same few videos
_ours: list[tuple[Config, Encoders]] = []  # of this worker process


def _ready(config: str) -> None:
    settings = loader.load(config) if config else Config(version=1, sites={})
    single = {
        name: msgspec.structs.replace(getattr(settings.models, name), threads=1)
        for name in settings.models.__struct_fields__
    }
    models = msgspec.structs.replace(settings.models, **single)
    if config:
        encoders = load_encoders(models, recorded=True, needed=needed_encoders(settings))
        encoders = memoized(encoders)
    else:  # a sound clip contains no speech
        encoders = load_encoders(models, recorded=True, stages=("sound",))
        encoders = msgspec.structs.replace(encoders, voice=no_voice)
    _ours.append((settings, encoders))


def _work(job: ExtractionJob) -> list[dataset.WindowRow]:
    settings, encoders = _ours[0]
    return rows(settings, job, encoders)


def memoized(encoders: Encoders) -> Encoders:
    """Returns the encoders with results of pictures cached: the same videos are used again and
    again."""
    return msgspec.structs.replace(
        encoders,
        detector=_Memoized(encoders.detector, _of_picture),
        pose=_Memoized(encoders.pose, _of_person),
    )


class _Memoized:
    """A model that caches its results by a key of the input."""

    def __init__(self, model: Model, key: Callable[[Any], Hashable]) -> None:
        self._model, self._key = model, key
        self._known: dict[Hashable, Any] = {}

    def __call__(self, batch: Sequence[Any]) -> list[Any]:
        keys = [self._key(item) for item in batch]
        for key, item in zip(keys, batch, strict=True):
            if key not in self._known:
                (self._known[key],) = self._model([item])
        return [self._known[key] for key in keys]


def _of_picture(picture: Pixels) -> int:
    return hash(picture.tobytes())


def _of_person(person: Person) -> tuple[int, Box]:
    return _of_picture(person.picture), person.box
