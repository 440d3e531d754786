"""Vision under three times the frames that its detector bears: age, fairness, and looks passed on.

A simulation with the sampler of production: cameras publish at their periods, a detector takes its
time, and each turn of the stage polls what has come meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Detect
from pipeline.types import SECOND, Box, Detections, FrameChunk, ns
from workers.runtime.status import Status
from workers.stages.vision import VisionStage

PICTURE = bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1])
BEGAN = 1000 * SECOND
PLACES = ("processed", "gated.", "dropped.")
TURN = 0.004  # s that a turn takes beside the detector: the bus


class Site:
    """Cameras, a log and the stage, with one clock for all."""

    def __init__(
        self,
        phases: Sequence[float],
        *,
        cost: float,
        fps: float = 5,
        look: Callable[[int, float], str] = lambda camera, at: "motion",
        tiles: Sequence[int] = (),
    ) -> None:
        self.now, self.cost, self.status = 0.0, cost, Status()
        self.phases, self.fps, self.look = phases, fps, look
        self.log: list[FrameChunk] = []
        self.made = [0] * len(phases)
        self.seen: dict[str, list[float]] = {}
        self.ages: list[float] = []
        known = {("hall", f"camera-{n}"): Detect(tiles=count) for n, count in enumerate(tiles)}
        self.stage = VisionStage(
            self.detect, status=self.status, timer=lambda: self.now, known=known or None
        )
        self.stage.watch(lambda: len(self.log))
        self.state = self.stage.open({})

    def detect(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        self.passes(self.cost * len(batch))
        return [() for _ in batch]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        for camera, phase in enumerate(self.phases):
            while (at := phase + self.made[camera] / self.fps) <= self.now:
                self.log.append(
                    FrameChunk(
                        site="hall",
                        source=f"camera-{camera}",
                        start=BEGAN + ns(at),
                        end=BEGAN + ns(at + 1 / self.fps),
                        seq=self.made[camera],
                        width=64,
                        height=48,
                        data=PICTURE,
                        look=self.look(camera, at),
                    )
                )
                self.made[camera] += 1
        self.log.sort(key=lambda frame: frame.start)

    def run(self, seconds: float) -> None:
        while self.now < seconds:
            if not self.log:
                self.passes(0.001)
                continue
            self.turn()

    def turn(self) -> None:
        """A turn of the stage: its poll, and what it tells at the end."""
        batch, self.log = self.log[:64], self.log[64:]
        inferred = self.stage.infer(batch)
        self.passes(TURN)
        for frame, found in zip(batch, inferred, strict=True):
            for made in self.state.on(frame, found):
                if isinstance(made, Detections) and not made.gated:
                    at = (made.start - BEGAN) / SECOND
                    self.seen.setdefault(made.source, []).append(at)
                    if self.now > 2:  # the cost of the first look was not known
                        self.ages.append(self.now - at)

    def widest(self) -> float:
        """The longest time between two looks at a camera, s."""
        assert len(self.seen) == len(self.phases), "every camera was seen"
        return max(b - a for times in self.seen.values() for a, b in pairwise([0.0, *times]))

    def balance(self) -> None:
        """Every frame is in one place."""
        counts = self.status.snapshot().counts.get("hall", {})
        for camera, made in enumerate(self.made):
            waits = sum(frame.source == f"camera-{camera}" for frame in self.log)
            of = counts.get(f"camera-{camera}", {})
            known = sum(n for what, n in of.items() if what.startswith(PLACES))
            assert known + waits == made


def spread(cameras: int, fps: float = 5) -> list[float]:
    return [number / cameras / fps for number in range(cameras)]


CROWDED = [n / 500 for n in range(20)] + [0.1 + n / 100 for n in range(10)]  # two thirds at once


@pytest.mark.parametrize(
    ("phases", "cost", "fps"),
    [
        pytest.param(spread(30), 0.018, 5, id="spread"),
        pytest.param([0.0] * 30, 0.018, 5, id="all at once"),
        pytest.param(CROWDED, 0.018, 5, id="crowded"),
        pytest.param(spread(6, 15), 0.03, 15, id="few and fast"),
        pytest.param([0.0], 0.096, 30, id="one"),
    ],
)
def test_three_times_the_load_is_looked_at_in_turn_while_it_is_new(
    phases: list[float], cost: float, fps: float
) -> None:
    site = Site(phases, cost=cost, fps=fps)
    site.run(30)
    site.balance()
    ages = sorted(site.ages)
    assert ages[int(0.95 * len(ages))] < 2 / fps + cost
    assert site.widest() <= 0.8
    counts = site.status.snapshot().counts["hall"].values()
    looked, made = sum(of["processed"] for of in counts), sum(site.made)
    assert 2.5 < made / looked < 4, "the detector is used wholly"


def test_a_burst_after_idle_time_is_looked_at_whole() -> None:
    site = Site(spread(10), cost=0.012)  # 0.6 of the time
    site.run(10)
    site.passes(0.8)  # the disk pauses
    site.run(20)
    site.balance()
    counts = site.status.snapshot().counts["hall"].values()
    assert sum(of.get("dropped.stale", 0) for of in counts) == 0
    assert max(site.ages) < 2


def test_tiles_count_as_what_they_cost() -> None:
    """Two of six cameras take five looks a frame: 2.1 times what the detector bears."""
    site = Site(spread(6), cost=0.03, tiles=[2, 2, 1, 1, 1, 1])
    site.run(30)
    site.balance()
    ages = sorted(site.ages)
    assert ages[int(0.95 * len(ages))] < 2 / 5 + 5 * 0.03
    assert site.widest() <= 0.8
    looks = [len(site.seen[f"camera-{n}"]) * (5 if n < 2 else 1) for n in range(6)]
    assert sum(looks) * 0.03 > 0.85 * 30, "the detector is used wholly"


def test_a_still_camera_that_begins_to_move_is_seen_before_the_busy_ones() -> None:
    def look(camera: int, at: float) -> str:
        moves = camera < 29 or at >= 10
        return "motion" if moves else "heartbeat" if abs(at % 2 - 1) < 0.1 else ""

    site = Site(spread(30), cost=0.018, look=look)
    site.run(12)
    began = min(at for at in site.seen["camera-29"] if at >= 10)
    assert began - 10 < 0.4  # s; it was seen 1 s ago, and the others 0.6 s


def test_heartbeats_come_after_motion_and_are_not_forgotten() -> None:
    demanded = [2.0 * beat for beat in range(15)]

    def look(camera: int, at: float) -> str:
        if camera < 20:
            return "motion"
        return "heartbeat" if any(abs(at - beat - 0.1) < 0.1 for beat in demanded) else ""

    site = Site(spread(30), cost=0.018, look=look)
    site.run(30)
    site.balance()
    for camera in range(20, 30):
        seen = site.seen[f"camera-{camera}"]
        for beat in demanded[1:-1]:
            assert any(beat - 0.01 <= at <= beat + 1.0 for at in seen), (camera, beat)


def test_a_frame_that_is_left_out_passes_its_look_on_to_a_later_poll() -> None:
    site = Site([0.0, 0.001], cost=1.0, look=lambda camera, at: "" if at > 0.9 else "motion")
    site.run(8)
    site.balance()
    for camera in ("camera-0", "camera-1"):
        assert max(site.seen[camera]) >= 0.8, "the last frame that moved, or one after it"
    counts = site.status.snapshot().counts["hall"]
    assert counts["camera-0"].get("audited", 0) == 0


def test_a_broken_frame_passes_its_look_on() -> None:
    site = Site([0.0], cost=0.01, look=lambda camera, at: "" if at else "heartbeat")
    site.passes(0.001)
    site.log[0] = msgspec.structs.replace(site.log[0], data=PICTURE[:40])
    site.run(1.5)
    assert site.seen["camera-0"] == [0.2]


LOOKS = st.sampled_from(["", "", "heartbeat", "motion", "light"])


@given(
    phases=st.lists(st.floats(0, 0.2), min_size=1, max_size=12),
    cost=st.floats(0.005, 0.5),
    looks=st.lists(LOOKS, min_size=1, max_size=40),
)
def test_at_every_turn_each_frame_is_in_one_place_and_no_look_is_lost(
    phases: list[float], cost: float, looks: list[str]
) -> None:
    calm = 4.0  # s from which nothing wants a look
    site = Site(
        phases,
        cost=cost,
        look=lambda camera, at: looks[(camera + round(at * 5)) % len(looks)] if at < calm else "",
    )
    wanted = dict.fromkeys(range(len(phases)), -1.0)
    while site.now < calm + len(phases) * (cost + 0.3) + 1:
        if not site.log:
            site.passes(0.01)
            continue
        for frame in site.log:
            if frame.look:
                wanted[int(frame.source[7:])] = (frame.start - BEGAN) / SECOND
        site.turn()
        site.balance()
    for camera, at in wanted.items():
        if at >= 0:
            assert max(site.seen[f"camera-{camera}"]) >= at
