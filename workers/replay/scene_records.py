"""Converts a scene to the records that live capture would publish; always the same ones.

The records come in the order in which they become known, exact to the sample and the frame.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import msgspec

from models.hearing.waveform import RATE
from pipeline.config import schema as settings
from pipeline.config.problem import nearest
from pipeline.errors import ConfigError
from pipeline.judge.modes import ModePlan, followed, in_force
from pipeline.sources import REPORTS_SOURCE, known_at, roster
from pipeline.topics import AUDIO, FRAMES, REPORTS
from pipeline.types import (
    ROSTER_EVERY,
    SECOND,
    AudioChunk,
    FrameChunk,
    Mode,
    Progress,
    Record,
    Report,
    Roster,
    event_start,
)
from pipeline.words import cleaned, cleaned_line
from workers.media import noise_floor, recordings
from workers.media.motion import Motion, measured, model_for
from workers.replay.scene_file import Scene, SceneCamera, SceneMode, Span, exact, load_scene, ns_of
from workers.runtime.status import Status

__all__ = ["Scene", "fits", "load_scene", "scene_records"]

CHUNK_SAMPLES = RATE // 2  # samples in one AudioChunk of a scene
Count = Callable[[str, str, str, int], None]  # site, source, what, how many: Status.count
Topical = tuple[str, Record]


def scene_records(
    scene: Scene,
    site: settings.Site,
    *,
    after: Mapping[tuple[str, str], int] | None = None,
    status: Status | None = None,
    film: recordings.OpenVideo = recordings.Video,
) -> Iterator[Topical]:
    """Yields (topic, record) of the whole scene in the order of `known_at`.

    The last record of each source ends it. `site` is the config of `scene.site`. `after` holds the
    start of the last published chunk by (topic, source): only later records are yielded. `status`
    counts captured and dropped media; `film` opens a video. Raises ConfigError if the scene does
    not fit the config.
    """
    fits(scene, site)
    done = after or {}
    say = (status or Status()).count
    players = [
        *(_Player(scene, site, FRAMES, name, done, say, film) for name in site.cameras),
        *(_Player(scene, site, AUDIO, name, done, say, film) for name in site.microphones),
        _Player(scene, site, REPORTS, REPORTS_SOURCE, done, say, film),
    ]
    return heapq.merge(*players, key=lambda item: known_at(item[1]))


class _Player:
    """Yields the records of one source of a scene."""

    def __init__(
        self,
        scene: Scene,
        site: settings.Site,
        topic: str,
        name: str,
        after: Mapping[tuple[str, str], int],
        count: Count,
        film: recordings.OpenVideo,
    ) -> None:
        self._film = film
        self._scene = scene
        self._site = site
        self._topic = topic
        self._name = name
        self._after = after.get((topic, name), -1)
        self._count = count
        self._hop = round(site.windows.hop * SECOND)
        self._lost = ""  # the reason, while lost
        self._modes = list(_modes(scene)) if topic == REPORTS else []

    def __iter__(self) -> Iterator[Topical]:
        records = {FRAMES: self._frames, AUDIO: self._sound, REPORTS: self._said}[self._topic]()
        next_roster = self._scene.start
        for record in records:
            while next_roster <= known_at(record):
                yield from self._new(self._roster(next_roster))
                for mode in _said_again(self._modes, next_roster):
                    yield from self._new(mode)
                next_roster += ROSTER_EVERY
            yield from self._new(record)
        yield self._topic, self._ending()

    def _new(self, record: Record) -> Iterator[Topical]:
        if event_start(record) > self._after:
            yield self._topic, record

    def _roster(self, start: int) -> Roster:
        return Roster(
            site=self._scene.site,
            source=self._name,
            sources=roster(self._site.cameras, self._site.microphones),
            start=start,
        )

    def _ending(self) -> Progress:
        """Returns a promise so far ahead that every window and incident closes by event time."""
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
        """Yields a promise every hop of `[start, end]`, and always at both ends."""
        for upto in range(start, end, self._hop):
            yield self._progress(upto)
        yield self._progress(end)

    def _frames(self) -> Iterator[Record]:
        scene, camera = self._scene, self._scene.cameras.get(self._name)
        if camera is None:
            yield from self._lost_for_ever()
            return
        fps = exact(camera.fps or self._site.cameras[self._name].detect.fps)
        model = model_for(self._site.cameras[self._name].detect, float(fps))
        seq, lost_from = 0, scene.start
        for k, shown in enumerate(self._shown(camera, fps)):
            start = scene.start + ns_of(k / fps)
            if isinstance(shown, str):
                if not self._lost:
                    self._lost, lost_from = shown, start
                continue
            if self._lost:
                yield from self._promises(lost_from, start)
                self._lost = ""
            # Every frame is measured, also those that are published already: the background is
            # then as it was in an unbroken run.
            seen = measured(model, shown.luma, start)
            if start > self._after:
                end = min(scene.start + ns_of((k + 1) / fps), scene.end)
                yield self._frame(shown, seen, seq, start, end)
            self._count(scene.site, self._name, "captured", 1)
            seq += 1
        if self._lost:
            yield from self._promises(lost_from, scene.end)

    def _shown(self, camera: SceneCamera, fps: Fraction) -> Iterator[recordings.Picture | str]:
        """Yields what the camera has at k/fps: a picture, or the reason why it has none."""
        site, name, at = self._scene.site, self._name, exact(camera.at)
        width = self._site.cameras[name].detect.width
        video = self._film(
            self._scene.media(camera.file),
            width,
            loop=camera.loop,
            count=lambda what: self._count(site, name, what, 1),
            held=max(3 / fps, recordings.HELD),
            aspect=recordings.aspect_ratio(self._site.cameras[name].detect.aspect),
        )
        try:
            k = 0
            while ns_of(now := k / fps) < self._scene.duration:
                if _within(now, camera.black):
                    yield "no picture (black in the scene)"
                elif now < at:
                    yield "not begun"
                else:
                    shown = video.at(now - at)
                    if not isinstance(shown, str) and _within(now, camera.dark):
                        shown = shown.dark()
                    yield shown
                k += 1
        finally:
            video.close()

    def _frame(
        self, picture: recordings.Picture, seen: Motion, seq: int, start: int, end: int
    ) -> FrameChunk:
        jpeg = picture.jpeg()
        return FrameChunk(
            site=self._scene.site,
            source=self._name,
            start=start,
            end=end,
            seq=seq,
            width=jpeg.width,
            height=jpeg.height,
            data=jpeg.data,
            look=seen.look,
            motion=seen.motion,
            regions=seen.regions,
        )

    def _sound(self) -> Iterator[Record]:
        scene, clips = self._scene, self._scene.microphones.get(self._name)
        if clips is None:
            yield from self._lost_for_ever()
            return
        total = scene.duration * RATE // SECOND
        mix = recordings.AudioMix(
            [
                (scene.media(clip.file), exact(clip.at), clip.gain_db, clip.track or 1)
                for clip in clips
            ],
            total,
            count=lambda what, n: self._count(scene.site, self._name, what, n),
        )
        hear = self._site.microphones[self._name].hear
        noise = noise_floor.floor_for(scene.site, self._name, hear)
        for seq, first in enumerate(range(0, total, CHUNK_SAMPLES)):
            last = min(first + CHUNK_SAMPLES, total)
            start = scene.start + first * SECOND // RATE
            data = mix.between(first, last)
            # Measured also where it is published already: the floor is as in an unbroken run.
            heard = noise_floor.measured(noise, data, start)
            if start > self._after:
                yield AudioChunk(
                    site=scene.site,
                    source=self._name,
                    start=start,
                    end=scene.start + last * SECOND // RATE,
                    seq=seq,
                    rate=RATE,
                    channels=1,
                    data=data,
                    listen=heard.listen,
                    noise_db=heard.noise_db,
                )
            self._count(scene.site, self._name, "captured", 1)

    def _said(self) -> Iterator[Record]:
        scene = self._scene
        last = scene.start - 1
        reports: list[Record] = []
        for said in sorted(scene.reports, key=lambda said: said.at):
            last = max(scene.start + ns_of(exact(said.at)), last + 1)  # no two at the same time
            if last < scene.end:
                reports.append(
                    Report(
                        site=scene.site,
                        source=self._name,
                        start=last,
                        end=last + 1,
                        author=cleaned_line(said.author),
                        text=cleaned(said.text),
                    )
                )
        promises = self._promises(scene.start, scene.end)
        yield from heapq.merge(self._modes, promises, reports, key=known_at)

    def _lost_for_ever(self) -> Iterator[Record]:
        self._lost = "not in the scene"
        yield from self._promises(self._scene.start, self._scene.end)


def _modes(scene: Scene) -> Iterator[Mode]:
    """The modes of a scene, as the source of reports publishes them; no two at the same time."""
    last = scene.start - 1
    for given in sorted(scene.modes, key=lambda given: given.at):
        last = max(scene.start + ns_of(exact(given.at)), last + 1)
        if last < scene.end:
            yield _mode(scene, given, last)


def _mode(scene: Scene, given: SceneMode, start: int) -> Mode:
    return Mode(
        site=scene.site,
        source=REPORTS_SOURCE,
        start=start,
        mode=given.mode,
        until=None if given.until is None else scene.start + ns_of(exact(given.until)),
        by=cleaned_line(given.by),
        rule=given.rule,
        said=start,
    )


def _said_again(modes: Sequence[Mode], time: int) -> list[Mode]:
    """What is in force at `time`, ns, to be said then."""
    held: dict[str, Mode] = {}
    for mode in modes:
        if mode.start <= time:
            held = followed(held, mode)
    return [msgspec.structs.replace(mode, said=time) for mode in in_force(held, time).values()]


def _modes_fit(scene: Scene, plan: ModePlan) -> None:
    for i, given in enumerate(scene.modes):
        wrong = plan.refusal(_mode(scene, given, scene.start + ns_of(exact(given.at))))
        if wrong:
            word, known = (given.rule, plan.rules) if given.rule else (given.mode, plan.known)
            near = nearest(word, known) or f"; there is {', '.join(known)}"
            if word in known:  # what is wrong is said
                word, near = given.mode, ""
            msg = f"{scene.path}: modes[{i}]: {wrong} (`{word}`){near}"
            raise ConfigError(msg)


def fits(scene: Scene, site: settings.Site) -> None:
    """Raises ConfigError for a source or a mode of the scene that the site does not have."""
    _modes_fit(scene, ModePlan.of(site))
    known: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("camera", scene.cameras, site.cameras),
        ("microphone", scene.microphones, site.microphones),
    )
    for kind, has, wants in known:
        for name in has:
            if name not in wants:
                msg = f"{scene.path}: the config has no {kind} `{name}` at site `{scene.site}`"
                raise ConfigError(msg)


def _within(now: Fraction, spans: tuple[Span, ...]) -> bool:
    return any(exact(span[0]) <= now < exact(span[1]) for span in spans)
