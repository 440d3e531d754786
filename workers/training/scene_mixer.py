"""Mixes one scene: the position and level of each clip, and the truth.

Pure, apart from `heard`, which measures a clip's length and where it is loud.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from pipeline.errors import ConfigError
from pipeline.words import words
from workers.replay.scene_file import SceneClip as Laid
from workers.replay.scene_file import SceneReport
from workers.training.clip_manifest import Clip, Manifest, by_name
from workers.training.intervals import Interval, length, merged, minus, outside
from workers.training.scene_plan import (
    INTRUSION,
    MIN_INTRUSION,
    PlannedAnomaly,
    PlannedScene,
    appearances,
)

FAR = re.compile(r"firework|thunder|explo|blast|bang")  # normal only from far away
EXPLAINS = {"only", "just", "drill", "exercise", "test", "practice", "film", "movie", "prop"}
EXPLAINS |= {"fake", "fakes", "blank"}
# limit of a kind's weight: 28 clips of traffic must not crowd out one of rain
MAX_CLIPS_OF_KIND = 8
AUTHORS = ("guard-1", "guard-2", "front-desk", "caretaker", "passer-by")
NOISE_DB = -30.0  # dBFS of the noise in its file
NOMINAL_DB = -30.0  # dBFS; the reference for noise in a scene without events
SNR = {"low": (5.0, 10.0), "high": (10.0, 25.0)}  # dB of the event over the noise
MIN_APPEARANCE = 1.0  # s of an appearance that stay visible despite a corruption
MAX_REPORT_DELAY = 6.0  # s; longest delay from an anomaly's start to its report


class ClipLevels(msgspec.Struct, frozen=True, kw_only=True):
    """The levels of a clip: its length, where it is loud (s), and how loud there (dBFS)."""

    length: float
    start: float
    end: float
    level: float


class PlacedAnomaly(msgspec.Struct, frozen=True, kw_only=True):
    """A true anomaly of the scene, and the modalities that show it."""

    label: str
    modalities: tuple[str, ...]  # of vision, sound, report
    clips: tuple[str, ...]
    texts: tuple[str, ...]
    start: float  # s, first cue's start
    end: float  # s, last cue's end
    gain_db: float | None
    snr_db: float | None
    report: str  # matching, contradicting, none


class Distractor(msgspec.Struct, frozen=True, kw_only=True):
    """A normal event."""

    modalities: tuple[str, ...]
    clips: tuple[str, ...]
    texts: tuple[str, ...]
    start: float
    end: float
    gain_db: float | None


class Corruption(msgspec.Struct, frozen=True, kw_only=True):
    """The faults of the sources, independent of the truth."""

    dead_microphone: bool
    black: tuple[Interval, ...]
    dark: tuple[Interval, ...]
    noise: str  # low or high signal-to-noise ratio; empty: no noise
    snr_db: float | None


class SceneRow(msgspec.Struct, frozen=True, kw_only=True):
    """A line of scenes.jsonl."""

    name: str
    split: str
    site: str
    video: str
    start: str
    duration: float
    closed: bool
    anomalies: tuple[PlacedAnomaly, ...]
    distractors: tuple[Distractor, ...]
    corruption: Corruption
    report: str  # contradicting before matching before none, of all anomalies


class Mixed(msgspec.Struct, frozen=True, kw_only=True):
    """A scene to write; files are below the media folder or (`noise/...`) the output folder."""

    row: SceneRow
    loop: bool
    dark: tuple[Interval, ...]
    clips: tuple[Laid, ...]
    noise: tuple[Laid, ...]
    reports: tuple[SceneReport, ...]


def mixed(
    slot: PlannedScene,
    duration: float,
    manifest: Manifest,
    heard: Callable[[Clip], ClipLevels],
    rng: np.random.Generator,
) -> Mixed:
    """Returns the scene of a slot; raises ConfigError for a clip with too long a silence."""
    return _Scene(slot, duration, manifest, heard, rng).mixed()


class _Scene:
    def __init__(
        self,
        slot: PlannedScene,
        duration: float,
        manifest: Manifest,
        heard: Callable[[Clip], ClipLevels],
        rng: np.random.Generator,
    ) -> None:
        self._slot = slot
        self._duration = duration
        self._heard = heard
        self._rng = rng
        self._sounds = manifest.of(slot.split, "sound", "speech")
        self._texts = manifest.of(slot.split, "report")
        self._laid: list[Laid] = []
        self._said: list[SceneReport] = []
        self._lit: list[Interval] = []  # when there is light in closed hours
        self._events: dict[str, float] = {}  # dBFS of the anomalies' sounds, by label

    def mixed(self) -> Mixed:
        slot = self._slot
        start = self._time()
        seen = [self._seen(part) for part in slot.parts]
        black, dark = self._corrupted([spans for spans in seen if spans])
        noise, snr = self._snr()
        anomalies = [
            self._over_bed(self._anomaly(part, minus(spans, (*black, *dark))), snr)
            for part, spans in zip(slot.parts, seen, strict=True)
        ]
        distractors = self._distractors()
        kinds = [anomaly.report for anomaly in anomalies]
        row = SceneRow(
            name=f"{slot.film.site}-{slot.number:04d}",
            split=slot.split,
            site=slot.film.site,
            video=slot.film.clip.path,
            start=start,
            duration=self._duration,
            closed=slot.closed,
            anomalies=tuple(anomalies),
            distractors=tuple(distractors),
            corruption=Corruption(
                dead_microphone=slot.dead, black=black, dark=dark, noise=noise, snr_db=snr
            ),
            report=next((k for k in ("contradicting", "matching") if k in kinds), "none"),
        )
        closed = outside(self._lit, self._duration) if slot.closed else []
        return Mixed(
            row=row,
            loop=slot.film.loop,
            dark=tuple(merged([*closed, *dark])),
            clips=tuple(sorted(self._laid, key=lambda laid: (laid.at, laid.file))),
            noise=self._bed(noise, snr),
            reports=tuple(sorted(self._said, key=lambda said: said.at)),
        )

    def _between(self, low: float, high: float) -> float:
        """Returns a random number, rounded to 0.001; `low` if the range is empty."""
        return round(float(self._rng.uniform(low, max(low, high))), 3)

    def _one(self, clips: Sequence[Clip]) -> Clip:
        return clips[int(self._rng.integers(len(clips)))]

    def _time(self) -> str:
        """Returns a start in 2026 such that the whole scene lies in closed or open hours."""
        first, hours = (22, 8) if self._slot.closed else (6, 16)
        second = int(self._rng.integers(int(hours * 3600 - self._duration) + 1))
        day = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=int(self._rng.integers(365)))
        moment = day + timedelta(hours=first, seconds=second)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _seen(self, part: PlannedAnomaly) -> list[Interval]:
        """Returns when the intruder is visible, in a light that is on for 5 to 12 s."""
        if "vision" not in part.shows:
            return []
        film = self._slot.film
        a, b = self._one_of(appearances(film, (part.start, part.end)))
        lasts = self._between(5, 12)
        on = self._between(max(0.0, a - lasts + MIN_INTRUSION), b - MIN_INTRUSION)
        off = round(min(on + lasts, self._duration), 3)
        self._lit.append((on, off))
        return [(max(a, on), min(b, off)) for a, b in film.visible if a < off and b > on]

    def _one_of(self, spans: Sequence[Interval]) -> Interval:
        return spans[int(self._rng.integers(len(spans)))]

    def _corrupted(
        self, seen: Sequence[Sequence[Interval]]
    ) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
        """Returns black and dark spans, drawn again while they would hide an intruder."""
        for _ in range(100):
            spans: dict[bool, list[Interval]] = {True: [], False: []}
            for black, wanted in ((True, self._slot.black), (False, self._slot.dark)):
                if wanted:
                    lasts = self._between(3, min(8, self._duration / 3))
                    on = self._between(0, self._duration - lasts)
                    spans[black].append((on, round(on + lasts, 3)))
            hidden = [*spans[True], *spans[False]]
            if all(
                max(map(length, minus(each, hidden)), default=0) >= MIN_APPEARANCE for each in seen
            ):
                return tuple(spans[True]), tuple(spans[False])
        return (), ()

    def _snr(self) -> tuple[str, float | None]:
        kind = "" if self._slot.dead else self._slot.noise
        return kind, round(self._between(*SNR[kind]), 1) if kind else None

    def _anomaly(self, part: PlannedAnomaly, seen: Sequence[Interval]) -> PlacedAnomaly:
        """Places the sound and the report; the truth lasts from the first cue to the last."""
        cues: list[Interval] = [*seen]
        clips: list[str] = []
        texts: list[str] = []
        gain: float | None = None
        if seen:
            clips.append(self._slot.film.clip.path)
        if "sound" in part.shows:
            clip = self._one([each for each in self._sounds if each.label == part.label])
            gain = round(self._between(-12, 6), 1)
            cue = self._lay(clip, gain, part.start, part.end)
            cues.append(cue)
            clips.append(clip.path)
            self._events[part.label] = self._heard(clip).level + gain
        kind = "none"
        first = min((cue[0] for cue in cues), default=None)
        if "report" in part.shows:
            kind = "matching"
            begin = part.start if first is None else first
            latest = part.end - 1 if first is None else first + MAX_REPORT_DELAY
            text = self._one(self._about(part, alone=first is None)).text
            at = self._say(text, begin, latest)
            cues.append((at, min(at + 1, self._duration)))
            texts.append(text)
        elif first is not None and self._rng.random() < 0.2:
            kind = "contradicting"
            text = self._one(self._explaining()).text
            self._say(text, first, first + MAX_REPORT_DELAY)
            texts.append(text)
        return PlacedAnomaly(
            label=part.label,
            modalities=part.shows,
            clips=tuple(clips),
            texts=tuple(texts),
            start=round(min(cue[0] for cue in cues), 3),
            end=round(max(cue[1] for cue in cues), 3),
            gain_db=gain,
            snr_db=None,
            report=kind,
        )

    def _over_bed(self, anomaly: PlacedAnomaly, snr: float | None) -> PlacedAnomaly:
        """Adds the level of its sound over the noise, which is `snr` below the first event."""
        if snr is None or anomaly.label not in self._events:
            return anomaly
        above = self._events[anomaly.label] - self._reference() + snr
        return msgspec.structs.replace(anomaly, snr_db=round(above, 1))

    def _reference(self) -> float:
        """Returns the first event's level, or -30 dBFS without one: the noise is set by it."""
        return next(iter(self._events.values()), NOMINAL_DB)

    def _about(self, part: PlannedAnomaly, *, alone: bool) -> list[Clip]:
        """Returns texts of the label; for a visible intruder perhaps of glass or threat."""
        labels = {part.label}
        if part.label == INTRUSION and not alone and self._rng.random() < 0.4:
            labels = {"glass", "threat"}
        found = [text for text in self._texts if text.label in labels]
        return found or [text for text in self._texts if text.label == part.label]

    def _explaining(self) -> list[Clip]:
        """Returns normal texts that give a harmless reason, or else all normal texts."""
        ordinary = [text for text in self._texts if not text.label]
        return [text for text in ordinary if not EXPLAINS.isdisjoint(words(text.text))] or ordinary

    def _lay(self, clip: Clip, gain: float, low: float, high: float) -> Interval:
        """Places a sound in [low, high) if it fits; returns when it is loud, within the scene."""
        heard = self._heard(clip)
        if heard.start > self._duration - 1:
            msg = f"{clip.path}: is silent for {heard.start:g} s, as long as a scene; cut it"
            raise ConfigError(msg)
        loud = max(1.0, min(heard.end - heard.start, high - low - 1))
        at = max(0.0, round(self._between(low, high - loud) - heard.start, 3))
        self._laid.append(Laid(file=clip.path, at=at, gain_db=gain))
        start = round(at + heard.start, 3)
        return start, round(min(at + heard.end, self._duration), 3)

    def _say(self, text: str, low: float, high: float) -> float:
        at = self._between(min(low, self._duration - 1), min(high, self._duration - 1))
        author = AUTHORS[int(self._rng.integers(len(AUTHORS)))]
        self._said.append(SceneReport(at=at, author=author, text=text))
        return at

    def _distractors(self) -> list[Distractor]:
        """Returns one distractor or more; the first has one modality, so that half of all do."""
        slot, rng = self._slot, self._rng
        found: list[Distractor] = []
        ordinary = [clip for clip in self._sounds if not clip.label]
        kinds = by_name(ordinary)
        weights = np.array([min(len(kind), MAX_CLIPS_OF_KIND) for kind in kinds], float)
        texts = [text for text in self._texts if not text.label]
        many = max(1, round(self._duration / 30))
        sounds = 0 if slot.dead else int(rng.integers(1 if slot.quiet else 0, 4)) * many
        for _ in range(min(sounds, 20)):
            clip = self._one(kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))])
            far = FAR.search(clip.path.lower())
            gain = round(self._between(*((-24, -12) if far else (-15, 0))), 1)
            start, end = self._lay(clip, gain, 0, self._duration)
            about = [text for text in texts if _shared(clip, text)]
            paired = found and found[-1].modalities == ("sound",) and rng.random() < 0.5 and about
            told = self._one(about).text if paired else ""
            if told:
                at = self._say(told, start, start + MAX_REPORT_DELAY)
                end = max(end, round(min(at + 1, self._duration), 3))
            found.append(
                Distractor(
                    modalities=("sound", "report") if told else ("sound",),
                    clips=(clip.path,),
                    texts=(told,) if told else (),
                    start=start,
                    end=end,
                    gain_db=gain,
                )
            )
        if not found or rng.random() < 0.3:
            told = self._one(texts).text
            at = self._say(told, 0, self._duration)
            end = round(min(at + 1, self._duration), 3)
            found.append(_plain("report", (), (told,), (at, end)))
        return [*found, *self._in_view()]

    def _in_view(self) -> list[Distractor]:
        """Returns people in open hours; in closed hours, sometimes light in an empty room."""
        slot, film = self._slot, self._slot.film
        if not slot.closed:
            return [_plain("vision", (film.clip.path,), (), span) for span in film.visible[:1]]
        rooms = [span for span in film.empty if length(span) >= 2]
        if not rooms or self._rng.random() < 0.5:
            return []
        a, b = self._one_of(rooms)
        on = self._between(a, b - 2)
        span = (on, round(min(b, on + self._between(2, 8)), 3))
        self._lit.append(span)
        return [_plain("vision", (film.clip.path,), (), span)]

    def _bed(self, kind: str, snr: float | None) -> tuple[Laid, ...]:
        """Returns noise at `snr` below the event; without an event, below a sound of -30 dBFS."""
        if snr is None:
            return ()
        colour = ("white", "pink")[int(self._rng.integers(2))]
        level = self._reference() - snr
        gain = round(min(max(level - NOISE_DB, -90.0), 30.0), 1)
        lasts = noise_length(self._duration)
        file = f"noise/{self._slot.split}-{colour}.wav"
        times = range(0, -(-int(np.ceil(self._duration)) // lasts) * lasts, lasts)
        return tuple(Laid(file=file, at=float(at), gain_db=gain) for at in times)


def noise_length(duration: float) -> int:
    """Returns the length of a noise file in whole seconds; longer scenes repeat it."""
    return min(30, int(np.ceil(duration)))


def _plain(
    modality: str, clips: tuple[str, ...], texts: tuple[str, ...], span: Interval
) -> Distractor:
    return Distractor(
        modalities=(modality,), clips=clips, texts=texts, start=span[0], end=span[1], gain_db=None
    )


def _shared(clip: Clip, text: Clip) -> bool:
    """Returns whether the clip's name and the text share a word, by its first letters."""
    named = set(re.findall(r"[a-z]{4,}|dog", clip.path.rpartition("/")[2].lower()))
    known = named - {"sounds", "flac", "casual", "distant", "fire", "evil", "door"}
    return any(said.startswith(name[:7]) for said in words(text.text) for name in known)
