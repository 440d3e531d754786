"""Rules, one behaviour each."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec
import pytest

from models.language.keywords import Keywords
from pipeline.config import rule_kinds
from pipeline.config.schedule import Schedule
from pipeline.judge.rules import (
    KeywordMatcher,
    PhraseMatcher,
    RuleFinding,
    SoundThreshold,
    TrackedFrame,
    VisionRule,
    likely,
)
from pipeline.judge.vision_rules import Crowd, LineCrossing, Loitering, RuleScope, ZoneIntrusion
from pipeline.tracking.track import Point, Track
from pipeline.types import SECOND, ns
from pipeline.zones import LineCounter, LineSegment, Polygon
from tests.make import box, described, sound, utterance

UTC = ZoneInfo("UTC")
LEFT_HALF = Polygon.parse("0,0, 0.5,0, 0.5,1, 0,1")


def place(schedule: str = "", min_score: float = 0.0) -> RuleScope:
    return RuleScope(
        zones={"desk": LEFT_HALF},
        objects=frozenset(["person"]),
        schedule=Schedule.parse(schedule),
        timezone=UTC,
        horizon=ns(120),
        min_score=min_score,
    )


def track(number: int, x: float, at: float, label: str = "person", score: float = 0.9) -> Track:
    time = ns(at)
    return Track(
        id=number,
        label=label,
        score=score,
        box=box(label, x, 0.5, score=score),
        first_seen=time,
        last_seen=time,
        path=(Point(time, x, 0.65),),
        aspect=16 / 9,
    )


def seen(
    at: float, *tracks: Track, still: Sequence[int] = (), hidden: Sequence[int] = ()
) -> TrackedFrame:
    return TrackedFrame(
        source="desk",
        start=ns(at),
        end=ns(at + 0.2),
        tracks=tracks,
        still=frozenset(still),
        hidden=frozenset(hidden),
    )


def walk(rule: VisionRule, times: Sequence[float], x: float = 0.3) -> list[RuleFinding]:
    return [f for at in times for f in rule.see(seen(at, track(1, x, at)))]


def in_zone(**settings: object) -> ZoneIntrusion:
    rule = rule_kinds.ZoneRule(zone="floor", severity="high")
    return ZoneIntrusion("zone-floor", rule, place(**settings))  # type: ignore[arg-type]


def test_entering_a_zone_is_told_at_once_and_then_once_a_second() -> None:
    found = walk(in_zone(), [10.0, 10.2, 10.8, 11.0, 11.4, 12.2])
    assert [f.start // SECOND for f in found] == [10, 11, 12]
    assert [f.news for f in found] == [True, False, False]
    assert all(f.sure and f.label == "intrusion" for f in found)


def test_outside_the_zone_nothing_is_told() -> None:
    assert walk(in_zone(), [10, 11], x=0.7) == []


def test_the_boundary_of_a_zone_is_inside() -> None:
    assert walk(in_zone(), [10], x=0.5)


def test_a_camera_without_the_zone_is_not_judged() -> None:
    other = TrackedFrame(
        source="door", start=0, end=1, tracks=(track(1, 0.3, 0),), still=frozenset()
    )
    assert in_zone().see(other) == []


def test_another_kind_of_object_is_not_meant() -> None:
    rule = in_zone()
    assert rule.see(seen(10, track(1, 0.3, 10, label="dog"))) == []


def test_a_zone_with_a_schedule_is_quiet_outside_it() -> None:
    day = 5 * 86400
    rule = in_zone(schedule="22:00-06:00")
    assert walk(rule, [day + 12 * 3600]) == []
    assert walk(rule, [day + 23 * 3600])
    assert walk(rule, [day + 29 * 3600])  # 05:00 belongs to the night that began the day before


def test_an_object_that_stands_still_is_told_once() -> None:
    rule = in_zone()
    first = rule.see(seen(10, track(1, 0.3, 10), still=[1]))
    later = rule.see(seen(15, track(1, 0.3, 15), still=[1]))
    assert len(first) == 1
    assert later == []


def test_a_track_that_was_not_seen_in_this_frame_is_not_in_the_zone() -> None:
    rule = in_zone()
    old = track(1, 0.3, 9.6)
    assert rule.see(seen(10, old)) == []


def test_a_weak_detection_is_below_the_rules_score() -> None:
    rule = in_zone(min_score=0.7)
    assert rule.see(seen(10, track(1, 0.3, 10, score=0.6))) == []


def test_loitering_is_told_when_the_dwell_is_reached() -> None:
    settings = rule_kinds.LoiteringRule(zone="floor", seconds=5)
    rule = Loitering("loitering-floor", settings, place())
    found = walk(rule, [10, 11, 12, 13, 14, 14.8, 15.0, 16.0])
    assert [f.start for f in found] == [ns(15), ns(16)]


def missed(number: int, x: float, at_: float, last: float) -> Track:
    """A track that the detector did not see in the frame at `at_`, but at `last`."""
    return msgspec.structs.replace(track(number, x, at_), last_seen=ns(last))


def test_a_missed_detection_is_no_leaving() -> None:
    rule = Loitering("l", rule_kinds.LoiteringRule(zone="floor", seconds=5), place())
    found: list[RuleFinding] = []
    for step in range(30):
        at = 10 + step / 5
        one = track(1, 0.3, at) if step % 3 else missed(1, 0.3, at, at - 0.2)
        found += rule.see(seen(at, one))
    assert next(f.start for f in found) == ns(15)


def test_a_crowd_outlasts_missed_detections() -> None:
    rule = Crowd("crowd", rule_kinds.CrowdRule(zone="floor", count=2, seconds=2), place())
    found: list[RuleFinding] = []
    for step in range(15):
        at = 10 + step / 5
        two = track(2, 0.4, at) if step % 2 else missed(2, 0.4, at, at - 0.2)
        found += rule.see(seen(at, track(1, 0.2, at), two))
    assert [f.start for f in found] == [ns(12)]


def test_leaving_the_zone_starts_the_dwell_again() -> None:
    rule = Loitering("l", rule_kinds.LoiteringRule(zone="floor", seconds=5), place())
    walk(rule, [10, 11, 12, 13])
    walk(rule, [14], x=0.8)
    assert walk(rule, [15, 17, 19]) == []


def test_who_is_hidden_and_comes_out_in_the_zone_has_stayed() -> None:
    rule = Loitering("l", rule_kinds.LoiteringRule(zone="floor", seconds=5), place())
    walk(rule, [10, 11])
    assert not any(rule.see(seen(at, hidden=[1])) for at in (12, 13, 14, 15, 16))
    assert [f.start for f in walk(rule, [17])] == [ns(17)]


def test_who_comes_out_elsewhere_or_is_forgotten_has_left() -> None:
    for outside in ([seen(14, track(1, 0.8, 14))], [seen(14)]):
        rule = Loitering("l", rule_kinds.LoiteringRule(zone="floor", seconds=5), place())
        walk(rule, [10, 11])
        rule.see(seen(12, hidden=[1]))
        for frame in outside:
            rule.see(frame)
        assert walk(rule, [15, 17, 19]) == []


def test_a_dwell_ends_with_the_schedule_also_for_who_is_hidden() -> None:
    day = 5 * 86400
    rule = Loitering("l", rule_kinds.LoiteringRule(zone="floor", seconds=5), place("10:00-12:00"))
    noon = day + 12 * 3600
    walk(rule, [noon - 3])
    rule.see(seen(noon + 1, hidden=[1]))
    assert walk(rule, [noon + 22 * 3600]) == []


def test_who_was_hidden_in_a_zone_is_no_news() -> None:
    rule = in_zone()
    first = walk(rule, [10])
    assert not any(rule.see(seen(at, hidden=[1])) for at in (12, 15))
    again = walk(rule, [17])
    assert [f.news for f in (*first, *again)] == [True, False]


def test_who_is_hidden_is_not_counted_in_a_crowd() -> None:
    rule = Crowd("crowd", rule_kinds.CrowdRule(zone="floor", count=2, seconds=1), place())
    assert not any(rule.see(seen(at, track(1, 0.2, at), hidden=[2])) for at in (10, 11, 12))


def test_a_line_that_nobody_saw_crossed_is_not_crossed() -> None:
    line = LineCounter(LineSegment.parse("0.5,1, 0.5,0"), 0.02)
    judge = LineCrossing(
        "line-door", rule_kinds.LineRule(line="door", direction="both"), place(), {"desk": line}
    )
    out = [msgspec.structs.replace(track(1, x, 17), found=ns(17)) for x in (0.6, 0.56, 0.44, 0.4)]
    ways = [track(1, 0.4, 10), track(1, 0.44, 11), *out]
    found = [judge.see(seen(10 + n, one)) for n, one in enumerate(ways)]
    assert [len(some) for some in found] == [0, 0, 0, 0, 1, 0]


def test_a_crowd_must_last() -> None:
    rule = Crowd("crowd", rule_kinds.CrowdRule(zone="floor", count=2, seconds=2), place())
    found = []
    for at in (10.0, 11.0, 11.8, 12.0, 12.4, 13.0):
        found += rule.see(seen(at, track(1, 0.2, at), track(2, 0.4, at, score=0.7)))
    assert [f.start for f in found] == [ns(12), ns(13)]
    assert found[0].score == 0.7
    alone = rule.see(seen(14, track(1, 0.2, 14)))
    assert alone == ()


def crossing(direction: str) -> list[RuleFinding]:
    line = LineCounter(LineSegment.parse("0.5,1, 0.5,0"), 0.02)  # upwards: in is to the right
    rule = rule_kinds.LineRule(line="door", direction=direction)
    judge = LineCrossing("line-door", rule, place(), {"desk": line})
    found: list[RuleFinding] = []
    for step, x in enumerate([0.40, 0.44, 0.48, 0.52, 0.56, 0.60]):
        found += judge.see(seen(10 + step / 5, track(1, x, 10 + step / 5)))
    return found


def test_a_line_is_crossed_once_and_in_its_direction() -> None:
    (found,) = crossing("both")
    assert "in" in found.reason
    assert len(crossing("in")) == 1
    assert crossing("out") == []


def hearing(**labels: float) -> SoundThreshold:
    return SoundThreshold("sound", rule_kinds.SoundRule(labels=labels), Schedule.parse(""), UTC)


def test_a_sound_is_sure_from_its_threshold_on_and_evidence_below() -> None:
    rule = hearing(gunshot=0.5, scream=0.7)
    found = rule.hear(sound(10, gunshot=0.5, scream=0.6, siren=0.9))
    assert {(f.label, f.sure) for f in found} == {("gunshot", True), ("scream", False)}


def test_next_to_nothing_is_no_evidence() -> None:
    assert hearing(gunshot=0.5).hear(sound(10, gunshot=0.05)) == []


def said(**settings: object) -> KeywordMatcher:
    rule = rule_kinds.KeywordRule(words={"en": ("help", "he has a gun")}, **settings)  # type: ignore[arg-type]
    return KeywordMatcher("keyword", rule, Keywords(rule.words))


def test_a_keyword_is_found_in_every_form_of_the_word() -> None:
    (found,) = said().read(utterance(10, "Somebody is HELPING him", confidence=0.8))
    assert (found.sure, found.score, found.modality) == (True, 0.8, "speech")
    assert found.text == "Somebody is HELPING him"


def test_several_words_must_stand_together() -> None:
    rule = said()
    assert rule.read(utterance(10, "he has a gun!"))
    assert not rule.read(utterance(10, "he has, as a man, no gun"))


def test_speech_that_was_hardly_understood_is_evidence_only() -> None:
    (found,) = said(min_confidence=0.5).read(utterance(10, "help", confidence=0.3))
    assert not found.sure


def test_a_rule_reads_only_what_it_is_set_on() -> None:
    rule = said(on=("report",))
    assert not rule.read(utterance(10, "help"))
    (found,) = rule.read(described(10, "please help", author="guard-7"))
    assert "guard-7" in found.reason


def vector(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}e", *values)


def test_a_report_that_means_the_phrase_is_found() -> None:
    rule = rule_kinds.PhraseRule(phrases=("an intruder",), min_similarity=0.6)
    meant = PhraseMatcher("phrase", rule, {"an intruder": vector(1, 0)})
    (near,) = meant.read(described(10, "a burglar", embedding=vector(0.9, 0.3)))
    assert near.sure
    assert not meant.read(described(10, "tea is ready", embedding=vector(0, 1)))


def test_embeddings_of_different_models_are_not_compared() -> None:
    meant = PhraseMatcher("phrase", rule_kinds.PhraseRule(phrases=("x",)), {"x": vector(1, 0)})
    with pytest.raises(ValueError, match="2"):
        meant.read(described(10, "y", embedding=vector(1, 0, 0)))


@pytest.mark.parametrize(("cosine", "expected"), [(0.3, 0.0), (0.55, 0.6), (1.0, 0.95)])
def test_similarity_becomes_a_probability(cosine: float, expected: float) -> None:
    assert likely(cosine, 0.55) == expected
