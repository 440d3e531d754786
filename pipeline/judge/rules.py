"""The rules of a site, applied to one observation at a time.

A rule returns `Finding`s. A *sure* finding becomes an anomaly at once (instant rules: a gunshot, a
line crossing). Level rules (a person is in a zone) report on entering and once per second after.
The other findings are only evidence for the windows.

Objects that stand still for long are reported once: a parked car is reported only when it arrives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from pipeline.config import schema
from pipeline.config.schedule import Schedule
from pipeline.judge.track import Track
from pipeline.types import SECOND, Described, Sound, Utterance, ns
from pipeline.zones import LineCounter, Polygon, feet

VISION, SOUND, SPEECH, REPORT = "vision", "sound", "speech", "report"
LEAST = 0.1  # lowest score that counts as evidence
REPORTED = 0.95  # score of a person's own report

Words = Callable[[str], Sequence[str]]  # text -> the words of the rule that it contains


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule found in `[start, end)` of a source; `score` is a calibrated probability."""

    rule: str
    label: str
    severity: str
    modality: str
    source: str
    start: int
    end: int
    score: float
    sure: bool
    reason: str = ""  # empty while a state continues
    text: str = ""


class TrackedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A camera's tracks after one frame; `still` has the ids of those that stand still for long."""

    source: str
    start: int
    end: int
    tracks: Sequence[Track]
    still: frozenset[int]


class RuleScope(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when a camera's rule is active: polygons by camera, objects, schedule."""

    zones: Mapping[str, Polygon]
    objects: frozenset[str]
    schedule: Schedule
    timezone: ZoneInfo
    min_score: float = 0.0

    def inside(self, seen: TrackedFrame) -> Iterator[Track]:
        """Yields tracks of wanted objects whose feet are in the zone while the schedule is active.

        A track that the detector missed in this frame counts at its last position: a miss does not
        mean that the object left.
        """
        polygon = self.zones.get(seen.source)
        if polygon is None or not self.schedule.contains(seen.start, self.timezone):
            return
        for track in seen.tracks:
            if track.label in self.objects and track.score >= self.min_score:
                x, y = feet(track.box)
                if polygon.contains(x, y):
                    yield track


class VisionRule(Protocol):
    """A rule that is applied to camera frames."""

    def see(self, seen: TrackedFrame) -> Sequence[Finding]: ...


class _LevelRule:
    """Reports when a state begins, and once in each second while it lasts."""

    def __init__(self, name: str, label: str, severity: str) -> None:
        self._made = {"rule": name, "label": label, "severity": severity, "modality": VISION}
        self._said: dict[tuple[str, int], int] = {}  # (camera, key) -> second of its last report

    def say(self, seen: TrackedFrame, key: int, score: float, reason: str) -> Iterator[Finding]:
        second, last = seen.start // SECOND, self._said.get((seen.source, key))
        if last == second:
            return
        self._said[seen.source, key] = second
        yield Finding(
            **self._made,
            source=seen.source,
            start=seen.start,
            end=seen.end,
            score=score,
            sure=True,
            reason=reason if last is None else "",
        )

    def told(self, source: str, key: int) -> bool:
        """Returns whether this state was reported since it began."""
        return (source, key) in self._said

    def keep(self, source: str, keys: set[int]) -> None:
        """Forgets states that ended at this camera; when one begins again, it is reported again."""
        gone = [key for key in self._said if key[0] == source and key[1] not in keys]
        for key in gone:
            del self._said[key]


class ZoneIntrusion:
    """`rule: zone`: an object is in a zone."""

    def __init__(self, name: str, rule: schema.ZoneRule, place: RuleScope) -> None:
        self._zone, self._place = rule.zone, place
        self._level = _LevelRule(name, rule.label, rule.severity)

    def see(self, seen: TrackedFrame) -> Sequence[Finding]:
        """Returns one finding per track on entering, and once per second until it leaves or
        stands still."""
        inside = list(self._place.inside(seen))
        live = {track.id for track in seen.tracks}
        self._level.keep(seen.source, live)
        found: list[Finding] = []
        for track in inside:
            news = track.id not in seen.still or not self._level.told(seen.source, track.id)
            if news and track.last_seen == seen.start:
                reason = f"{track.label} in zone {self._zone} (camera {seen.source})"
                found += self._level.say(seen, track.id, track.score, reason)
        return found


class Loitering:
    """`rule: loitering`: an object stays in a zone."""

    def __init__(self, name: str, rule: schema.LoiteringRule, place: RuleScope) -> None:
        self._rule, self._place = rule, place
        self._level = _LevelRule(name, rule.label, rule.severity)
        self._since: dict[tuple[str, int], int] = {}

    def see(self, seen: TrackedFrame) -> Sequence[Finding]:
        """Returns one finding per track once it has stayed long enough, then one per second."""
        inside = {track.id: track for track in self._place.inside(seen)}
        live = {track.id for track in seen.tracks}
        self._level.keep(seen.source, live)
        gone = [k for k in self._since if k[0] == seen.source and k[1] not in inside]
        for key in gone:
            del self._since[key]
        found: list[Finding] = []
        for track in inside.values():
            since = self._since.setdefault((seen.source, track.id), seen.start)
            told = track.id in seen.still and self._level.told(seen.source, track.id)
            if seen.start - since >= ns(self._rule.seconds) and not told:
                reason = (
                    f"{track.label} in zone {self._rule.zone} for {self._rule.seconds:g} s"
                    f" (camera {seen.source})"
                )
                found += self._level.say(seen, track.id, track.score, reason)
        return found


class Crowd:
    """`rule: crowd`: many objects are in a zone at once."""

    def __init__(self, name: str, rule: schema.CrowdRule, place: RuleScope) -> None:
        self._rule, self._place = rule, place
        self._level = _LevelRule(name, rule.label, rule.severity)
        self._since: dict[str, int] = {}

    def see(self, seen: TrackedFrame) -> Sequence[Finding]:
        """Returns one finding when the crowd has lasted `seconds`, then one per second."""
        inside = list(self._place.inside(seen))
        if len(inside) < self._rule.count:
            self._since.pop(seen.source, None)
            self._level.keep(seen.source, set())
            return ()
        since = self._since.setdefault(seen.source, seen.start)
        if seen.start - since < ns(self._rule.seconds):
            return ()
        reason = f"{len(inside)} objects in zone {self._rule.zone} (camera {seen.source})"
        scores = sorted((track.score for track in inside), reverse=True)
        return list(self._level.say(seen, 0, scores[self._rule.count - 1], reason))


class LineCrossing:
    """`rule: line`: an object crosses a line in the configured direction."""

    def __init__(
        self, name: str, rule: schema.LineRule, place: RuleScope, lines: Mapping[str, LineCounter]
    ) -> None:
        self._name, self._rule, self._place, self._lines = name, rule, place, lines

    def see(self, seen: TrackedFrame) -> Sequence[Finding]:
        """Returns one finding per crossing."""
        counter = self._lines.get(seen.source)
        if counter is None:
            return ()
        found = []
        for track in seen.tracks:
            direction = counter.push(track.id, feet(track.box), seen.start)
            wanted = direction and self._rule.direction in (direction, "both")
            if (
                wanted
                and track.label in self._place.objects
                and self._place.schedule.contains(seen.start, self._place.timezone)
            ):
                found.append(
                    Finding(
                        rule=self._name,
                        label=self._rule.label,
                        severity=self._rule.severity,
                        modality=VISION,
                        source=seen.source,
                        start=seen.start,
                        end=seen.end,
                        score=track.score,
                        sure=True,
                        reason=f"{track.label} crossed line {self._rule.line} going {direction}"
                        f" (camera {seen.source})",
                    )
                )
        return found


class SoundThreshold:
    """`rule: sound`: a sound reaches its label's threshold."""

    def __init__(
        self, name: str, rule: schema.SoundRule, schedule: Schedule, timezone: ZoneInfo
    ) -> None:
        self._name, self._rule, self._schedule, self._timezone = name, rule, schedule, timezone

    def hear(self, sound: Sound) -> Sequence[Finding]:
        """Returns a finding for each label of the rule whose score is at least 0.1."""
        if not self._schedule.contains(sound.start, self._timezone):
            return ()
        return [
            Finding(
                rule=self._name,
                label=label,
                severity=self._rule.severity,
                modality=SOUND,
                source=sound.source,
                start=sound.start,
                end=sound.end,
                score=score,
                sure=score >= threshold,
                reason=f"{label} heard (microphone {sound.source})",
            )
            for label, threshold in sorted(self._rule.labels.items())
            if (score := sound.labels.get(label, 0.0)) >= LEAST
        ]


class _TextRule:
    """The common part of both text rules: which texts they read, and the form of a finding."""

    def __init__(self, name: str, rule: schema.KeywordRule | schema.PhraseRule) -> None:
        self._made = {"rule": name, "label": rule.label, "severity": rule.severity}
        self._on = rule.on

    def reads(self, words: Utterance | Described) -> bool:
        return _modality(words) in self._on

    def finding(
        self, words: Utterance | Described, score: float, reason: str, *, sure: bool
    ) -> Finding:
        return Finding(
            **self._made,
            modality=_modality(words),
            source=words.source,
            start=words.start,
            end=words.end,
            score=score,
            sure=sure,
            reason=reason,
            text=words.text,
        )


class KeywordMatcher:
    """`rule: keyword`: a word is spoken or reported."""

    def __init__(self, name: str, rule: schema.KeywordRule, words: Words) -> None:
        self._shared, self._rule, self._words = _TextRule(name, rule), rule, words

    def read(self, words: Utterance | Described) -> Sequence[Finding]:
        """Returns one finding if the text contains a word of the rule."""
        found = self._words(words.text) if self._shared.reads(words) else ()
        if not found:
            return ()
        score = words.confidence if isinstance(words, Utterance) else REPORTED
        reason = f'"{", ".join(found)}" {_who(words)}'
        sure = score >= self._rule.min_confidence
        return [self._shared.finding(words, score, reason, sure=sure)]


class PhraseMatcher:
    """`rule: phrase`: a text is close in meaning to a phrase (cosine of sentence embeddings)."""

    def __init__(self, name: str, rule: schema.PhraseRule, phrases: Mapping[str, bytes]) -> None:
        self._shared, self._rule = _TextRule(name, rule), rule
        self._phrases = {phrase: _vector(data) for phrase, data in phrases.items()}

    def read(self, words: Utterance | Described) -> Sequence[Finding]:
        """Returns one finding for the most similar phrase, if its score is at least 0.1."""
        if not self._shared.reads(words) or not words.embedding:
            return ()
        vector = _vector(words.embedding)
        near, phrase = max((_cosine(vector, other), p) for p, other in self._phrases.items())
        score = likely(near, self._rule.min_similarity)
        if score < LEAST:
            return ()
        reason = f'{_who(words)}, close to "{phrase}"'
        sure = near >= self._rule.min_similarity
        return [self._shared.finding(words, score, reason, sure=sure)]


def _modality(words: Utterance | Described) -> str:
    return SPEECH if isinstance(words, Utterance) else REPORT


def _who(words: Utterance | Described) -> str:
    return "said" if isinstance(words, Utterance) else f"reported by {words.author}"


def likely(similarity: float, threshold: float) -> float:
    """Maps a cosine to a probability: 0.6 at the threshold, falling to 0 within 0.25 below it."""
    below = 0.6 * (1 - (threshold - similarity) / 0.25)
    above = 0.6 + 0.35 * (similarity - threshold) / max(1 - threshold, 1e-9)
    return round(min(0.95, max(0.0, below if similarity < threshold else above)), 3)


def _vector(data: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // 2}e", data)


def _cosine(ours: Sequence[float], theirs: Sequence[float]) -> float:
    if len(ours) != len(theirs):
        msg = f"embeddings of {len(ours)} and {len(theirs)} numbers cannot be compared"
        raise ValueError(msg)
    dot = sum(a * b for a, b in zip(ours, theirs, strict=True))
    norm = (sum(a * a for a in ours) * sum(b * b for b in theirs)) ** 0.5
    return dot / norm if norm else 0.0
