"""The ledger of a source closes from the device to the detector, at every moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.topics import FRAMES
from pipeline.types import SECOND, Box, Chunk, FrameChunk, Record
from workers.capture.capture import Capture, CaptureSettings, Count
from workers.runtime.status import Status
from workers.stages.vision import VisionStage

PICTURE = bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1])
DATA = {"fine": PICTURE, "broken": PICTURE[:40], "large": bytes(6000)}
PLACES = ("processed", "gated.", "dropped.")

# A frame: how many were gated before it, how many the source itself dropped, and what it is.
Grabbed = tuple[int, int, str]
FRAME = st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(sorted(DATA)))
TURN = st.one_of(FRAME, st.sampled_from(["publish", "look"]))


def nobody(batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
    return [() for _ in batch]


class Line:
    """One camera from its source to its detector; the clock goes on with every frame."""

    def __init__(self, turns: Sequence[Grabbed | str], status: Status | None = None) -> None:
        self.turns, self.now, self.log = turns, 1000 * SECOND, list[FrameChunk]()
        self.polled = 0  # frames of the present poll without an answer
        self.status = status or Status()
        stage = VisionStage(nobody, status=self.status)
        self.infer, self.state = stage.infer, stage.open({})
        self.capture = Capture(
            CaptureSettings(site="office", sources=("desk",), max_bytes=5000),
            {"desk": FRAMES},
            self.source,
            publish=self.stored,
            status=self.status,
            clock=lambda: self.now,
            chance=lambda: 0.0,
        )

    def source(self, count: Count) -> Line:
        self.count = count
        return self

    def stored(self, topic: str, records: Sequence[Record]) -> None:
        self.log += [record for record in records if isinstance(record, FrameChunk)]

    def __iter__(self) -> Iterator[Chunk]:
        seq = -1
        for turn in self.turns:
            match turn:
                case "publish":
                    self.capture.publish_once()
                case "look":
                    self.look()
                case (gated, vain, kind):
                    for _ in range(vain):
                        self.count("desk", "dropped.undecodable")
                        self.closes()
                    seq, self.now = seq + gated + vain + 1, self.now + SECOND
                    yield self.frame(seq, DATA[kind])
            self.closes()

    def close(self) -> None:
        """Nothing to let go of."""

    def frame(self, seq: int, data: bytes) -> FrameChunk:
        return FrameChunk(
            site="office",
            source="desk",
            start=self.now,
            end=self.now + SECOND,
            seq=seq,
            width=64,
            height=48,
            data=data,
        )

    def look(self) -> None:
        """A poll of vision: all that waits in the log."""
        batch, self.log = self.log, []
        self.polled = len(batch)
        for record, inferred in zip(batch, self.infer(batch), strict=True):
            self.state.on(record, inferred)
            self.polled -= 1

    def closes(self, at_most: int = 1) -> None:
        snapshot = self.status.snapshot()
        counts = snapshot.counts.get("office", {}).get("desk", {})
        known = sum(n for what, n in counts.items() if what.startswith(PLACES))
        waiting = counts.get("captured", 0) - known
        assert 0 <= waiting - len(self.log) <= at_most
        assert snapshot.waiting.get("office", {}).get("desk", 0) == waiting
        assert min(counts.values(), default=0) >= 0


class Watched(Status):
    """A status that checks the ledger before and after each count, as a snapshot may be between."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.check = check

    def count(self, site: str, source: str, what: str, n: int = 1) -> None:
        super().count(site, source, what, n)
        self.check()

    def counts(self, site: str, source: str, more: Mapping[str, int]) -> None:
        super().counts(site, source, more)
        self.check()


@given(st.lists(TURN, max_size=30))
def test_no_snapshot_shows_a_frame_twice_or_never(turns: list[Grabbed | str]) -> None:
    def check() -> None:
        snapshot = status.snapshot()
        waiting = snapshot.waiting.get("office", {}).get("desk", 0)
        assert 0 <= waiting <= len(line.log) + line.polled + 2, "one in hand, one in the buffer"

    status = Watched(lambda: None)
    line = Line(turns, status)
    status.check = check
    line.capture.read(threading.Event())
    line.capture.publish_once()
    line.look()


@given(st.lists(TURN, max_size=30))
def test_every_captured_frame_is_in_one_place(turns: list[Grabbed | str]) -> None:
    line = Line(turns)
    line.capture.read(threading.Event())
    line.capture.publish_once()
    line.closes(at_most=0)
    line.look()
    line.closes(at_most=0)
    assert not line.log
