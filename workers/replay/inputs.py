"""What `replay`, `explain`, `sweep` and `diff` read: one resolver for the inputs of a command line.

An input is a scene (a scene file, or a media file as a scene), or stored entries (a recording, the
log of a daemon, or Kafka).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from pipeline.config.schema import Config, KafkaBus
from pipeline.errors import ConfigError
from pipeline.types import BEFORE_ALL, FOREVER
from workers.bus.history import History, history, moments
from workers.recordings.recording import Recording, open_recording
from workers.replay.media_scene import SUFFIXES, MediaOptions, media_scene
from workers.replay.scene_file import read_scene
from workers.replay.scene_player import scene_of
from workers.replay.scene_records import Scene
from workers.stored.selection import Selection, selection

SCENES = frozenset({".yaml", ".yml"})
RECORDINGS = ".mcap"
ALERTS = ".jsonl"
_SNIFFED = 4096  # bytes by which a file of an unknown kind is told from a scene file


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """The words of a command line that name its inputs; times are as in `time_option`.

    `camera`, `microphone` and `start` are for media files. `state` is the state folder of a daemon.
    """

    paths: Sequence[Path] = ()
    camera: str | None = None
    microphone: str | None = None
    start: str | None = None
    sites: Sequence[str] = ()
    sources: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    state: Path | None = None


class SceneInput(msgspec.Struct, frozen=True, kw_only=True):
    """A scene, checked against the config; `said` is what was chosen that no option named."""

    path: Path
    scene: Scene
    selected: Selection
    said: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its output file, without a suffix."""
        return self.path.stem


class Span(msgspec.Struct, frozen=True):
    """The incidents that overlap `[since, until)` ns are judged.

    Revisions of an earlier event time than `told_from` are not output.
    """

    since: int
    until: int
    told_from: int = BEFORE_ALL


class StoredInput(msgspec.Struct, frozen=True, kw_only=True):
    """Stored entries; `kind` is `log`, `kafka` or `recording`.

    `opened` opens them and raises OutsideError. The span of `selected` is known for the log and for
    Kafka; a recording without one is meant as a whole.
    """

    path: Path  # of the recording; of the config for the others
    kind: str
    opened: Callable[[], AbstractContextManager[History]]
    selected: Selection

    @property
    def name(self) -> str:
        """The name of its output file, without a suffix."""
        return self.path.stem

    def span(self, stored: History) -> Span:
        """The span that is judged; of a recording without `--since`, it is the whole.

        What a recording has before that is its run-up, of which nothing is output.
        """
        since, until = self.selected.since, self.selected.until
        if since is not None and until is not None:
            return Span(since, until)
        begin, end = stored.span if isinstance(stored, Recording) else (0, FOREVER)
        marked = stored.about.since if isinstance(stored, Recording) else None
        begin = begin if marked is None else marked
        return Span(begin, end + 1, told_from=begin)


Input = SceneInput | StoredInput


def resolve(settings: Config, config: Path, given: Given) -> list[Input]:
    """Returns the inputs that a command line names, each checked as far as it can be unopened.

    `config` is the path of the config. Without paths, it is what the config's bus has stored in the
    span. A folder stands for the scene files, media files and recordings that lie directly in it,
    by name. Raises ConfigError.
    """
    since, until = (None, None) if given.since is None else moments(given.since, given.until)
    if given.since is None and given.until is not None:
        msg = "--until needs --since: both together name a span"
        raise ConfigError(msg)
    chosen = selection(settings, given.sites, given.sources, since, until)
    if not given.paths:
        return [_stored(settings, config, given, chosen)]
    if given.state is not None:
        msg = "--state is for what the log of a daemon has stored: leave it out, or the files"
        raise ConfigError(msg)
    found: list[Input] = []
    for path in given.paths:
        inside = list(_inside(path)) if path.is_dir() else None
        if inside == []:
            msg = f"{path}: holds no scene file, media file or recording"
            raise ConfigError(msg)
        for file in [path] if inside is None else inside:
            found += _input(settings, file, given, chosen, alone=inside is None)
    if not found:
        msg = f"--site {', '.join(given.sites)}: no file is of this site"
        raise ConfigError(msg)
    _sensible(found, given)
    return found


def _stored(settings: Config, config: Path, given: Given, chosen: Selection) -> Input:
    for option in ("camera", "microphone", "start"):
        if getattr(given, option) is not None:
            msg = f"--{option} is for media files: name one"
            raise ConfigError(msg)
    if chosen.since is None:
        msg = "name files, or --since TIME for what the bus of the config has stored"
        raise ConfigError(msg)
    return StoredInput(
        path=config,
        kind="kafka" if isinstance(settings.bus, KafkaBus) else "log",
        opened=lambda: history(settings, config, given.state),
        selected=chosen,
    )


def _inside(folder: Path) -> Iterator[Path]:
    """Yields what a folder stands for: itself where it is a recording, and its scenes and media.

    A media file that a scene file of the folder plays is a part of that scene.
    """
    there = sorted(folder.iterdir())
    if any(path.suffix.lower() == RECORDINGS for path in there):
        yield folder
    scenes = {path: played for path in there if (played := _scene_media(path)) is not None}
    parts = {part.resolve() for played in scenes.values() for part in played}
    for path in there:
        media = path.suffix.lower() in SUFFIXES and path.is_file()
        if (
            path in scenes
            or (media and path.resolve() not in parts)
            or (path.is_dir() and any(path.glob(f"*{RECORDINGS}")))
        ):
            yield path


def _scene_media(path: Path) -> list[Path] | None:
    """The files that a scene file plays; None for a file that is no scene file."""
    if path.suffix.lower() not in SCENES or not path.is_file():
        return None
    data, _ = read_scene(path)
    if not isinstance(data, dict) or "site" not in data:
        return None  # a config may lie beside the scenes
    files: list[Path] = []
    for kind in ("cameras", "microphones"):
        sources = data.get(kind)
        for source in sources.values() if isinstance(sources, dict) else ():
            clips = source if isinstance(source, list) else [source]
            names = [clip.get("file") for clip in clips if isinstance(clip, dict)]
            files += [path.parent / name for name in names if isinstance(name, str)]
    return files


def _input(
    settings: Config, path: Path, given: Given, chosen: Selection, *, alone: bool
) -> list[Input]:
    """The input of a file; none for a scene of another site that lies in a folder."""
    if path.is_dir() or path.suffix.lower() == RECORDINGS:
        return [_recording(path, chosen)]
    if path.suffix.lower() == ALERTS:
        msg = f"{path}: is a file of alerts, which `fusewatch diff` reads; name what they came from"
        raise ConfigError(msg)
    if not _is_media(path):
        scene = scene_of(settings, path)
        if chosen.judges(scene.site):
            return [SceneInput(path=path, scene=scene, selected=chosen)]
        if not alone:
            return []
        msg = f"{path}: is of the site {scene.site}, and --site names another"
        raise ConfigError(msg)
    if len(given.sites) > 1:
        msg = f"{path}: is of one site: name that one alone by --site"
        raise ConfigError(msg)
    options = MediaOptions(
        camera=given.camera,
        microphone=given.microphone,
        start=given.start,
        site=given.sites[0] if given.sites else None,
        lenient=not alone,
    )
    made = media_scene(settings, path, options)
    return [SceneInput(path=path, scene=made.scene, selected=chosen, said=made.said)]


def _recording(path: Path, chosen: Selection) -> Input:
    @contextmanager
    def opened() -> Iterator[History]:
        yield open_recording(path)

    open_recording(path)  # what is no recording is told before hours of work
    return StoredInput(path=path, kind="recording", opened=opened, selected=chosen)


def _is_media(path: Path) -> bool:
    """Whether a file is media, and no scene file: by its name, else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix in SCENES or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(_SNIFFED)
    except OSError:
        return False  # reading it as a scene file says why
    return b"\0" in begin


def _sensible(found: Sequence[Input], given: Given) -> None:
    """Raises ConfigError for an option that no input uses."""
    media = any(isinstance(one, SceneInput) and _is_media(one.path) for one in found)
    for option in ("camera", "microphone", "start"):
        if getattr(given, option) is not None and not media:
            msg = f"--{option} is for media files, and no such file is named"
            raise ConfigError(msg)
