"""Fusion over real tracking, windows and rules: what it promises it keeps, and restarts agree."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import rule_kinds, schema
from pipeline.types import (
    Anomaly,
    Box,
    DeadLetter,
    Progress,
    Record,
    Roster,
    event_start,
    needed_until,
    ns,
)
from tests.fakes import FakeText
from tests.make import box, comes, described, detections, early, progress, roster, sound, utterance
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan

BEGIN = 1_000  # s
SITE = schema.Site(
    cameras={
        "desk": schema.Camera(
            source="device:0", zones={"floor": schema.Zone(coordinates="0,0, 1,0, 1,1, 0,1")}
        )
    },
    microphones={"room": schema.Microphone(source="device:default")},
    rules=(
        rule_kinds.ZoneRule(zone="floor", severity="high"),
        rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="critical"),
        rule_kinds.KeywordRule(words={"en": ("help",)}, label="distress", min_confidence=0.6),
    ),
    windows=schema.Windows(horizon=40, patience=60),
    stationary=schema.Stationary(after=20),
    fusion=schema.Fusion(threshold=0.6),
)
SOURCES = ("desk", "room", "room/speech", "reports")


def stage(*, recorded: bool = True) -> FusionStage:
    plan = site_plan(SITE, FakeText(), recorded=recorded)
    return FusionStage({"office": plan})


def timeline(
    seconds: int,
    *,
    person: Sequence[int] = (),
    shots: Sequence[int] = (),
    weak: Sequence[int] = (),
    said: Sequence[int] = (),
    soon: Sequence[int] = (),
    begin: int = BEGIN,
) -> dict[str, list[Record]]:
    """What each source says, second by second; each list is in the order of its source."""
    records: dict[str, list[Record]] = {source: [] for source in SOURCES}
    for second in range(seconds):
        now = begin + second
        if second % 10 == 0:
            for source in records.values():
                source.append(roster(*SOURCES, start=now))
        for frame in range(5):
            at = now + frame / 5
            boxes = (box(x=0.3 + second % 7 / 20),) if second in person else ()
            seen = detections(at, *boxes)
            promised = msgspec.structs.replace(progress(0, source="desk"), upto=seen.start + 1)
            records["desk"] += [seen, promised]
        level = 0.9 if second in shots else 0.45 if second in weak else 0.0
        if second in soon:
            records["room"].append(early(now, gunshot=0.8))
        records["room"] += [sound(now, gunshot=level), progress(now + 1, source="room")]
        if second in said:
            records["room/speech"].append(utterance(now, "help", confidence=0.5))
        records["room/speech"].append(progress(now + 1, source="room/speech"))
        if second % 9 == 4:
            records["reports"].append(described(now, "all is well"))
        records["reports"].append(progress(now + 1, source="reports"))
    return records


def mixed(sources: dict[str, list[Record]], chance: random.Random) -> list[Record]:
    """Any interleaving that keeps the order of each source."""
    left = {name: list(reversed(records)) for name, records in sources.items()}
    order: list[Record] = []
    while names := [name for name, records in left.items() if records]:
        order.append(left[chance.choice(names)].pop())
    return order


def in_step(sources: dict[str, list[Record]]) -> list[Record]:
    """As a live site gives them: by time."""
    flat = [record for records in sources.values() for record in records]
    return sorted(flat, key=comes)


def anomalies(records: Sequence[Record]) -> list[Anomaly]:
    return [record for record in records if isinstance(record, Anomaly)]


def play(records: Sequence[Record]) -> list[Record]:
    state = stage().open({})
    return [out for record in records for out in state.on(record, None)]


def told(outs: Sequence[Record]) -> set[tuple[str, str, int, int, float]]:
    return {(a.rule, a.label, a.start, a.end, a.score) for a in anomalies(outs)}


FEW = settings(max_examples=25)  # each plays half a minute of a site
SPANS = st.lists(st.integers(0, 29), max_size=12)


@FEW
@given(person=SPANS, shots=SPANS, weak=SPANS, said=SPANS, soon=SPANS, chance=st.randoms())
def test_any_interleaving_gives_the_same_anomalies(
    person: list[int],
    shots: list[int],
    weak: list[int],
    said: list[int],
    soon: list[int],
    chance: random.Random,
) -> None:
    sources = timeline(30, person=person, shots=shots, weak=weak, said=said, soon=soon)
    assert told(play(mixed(sources, chance))) == told(play(in_step(sources)))


@FEW
@given(person=SPANS, shots=SPANS, weak=SPANS, said=SPANS, soon=SPANS, chance=st.randoms())
def test_no_anomaly_starts_before_what_fusion_promised(
    person: list[int],
    shots: list[int],
    weak: list[int],
    said: list[int],
    soon: list[int],
    chance: random.Random,
) -> None:
    upto = 0
    sources = timeline(30, person=person, shots=shots, weak=weak, said=said, soon=soon)
    for out in play(mixed(sources, chance)):
        if isinstance(out, Progress):
            assert out.upto > upto
            upto = out.upto
        elif isinstance(out, Anomaly):
            assert out.start >= upto


@FEW
@given(person=SPANS, shots=SPANS, soon=SPANS, chance=st.randoms())
def test_records_that_come_again_say_nothing_new(
    person: list[int], shots: list[int], soon: list[int], chance: random.Random
) -> None:
    records = in_step(timeline(30, person=person, shots=shots, soon=soon))
    twice: list[Record] = []
    for i, record in enumerate(records):
        twice.append(record)
        if chance.random() < 0.2:  # a worker restarted: its last few come again
            twice += [r for r in records[max(0, i - 5) : i + 1] if r.source == record.source]
    assert told(play(twice)) == told(play(records))
    assert len(anomalies(play(twice))) == len(anomalies(play(records)))


@FEW
@given(person=SPANS, shots=SPANS, weak=SPANS, said=SPANS, soon=SPANS, cut=st.floats(0, 1))
def test_a_restart_from_the_floor_goes_on_as_if_nothing_had_happened(
    person: list[int],
    shots: list[int],
    weak: list[int],
    said: list[int],
    soon: list[int],
    cut: float,
) -> None:
    # Within one horizon everything is rebuilt; ids of tracks older than that may differ.
    records = in_step(timeline(18, person=person, shots=shots, weak=weak, said=said, soon=soon))
    at = round(cut * len(records))
    whole, before = stage().open({}), stage().open({})
    outs = [list(whole.on(record, None)) for record in records]
    for record in records[:at]:
        before.on(record, None)
    floor = before.floor("office")
    again = stage().open({"office": floor})
    for record in records[:at]:
        if needed_until(record) > floor:
            again.on(record, None)
    assert [list(again.on(record, None)) for record in records[at:]] == outs[at:]


def test_two_weak_signs_of_different_kinds_are_one_strong_one() -> None:
    alone = play(in_step(timeline(20, weak=[8])))
    both = play(in_step(timeline(20, weak=[8], said=[9])))
    assert anomalies(alone) == []
    fused = anomalies(both)
    assert {a.rule for a in fused} == {"fusion"}
    assert set(fused[0].contributions) == {"sound", "speech"}
    assert fused[0].score >= 0.6


def test_old_evidence_is_not_judged_again_and_again() -> None:
    fused = anomalies(play(in_step(timeline(30, weak=[8], said=[9]))))
    assert [a.start for a in fused] == [ns(BEGIN + 9)]


def test_a_source_that_stays_lost_is_told_live_and_not_in_a_recording() -> None:
    sources = timeline(20)
    sources["desk"] = [
        *sources["desk"][:11],
        *(progress(BEGIN + s, source="desk", alive=False, reason="no route") for s in range(2, 20)),
    ]
    live, recorded = stage(recorded=False).open({}), stage().open({})
    said = anomalies([out for r in in_step(sources) for out in live.on(r, None)])
    assert {(a.rule, a.label, a.source) for a in said} == {("system", "source-lost", "desk")}
    assert said[0].reasons == ("00:16:52Z desk is lost: no route",)
    assert said[0].presence["desk"] == "lost"
    assert anomalies([out for r in in_step(sources) for out in recorded.on(r, None)]) == []


def test_a_planned_restart_tells_no_lost_source() -> None:
    before, gap = timeline(20), 22
    before["desk"] = [
        *(r for r in before["desk"] if event_start(r) < ns(BEGIN + 16)),
        *(
            progress(BEGIN + s, source="desk", alive=False, reason="no route")
            for s in range(16, 20)
        ),
    ]
    after = timeline(12, begin=BEGIN + 20 + gap)
    connecting = [
        progress(BEGIN + 20 + gap + s, source=source, alive=False, reason="connecting")
        for source in ("desk", "room", "room/speech")
        for s in range(3)
    ]
    for source in after:
        begun = [r for r in after[source] if event_start(r) >= ns(BEGIN + 20 + gap + 3)]
        after[source] = [r for r in connecting if r.source == source] + begun
    for patience in (60.0, 10.0):  # the second is shorter than the restart
        windows = schema.Windows(horizon=40, patience=patience)
        site = msgspec.structs.replace(SITE, windows=windows)
        plan = site_plan(site, FakeText(), recorded=False)
        state = FusionStage({"office": plan}).open({})
        given = [*in_step(before), *in_step(after)]
        said = [out for r in given for out in state.on(r, None)]
        assert anomalies(said) == []
        promises = [out.upto for out in said if isinstance(out, Progress)]
        assert promises[-1] == ns(BEGIN + 20 + gap + 11), "and it goes on"


def test_a_parked_object_that_is_lost_from_sight_for_a_while_is_no_news() -> None:
    sources = timeline(0)
    sources["desk"].append(roster(*SOURCES, start=BEGIN))
    for step in range(5 * 200):
        at = BEGIN + step / 5
        hidden = 100 <= at - BEGIN < 104  # longer than the tracker waits
        seen = detections(at, *(() if hidden else (box(),)))
        promised = msgspec.structs.replace(progress(0, source="desk"), upto=seen.start + 1)
        sources["desk"] += [seen, promised]
    starts = sorted(a.start for a in anomalies(play(in_step(sources))))
    assert starts[0] < ns(BEGIN + 2)
    assert starts[-1] < ns(BEGIN + 22), "told again although it never moved"


def test_ordinals_do_not_depend_on_the_ids_of_tracks() -> None:
    def told_of(*boxes: Box) -> set[tuple[str, float]]:
        sources = timeline(0)
        sources["desk"].append(roster(*SOURCES, start=BEGIN))
        for step in range(10):
            seen = detections(BEGIN + step / 5, *boxes)
            promised = msgspec.structs.replace(progress(0, source="desk"), upto=seen.start + 1)
            sources["desk"] += [seen, promised]
        return {(a.id, a.score) for a in anomalies(play(in_step(sources)))}

    left, right = box(x=0.2, score=0.9), box(x=0.8, score=0.5)
    assert told_of(left, right) == told_of(right, left)


def test_a_stage_that_hangs_is_told() -> None:
    sources = timeline(100)
    sources["room/speech"] = sources["room/speech"][:5]
    state = stage(recorded=False).open({})
    said = anomalies([out for r in in_step(sources) for out in state.on(r, None)])
    assert {(a.label, a.source) for a in said} == {("source-lost", "room/speech")}
    assert "hangs" in said[0].reasons[0]


def test_a_site_that_stalls_is_hurried_on_by_the_newest_time_of_all() -> None:
    plan = site_plan(SITE, FakeText(), recorded=False)
    state = FusionStage({"office": plan, "shop": plan}).open({})
    shop = [msgspec.structs.replace(r, site="shop") for r in in_step(timeline(80))]
    promised: dict[str, int] = {}
    stalled = [r for r in in_step(timeline(80)) if r.source != "room/speech"]
    for one, other in zip(stalled, shop, strict=False):
        for out in (*state.on(one, None), *state.on(other, None)):
            if isinstance(out, Progress):
                promised[out.site] = out.upto
    assert ns(BEGIN + 80 - 60 - 2) <= promised["office"] <= ns(BEGIN + 80 - 60)


def test_in_a_recording_a_stage_that_is_far_behind_is_waited_for() -> None:
    early = [r for r in in_step(timeline(300)) if r.source != "desk" or isinstance(r, Roster)]
    state = stage().open({})
    assert not [out for r in early for out in state.on(r, None) if isinstance(out, Progress)]
    behind = [r for r in in_step(timeline(300)) if r.source == "desk"]
    promises = [out for r in behind for out in state.on(r, None) if isinstance(out, Progress)]
    assert promises[-1].upto >= ns(BEGIN + 298)


def test_a_record_of_nobody_goes_to_the_dead_letters() -> None:
    state = stage().open({})
    (dead,) = state.on(sound(BEGIN, site="nowhere"), None)
    assert isinstance(dead, DeadLetter)
    assert "not in the config" in dead.reason
