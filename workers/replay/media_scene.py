"""Makes a scene of a plain media file: its picture and its sound become a camera and a microphone.

The scene is played as one of a scene file is. There is no second player.
"""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import msgspec

from pipeline.config.problem import nearest
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from workers.config.system_files import system_file
from workers.media import recordings
from workers.media.containers import open_file, picture_track, sound_track
from workers.replay.scene_file import (
    MAX_SECONDS,
    WANTED_TIME,
    Scene,
    SceneCamera,
    SceneClip,
    ns_of,
    scene_time,
)

USUAL_START = "2026-01-01T00:00:00Z"  # of a clip, where `--start` says no other
SUFFIXES = frozenset(  # of the formats that can be read; other files are told by their content
    (
        *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf"),
        *(".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".mjpeg", ".mjpg"),
        *(".h264", ".264", ".hevc", ".h265"),
        *(".wav", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac"),
        *(".aif", ".aiff", ".caf", ".au", ".wma"),
    )
)


class MediaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which camera sees the picture, which microphone hears the sound, and when it begins.

    `start` is RFC 3339 with a zone. `site` is needed where two sites have a source of this name.
    `lenient`: a file that lacks what an option asks for is used for the rest, as in a folder of
    videos and sounds.
    """

    camera: str | None = None
    microphone: str | None = None
    start: str | None = None
    site: str | None = None
    lenient: bool = False

    @property
    def given(self) -> bool:
        """Whether any of them is for a media file alone."""
        return any(each is not None for each in (self.camera, self.microphone, self.start))


class MediaScene(msgspec.Struct, frozen=True, kw_only=True):
    """The scene, and what was chosen because no option named it."""

    scene: Scene
    said: tuple[str, ...] = ()


class _Chosen(msgspec.Struct, frozen=True):
    site: str
    camera: str | None
    microphone: str | None


def media_scene(settings: Config, file: Path, options: MediaOptions) -> MediaScene:
    """Returns the scene of a media file; raises ConfigError, which says what to do."""
    if system_file(file):
        msg = f"{file}: is, or leads to, a device or a system file"
        raise ConfigError(msg)
    start = scene_time(options.start or USUAL_START)
    if start is None:
        msg = f"--start {(options.start or '')[:40]!a}: {WANTED_TIME}"
        raise ConfigError(msg)
    picture, sound = _tracks(file)
    chosen, said = _choose(settings, file, options, picture=picture, sound=sound)
    lengths = []
    if chosen.camera is not None:
        lengths.append(recordings.video_length(file, whole=True))
    if chosen.microphone is not None:
        lengths.append(recordings.clip_length(file, whole=True))
    duration = max(lengths, default=Fraction())
    if not 0 < duration <= MAX_SECONDS:
        msg = f"{file}: is {float(duration):g} s long: must be more than 0, at most a day"
        raise ConfigError(msg)
    if options.start is None:
        said.append(f"it begins at {USUAL_START}; --start names another time")
    seen = {} if chosen.camera is None else {chosen.camera: SceneCamera(file=file.name)}
    heard = {} if chosen.microphone is None else {chosen.microphone: (SceneClip(file=file.name),)}
    scene = Scene(
        path=file,
        site=chosen.site,
        start=start,
        duration=ns_of(duration),
        cameras=seen,
        microphones=heard,
        reports=(),
    )
    return MediaScene(scene=scene, said=tuple(said))


def _tracks(file: Path) -> tuple[bool, bool]:
    """Whether a file has a picture and a sound that can be decoded; raises ConfigError."""
    wrong = []
    with closing(open_file(file)) as container:
        for track in (picture_track, sound_track):
            try:
                track(container)
            except LookupError as error:
                wrong.append(str(error))
            else:
                wrong.append("")
    if all(wrong):
        msg = f"{file}: {wrong[0]}, and {wrong[1]}"
        raise recordings.Unplayable(msg)
    return not wrong[0], not wrong[1]


def _choose(
    settings: Config, file: Path, options: MediaOptions, *, picture: bool, sound: bool
) -> tuple[_Chosen, list[str]]:
    """The site, camera and microphone of a file, and what is to be said about them."""
    camera, microphone, said = options.camera, options.microphone, list[str]()
    if not options.lenient:
        if camera is not None and not picture:
            msg = f"{file}: holds no picture for --camera {camera}; name --microphone for its sound"
            raise ConfigError(msg)
        if microphone is not None and not sound:
            msg = f"{file}: holds no sound for --microphone {microphone}; leave that option out"
            raise ConfigError(msg)
    site = _site(settings, options)
    chooses = camera is None and microphone is None
    camera = camera if picture else None
    microphone = microphone if sound else None
    if chooses and picture:
        site, camera = _only(settings, site, file, "camera")
        said.append(f"its picture goes to the camera {camera} of the site {site}")
    if chooses and sound:
        rooms = _named(settings, site, "microphone")
        if len(rooms) == 1 or camera is None:
            site, microphone = _only(settings, site, file, "microphone")
            said.append(f"its sound goes to the microphone {microphone} of the site {site}")
        elif rooms:
            said.append("its sound is not heard: --microphone names who hears it")
    if site is None or (camera is None and microphone is None):
        what = "picture" if picture else "sound"
        option = "--camera" if picture else "--microphone"
        msg = f"{file}: holds {what}, and nobody takes it: name {option}"
        raise ConfigError(msg)
    return _Chosen(site, camera, microphone), said


def _site(settings: Config, options: MediaOptions) -> str | None:
    """The site of the named camera and microphone; None if none is named."""
    if options.site is not None and options.site not in settings.sites:
        hint = nearest(options.site, settings.sites) or f"; it has {', '.join(settings.sites)}"
        msg = f"--site {options.site}: the config has no such site{hint}"
        raise ConfigError(msg)
    named = {"camera": options.camera, "microphone": options.microphone}
    found = [name for name in settings.sites if options.site in (None, name)]
    for kind, name in named.items():
        if name is None:
            continue
        having = [site for site, source in _named(settings, options.site, kind) if source == name]
        if not having:
            known = list(dict.fromkeys(of for _, of in _named(settings, options.site, kind)))
            hint = nearest(name, known) or f"; there is {', '.join(known) or 'none'}"
            where = f"the site {options.site}" if options.site else "the config"
            msg = f"--{kind} {name}: {where} has no such {kind}{hint}"
            raise ConfigError(msg)
        found = [site for site in found if site in having]
    if all(name is None for name in named.values()):
        return options.site
    words = " and ".join(f"--{kind} {name}" for kind, name in named.items() if name is not None)
    if not found:
        msg = f"{words}: no site has both"
        raise ConfigError(msg)
    if len(found) > 1:
        msg = f"{words}: several sites have that: name one of {', '.join(found)} by --site"
        raise ConfigError(msg)
    return found[0]


def _only(settings: Config, site: str | None, file: Path, kind: str) -> tuple[str, str]:
    """The one source of a kind that there is; raises ConfigError where there are others."""
    known = _named(settings, site, kind)
    if len(known) == 1:
        return known[0]
    names = ", ".join(dict.fromkeys(name for _, name in known))
    what = "picture" if kind == "camera" else "sound"
    have = f"there is {names}" if known else f"the config has no {kind}"
    msg = f"{file}: holds {what}: name who takes it by --{kind}; {have}"
    raise ConfigError(msg)


def _named(settings: Config, site: str | None, kind: str) -> list[tuple[str, str]]:
    """Site and name of every source of a kind, at one site or at all."""
    return [
        (name, source)
        for name, of in settings.sites.items()
        if site in (None, name)
        for source in (of.cameras if kind == "camera" else of.microphones)
    ]
