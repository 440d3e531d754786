"""Fusion over gated frames: where nothing changes, the gate changes no anomaly."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import rule_kinds, schema
from pipeline.types import Anomaly, Box, Detections, Presence, Record, needed_until, ns
from tests.fakes import FakeText
from tests.graph.test_fusion_stage import BEGIN, SITE, SOURCES, anomalies, in_step, mixed
from tests.make import box, detections, progress, roster, sound
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan
from workers.training.feature_extraction import RecordingHead

FPS = 5
HEARTBEAT = 10  # frames
CLOSES_AFTER = 5  # frames in which nothing changes
FLOOR = schema.Zone(coordinates="0,0, 1,0, 1,1, 0,1")
YARD = msgspec.structs.replace(
    SITE,
    cameras={
        "desk": schema.Camera(
            source="device:0",
            zones={"floor": FLOOR},
            lines={"door": schema.Line(coordinates="0.5,0, 0.5,1")},
        )
    },
    rules=(
        rule_kinds.ZoneRule(zone="floor", severity="high"),
        rule_kinds.LoiteringRule(zone="floor", seconds=8, severity="high"),
        rule_kinds.CrowdRule(zone="floor", count=2, seconds=2, severity="high"),
        rule_kinds.LineRule(line="door", severity="low"),
        rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="critical"),
    ),
    stationary=schema.Stationary(after=12),
)

# One person: when it comes, and then how long it stands and how far it walks, again and again.
WALK = st.tuples(st.integers(0, 60), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))))
PEOPLE = st.lists(WALK, max_size=2)


def shown(people: Sequence[tuple[int, list[tuple[int, int]]]], frames: int) -> list[list[Box]]:
    """The boxes of each frame."""
    boxes: list[list[Box]] = [[] for _ in range(frames)]
    for number, (comes, moves) in enumerate(people):
        x, at = 0.1, comes
        for stands, walks in moves:
            steps = [x] * stands + [x + 0.02 * step for step in range(1, walks + 1)]
            for frame, place in enumerate(steps, at):
                if frame < frames and place < 0.9:
                    boxes[frame].append(box(x=place, y=0.3 + 0.4 * number))
            x, at = steps[-1], at + len(steps)
    return boxes


def gate(boxes: Sequence[Sequence[Box]], frame: int) -> bool:
    """Whether a frame is gated: it shows what the last second showed, and is no heartbeat."""
    before = boxes[frame - CLOSES_AFTER : frame]
    return (
        frame >= CLOSES_AFTER
        and all(shown == boxes[frame] for shown in before)
        and frame % HEARTBEAT != 0
    )


def timeline(
    boxes: Sequence[Sequence[Box]], *, gated: bool, apart: int = 1
) -> dict[str, list[Record]]:
    """The records of a site; of each `apart` frames one is decoded, and lasts until the next."""
    records: dict[str, list[Record]] = {source: [] for source in SOURCES}
    for frame, objects in enumerate(boxes):
        at = BEGIN + frame / FPS
        if frame % (10 * FPS) == 0:
            for source in records.values():
                source.append(roster(*SOURCES, start=at))
        seen: Detections = detections(at, *objects, seconds=apart / FPS)
        seen = msgspec.structs.replace(seen, luma=0.5, sharpness=3.0)
        if gated and gate(boxes, frame):
            seen = msgspec.structs.replace(seen, boxes=(), luma=-1.0, sharpness=-1.0, gated=True)
        promised = msgspec.structs.replace(progress(0), upto=seen.start + 1)
        if frame % apart == 0:
            records["desk"] += [seen, promised]
        if frame % FPS == 0:
            records["room"] += [sound(at, gunshot=0.0), progress(at + 1, source="room")]
            for quiet in ("room/speech", "reports"):
                records[quiet].append(progress(at + 1, source=quiet))
    return records


def stage(head: RecordingHead | None = None) -> FusionStage:
    plan = site_plan(YARD, FakeText(), recorded=True)
    return FusionStage({"office": plan}, {"office": head} if head else {})


def play(records: Sequence[Record], head: RecordingHead | None = None) -> list[Anomaly]:
    state = stage(head).open({})
    return anomalies([out for record in records for out in state.on(record, None)])


FEW = settings(max_examples=40)


@FEW
@given(PEOPLE)
def test_a_gate_that_closes_where_nothing_changes_changes_nothing(
    people: list[tuple[int, list[tuple[int, int]]]],
) -> None:
    boxes = shown(people, 150)
    heads = RecordingHead(), RecordingHead()
    looked = play(in_step(timeline(boxes, gated=False)), heads[0])
    gated = play(in_step(timeline(boxes, gated=True)), heads[1])
    assert gated == looked
    # The head is asked the same, too: counts, speeds, stillness, quality and frames.
    for (one, ours), (other, theirs) in zip(heads[0].asked, heads[1].asked, strict=True):
        assert (one.start, one.end) == (other.start, other.end)
        assert {m: v.tolist() for m, v in ours.vectors.items()} == {
            m: v.tolist() for m, v in theirs.vectors.items()
        }


@FEW
@given(PEOPLE, st.randoms())
def test_any_interleaving_gives_the_same_anomalies(
    people: list[tuple[int, list[tuple[int, int]]]], chance: random.Random
) -> None:
    sources = timeline(shown(people, 100), gated=True)
    told = {(a.id, a.score, a.end) for a in play(in_step(sources))}
    assert {(a.id, a.score, a.end) for a in play(mixed(sources, chance))} == told


@FEW
@given(PEOPLE, st.floats(0, 1), st.sampled_from([1, 10, 23]))
def test_a_restart_from_the_floor_goes_on_as_if_nothing_had_happened(
    people: list[tuple[int, list[tuple[int, int]]]], cut: float, apart: int
) -> None:
    records = in_step(timeline(shown(people, 100), gated=True, apart=apart))
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


def test_one_who_stands_still_behind_a_closed_gate_is_reported_each_second_and_then_no_more() -> (
    None
):
    boxes = [[box()]] * (30 * FPS)
    starts = {
        rule: [a.start for a in play(in_step(timeline(boxes, gated=True))) if a.label == rule]
        for rule in ("intrusion", "loitering")
    }
    seconds = [start // ns(1) - BEGIN for start in starts["intrusion"]]
    assert seconds == list(range(12)), "until it is known to stand still"
    assert [start // ns(1) - BEGIN for start in starts["loitering"]] == [8, 9, 10, 11]


def test_between_keyframes_a_camera_is_present_and_who_stands_there_is_known() -> None:
    head = RecordingHead()
    boxes = [[box()]] * (40 * FPS)
    found = play(in_step(timeline(boxes, gated=False, apart=8 * FPS)), head)
    windows = [window for window, _ in head.asked]
    assert {window.presence["desk"] for window in windows} == {Presence.PRESENT}
    starts = {
        rule: [a.start // ns(1) - BEGIN for a in found if a.label == rule]
        for rule in ("intrusion", "loitering")
    }
    assert starts["intrusion"][0] == 16, "the third keyframe"
    assert starts["loitering"] == [24], "8 s after that; then it is known to stand still"
