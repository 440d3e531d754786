"""Behaviours in fusion: restarts, repeats and any interleaving give the same anomalies."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import rule_kinds, schema
from pipeline.types import Box, Record, needed_until
from tests.actors import POSTURES, Step, person, played
from tests.fakes import FakeText
from tests.graph.test_fusion_stage import SITE, anomalies, in_step, mixed
from tests.graph.test_gate_fusion import timeline
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan

HOME = msgspec.structs.replace(
    SITE,
    cameras={
        "desk": schema.Camera(
            source="device:0", zones={"floor": schema.Zone(coordinates="0,0, 1,0, 1,1, 0,1")}
        )
    },
    rules=(
        rule_kinds.BehaviourRule(
            labels={"fall": 0.5, "lying": 0.5, "fight": 0.5},
            zone="floor",
            seconds=4,
            severity="high",
        ),
    ),
    windows=schema.Windows(horizon=20, patience=60),
    stationary=schema.Stationary(after=5),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(POSTURES)), st.sampled_from((0.6, 1.0, 3.0, 8.0))), max_size=8
)
PERSONS = st.lists(STEPS, min_size=1, max_size=2)
FRAMES = 200
FEW = settings(max_examples=40)


def shown(persons: Sequence[Sequence[Step]], chance: random.Random) -> list[list[Box]]:
    """The boxes of each frame; the detector is unsure of who is low, and misses some."""
    boxes: list[list[Box]] = [[] for _ in range(FRAMES)]
    for number, steps in enumerate(persons):
        for frame, body in zip(range(FRAMES), played(steps), strict=False):
            score = 0.9 if body.top > 0.4 else chance.choice((0.9, 0.3, 0.15, 0.0))
            if score:
                made = person(body, 0.3 + 0.4 * number, score=score, posed=chance.random() < 0.8)
                boxes[frame].append(made)
    return boxes


def stage() -> FusionStage:
    return FusionStage({"office": site_plan(HOME, FakeText(), recorded=True)})


def play(records: Sequence[Record]) -> list[Record]:
    state = stage().open({})
    return [out for record in records for out in state.on(record, None)]


def test_a_fall_and_lying_are_anomalies_of_the_kind_behaviour() -> None:
    steps = (("stands", 3.0), ("lies", 0.8), ("lies", 8.0))
    boxes = [[person(body)] for body in played(steps)]
    fall, lying = anomalies(play(in_step(timeline(boxes, gated=True))))
    assert (fall.label, fall.kind, fall.zone, fall.object) == (
        "fall",
        "behaviour",
        "floor",
        "person",
    )
    assert (lying.label, lying.kind) == ("lying", "behaviour")
    assert "trunk from 90 to" in fall.reasons[0]


@FEW
@given(PERSONS, st.randoms(), st.floats(0, 1), st.booleans())
def test_a_restart_from_the_floor_goes_on_as_if_nothing_had_happened(
    persons: list[list[Step]], chance: random.Random, cut: float, gated: bool
) -> None:
    records = in_step(timeline(shown(persons, chance), gated=gated))
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


@FEW
@given(PERSONS, st.randoms())
def test_repeats_and_any_interleaving_give_the_same_anomalies(
    persons: list[list[Step]], chance: random.Random
) -> None:
    sources = timeline(shown(persons, chance), gated=True)
    told = {(a.id, a.label, a.score, a.end) for a in anomalies(play(in_step(sources)))}
    order = mixed(sources, chance)
    twice = [record for each in order for record in (each, each)]
    for given_order in (order, twice):
        found = anomalies(play(given_order))
        assert {(a.id, a.label, a.score, a.end) for a in found} == told
