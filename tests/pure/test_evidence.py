"""What behaviours see for a learned head, on made trajectories."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from pipeline.behaviour.evidence import Evidence, EvidenceOfBehaviour
from pipeline.behaviour.fights import FAR
from pipeline.config.schema import Detect
from pipeline.types import SECOND, Detections, ns
from tests.actors import FPS, POSTURES, Step, person, played
from tests.make import detections
from workers.stages.camera_tracks import CameraTracks


def seen(frames: Sequence[Detections]) -> list[Evidence]:
    tracks = CameraTracks({"desk": Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    behaviours = EvidenceOfBehaviour()
    return [behaviours.see(frame) for one in frames if (frame := tracks.see(one)) is not None]


def film(steps: Sequence[Step], *, posed: bool = True) -> list[Detections]:
    bodies = enumerate(played(steps))
    return [detections(k / FPS, person(body, posed=posed)) for k, body in bodies]


FALL = (("stands", 3.0), ("lies", 0.8), ("lies", 4.0))


def test_who_stands_shows_nothing() -> None:
    last = seen(film([("stands", 3.0)]))[-1]
    assert last == Evidence(persons=1, posed=1)


def test_a_fall_is_seen_while_it_happens_and_lying_afterwards() -> None:
    frames = seen(film(FALL))
    assert max(one.fall for one in frames) > 0.9
    assert max(one.tilt for one in frames) > 60
    assert (frames[-1].fall, frames[-1].tilt) == (0.0, 0.0)
    assert frames[-1].down == 1
    assert frames[-1].lying > 0.5


@pytest.mark.parametrize("slow", [("sits", 1.0), ("kneels", 1.0), ("bends", 0.8)])
def test_what_is_no_fall_has_little_evidence_of_one(slow: Step) -> None:
    frames = seen(film([("stands", 3.0), slow, (slow[0], 3.0)]))
    assert max(one.fall for one in frames) < 0.5
    assert max(one.down for one in frames) == 0


def test_without_poses_the_box_tells_and_nobody_is_posed() -> None:
    frames = seen(film(FALL, posed=False))
    assert {one.posed for one in frames} == {0}
    assert max(one.tilt for one in frames) == 0
    assert max(one.fall for one in frames) > 0.5


def two(change: float, apart: float, gated: bool = False) -> list[Detections]:
    frames = []
    for k in range(20):
        body = POSTURES["stands"]
        wide = body._replace(width=body.width + change * (k % 2))
        both = person(wide, 0.5 - apart / 2), person(wide, 0.5 + apart / 2)
        frames.append(detections(k / FPS, *(replace(box, motion=0.25) for box in both)))
    return frames


def test_two_who_are_near_and_lively_are_told_from_two_who_stand_apart() -> None:
    near, away = seen(two(0.4, 0.06))[-1], seen(two(0.0, 0.9))[-1]
    assert near.outline > 1
    assert away.outline == 0
    assert near.nearness > away.nearness >= 0
    assert near.overlap > 0.3
    assert away.overlap == 0
    assert near.energy == 0.25


def test_one_alone_has_nobody_near() -> None:
    last = seen(film([("stands", 3.0)]))[-1]
    assert last.nearness == 0 == round(1 - FAR / FAR)


def test_in_gated_frames_a_posture_lasts_and_nothing_moves() -> None:
    frames = film([*FALL[:2], ("lies", 2.0)])
    gated = [
        replace(detections(len(frames) / FPS + k / FPS), gated=True, boxes=()) for k in range(15)
    ]
    last = seen([*frames, *gated])[-1]
    assert (last.persons, last.posed, last.down) == (1, 1, 1)
    assert (last.limbs, last.outline, last.energy) == (0, 0, 0)


def test_an_empty_frame_shows_nobody() -> None:
    later = [detections(10 + k / FPS) for k in range(3)]
    assert seen([*film(FALL), *later])[-1] == Evidence()


def test_it_depends_on_the_last_seconds_alone() -> None:
    frames = film([("stands", 2.0), ("lies", 0.8), ("lies", 2.0), ("stands", 1.0), *FALL[:2]])
    since = frames[-1].start - ns(4.5)
    late = [frame for frame in frames if frame.start >= since]
    assert seen(frames)[-1] == seen(late)[-1]
