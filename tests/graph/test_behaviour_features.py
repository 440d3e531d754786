"""Behaviours as features of a learned head: equal after restarts, in any order, and on demand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fusion.features import KNOWN, NAMES
from pipeline.config import schema
from pipeline.types import FOREVER, Record, needed_until
from tests.actors import Step, person, played
from tests.fakes import FakeText
from tests.graph.test_behaviour_fusion import HOME, PERSONS, shown
from tests.graph.test_fusion_stage import in_step, mixed
from tests.graph.test_gate_fusion import timeline
from workers.stages.fusion import FusionStage, FusionState
from workers.stages.site_plan import site_plan
from workers.training.feature_extraction import RecordingHead

FALL = (("stands", 3.0), ("lies", 0.8), ("lies", 8.0))
FEW = settings(max_examples=15)


def opened(site: schema.Site, floors: dict[str, int]) -> tuple[FusionState, RecordingHead]:
    head = RecordingHead()
    plan = site_plan(site, FakeText(), recorded=True)
    return FusionStage({"office": plan}, {"office": head}).open(floors), head


def pictures(head: RecordingHead) -> dict[int, tuple[float, ...]]:
    """The numbers of vision, by the start of the window."""
    return {
        window.start: tuple(tokens.vectors["vision"].tolist())
        for window, tokens in head.asked
        if "vision" in tokens.vectors
    }


def numbers(site: schema.Site, records: Sequence[Record]) -> dict[int, tuple[float, ...]]:
    state, head = opened(site, {})
    for record in records:
        state.on(record, None)
    return pictures(head)


def fallen() -> list[Record]:
    return in_step(timeline([[person(body)] for body in played(FALL)], gated=False))


def test_a_fall_is_in_the_numbers_of_its_windows() -> None:
    made = np.array(list(numbers(HOME, fallen()).values()))
    at = {name: made[:, NAMES["vision"].index(f"behaviour.{name}")] for name in ("fall.most",)}
    assert made[:, KNOWN].all()
    assert at["fall.most"].max() > 0.9
    assert at["fall.most"][0] == 0


def test_a_camera_without_poses_gives_no_number_of_behaviours() -> None:
    plain = msgspec.structs.replace(HOME, rules=())
    assert not np.array(list(numbers(plain, fallen()).values()))[:, KNOWN:].any()


def test_a_camera_that_asks_for_poses_gives_them_without_a_rule() -> None:
    camera = msgspec.structs.replace(HOME.cameras["desk"], detect=schema.Detect(poses=2))
    asking = msgspec.structs.replace(HOME, rules=(), cameras={"desk": camera})
    made, ruled = numbers(asking, fallen()), numbers(HOME, fallen())
    of = {start: some[KNOWN:] for start, some in made.items()}
    assert of == {start: some[KNOWN:] for start, some in ruled.items()}
    assert any(any(some) for some in of.values())


@FEW
@given(PERSONS, st.randoms(), st.floats(0, 1), st.booleans())
def test_after_a_restart_the_numbers_are_the_same(
    persons: list[list[Step]], chance: random.Random, cut: float, gated: bool
) -> None:
    records = in_step(timeline(shown(persons, chance), gated=gated))
    at = round(cut * (len(records) - 1))
    (whole, all_), (before, _) = opened(HOME, {}), opened(HOME, {})
    for record in records:
        whole.on(record, None)
    for record in records[:at]:
        before.on(record, None)
    floor = before.floor("office")
    again, rest = opened(HOME, {"office": floor})
    for number, record in enumerate(records):
        if number == at:
            rest.asked.clear()  # these windows were judged before the restart
        if number >= at or needed_until(record) > floor:
            again.on(record, None)
    known, made = pictures(all_), pictures(rest)
    first = min(made, default=FOREVER)
    assert {start: some for start, some in known.items() if start >= first} == made


@FEW
@given(PERSONS, st.randoms(), st.booleans())
def test_the_order_of_the_sources_changes_no_number(
    persons: list[list[Step]], chance: random.Random, gated: bool
) -> None:
    lines = timeline(shown(persons, chance), gated=gated)
    assert numbers(HOME, in_step(lines)) == numbers(HOME, mixed(lines, chance))
