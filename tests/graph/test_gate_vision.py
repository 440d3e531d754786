"""The gate in the vision stage: what does not move is not looked at, and each frame is counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Detect
from pipeline.types import SECOND, Box, Detections, FrameChunk, Record
from tests.graph.test_vision_stage import (
    PERSON,
    SHADOW,
    Brightness,
    Costly,
    found,
    frame,
    jpeg,
    progress,
    through,
)
from workers.runtime.status import Status
from workers.stages.audit import chosen
from workers.stages.vision import Policy, VisionStage

DESK = ("office", "desk")
BROKEN = b"no JPEG"
UNSEEN = {DESK: Detect(audit=0)}


def still(number: int, data: bytes | None = None, source: str = "desk") -> FrameChunk:
    """A frame in which nothing moves."""
    return msgspec.structs.replace(frame(number, data, source), look="")


def gated(number: int) -> Detections:
    made = found(number, seen=(-1.0, -1.0))
    return msgspec.structs.replace(made, gated=True)


def stage(
    detector: object = None,
    policy: Policy = "all",
    audit: float = 0.0,
    status: Status | None = None,
) -> VisionStage:
    known = {DESK: Detect(audit=audit)}
    return VisionStage(detector or Brightness(), policy, status=status, known=known)  # type: ignore[arg-type]


def test_a_gated_frame_is_neither_decoded_nor_looked_at() -> None:
    detector, status = Brightness(), Status()
    made = through(stage(detector, status=status), still(1, BROKEN), frame(2), still(3, BROKEN))
    assert made == [
        gated(1),
        progress(1),
        found(2, PERSON, SHADOW),
        progress(2),
        gated(3),
        progress(3),
    ]
    assert detector.batches == [1]
    assert status.snapshot().counts["office"]["desk"] == {"gated.still": 2, "processed": 1}


def test_every_reason_to_look_is_obeyed() -> None:
    looks = ("all", "motion", "heartbeat", "first", "light")
    frames = [msgspec.structs.replace(frame(n), look=look) for n, look in enumerate(looks)]
    made = through(stage(), *frames)
    assert [r.gated for r in made if isinstance(r, Detections)] == [False] * 5


def test_one_frame_in_a_hundred_is_audited_whoever_looks() -> None:
    frames = [still(n) for n in range(20_000)]
    picked = [f.start for f in frames if chosen(f, 0.01)]
    assert 150 < len(picked) < 250
    assert picked == [f.start for f in frames if chosen(f, 0.02) and chosen(f, 0.01)]
    other = [f.start for f in (still(n, source="door") for n in range(20_000)) if chosen(f, 0.01)]
    assert picked != other
    assert not any(chosen(f, 0.0) for f in frames)
    assert all(chosen(f, 1.0) for f in frames)


def test_an_audited_frame_gives_what_any_looked_at_frame_gives() -> None:
    picked = next(n for n in range(10_000) if chosen(still(n), 0.01))
    made = through(stage(audit=0.01), still(picked - 1), still(picked), still(picked + 1))
    assert made[2:4] == [found(picked, PERSON, SHADOW), progress(picked)]
    assert [r.gated for r in made if isinstance(r, Detections)] == [True, False, True]


def counts(records: Sequence[FrameChunk], detector: object = None, **more: float) -> dict[str, int]:
    status = Status()
    known = {DESK: Detect(audit=1.0, **more)}
    through(VisionStage(detector or Brightness(), "all", status=status, known=known), *records)  # type: ignore[arg-type]
    return status.snapshot().counts["office"]["desk"]


def test_the_audit_counts_an_object_that_no_look_showed_once() -> None:
    dark, bright = jpeg(0), jpeg(200)
    seen = [frame(0, dark), still(1, dark), still(2, bright), still(3, bright)]
    assert counts(seen) == {"processed": 4, "audited": 3, "audited.missed": 1}


def test_an_object_at_rest_is_no_miss() -> None:
    assert counts([frame(0), still(1), still(2)]) == {"processed": 3, "audited": 2}


def test_what_the_camera_ignores_is_no_miss() -> None:
    seen = [frame(0, jpeg(0)), still(1, jpeg(200))]
    assert counts(seen, min_score=0.95) == {"processed": 2, "audited": 1}
    assert counts(seen, min_height=0.6) == {"processed": 2, "audited": 1}


def test_before_the_first_look_there_is_nothing_to_miss() -> None:
    assert counts([still(0), still(1)]) == {"processed": 2, "audited": 1}


def test_gated_frames_take_no_other_frames_place() -> None:
    detector, status = Costly(1.0), Status()
    known = {DESK: Detect(audit=1.0), ("office", "door"): Detect(audit=0)}
    watch = VisionStage(detector, "newest", status=status, timer=detector.timer, known=known)
    made = through(watch, frame(1), frame(2), still(3), still(4), still(1, source="door"))
    seen = [(r.source, r.start // SECOND, r.gated) for r in made if isinstance(r, Detections)]
    # 1 is stale: there is no time for it. The newest that wants a look is 2, not 4.
    assert seen == [
        ("desk", 2, False),
        ("desk", 3, True),
        ("desk", 4, True),
        ("door", 1, True),
    ]
    assert status.counted(*DESK, "dropped.stale") == 1
    assert status.counted(*DESK, "gated.still") == 2


def test_idle_cameras_leave_their_time_to_those_that_move() -> None:
    idle = [still(n, source=f"idle-{k}") for k in range(15) for n in range(4)]
    known = {(f.site, f.source): Detect(audit=0) for f in [*idle, frame(0)]}
    detector, status = Costly(0.2), Status()
    watch = VisionStage(detector, "newest", status=status, timer=detector.timer, known=known)
    through(watch, *(frame(n) for n in range(4)), *idle)
    assert status.counted(*DESK, "processed") == 4


TURNS = st.lists(st.tuples(st.sampled_from(["all", "motion", ""]), st.booleans()), max_size=40)


@given(TURNS, st.sampled_from(["newest", "all"]), st.sampled_from([0.0, 0.3, 1.0]))
def test_every_frame_is_in_one_place(
    turns: list[tuple[str, bool]], policy: Policy, audit: float
) -> None:
    status, costly = Status(), Costly(0.4)
    known = {DESK: Detect(audit=audit)}
    watch = VisionStage(costly, policy, status=status, timer=costly.timer, known=known)
    frames: list[Record] = [
        msgspec.structs.replace(frame(n, None if fine else BROKEN), look=look)
        for n, (look, fine) in enumerate(turns)
    ]
    made = through(watch, *frames)
    said = status.snapshot().counts.get("office", {}).get("desk", {})
    balance = {k: n for k, n in said.items() if k.startswith(("processed", "gated.", "dropped."))}
    assert sum(balance.values()) == len(frames)
    told = [r for r in made if isinstance(r, Detections)]
    assert len(told) == balance.get("processed", 0) + balance.get("gated.still", 0)


@given(TURNS, st.lists(st.integers(0, 40), max_size=4))
def test_polls_and_restarts_do_not_change_what_is_seen(
    turns: list[tuple[str, bool]], cuts: list[int]
) -> None:
    frames = [
        msgspec.structs.replace(frame(n, jpeg(200 if bright else 0)), look=look)
        for n, (look, bright) in enumerate(turns)
    ]
    watch = stage(audit=0.3)
    whole = through(watch, *frames)
    ends = sorted({0, len(frames), *(min(cut, len(frames)) for cut in cuts)})
    parts = [through(watch, *frames[a:b]) for a, b in pairwise(ends)]
    assert [r for part in parts for r in part] == whole


def nobody(batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
    return [() for _ in batch]


def test_frames_of_a_camera_that_left_the_config_are_not_audited() -> None:
    assert through(VisionStage(nobody, "all", known={}), still(1), frame(2)) == []
