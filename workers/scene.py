"""Scene files: ordinary media laid together as a recorded site, exact to the sample and the frame.

The format is section 11 of the design. A scene is replayed as the records that live capture would
have published, in the order in which they would have been known, and always the same ones.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline import config as settings
from pipeline.config import Name, Problem
from pipeline.errors import ConfigError
from pipeline.topics import AUDIO, FRAMES, REPORTS
from pipeline.types import (
    ROSTER_EVERY,
    SECOND,
    AudioChunk,
    FrameChunk,
    Progress,
    Record,
    Report,
    Roster,
    event_start,
)
from workers import tape
from workers.configfile import convert, fault, read_yaml
from workers.jpeg import encoded

REPORTS_SOURCE = "reports"
CHUNK = tape.RATE // 2  # samples in one AudioChunk of a scene
MAX_SECONDS = 86_400
MAX_BYTES = 10_000_000  # of a scene file: its truth may be long

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)")
_Second = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
_Span = tuple[_Second, ...]
Count = Callable[[str, str, str, int], None]  # site, source, what, how many: Status.count
Topical = tuple[str, Record]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Camera(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A video; `fps` defaults to what the config's camera asks for."""

    file: str
    fps: Annotated[float, Meta(gt=0, le=60)] | None = None
    at: _Second = 0  # scene time of its first frame
    loop: bool = False
    black: tuple[_Span, ...] = ()  # no frame is delivered
    dark: tuple[_Span, ...] = ()  # black frames are


class Clip(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sound that begins at `at`."""

    file: str
    at: _Second = 0
    gain_db: Annotated[float, Meta(ge=-120, le=60)] = 0


class Said(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A report that is received at `at`."""

    at: _Second
    author: str
    text: str


class _File(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    site: Name
    start: str
    duration: Annotated[float, Meta(gt=0, le=MAX_SECONDS)] | None = None
    cameras: Mapping[Name, Camera] = {}
    microphones: Mapping[Name, tuple[Clip, ...]] = {}
    reports: tuple[Said, ...] = ()


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A scene that was found whole: every file is there and holds what it should."""

    path: Path
    site: str
    start: int  # ns
    duration: Fraction  # s
    cameras: Mapping[str, Camera]
    microphones: Mapping[str, tuple[Clip, ...]]
    reports: tuple[Said, ...]

    @property
    def end(self) -> int:
        """Ns; everything in the scene starts before it."""
        return self.start + _ns(self.duration)

    def media(self, file: str) -> Path:
        """The path of a clip: relative to the scene file."""
        return self.path.parent / file


def load_scene(path: str | Path) -> Scene:
    """Read and check a scene and the media that it names; raises ConfigError with file and line."""
    path = Path(path)
    data, lines = read_yaml(path, MAX_BYTES)
    if isinstance(data, dict):
        data.pop("truth", None)  # for `evaluate`; replay neither reads nor validates it
    read, found = convert(data, _File)
    if read is None:
        raise fault(path, lines, found)
    start = _time(read.start)
    if start is None:
        found.append(Problem(("start",), "must be a time with its zone, e.g. 2026-01-01T00:00:00Z"))
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
        duration=duration,
        cameras=read.cameras,
        microphones=read.microphones,
        reports=read.reports,
    )


def scene_records(
    scene: Scene,
    site: settings.Site,
    *,
    after: Mapping[tuple[str, str], int] | None = None,
    count: Count | None = None,
) -> Iterator[Topical]:
    """(topic, record) of the whole scene in the order of `known_at`; the last ones end each source.

    `site`: what the config says of `scene.site`. `after`: the start of the last chunk of a
    (topic, source) that was published before; what follows it is exactly what was left out.
    `count`: told what was captured and dropped. Raises ConfigError where scene and config differ.
    """
    _matched(scene, site)
    done = after or {}
    say = count or (lambda *_: None)
    players = [
        *(_Player(scene, site, FRAMES, name, done, say) for name in site.cameras),
        *(_Player(scene, site, AUDIO, name, done, say) for name in site.microphones),
        _Player(scene, site, REPORTS, REPORTS_SOURCE, done, say),
    ]
    return heapq.merge(*players, key=lambda item: known_at(item[1]))


def known_at(record: Record) -> int:
    """When a live capture could have published the record: sound is known at its end. Ns."""
    return record.end if isinstance(record, AudioChunk) else event_start(record)


def roster(site: settings.Site) -> tuple[str, ...]:
    """The observation sources of a site; a microphone is two, and people may always report."""
    heard = (name for room in site.microphones for name in (room, f"{room}/speech"))
    return (*site.cameras, *heard, REPORTS_SOURCE)


def exact(number: float) -> Fraction:
    """What the scene file says in decimals, not what a float makes of it."""
    return Fraction(repr(number))


class _Player:
    """One source of a scene as its records."""

    def __init__(
        self,
        scene: Scene,
        site: settings.Site,
        topic: str,
        name: str,
        after: Mapping[tuple[str, str], int],
        count: Count,
    ) -> None:
        self._scene = scene
        self._site = site
        self._topic = topic
        self._name = name
        self._after = after.get((topic, name), -1)
        self._count = count
        self._hop = round(site.windows.hop * SECOND)
        self._lost = ""  # why, while lost

    def __iter__(self) -> Iterator[Topical]:
        records = {FRAMES: self._frames, AUDIO: self._sound, REPORTS: self._said}[self._topic]()
        next_roster = self._scene.start
        for record in records:
            while next_roster <= known_at(record):
                yield from self._new(self._roster(next_roster))
                next_roster += ROSTER_EVERY
            yield from self._new(record)
        yield self._topic, self._ending()

    def _new(self, record: Record) -> Iterator[Topical]:
        if event_start(record) > self._after:
            yield self._topic, record

    def _roster(self, start: int) -> Roster:
        return Roster(
            site=self._scene.site, source=self._name, sources=roster(self._site), start=start
        )

    def _ending(self) -> Progress:
        """A promise so far ahead that every window and incident closes by event time."""
        windows, incidents = self._site.windows, self._site.incidents
        ahead = windows.size + windows.hop + incidents.close_after + incidents.lost_after
        return self._progress(self._scene.end + round(ahead * SECOND))

    def _progress(self, upto: int) -> Progress:
        return Progress(
            site=self._scene.site,
            source=self._name,
            upto=upto,
            alive=not self._lost,
            reason=self._lost,
        )

    def _promises(self, start: int, end: int) -> Iterator[Progress]:
        """What is said every hop of `[start, end]`, at both ends in any case."""
        for upto in range(start, end, self._hop):
            yield self._progress(upto)
        yield self._progress(end)

    def _frames(self) -> Iterator[Record]:
        scene, camera = self._scene, self._scene.cameras.get(self._name)
        if camera is None:
            yield from self._lost_for_ever()
            return
        fps = exact(camera.fps or self._site.cameras[self._name].detect.fps)
        seq, lost_from = 0, scene.start
        for k, shown in enumerate(self._shown(camera, fps)):
            start = scene.start + _ns(k / fps)
            if isinstance(shown, str):
                if not self._lost:
                    self._lost, lost_from = shown, start
                continue
            if self._lost:
                yield from self._promises(lost_from, start)
                self._lost = ""
            if start > self._after:
                end = min(scene.start + _ns((k + 1) / fps), scene.end)
                yield self._frame(shown, seq, start, end)
            self._count(scene.site, self._name, "captured", 1)
            seq += 1
        if self._lost:
            yield from self._promises(lost_from, scene.end)

    def _shown(self, camera: Camera, fps: Fraction) -> Iterator[tape.Picture | str]:
        """What the camera has at k/fps: a picture, or why it has none."""
        site, name, at = self._scene.site, self._name, exact(camera.at)
        width = self._site.cameras[name].detect.width
        video = tape.Film(
            self._scene.media(camera.file),
            width,
            loop=camera.loop,
            count=lambda what: self._count(site, name, what, 1),
        )
        try:
            k = 0
            while (now := k / fps) < self._scene.duration:
                if _within(now, camera.black):
                    yield "no picture (black in the scene)"
                elif now < at:
                    yield "not begun"
                elif (picture := video.at(now - at)) is None:
                    yield "the video has ended"
                else:
                    yield picture.dark() if _within(now, camera.dark) else picture
                k += 1
        finally:
            video.close()

    def _frame(self, picture: tape.Picture, seq: int, start: int, end: int) -> FrameChunk:
        pixels = picture.pixels()
        return FrameChunk(
            site=self._scene.site,
            source=self._name,
            start=start,
            end=end,
            seq=seq,
            width=pixels.shape[1],
            height=pixels.shape[0],
            data=encoded(pixels),
        )

    def _sound(self) -> Iterator[Record]:
        scene, clips = self._scene, self._scene.microphones.get(self._name)
        if clips is None:
            yield from self._lost_for_ever()
            return
        total = int(scene.duration * tape.RATE)
        mix = tape.Mix(
            [(scene.media(clip.file), exact(clip.at), clip.gain_db) for clip in clips],
            total,
            count=lambda what, n: self._count(scene.site, self._name, what, n),
        )
        for seq, first in enumerate(range(0, total, CHUNK)):
            last = min(first + CHUNK, total)
            start = scene.start + first * SECOND // tape.RATE
            data = mix.between(first, last)
            if start > self._after:
                yield AudioChunk(
                    site=scene.site,
                    source=self._name,
                    start=start,
                    end=scene.start + last * SECOND // tape.RATE,
                    seq=seq,
                    rate=tape.RATE,
                    channels=1,
                    data=data,
                )
            self._count(scene.site, self._name, "captured", 1)

    def _said(self) -> Iterator[Record]:
        scene = self._scene
        last = scene.start - 1
        reports: list[Record] = []
        for said in sorted(scene.reports, key=lambda said: said.at):
            last = max(scene.start + _ns(exact(said.at)), last + 1)  # no two of one instant
            if last < scene.end:
                reports.append(
                    Report(
                        site=scene.site,
                        source=self._name,
                        start=last,
                        end=last + 1,
                        author=said.author,
                        text=said.text,
                    )
                )
        yield from heapq.merge(self._promises(scene.start, scene.end), reports, key=known_at)

    def _lost_for_ever(self) -> Iterator[Record]:
        self._lost = "not in the scene"
        yield from self._promises(self._scene.start, self._scene.end)


def _matched(scene: Scene, site: settings.Site) -> None:
    known: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("camera", scene.cameras, site.cameras),
        ("microphone", scene.microphones, site.microphones),
    )
    for kind, has, wants in known:
        for name in has:
            if name not in wants:
                msg = f"{scene.path}: the config has no {kind} `{name}` at site `{scene.site}`"
                raise ConfigError(msg)


def _spans(read: _File) -> Iterator[Problem]:
    for name, camera in read.cameras.items():
        for kind, spans in (("black", camera.black), ("dark", camera.dark)):
            for i, span in enumerate(spans):
                if len(span) != 2 or span[0] >= span[1]:
                    yield Problem(("cameras", name, kind, i), "must be [from, to], in seconds")


def _lengths(read: _File, path: Path, found: list[Problem]) -> Iterator[Fraction]:
    """Scene time at which each source ends; adds to `found` what is wrong with its file."""
    for name, camera in read.cameras.items():
        way: tuple[str | int, ...] = ("cameras", name, "file")
        try:
            lasts = tape.film_length(path.parent / camera.file, whole=read.duration is None)
            yield exact(camera.at) + lasts
        except tape.Unplayable as error:
            found.append(Problem(way, str(error)))
    for name, clips in read.microphones.items():
        for i, clip in enumerate(clips):
            way = ("microphones", name, i, "file")
            try:
                lasts = tape.clip_length(path.parent / clip.file, whole=read.duration is None)
                yield exact(clip.at) + lasts
            except tape.Unplayable as error:
                found.append(Problem(way, str(error)))
    yield from (exact(said.at) for said in read.reports)


def _time(text: str) -> int | None:
    """RFC 3339 with up to nine decimals to ns."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        whole = datetime.fromisoformat(f"{found[1]}T{found[2]}{found[4].upper()}")
    except ValueError:
        return None
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // (whole.resolution * 1_000_000)
    return seconds * SECOND + int((found[3] or "").ljust(9, "0")) if seconds >= 0 else None


def _within(now: Fraction, spans: tuple[_Span, ...]) -> bool:
    return any(exact(span[0]) <= now < exact(span[1]) for span in spans)


def _ns(seconds: Fraction) -> int:
    return round(seconds * SECOND)
