"""What `replay`, `explain`, `sweep` and `diff` read: one resolver for the inputs of a command line.

An input is a scene (a scene file, or a media file as a scene), or stored entries (a recording, the
log of a daemon, or Kafka).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from pipeline.config.problem import nearest
from pipeline.config.schema import Config, KafkaBus
from pipeline.errors import ConfigError, OutsideError
from pipeline.types import BEFORE_ALL, FOREVER
from workers.bus.history import History, history, moments
from workers.recordings.recording import Recording, open_recording
from workers.replay.media_scene import SUFFIXES, MediaOptions, media_scene
from workers.replay.scene_file import WANTED_TIME, read_scene, scene_time
from workers.replay.scene_player import scene_of
from workers.replay.scene_records import Scene
from workers.stored.left_out import Unusable
from workers.stored.recorded_sites import (
    NotSelected,
    check_recording,
    check_sites,
    check_sources,
    check_span,
    scene_sources,
    stored_sites,
)
from workers.stored.rules_then import NOW
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


def resolve(
    settings: Config,
    config: Path,
    given: Given,
    *,
    rules: str = NOW,
    unusable: Unusable | None = None,
) -> list[Input]:
    """Returns the inputs that a command line names, each checked as far as it can be unopened.

    `config` is the path of the config. Without paths, it is what the config's bus has stored in the
    span. A folder stands for the scene files, media files and recordings that lie directly in it,
    by name. With `unusable`, one of several files that cannot be used is left out; without it, it
    is an error. Raises ConfigError and OutsideError.
    """
    since, until = (None, None) if given.since is None else moments(given.since, given.until)
    if given.since is None and given.until is not None:
        msg = "--until needs --since: both together name a span"
        raise ConfigError(msg)
    chosen = selection(settings, given.sites, given.sources, since, until)
    if not given.paths:
        return [_stored(settings, config, given, chosen, rules)]
    if given.state is not None:
        msg = "--state is for what the log of a daemon has stored: leave it out, or the files"
        raise ConfigError(msg)
    _check_media_options(settings, given)
    left_out = Unusable() if unusable is None else unusable
    files: list[tuple[Path, bool]] = []  # whether it is named itself, and not its folder
    for path in given.paths:
        with left_out.trying(path, alone=unusable is None or len(given.paths) == 1):
            files += _files(path)
    found: list[Input] = []
    for file, named in files:
        # A name that is not there is a slip of the hand: it is told before hours of work.
        alone = unusable is None or len(files) == 1 or not os.path.exists(file)
        with left_out.trying(file, alone=alone):
            try:
                found.append(_input(settings, file, given, chosen, rules, left_out, named=named))
            except NotSelected:
                if named:
                    raise
    if not found:
        left_out.check(0)
        msg = "no file has anything of what --site, --source, --since and --until select"
        raise ConfigError(msg)
    _sensible(found, given)
    return found


def _files(path: Path) -> list[tuple[Path, bool]]:
    """The files that a path stands for, and whether each is named itself."""
    if not path.is_dir():
        return [(path, True)]
    try:
        inside = list(_inside(path))
    except OSError as error:
        msg = f"{path}: cannot be read: {error.strerror}"
        raise OutsideError(msg) from error
    if not inside:
        msg = f"{path}: holds no scene file, media file or recording"
        raise ConfigError(msg)
    return [(file, inside == [path]) for file in inside]


def _check_media_options(settings: Config, given: Given) -> None:
    """Raises ConfigError for a camera, microphone or time that suits no file at all."""
    of = [site for name, site in settings.sites.items() if name in (given.sites or settings.sites)]
    for option, name, known in (
        ("camera", given.camera, {each for site in of for each in site.cameras}),
        ("microphone", given.microphone, {each for site in of for each in site.microphones}),
    ):
        if name is not None and name not in known:
            hint = nearest(name, known) or f"; there is {', '.join(sorted(known)) or 'none'}"
            where = f"the site {', '.join(given.sites)}" if given.sites else "the config"
            msg = f"--{option} {name}: {where} has no such {option}{hint}"
            raise ConfigError(msg)
    if given.start is not None and scene_time(given.start) is None:
        msg = f"--start {given.start[:40]!a}: {WANTED_TIME}"
        raise ConfigError(msg)


def _stored(settings: Config, config: Path, given: Given, chosen: Selection, rules: str) -> Input:
    for option in ("camera", "microphone", "start"):
        if getattr(given, option) is not None:
            msg = f"--{option} is for media files: name one"
            raise ConfigError(msg)
    if chosen.since is None:
        msg = "name files, or --since TIME for what the bus of the config has stored"
        raise ConfigError(msg)
    kind = "kafka" if isinstance(settings.bus, KafkaBus) else "log"
    name = "what the brokers hold" if kind == "kafka" else "the log"

    @contextmanager
    def opened() -> Iterator[History]:
        with history(settings, config, given.state) as stored:
            if rules == NOW:
                check_sites(settings, chosen, stored_sites(stored), name)
            yield stored

    return StoredInput(path=config, kind=kind, opened=opened, selected=chosen)


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
        media = path.suffix.lower() in SUFFIXES and not path.is_dir()  # or a link to nothing
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
    try:
        data, _ = read_scene(path)
    except ConfigError:
        return []  # it may be a scene: reading it again says what is wrong
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
    settings: Config,
    path: Path,
    given: Given,
    chosen: Selection,
    rules: str,
    left_out: Unusable,
    *,
    named: bool,
) -> Input:
    """The input of a file; raises NotSelected for one of which nothing is selected."""
    if path.is_dir() or path.suffix.lower() == RECORDINGS:
        return _recording(settings, path, chosen, rules, left_out)
    if path.suffix.lower() == ALERTS:
        msg = f"{path}: is a file of alerts, which `fusewatch diff` reads; name what they came from"
        raise ConfigError(msg)
    if not _is_media(path):
        scene = scene_of(settings, path)
        if not chosen.judges(scene.site):
            msg = f"{path}: is of the site {scene.site}, and --site names another"
            raise NotSelected(msg)
        return _selected(SceneInput(path=path, scene=scene, selected=chosen))
    if len(given.sites) > 1:
        msg = f"{path}: is of one site: name that one alone by --site"
        raise ConfigError(msg)
    options = MediaOptions(
        camera=given.camera,
        microphone=given.microphone,
        start=given.start,
        site=given.sites[0] if given.sites else None,
        lenient=not named,
    )
    made = media_scene(settings, path, options)
    return _selected(SceneInput(path=path, scene=made.scene, selected=chosen, said=made.said))


def _selected(one: SceneInput) -> SceneInput:
    """Raises NotSelected if nothing of a scene is selected."""
    scene = one.scene
    check_sources(one.selected, scene_sources((*scene.cameras, *scene.microphones)), one.path)
    check_span(one.selected, scene.start, scene.end, one.path)
    return one


def _recording(
    settings: Config, path: Path, chosen: Selection, rules: str, left_out: Unusable
) -> Input:
    @contextmanager
    def opened() -> Iterator[History]:
        yield open_recording(path)

    recording = open_recording(path)  # what is no recording is told before hours of work
    check_recording(settings, chosen, recording, path, rules=rules)
    for loss in recording.unusable:
        left_out.add(Path(loss.file), ConfigError(f"{loss.file}: {loss.reason}"))
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
