"""The kinds of rules: the settings of each, and the check of them at a site.

A new kind is a class here, its word in `Rule`, and a judge in `pipeline/judge/`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from pipeline.config.fields import (
    BEHAVIOUR_SYNONYMS,
    BEHAVIOURS,
    LANGUAGES,
    OBJECT_SYNONYMS,
    OBJECTS,
    SOUNDS,
    Fraction,
    Label,
    Name,
    OwnName,
    Seconds,
    Settings,
    Text,
)
from pipeline.config.problem import Problem, Way, known_only, nearest, tried
from pipeline.config.schedule import Schedule
from pipeline.types import Severity
from pipeline.words import words as split

POSED = frozenset({"fall", "lying", "fight"})  # behaviours that are judged by poses
LASTING = frozenset({"lying", "abandoned-object", "vehicle-at-rest"})  # those that last `seconds`
WORD_MODALITIES = ("speech", "report")


class RuleSite(msgspec.Struct, frozen=True, kw_only=True):
    """What rules may name of their site, and how far back (s) it is remembered."""

    cameras: Collection[str]
    zones: Collection[str]
    lines: Collection[str]
    microphones: Collection[str]
    horizon: float


class RuleKind(Settings, tag_field="rule", frozen=True, kw_only=True):
    """The settings that every rule has."""

    name: OwnName = ""  # default: made of the rule's kind and its subject
    severity: Severity = "medium"  # the severity of the alert
    modes: tuple[Name, ...] = ()  # the modes of the site in which it holds; none: all

    def subject(self) -> str:
        """What it looks at, for its default name; empty: nothing with a name."""
        return ""

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        """What is wrong with it beyond the shape of its fields; `here` is the way to it."""
        yield from ()

    def judges_poses(self, zones: Collection[str]) -> bool:
        """Whether it judges the poses of persons at a camera that has these zones."""
        return False


class ZoneKind(RuleKind, frozen=True, kw_only=True):
    """A rule of a zone."""

    zone: str  # the name of a zone, at one camera or several
    objects: tuple[str, ...] = ()  # none: those of the zone, camera by camera
    schedule: str = ""  # "22:00-06:00", several with commas, days before: "mon-fri 22:00-06:00"

    def subject(self) -> str:
        return self.zone

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        yield from known_only((self.zone,), site.zones, (*here, "zone"), "zone of a camera here")
        yield from _schedule(self.schedule, here)
        yield from _known_objects(self.objects, (*here, "objects"))


class LastingKind(ZoneKind, frozen=True, kw_only=True):
    """A rule of what goes on in a zone for `seconds`."""

    seconds: Seconds  # s; how long it must last; at most the horizon

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        yield from super().problems(site, here)
        if self.seconds > site.horizon:
            what = f"is longer than windows.horizon ({site.horizon:g} s), which is as far back"
            yield Problem((*here, "seconds"), f"{what} as is remembered")


class ZoneRule(ZoneKind, tag="zone", frozen=True, kw_only=True):
    """An object is in a zone while the schedule (site's time zone) holds."""

    min_score: Fraction = 0.0  # objects with a lower score do not count
    label: Label = "intrusion"  # the name of the alert


class LoiteringRule(LastingKind, tag="loitering", frozen=True, kw_only=True):
    """An object stays in a zone for `seconds`."""

    label: Label = "loitering"  # the name of the alert


class LineRule(RuleKind, tag="line", frozen=True, kw_only=True):
    """An object crosses a line; to count, it must leave the line by `hysteresis` of the frame."""

    line: str  # the name of a line, at one camera or several
    direction: Annotated[str, Meta(pattern=r"^(in|out|both)\Z")] = "both"  # in, out or both
    objects: tuple[str, ...] = ("person",)  # the classes of objects that count
    schedule: str = ""  # when the rule holds; empty: always
    hysteresis: Fraction = 0.02  # the distance from the line that it must reach
    label: Label = "line-crossed"  # the name of the alert

    def subject(self) -> str:
        return self.line

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        yield from known_only((self.line,), site.lines, (*here, "line"), "line of a camera here")
        yield from some_objects(self.objects, (*here, "objects"))
        yield from _schedule(self.schedule, here)


class CrowdRule(LastingKind, tag="crowd", frozen=True, kw_only=True):
    """At least `count` objects are in a zone for `seconds`."""

    count: Annotated[int, Meta(ge=1, le=1000)]  # objects at the same time
    seconds: Seconds = 2  # s; how long it must last; at most the horizon
    label: Label = "crowd"  # the name of the alert


class BehaviourRule(RuleKind, tag="behaviour", frozen=True, kw_only=True):
    """A person or a thing does something; the behaviour labels the alert.

    `fight` is experimental: it is often wrong. `running`, `abandoned-object` and `vehicle-at-rest`
    are not measured.
    """

    # behaviour -> the score from which it counts, more than 0; 0.5 is the operating point
    labels: Mapping[Label, Fraction]
    zone: str = ""  # the name of a zone, at one camera or several; empty: everywhere
    # s; how long all but `fall`, `fight` and `running` must last; at most the horizon less 5 s
    seconds: Seconds = 10
    schedule: str = ""  # when the rule holds; empty: always

    BEGINNING: ClassVar[float] = 5  # s; after which a restart has found all persons again

    def subject(self) -> str:
        return self.zone

    def judges_poses(self, zones: Collection[str]) -> bool:
        posed = not POSED.isdisjoint(self.labels)
        return posed and (not self.zone or self.zone in zones)

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        if not self.labels:
            yield Problem((*here, "labels"), f"is empty; known: {', '.join(BEHAVIOURS)}")
        if not site.cameras:
            yield Problem(here, "the site has no camera to see a behaviour with")
        if self.zone:
            what = "zone of a camera here"
            yield from known_only((self.zone,), site.zones, (*here, "zone"), what)
        yield from _schedule(self.schedule, here)
        most = site.horizon - self.BEGINNING
        if self.seconds > most and not LASTING.isdisjoint(self.labels):
            why = f"is longer than {most:g} s (windows.horizon less {self.BEGINNING:g} s)"
            yield Problem((*here, "seconds"), f"{why}, which is as far back as is remembered")
        for label, threshold in self.labels.items():
            way = (*here, "labels")
            known = known_only(
                (label,), BEHAVIOURS, way, "behaviour", keys=True, synonyms=BEHAVIOUR_SYNONYMS
            )
            yield from known
            if threshold == 0:
                yield Problem((*way, label), "must be more than 0, or it alarms for ever")


class SoundRule(RuleKind, tag="sound", frozen=True, kw_only=True):
    """A sound reaches its label's threshold (calibrated probability); it labels the alert."""

    labels: Mapping[Label, Fraction]  # sound -> the probability from which it counts, more than 0
    schedule: str = ""  # when the rule holds; empty: always

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        if not self.labels:
            yield Problem((*here, "labels"), f"is empty; known sounds: {', '.join(SOUNDS)}")
        if not site.microphones:
            yield Problem(here, "the site has no microphone to hear a sound with")
        yield from _schedule(self.schedule, here)
        for label, threshold in self.labels.items():
            yield from known_only((label,), SOUNDS, (*here, "labels"), "sound", keys=True)
            if threshold == 0:
                what = "must be more than 0, or it alarms for ever"
                yield Problem((*here, "labels", label), what)


class KeywordRule(RuleKind, tag="keyword", frozen=True, kw_only=True):
    """A word (stemmed, by language) is spoken or reported; `"he has a gun"` is a word too."""

    words: Mapping[str, tuple[Text, ...]]  # language code -> words and phrases
    on: tuple[str, ...] = WORD_MODALITIES  # where the words are looked for: speech, report
    min_confidence: Fraction = 0.4  # speech that was understood with less confidence is ignored
    label: Label = "keyword"  # the name of the alert

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        yield from _on(self.on, here)
        if not any(self.words.values()):
            yield Problem((*here, "words"), "is empty; give words by language: {en: [fire]}")
        codes = {name: code for code, name in LANGUAGES.items()}
        for language, words in self.words.items():
            if language not in LANGUAGES:
                hint = nearest(language, LANGUAGES, codes)
                hint = hint or f"; known: {', '.join(LANGUAGES)}"
                yield Problem((*here, "words", language), f"is no language code{hint}")
            for k, word in enumerate(words):
                if not split(word, language):
                    yield Problem((*here, "words", language, k), "holds no letter or digit")


class PhraseRule(RuleKind, tag="phrase", frozen=True, kw_only=True):
    """A report has about the meaning of one of the phrases (cosine of sentence embeddings)."""

    phrases: tuple[Text, ...]  # sentences with the meaning to look for
    min_similarity: Fraction = 0.55  # the cosine of two sentences from which they mean the same
    on: tuple[str, ...] = ("report",)  # where the meaning is looked for: speech, report
    label: Label = "report"  # the name of the alert

    def problems(self, site: RuleSite, here: Way) -> Iterator[Problem]:
        yield from _on(self.on, here)
        if not self.phrases:
            yield Problem((*here, "phrases"), "is empty; give a phrase to listen for")


Rule = (
    ZoneRule | LoiteringRule | LineRule | CrowdRule | BehaviourRule
    | SoundRule | KeywordRule | PhraseRule
)  # fmt: skip


def rule_names(rules: Sequence[RuleKind]) -> tuple[str, ...]:
    """A name for each rule of a site, in order: its own, or made of its kind and subject.

    Examples: `zone-floor`, `line-door`, `sound`; the second of a kind is `sound-2`. Names are part
    of anomaly ids, so a rule inserted before an unnamed rule may rename the latter.
    """
    taken = {rule.name for rule in rules}
    names = []
    for rule in rules:
        made = "-".join(filter(None, (str(rule.__struct_config__.tag), rule.subject())))
        numbered = (f"{made}-{i}" for i in count(2))
        name = rule.name or next(each for each in chain((made,), numbered) if each not in taken)
        taken.add(name)
        names.append(name)
    return tuple(names)


def some_objects(objects: tuple[str, ...], way: Way) -> Iterator[Problem]:
    """What is wrong with objects of which there must be one."""
    yield from _known_objects(objects, way)
    if not objects:
        yield Problem(way, "is empty; name what to look for, like [person]")


def _known_objects(objects: tuple[str, ...], way: Way) -> Iterator[Problem]:
    listed = f"`fusewatch check --words` lists all {len(OBJECTS)}"
    yield from known_only(objects, OBJECTS, way, "object", synonyms=OBJECT_SYNONYMS, listed=listed)


def _schedule(text: str, here: Way) -> Iterator[Problem]:
    yield from tried(Schedule.parse, text, (*here, "schedule"), lambda _: "")


def _on(on: tuple[str, ...], here: Way) -> Iterator[Problem]:
    yield from known_only(on, WORD_MODALITIES, (*here, "on"), "kind of words")
    if not on:
        yield Problem((*here, "on"), f"is empty; one or more of: {', '.join(WORD_MODALITIES)}")
