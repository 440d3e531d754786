"""Rules judge single observations; this module has the rules for sounds and words.

A rule returns `RuleFinding`s. A *sure* finding becomes an anomaly at once (instant rules: a
gunshot, a line crossing). Level rules (a person is in a zone) report on entering and once per
second after. The other findings are only evidence for the windows.

Objects that stand still for long are reported once: a parked car is reported only when it arrives.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from pipeline.config.rule_kinds import KeywordRule, PhraseRule, SoundRule, rule_names
from pipeline.config.schedule import Schedule
from pipeline.config.schema import Site
from pipeline.judge.refusal import Obstacle, Refuse, Unused
from pipeline.judge.refusal_words import below, off_hours
from pipeline.tracking.frame_shape import WIDE
from pipeline.tracking.track import Track
from pipeline.types import Box, Corners, Described, Sound, Utterance

VISION, SOUND, SPEECH, REPORT = "vision", "sound", "speech", "report"
MIN_EVIDENCE = 0.1  # lowest score that counts as evidence
REPORT_SCORE = 0.95  # score of a person's own report
NOT_HEARD = "no model heard the second: it holds the usual noise alone (hear.gate)"
EARLY = 0.5  # of the way from a threshold to 1: what an early sound must reach to be sure

Words = Callable[[str], Sequence[str]]  # text -> the words of the rule that it contains


class RuleFinding(msgspec.Struct, frozen=True, kw_only=True):
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
    reason: str = ""  # what was found and where, for a person to read
    news: bool = True  # false while a state continues
    text: str = ""
    zone: str = ""
    line: str = ""
    object: str = ""  # the class of the object
    kind: str = ""  # of the anomaly; empty: that of the modality
    box: Corners | None = None  # where in the frame


class TrackedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A camera's tracks after one frame; `still` has the ids of those that stand still for long.

    A rule that does not hold now gets the frame with `watched` false: it follows the tracks and
    finds nothing. `luma` and `sharpness` are those of the last frame that was looked at. `loose`
    are the boxes of no track, the surest first. In a `gated` frame nothing moves, and nobody looks.
    `unused` says why, if somebody wants to know what the tracker made no track of.
    `hidden` has the ids of objects that are behind something, and that no track shows. `again` has
    the ids of new tracks in the places of objects that stood still: those are not reported again.
    """

    source: str
    start: int
    end: int
    tracks: Sequence[Track]
    still: frozenset[int]
    again: frozenset[int] = frozenset()
    watched: bool = True
    luma: float = -1.0
    sharpness: float = -1.0
    loose: Sequence[Box] = ()
    gated: bool = False
    hidden: frozenset[int] = frozenset()
    aspect: float = WIDE  # of the frame, width / height
    unused: Sequence[Unused] = ()


class RuleContext(msgspec.Struct, frozen=True, kw_only=True):
    """What rules need: their site, a search for keywords, and the embedding of phrases."""

    site: Site
    keywords: Callable[[Mapping[str, Sequence[str]]], Words]  # of words by language
    embed: Callable[[Sequence[str]], Sequence[bytes]]
    # rows of persons -> how certain a fight is; needed by the behaviour `fight`
    fight: Callable[[Sequence[tuple[float, ...]]], Sequence[float]] | None = None

    @property
    def timezone(self) -> ZoneInfo:
        """The time zone of the rules' schedules."""
        return ZoneInfo(self.site.timezone)


class VisionRule(Protocol):
    """A rule that is applied to camera frames; tells `refuse` what stood in the way of findings."""

    def see(self, seen: TrackedFrame, refuse: Refuse | None = None) -> Sequence[RuleFinding]: ...


class HearingRule(Protocol):
    """A rule over sounds; as `VisionRule`."""

    def hear(self, sound: Sound, refuse: Refuse | None = None) -> Sequence[RuleFinding]: ...


class ReadingRule(Protocol):
    """A rule over words that are spoken or reported; as `VisionRule`."""

    def read(
        self, words: Utterance | Described, refuse: Refuse | None = None
    ) -> Sequence[RuleFinding]: ...


J = TypeVar("J")
J_co = TypeVar("J_co", covariant=True)
Make = Callable[[str, Any, RuleContext], Iterable[J]]  # name and settings of a rule -> its judges


class SiteRule(Generic[J_co]):
    """A judge of a rule, with the rule's name and the modes in which it holds (none: all).

    `cameras` are those that the judge is about, if it says so; None: it may judge any. `needs` is
    the time, ns, from which on a restart must read to judge as before at a limit, if it says so.
    """

    def __init__(self, name: str, modes: Iterable[str], judge: J_co) -> None:
        self.name, self.modes, self.judge = name, frozenset(modes), judge
        self.cameras: Container[str] | None = getattr(judge, "cameras", None)
        self.needs: Callable[[int], int] = getattr(judge, "needs", _nothing_more)


def _nothing_more(limit: int) -> int:
    return limit


def judges(makers: Mapping[type, Make[J]], of: RuleContext) -> list[SiteRule[J]]:
    """Returns the judges of the site's rules; rules of a kind that `makers` lacks are left out."""
    rules = of.site.rules
    return [
        SiteRule(name, rule.modes, judge)
        for name, rule in zip(rule_names(rules), rules, strict=True)
        if type(rule) in makers
        for judge in makers[type(rule)](name, rule, of)
    ]


class SoundThreshold:
    """`rule: sound`: a sound reaches its label's threshold."""

    def __init__(self, name: str, rule: SoundRule, schedule: Schedule, timezone: ZoneInfo) -> None:
        self._name, self._rule, self._schedule, self._timezone = name, rule, schedule, timezone

    def hear(self, sound: Sound, refuse: Refuse | None = None) -> Sequence[RuleFinding]:
        """Returns a finding for each label of the rule whose score is at least 0.1.

        An early sound must be surer: half a second later the whole second is heard anyway, and
        tells what stood in the way.
        """
        refuse = None if sound.early else refuse
        if not self._schedule.contains(sound.start, self._timezone):
            if refuse is not None:
                refuse("schedule", partial(self._off_hours, sound))
            return ()
        if refuse is not None:
            self._refuse(sound, refuse)
        return [
            RuleFinding(
                rule=self._name,
                label=label,
                severity=self._rule.severity,
                modality=SOUND,
                source=sound.source,
                start=sound.start,
                end=sound.end,
                score=score,
                sure=score >= (early_threshold(threshold) if sound.early else threshold),
                reason=f"{label} heard (microphone {sound.source})",
            )
            for label, threshold in sorted(self._rule.labels.items())
            if (score := sound.labels.get(label, 0.0)) >= MIN_EVIDENCE
        ]

    def _refuse(self, sound: Sound, refuse: Refuse) -> None:
        if sound.gated:
            refuse("gated", partial(Obstacle, NOT_HEARD))
            return
        for label, threshold in self._rule.labels.items():
            score = sound.labels.get(label, 0.0)
            if score < threshold:
                refuse("score", partial(_too_weak, label, score, threshold))

    def _off_hours(self, sound: Sound) -> Obstacle:
        """The sound that would have been told, or came nearest to it."""
        scores = {label: sound.labels.get(label, 0.0) for label in self._rule.labels}
        label = max(scores, key=lambda label: scores[label] / self._rule.labels[label])
        return Obstacle(
            off_hours(self._rule.schedule, sound.start, self._timezone),
            scores[label],
            self._rule.labels[label],
            label,
            near=scores[label] >= self._rule.labels[label],
        )


def _too_weak(label: str, score: float, threshold: float) -> Obstacle:
    return Obstacle(below(f"sound {label}", score, threshold), score, threshold, label)


def early_threshold(threshold: float) -> float:
    """The score from which an early sound counts, where a whole second needs `threshold`."""
    return threshold + EARLY * (1 - threshold)


class _TextRule:
    """The common part of both text rules: which texts they read, and the form of a finding."""

    def __init__(self, name: str, rule: KeywordRule | PhraseRule) -> None:
        self._made: dict[str, Any] = {
            "rule": name,
            "label": rule.label,
            "severity": rule.severity,
        }
        self._on = rule.on

    def reads(self, words: Utterance | Described) -> bool:
        return _modality(words) in self._on

    def unread(self, words: Utterance | Described, *, near: bool) -> Obstacle:
        why = f"{_modality(words)} is not read by this rule (on: {', '.join(self._on)})"
        return Obstacle(why, near=near)

    def finding(
        self, words: Utterance | Described, score: float, reason: str, *, sure: bool
    ) -> RuleFinding:
        return RuleFinding(
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

    def __init__(self, name: str, rule: KeywordRule, words: Words) -> None:
        self._shared, self._rule, self._words = _TextRule(name, rule), rule, words

    def read(
        self, words: Utterance | Described, refuse: Refuse | None = None
    ) -> Sequence[RuleFinding]:
        """Returns one finding if the text contains a word of the rule."""
        if not self._shared.reads(words):
            if refuse is not None:
                refuse("not-read", partial(self._unread, words))
            return ()
        found = self._words(words.text)
        if not found:
            if refuse is not None:
                refuse("no-word", partial(_no_word, words))
            return ()
        score = words.confidence if isinstance(words, Utterance) else REPORT_SCORE
        reason = f'"{", ".join(found)}" {_who(words)}'
        sure = score >= self._rule.min_confidence
        if refuse is not None and not sure:
            refuse("confidence", partial(self._unsure, words, found, score))
        return [self._shared.finding(words, score, reason, sure=sure)]

    def _unread(self, words: Utterance | Described) -> Obstacle:
        return self._shared.unread(words, near=bool(self._words(words.text)))

    def _unsure(self, words: Utterance | Described, found: Sequence[str], score: float) -> Obstacle:
        least = self._rule.min_confidence
        what = f"{_modality(words)} '{', '.join(found)}' confidence"
        return Obstacle(below(what, score, least), score, least)


def _no_word(words: Utterance | Described) -> Obstacle:
    return Obstacle(f"no word of the rule in '{words.text}'", near=False)


class PhraseMatcher:
    """`rule: phrase`: a text is close in meaning to a phrase (cosine of sentence embeddings)."""

    def __init__(self, name: str, rule: PhraseRule, phrases: Mapping[str, bytes]) -> None:
        self._shared, self._rule = _TextRule(name, rule), rule
        self._phrases = {phrase: _vector(data) for phrase, data in phrases.items()}

    def read(
        self, words: Utterance | Described, refuse: Refuse | None = None
    ) -> Sequence[RuleFinding]:
        """Returns one finding for the most similar phrase, if its score is at least 0.1."""
        if not self._shared.reads(words) or not words.embedding:
            if refuse is not None and words.embedding:
                refuse("not-read", partial(self._shared.unread, words, near=False))
            return ()
        vector = _vector(words.embedding)
        near, phrase = max((_cosine(vector, other), p) for p, other in self._phrases.items())
        score = likely(near, self._rule.min_similarity)
        if refuse is not None and near < self._rule.min_similarity:
            refuse("similarity", partial(self._unlike, near, phrase))
        if score < MIN_EVIDENCE:
            return ()
        reason = f'{_who(words)}, close to "{phrase}"'
        sure = near >= self._rule.min_similarity
        return [self._shared.finding(words, score, reason, sure=sure)]

    def _unlike(self, near: float, phrase: str) -> Obstacle:
        least = self._rule.min_similarity
        what = f'likeness to "{phrase}"'
        return Obstacle(below(what, near, least, "min_similarity"), near, least)


def _modality(words: Utterance | Described) -> str:
    return SPEECH if isinstance(words, Utterance) else REPORT


def _who(words: Utterance | Described) -> str:
    if isinstance(words, Utterance):
        return f"said (microphone {words.source.removesuffix('/speech')})"
    return f"reported by {words.author}" if words.author else "reported"


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


def _keywords(name: str, rule: KeywordRule, of: RuleContext) -> Iterator[ReadingRule]:
    yield KeywordMatcher(name, rule, of.keywords(rule.words))


def _phrases(name: str, rule: PhraseRule, of: RuleContext) -> Iterator[ReadingRule]:
    phrases = zip(rule.phrases, of.embed(rule.phrases), strict=True)
    yield PhraseMatcher(name, rule, dict(phrases))


def _sounds(name: str, rule: SoundRule, of: RuleContext) -> Iterator[HearingRule]:
    yield SoundThreshold(name, rule, Schedule.parse(rule.schedule), of.timezone)


HEARS: Mapping[type, Make[HearingRule]] = {SoundRule: _sounds}
READS: Mapping[type, Make[ReadingRule]] = {KeywordRule: _keywords, PhraseRule: _phrases}
