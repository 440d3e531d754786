"""Rules at their bounds, and rules that several cameras and several people meet."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import pytest

from models.language.keywords import Keywords
from pipeline.config.rule_kinds import (
    CrowdRule,
    KeywordRule,
    LineRule,
    LoiteringRule,
    PhraseRule,
    SoundRule,
    ZoneRule,
)
from pipeline.config.schedule import Schedule
from pipeline.judge.rule_scope import RuleScope
from pipeline.judge.rules import (
    MIN_EVIDENCE,
    REPORT_SCORE,
    KeywordMatcher,
    PhraseMatcher,
    RuleFinding,
    SoundThreshold,
    TrackedFrame,
    likely,
)
from pipeline.judge.vision_rules import Crowd, LineCrossing, Loitering, ZoneIntrusion
from pipeline.tracking.track import Point, Track
from pipeline.types import SECOND, ns
from pipeline.zones import LineCounter, LineSegment, Polygon
from tests.make import box, described, sound, utterance

UTC = ZoneInfo("UTC")
LEFT_HALF = Polygon.parse("0,0, 0.5,0, 0.5,1, 0,1")
IN, OUT = 0.3, 0.8  # x of who is inside the zone, and outside
NOON = 5 * 86_400 + 12 * 3600  # s


def place(schedule: str = "", **given: object) -> RuleScope:
    settings = {
        "zones": {"desk": LEFT_HALF, "door": LEFT_HALF},
        "objects": frozenset(["person"]),
        "schedule": Schedule.parse(schedule),
        "timezone": UTC,
        "horizon": ns(120),
    }
    return RuleScope(**(settings | given))  # type: ignore[arg-type]


def track(number: int, x: float, at: float, *, score: float = 0.9, label: str = "person") -> Track:
    return Track(
        id=number,
        label=label,
        score=score,
        box=box(label, x, 0.5, score=score),
        first_seen=ns(at),
        last_seen=ns(at),
        path=(Point(ns(at), x, 0.65),),
        aspect=16 / 9,
    )


def seen(
    at: float,
    *tracks: Track,
    camera: str = "desk",
    still: Sequence[int] = (),
    again: Sequence[int] = (),
) -> TrackedFrame:
    return TrackedFrame(
        source=camera,
        start=ns(at),
        end=ns(at + 0.2),
        tracks=tracks,
        still=frozenset(still),
        again=frozenset(again),
    )


# -- zones


def in_zone(**given: object) -> ZoneIntrusion:
    return ZoneIntrusion("zone-floor", ZoneRule(zone="floor", severity="high"), place(**given))


def test_a_finding_in_a_zone_says_who_where_and_when() -> None:
    (found,) = in_zone().see(seen(10, track(1, IN, 10, score=0.7)))
    assert found == RuleFinding(
        rule="zone-floor",
        label="intrusion",
        severity="high",
        modality="vision",
        source="desk",
        start=ns(10),
        end=ns(10.2),
        score=0.7,
        sure=True,
        reason="person in zone floor (camera desk)",
        zone="floor",
        object="person",
        box=(0.25, 0.35, 0.35, 0.65),
    )


def test_a_score_of_just_the_least_counts() -> None:
    assert in_zone(min_score=0.7).see(seen(10, track(1, IN, 10, score=0.7)))


def test_each_track_and_each_camera_is_told_by_itself() -> None:
    rule = in_zone()
    assert len(rule.see(seen(10, track(1, IN, 10), track(2, 0.2, 10)))) == 2
    assert len(rule.see(seen(10, track(1, IN, 10), camera="door"))) == 1
    assert rule.see(seen(10.4, track(1, IN, 10.4))) == []


def test_who_is_forgotten_and_comes_again_is_news() -> None:
    rule = in_zone()
    rule.see(seen(10, track(1, IN, 10)))
    rule.see(seen(11))
    (found,) = rule.see(seen(12, track(1, IN, 12)))
    assert found.news


def test_one_camera_forgets_nobody_of_another() -> None:
    rule = in_zone()
    rule.see(seen(10, track(1, IN, 10)))
    rule.see(seen(11, camera="door"))
    (found,) = rule.see(seen(12, track(1, IN, 12)))
    assert not found.news


def test_who_leaves_the_zone_and_stays_in_sight_is_no_news_when_back() -> None:
    rule = in_zone()
    rule.see(seen(10, track(1, IN, 10)))
    assert rule.see(seen(11, track(1, OUT, 11))) == []
    (found,) = rule.see(seen(12, track(1, IN, 12)))
    assert not found.news


def test_who_comes_back_to_the_zone_after_the_horizon_is_news() -> None:
    rule = in_zone()
    rule.see(seen(10, track(1, IN, 10)))
    for at, news in ((129.9, False), (250, True)):
        rule.see(seen(at - 1, track(1, OUT, at - 1)))
        (found,) = rule.see(seen(at, track(1, IN, at)))
        assert found.news is news


def test_who_stands_still_for_longer_than_the_horizon_is_told_once() -> None:
    rule = in_zone()
    assert len(rule.see(seen(10, track(1, IN, 10)))) == 1
    for at in range(20, 400, 10):
        assert rule.see(seen(at, track(1, IN, at), still=[1])) == []
    (found,) = rule.see(seen(400, track(1, IN, 400)))
    assert not found.news, "it walks on"


def test_a_new_track_in_the_place_of_who_stood_still_is_not_told_until_it_moves() -> None:
    rule = in_zone()
    assert rule.see(seen(10, track(2, IN, 10), again=[2])) == []
    assert rule.see(seen(70, track(2, IN, 70), still=[2])) == []
    (found,) = rule.see(seen(71, track(2, IN, 71)))
    assert found.news


def test_who_stands_still_and_was_not_told_yet_is_told() -> None:
    rule = in_zone()
    assert rule.see(seen(10, track(1, OUT, 10), still=[1])) == []
    assert rule.see(seen(11, track(1, IN, 11), still=[1]))


# -- loitering


def loitering(seconds: float = 5) -> Loitering:
    return Loitering("l", LoiteringRule(zone="floor", seconds=seconds), place())


def test_loitering_says_for_how_long_and_only_at_first() -> None:
    rule = loitering()
    found = [f for at in (10, 14.9, 15, 16) for f in rule.see(seen(at, track(1, IN, at)))]
    assert [f.news for f in found] == [True, False]
    assert {f.reason for f in found} == {"person in zone floor for 5 s (camera desk)"}
    assert (found[0].label, found[0].modality, found[0].sure) == ("loitering", "vision", True)


def test_loitering_at_one_camera_is_not_ended_by_another() -> None:
    rule = loitering()
    rule.see(seen(10, track(1, IN, 10)))
    rule.see(seen(12, camera="door"))
    assert rule.see(seen(15, track(1, IN, 15)))


def test_each_loiterer_has_a_dwell_of_his_own() -> None:
    rule = loitering()
    rule.see(seen(10, track(1, IN, 10)))
    rule.see(seen(13, track(1, IN, 13), track(2, IN, 13)))
    assert len(rule.see(seen(15, track(1, IN, 15), track(2, IN, 15)))) == 1
    assert len(rule.see(seen(18, track(1, IN, 18), track(2, IN, 18)))) == 2


def test_who_loiters_and_comes_to_rest_is_told_once() -> None:
    rule = loitering()
    rule.see(seen(10, track(1, IN, 10)))
    assert len(rule.see(seen(15, track(1, IN, 15), still=[1]))) == 1
    assert rule.see(seen(16, track(1, IN, 16), still=[1])) == []
    assert len(rule.see(seen(17, track(1, IN, 17)))) == 1


def test_a_new_track_in_the_place_of_who_stood_still_does_not_loiter_until_it_moves() -> None:
    rule = loitering()
    for at in (10, 16):
        assert rule.see(seen(at, track(2, IN, at), again=[2])) == []
    assert rule.see(seen(18, track(2, IN, 18), still=[2])) == []
    assert len(rule.see(seen(20, track(2, IN, 20)))) == 1


def test_a_loiterer_who_is_forgotten_and_comes_again_is_news() -> None:
    rule = loitering()
    for at in (10, 15):
        rule.see(seen(at, track(1, IN, at)))
    rule.see(seen(16))
    rule.see(seen(17, track(1, IN, 17)))
    (found,) = rule.see(seen(22, track(1, IN, 22)))
    assert found.news


# -- crowds


def crowd(count: int = 3, seconds: float = 2) -> Crowd:
    return Crowd("c", CrowdRule(zone="floor", count=count, seconds=seconds), place())


def people(at: float, *scores: float) -> list[Track]:
    return [track(n, 0.1 + n / 100, at, score=score) for n, score in enumerate(scores)]


def test_a_crowd_is_as_sure_as_the_last_one_that_makes_it() -> None:
    rule = crowd()
    rule.see(seen(10, *people(10, 0.5, 0.9, 0.8, 0.7)))
    (found,) = rule.see(seen(12, *people(12, 0.5, 0.9, 0.8, 0.7)))
    assert found.score == 0.7
    assert found.reason == "4 objects in zone floor (camera desk)"


def test_a_crowd_is_told_once_a_second_while_it_stands() -> None:
    rule = crowd(seconds=0)
    found = [f for n in range(12) for f in rule.see(seen(10 + n / 5, *people(10, 0.9, 0.9, 0.9)))]
    assert [(f.start // SECOND, f.news) for f in found] == [
        (10, True), (11, False), (12, False),
    ]  # fmt: skip


def test_a_crowd_that_breaks_up_begins_anew_and_is_news() -> None:
    rule = crowd()
    for at in (10, 12):
        rule.see(seen(at, *people(at, 0.9, 0.9, 0.9)))
    rule.see(seen(13, *people(13, 0.9, 0.9)))
    assert rule.see(seen(14, *people(14, 0.9, 0.9, 0.9))) == ()
    (found,) = rule.see(seen(16, *people(16, 0.9, 0.9, 0.9)))
    assert found.news


def test_a_crowd_at_one_camera_is_not_ended_by_another() -> None:
    rule = crowd()
    rule.see(seen(10, *people(10, 0.9, 0.9, 0.9)))
    rule.see(seen(11, camera="door"))
    assert rule.see(seen(12, *people(12, 0.9, 0.9, 0.9)))


# -- lines


def crossed(**given: object) -> list[RuleFinding]:
    """What a walk across the line `door` gives; upwards: in is to the right."""
    line = LineCounter(LineSegment.parse("0.5,1, 0.5,0"), 0.02)
    rule = LineRule(line="door", direction="both", severity="critical")
    begin = float(given.pop("begin", 10))  # type: ignore[arg-type]
    label, camera = str(given.pop("label", "person")), str(given.pop("camera", "desk"))
    judge = LineCrossing("line-door", rule, place(**given), {"desk": line})
    return [
        found
        for step, x in enumerate((0.40, 0.44, 0.48, 0.52, 0.56, 0.60))
        for found in judge.see(
            seen(begin + step / 5, track(1, x, begin + step / 5, label=label), camera=camera)
        )
    ]


def test_a_crossing_says_who_crossed_what_and_whither() -> None:
    (found,) = crossed()
    assert found.reason == "person crossed line door going in (camera desk)"
    assert (found.rule, found.label, found.severity) == ("line-door", "line-crossed", "critical")
    assert (found.modality, found.source, found.score, found.sure) == ("vision", "desk", 0.9, True)


def test_a_crossing_of_another_kind_time_or_camera_is_not_meant() -> None:
    assert crossed(label="dog") == []
    assert crossed(schedule="22:00-06:00", begin=NOON) == []
    assert crossed(schedule="11:00-13:00", begin=NOON)
    assert crossed(camera="door") == []


# -- sounds


def test_a_sound_of_just_the_least_is_evidence_and_of_just_its_threshold_is_sure() -> None:
    rule = SoundThreshold(
        "s", SoundRule(labels={"scream": 0.5, "glass": 0.5}), place().schedule, UTC
    )
    found = rule.hear(sound(10, scream=0.5, glass=MIN_EVIDENCE))
    assert [(f.label, f.sure, f.score) for f in found] == [
        ("glass", False, 0.1), ("scream", True, 0.5),
    ]  # fmt: skip
    assert found[1].reason == "scream heard (microphone room)"
    assert (found[1].source, found[1].start, found[1].end) == ("room", ns(10), ns(11))
    assert rule.hear(sound(10, scream=0.0999)) == []


def test_a_sound_outside_the_schedule_is_no_evidence() -> None:
    night = Schedule.parse("22:00-06:00")
    rule = SoundThreshold("s", SoundRule(labels={"scream": 0.5}), night, UTC)
    assert rule.hear(sound(NOON, scream=0.9)) == ()
    assert rule.hear(sound(NOON + 11 * 3600, scream=0.9))


# -- words


def said(**given: object) -> KeywordMatcher:
    rule = KeywordRule(words={"en": ("help", "fire")}, label="distress", **given)  # type: ignore[arg-type]
    return KeywordMatcher("k", rule, Keywords(rule.words))


@pytest.mark.parametrize(("confidence", "sure"), [(0.5, True), (0.499, False)])
def test_speech_is_sure_from_the_least_confidence_on(confidence: float, sure: bool) -> None:
    (found,) = said(min_confidence=0.5).read(utterance(10, "help", confidence=confidence))
    assert (found.sure, found.score) == (sure, confidence)


def test_words_say_what_was_found_and_by_whom() -> None:
    (spoken,) = said().read(utterance(10, "help, fire"))
    (written,) = said().read(described(10, "fire", author="guard-7"))
    assert spoken.reason == '"help, fire" said (microphone room)'
    assert written.reason == '"fire" reported by guard-7'
    assert (spoken.modality, written.modality) == ("speech", "report")
    assert (written.score, written.text, written.sure) == (REPORT_SCORE, "fire", True)


def vector(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def meant(**phrases: bytes) -> PhraseMatcher:
    rule = PhraseRule(phrases=tuple(phrases), min_similarity=0.6, label="burglar")
    return PhraseMatcher("p", rule, phrases)


def test_of_several_phrases_the_nearest_is_told() -> None:
    rule = meant(up=vector(0, 1), right=vector(1, 0))
    (found,) = rule.read(described(10, "there", embedding=vector(0.8, 0.6)))
    assert found.reason == 'reported by guard-1, close to "right"'
    assert found.score == likely(0.8, 0.6) == 0.775
    assert found.sure


def test_what_means_a_phrase_only_half_is_evidence_and_below_that_nothing() -> None:
    """Evidence ends where 0.6 (1 - (0.6 - x) / 0.25) is a tenth: at a cosine of 0.3917."""
    rule = meant(right=vector(1, 0))
    (half,) = rule.read(described(10, embedding=vector(0.5, 0.75**0.5)))
    assert not half.sure
    assert half.score == pytest.approx(0.36, abs=0.002)
    assert rule.read(described(10, embedding=vector(0.40, 0.9165)))
    assert rule.read(described(10, embedding=vector(0.38, 0.9250))) == ()


def test_words_of_just_the_least_likeness_are_evidence() -> None:
    (found,) = meant(right=vector(1, 0)).read(described(10, embedding=vector(47, 110.4375)))
    assert found.score == MIN_EVIDENCE


def test_a_phrase_of_just_the_similarity_is_sure() -> None:
    rule = meant(right=vector(3, 0))
    (found,) = rule.read(described(10, embedding=vector(3, 4)))  # 9 / 15, exactly
    assert found.sure
    assert found.score == 0.6


def test_words_without_an_embedding_and_an_embedding_of_nothing_mean_nothing() -> None:
    assert meant(right=vector(1, 0)).read(described(10, "there")) == ()
    assert meant(right=vector(1, 0)).read(described(10, embedding=vector(0, 0))) == ()


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [(-1.0, 0.0), (0.35, 0.0), (0.475, 0.3), (0.6, 0.6), (0.8, 0.775), (1.0, 0.95)],
)
def test_similarity_becomes_a_probability_by_two_straight_lines(
    cosine: float, expected: float
) -> None:
    assert likely(cosine, 0.6) == expected


def test_a_threshold_of_one_is_no_division_by_nothing() -> None:
    assert likely(1.0, 1.0) == 0.6
