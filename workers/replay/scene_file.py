"""The scene file: the media that together form a recorded site (docs/guides/scenes.md)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.config.fields import Name
from pipeline.config.problem import Problem
from pipeline.types import SECOND
from workers.bus.time_option import LATEST_TIME
from workers.config.findings import Lines
from workers.config.loader import convert, fault, read_yaml
from workers.config.system_files import system_file
from workers.media import recordings

log = logging.getLogger("fusewatch")

MAX_SECONDS = 86_400
WANTED_TIME = (
    "must be a time with its zone, from 1970 until 2100, such as 2026-01-05T22:00:00+01:00"
)
MAX_SCENE_BYTES = 10_000_000  # of a scene file: its truth may be long

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")
_Second = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
Span = tuple[_Second, ...]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class SceneCamera(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A video; `fps` defaults to that of the config's camera."""

    file: str
    fps: Annotated[float, Meta(gt=0, le=60)] | None = None
    at: _Second = 0  # scene time of its first frame
    loop: bool = False
    black: tuple[Span, ...] = ()  # spans without frames
    dark: tuple[Span, ...] = ()  # spans with black frames


class SceneClip(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sound that starts at `at`."""

    file: str
    at: _Second = 0
    track: Annotated[int, Meta(ge=1)] | None = None  # of the file's sound tracks; else the first
    gain_db: Annotated[float, Meta(ge=-120, le=60)] = 0


class SceneReport(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report that is received at `at`."""

    at: _Second
    author: str
    text: str


class SceneMode(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mode that a person sets at `at`, or a rule that is `snoozed` then."""

    at: _Second
    mode: str
    until: _Second | None = None  # scene time; none: until the next one
    by: str = ""
    rule: str = ""  # of a snooze; `*` is all rules


class _SceneFile(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    site: Name
    start: str
    duration: Annotated[float, Meta(gt=0, le=MAX_SECONDS)] | None = None
    cameras: Mapping[Name, SceneCamera] = {}
    microphones: Mapping[Name, tuple[SceneClip, ...]] = {}
    reports: tuple[SceneReport, ...] = ()
    modes: tuple[SceneMode, ...] = ()


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A checked scene: every file exists and has the expected media."""

    path: Path
    site: str
    start: int  # ns
    duration: int  # ns
    cameras: Mapping[str, SceneCamera]
    microphones: Mapping[str, tuple[SceneClip, ...]]
    reports: tuple[SceneReport, ...]
    modes: tuple[SceneMode, ...] = ()

    @property
    def end(self) -> int:
        """Ns; everything in the scene starts before it."""
        return self.start + self.duration

    def media(self, file: str) -> Path:
        """Returns the path of a clip, relative to the scene file's folder."""
        return self.path.parent / file


def read_scene(path: Path) -> tuple[Any, Lines]:
    """Returns the data of a scene file and its lines, unchecked; raises ConfigError."""
    return read_yaml(path, MAX_SCENE_BYTES, hint="docs/guides/scenes.md shows a scene file")


def load_scene(path: str | Path) -> Scene:
    """Reads and checks a scene and its media; raises ConfigError with file and line."""
    path = Path(path)
    data, lines = read_scene(path)
    if isinstance(data, dict):
        data.pop("truth", None)  # for `evaluate`; replay neither reads nor validates it
    read, found = convert(data, _SceneFile)
    if read is None:
        raise fault(path, lines, found)
    start = scene_time(read.start)
    if start is None:
        found.append(Problem(("start",), WANTED_TIME))
    found += _spans(read)
    lasts = list(_lengths(read, path, found))
    duration = exact(read.duration) if read.duration is not None else max(lasts, default=Fraction())
    if not found and not 0 < duration <= MAX_SECONDS:
        what = f"is {float(duration):g} s by its longest source: must be more than 0, at most a day"
        found.append(Problem(("duration",), what))
    if found or start is None:
        raise fault(path, lines, found)
    return Scene(
        path=path,
        site=read.site,
        start=start,
        duration=ns_of(duration),
        cameras=read.cameras,
        microphones=read.microphones,
        reports=read.reports,
        modes=read.modes,
    )


def exact(number: float) -> Fraction:
    """Returns the decimal number of the scene file, without the error of the float."""
    return Fraction(repr(number))


def ns_of(seconds: Fraction) -> int:
    """Converts seconds to the nearest nanosecond."""
    return round(seconds * SECOND)


def _spans(read: _SceneFile) -> Iterator[Problem]:
    for name, camera in read.cameras.items():
        for kind, spans in (("black", camera.black), ("dark", camera.dark)):
            for i, span in enumerate(spans):
                if len(span) != 2 or span[0] >= span[1]:
                    yield Problem(("cameras", name, kind, i), "must be [from, to], in seconds")
    for i, mode in enumerate(read.modes):
        if mode.until is not None and mode.until <= mode.at:
            yield Problem(("modes", i, "until"), "must be after `at`")


def _lengths(read: _SceneFile, path: Path, found: list[Problem]) -> Iterator[Fraction]:
    """Yields the scene time at which each source ends; adds problems of its file to `found`."""
    for name, camera in read.cameras.items():
        way: tuple[str | int, ...] = ("cameras", name, "file")
        if _system(path.parent / camera.file, way, found):
            continue
        try:
            lasts = recordings.video_length(path.parent / camera.file, whole=read.duration is None)
            yield exact(camera.at) + lasts
        except recordings.Unplayable as error:
            found.append(Problem(way, str(error)))
    for name, clips in read.microphones.items():
        for i, clip in enumerate(clips):
            way = ("microphones", name, i, "file")
            if _system(path.parent / clip.file, way, found):
                continue
            try:
                lasts = recordings.clip_length(
                    path.parent / clip.file, whole=read.duration is None, track=clip.track or 1
                )
                yield exact(clip.at) + lasts
                _tell_tracks(path.parent / clip.file, clip)
            except recordings.Unplayable as error:
                found.append(Problem(way, str(error)))
    yield from (exact(said.at) for said in read.reports)
    yield from (exact(mode.at) for mode in read.modes)


def _tell_tracks(file: Path, clip: SceneClip) -> None:
    """Warns where a file has several sound tracks and the scene chooses none."""
    tracks = recordings.sound_tracks(file) if clip.track is None else 1
    if tracks > 1:
        log.warning(
            "%s: there are %d sound tracks, and the first is taken; `track` chooses another",
            clip.file,
            tracks,
        )


def _system(file: Path, way: tuple[str | int, ...], found: list[Problem]) -> bool:
    if system_file(file):
        found.append(Problem(way, "is, or leads to, a device or a system file"))
        return True
    return False


def scene_time(text: str) -> int | None:
    """Converts RFC 3339 with up to nine decimals to ns; None if invalid, or not of 1970 to 2100."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        whole = datetime.fromisoformat(f"{found[1]}T{found[2]}{found[4].upper()}")
    except ValueError:
        return None
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // (whole.resolution * 1_000_000)
    if not 0 <= seconds < LATEST_TIME:
        return None
    return seconds * SECOND + int((found[3] or "").ljust(9, "0"))
