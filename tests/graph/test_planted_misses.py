"""Twelve alerts that did not come: `explain` names the cause of each first.

The observations are made; vision, fusion and alerting are the real stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from models.fusion.head import Head
from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery
from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config import rule_kinds, schema
from pipeline.judge.refusal import Refusal
from pipeline.run import drain
from pipeline.types import Box, Detections, FrameChunk, Record, ns
from tests.fakes import FakeDetector
from tests.graph.conftest import FAKES
from tests.make import box, comes, described, detections, progress, roster, sound, utterance
from tests.stored_records import stored_input
from workers import graph
from workers.explain import as_json, text
from workers.explain.explained import Explained, explain_stored
from workers.explain.refusals import SiteRefusals
from workers.media import jpeg
from workers.replay.again import Way, judge_again
from workers.runtime.status import Status
from workers.stages.vision import VisionStage

EVENING = datetime(2026, 1, 5, 20, 58, tzinfo=UTC).timestamp()  # 21:58 in Berlin
SECONDS = 40
SOURCES = ("desk", "room", "room/speech", "reports")
PASSER = box(x=0.85, y=0.3, height=0.2)  # walks far from the zone, all the time
ZONE = "0.1,0.5, 0.5,0.5, 0.5,1, 0.1,1"
IN, OUT = 0.3, 0.58  # x of the feet


def site(**given: object) -> schema.Site:
    """An office with a rule of each sense; `given` replaces settings of the zone rule."""
    zone = rule_kinds.ZoneRule(zone="floor", **{"severity": "high", **given})  # type: ignore[arg-type]
    desk = schema.Camera(source="device:0", zones={"floor": schema.Zone(coordinates=ZONE)})
    return schema.Site(
        timezone="Europe/Berlin",
        cameras={"desk": desk},
        microphones={"room": schema.Microphone(source="device:default")},
        rules=(
            zone,
            rule_kinds.SoundRule(labels={"glass": 0.5, "gunshot": 0.6}, severity="critical"),
            rule_kinds.KeywordRule(words={"en": ("help",)}, label="distress"),
        ),
        stationary=schema.Stationary(after=5),
        fusion=schema.Fusion(head="rules"),
    )


class Scores:
    """A head that gives every window one score."""

    version, threshold = "made 1", 0.9989

    def __init__(self, score: float) -> None:
        self._score = score

    def score(self, question: HeadQuery) -> float:
        return self._score

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        return [Verdict(score=self._score, label="alarm", contributions={}) for _ in batch]


Sees = Callable[[float], Sequence[Box] | Detections | None]


def nobody(second: float) -> Sequence[Box]:
    return ()


def day(
    sees: Sees = nobody,
    *,
    glass: float = 0.03,
    says: tuple[str, float] = ("good morning", 0.9),
) -> list[Record]:
    """What the office saw and heard in 40 s; something happens from second 15 on.

    `sees` gives, by the second, what the camera shows beside a passer-by, or None if it is lost.
    """
    records: list[Record] = []
    for second in range(SECONDS):
        now = EVENING + second
        if second % 10 == 0:
            records.append(roster(*SOURCES, start=now))
        for frame in range(5):
            at = now + frame / 5
            shown = sees(second + frame / 5)
            if shown is None:
                if frame == 0:
                    why = "connection refused"
                    records.append(progress(at, source="desk", alive=False, reason=why))
                continue
            passer = msgspec.structs.replace(
                PASSER, x1=PASSER.x1 - second / 500, x2=PASSER.x2 - second / 500
            )
            seen = shown if isinstance(shown, Detections) else detections(at, passer, *shown)
            promised = msgspec.structs.replace(progress(0, source="desk"), upto=seen.start + 1)
            records += [seen, promised]
        records.append(sound(now, glass=glass if second == 15 else 0.02, gunshot=0.01))
        if second == 15:
            records.append(utterance(now, says[0], confidence=says[1], seconds=0.8))
        if second % 9 == 4:
            records.append(described(now, "all is well"))
        names = ("room", "room/speech", "reports")
        records += [progress(now + 1, source=name) for name in names]
    return records


def walking(x: float, *, score: float = 0.9, label: str = "person") -> Sees:
    """Something that walks on the spot, from second 15 to 19."""

    def sees(second: float) -> Sequence[Box]:
        there = 15 <= second < 20
        at = x + (second - 15) / 100
        return [box(label, at, 0.7, score=score)] if there else ()

    return sees


def standing(second: float) -> Sequence[Box]:
    """Someone who comes before anything else, and stands there."""
    return [box(x=IN, y=0.7)] if second >= 2 else ()


def lost(second: float) -> Sequence[Box] | None:
    return None if 11 <= second < 25 else ()


def twice(second: float) -> Sequence[Box]:
    there = 2 <= second < 4 or 16 <= second < 18
    return [box(x=IN + second / 200, y=0.7)] if there else ()


def in_a_gated_frame(second: float) -> Sequence[Box] | Detections:
    """A frame with somebody in it, marked by capture: nothing moves; vision makes of it what it
    makes."""
    if not 15 <= second < 20:
        return ()
    bright = jpeg.encoded(np.full((48, 64, 3), 200, np.uint8))  # shows the fake detector a person
    start, end = ns(EVENING + second), ns(EVENING + second + 0.2)
    frame = FrameChunk(
        site="office", source="desk", start=start, end=end, seq=0, width=64, height=48,
        data=bright, look="",
    )  # fmt: skip
    known = {("office", "desk"): schema.Detect(audit=0)}
    stage = VisionStage(FakeDetector(), "all", known=known)
    (result,) = stage.infer([frame])
    made = stage.open({}).on(frame, result)
    (seen,) = [record for record in made if isinstance(record, Detections)]
    assert seen.gated
    return seen


def explained(
    of: schema.Site, records: Sequence[Record], heads: dict[str, Head] | None = None
) -> Explained:
    settings = schema.Config(version=1, sites={"office": of})
    given = stored_input(records, ns(EVENING), ns(EVENING + SECONDS))
    (found,) = explain_stored(
        settings,
        given,
        lambda config: FAKES,
        lambda done, all_: None,
        pictures=False,
        heads=heads,
    )
    return found


def first_cause(of: Explained, second: float) -> Refusal:
    near, _ = text.causes_around(of, ns(EVENING + second))
    lines = list(text.around(of, ns(EVENING + second)))
    assert lines[2].startswith("  1. ")
    assert near[0].why in lines[2]
    document = as_json.document(of, at=ns(EVENING + second))
    assert document["causes"][0]["why"] == near[0].why
    return near[0]


MISSES = [
    pytest.param(
        site(), day(walking(IN, score=0.38)), 16, "zone-floor", "min_score",
        "person 0.38 < min_score 0.40", id="too faint",
    ),
    pytest.param(
        site(), day(walking(0.53)), 15.5, "zone-floor", "zone",
        "feet outside zone floor by 3 %", id="outside",
    ),
    pytest.param(
        site(schedule="22:00-06:00"), day(walking(IN)), 16, "zone-floor", "schedule",
        "schedule 22:00-06:00: it was 21:58 in Berlin", id="hours",
    ),
    pytest.param(
        site(), day(standing), 20, "zone-floor", "still",
        "person stationary since 21:58:06, told once", id="stationary",
    ),
    pytest.param(
        site(), day(glass=0.46), 16, "sound", "score",
        "sound glass 0.46 < 0.50", id="sound",
    ),
    pytest.param(
        site(), day(lost), 18, "zone-floor", "lost",
        "camera lost: no frames for 7 s: connection refused", id="lost",
    ),
    pytest.param(
        site(), day(says=("help", 0.31)), 16, "keyword", "confidence",
        "speech 'help' confidence 0.31 < 0.40", id="speech",
    ),
    pytest.param(
        site(), day(in_a_gated_frame), 17, "zone-floor", "gated",
        "nobody looked at the frame: nothing moves in it (detect.gate)", id="gated",
    ),
    pytest.param(
        site(), day(walking(IN, label="car")), 16, "zone-floor", "object",
        "car is none of the rule's objects (person)", id="object",
    ),
    pytest.param(
        site(modes=("home",)), day(walking(IN)), 16, "zone-floor", "mode",
        "mode armed: the rule holds in home", id="mode",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("of", "records", "second", "rule", "reason", "why"), MISSES)
def test_the_cause_of_a_planted_miss_is_named_first(
    of: schema.Site, records: list[Record], second: float, rule: str, reason: str, why: str
) -> None:
    first = first_cause(explained(of, records), second)
    assert (first.rule, first.reason, first.why) == (rule, reason, why)


def test_a_head_below_its_threshold_is_named_first() -> None:
    of = msgspec.structs.replace(site(), rules=())
    found = explained(of, day(), {"office": Scores(0.93)})
    first = first_cause(found, 16)
    assert (first.rule, first.why) == ("learned", "head 0.93 < 0.9989")


def test_an_incident_that_was_cut_is_named_first() -> None:
    found = explained(site(), day(twice))
    ids = list(found.last)
    assert len(ids) == 2
    first = first_cause(found, 16.5)
    assert (first.rule, first.reason, first.label) == ("incident", "close_after", ids[0])
    assert first.why.startswith(
        f"incident {ids[0]} closed: nothing was found for 10 s (close_after), and the next, "
        "intrusion, came 13"
    )
    lines = list(text.incident(found, [a for a in found.alerts if a.id == ids[0]]))
    assert any("nothing was found for 10 s (close_after)" in line for line in lines)


def test_the_summary_tells_what_fired_and_what_nearly_did() -> None:
    found = explained(site(), day(walking(IN), glass=0.46))
    lines = list(text.summary(found))
    assert lines[0] == "made: site office, 2026-01-05, 21:58:00 to 21:58:40 in Berlin"
    fired = lines[lines.index("What fired:") + 1]
    assert "intrusion (high, score 0.90; fusion, zone-floor)" in fired
    near = lines[lines.index("What nearly fired, the nearest first:") + 1]
    assert near == "  21:58:15 sound, room: sound glass 0.46 < 0.50"
    assert any(line.startswith("  zone-floor: fired 5") for line in lines)


def test_whether_somebody_asks_changes_nothing_that_is_told() -> None:
    """The collectors take what is said, and no judge decides otherwise for it."""
    settings = schema.Config(version=1, sites={"office": site()})
    for records in (day(twice), day(walking(IN), glass=0.9), day(standing), day(lost)):
        told = []
        for refusals in (None, {"office": SiteRefusals(0)}.get):
            given = stored_input(records, ns(EVENING), ns(EVENING + SECONDS))
            with given.opened() as stored:
                again = judge_again(
                    settings, FAKES, stored, ns(EVENING), ns(EVENING + SECONDS),
                    way=Way(refusals=refusals),
                )  # fmt: skip
            told.append([codec.encode(alert) for alert in again.judged.alerts])
        assert told[0] == told[1]


def test_live_they_are_counted_and_not_again_after_a_restart() -> None:
    settings = schema.Config(version=1, sites={"office": site()})
    status, bus = Status(), MemoryBus(keep=True)
    (node,) = graph.nodes(settings, FAKES, status, recorded=False, stages=("fusion",))
    for record in sorted(day(walking(IN, score=0.38), glass=0.46), key=comes):
        bus.publish(topics.OBSERVATIONS, record.site, codec.encode(record))
    bus.flush()
    runner = node.runner(bus)
    drain([runner])
    counts = status.snapshot().counts["office"]
    assert counts["rules/desk"]["refused.zone-floor.min_score"] == 25  # 5 s of 5 frames
    assert counts["rules/room"]["refused.sound.score"] == 2 * SECONDS
    runner.close()
    again = node.runner(bus)
    assert again.step() > 0  # it rebuilds its state
    drain([again])
    assert status.snapshot().counts["office"] == counts
