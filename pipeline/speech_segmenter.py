"""From voice probabilities to utterances: where somebody begins and ends to speak. Pure.

A *run* of speech opens at a frame of at least `Speech.opens`, goes on while frames stay above
`Speech.keeps` and ends `Speech.hang` after the last of those. A run that lasts is cut into pieces,
because nobody waits longer than `Speech.longest` for an alarm.

A restart must come to the same pieces without reading a monologue from its beginning. So a cut is
never counted from the run's start: every `GRID` of UTC has one *weak point*, the frame least like
speech in the `WINDOW` before it, and runs are cut at weak points only. From its first cut on the
pieces of a run do not depend on where it began: `Segmenter.anchor` is never far back.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

from pipeline.types import SECOND, ns

GRID = 4 * SECOND  # ns between weak points
WINDOW = 1 * SECOND  # ns before each grid line in which its weak point is looked for


class SpeechSpan(NamedTuple):
    """Somebody spoke in `[start, end)`, ns."""

    start: int
    end: int


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as speech; times are ns.

    `hang` is at least twice `pad`, so that padding never makes two utterances overlap, and
    `longest` at least `GRID + WINDOW`, so that a weak point is always at hand: else ValueError.
    """

    opens: float = 0.3  # probability
    keeps: float = 0.2  # probability
    hang: int = ns(0.6)
    fades: int = ns(2)  # without a frame that could open a run, it ends
    least: int = ns(0.25)  # of frames above `keeps`; less is a click, not a word
    pad: int = ns(0.3)  # heard before and after, since words begin and end softly
    longest: int = ns(5)

    def __post_init__(self) -> None:
        if not 0 < self.keeps <= self.opens <= 1:
            msg = f"0 < keeps {self.keeps} <= opens {self.opens} <= 1 does not hold"
            raise ValueError(msg)
        if self.hang < 2 * self.pad or self.fades < self.hang:
            msg = f"2 * pad {self.pad} <= hang {self.hang} <= fades {self.fades} does not hold"
            raise ValueError(msg)
        if self.longest < GRID + WINDOW or self.fades > GRID - WINDOW:
            msg = f"longest {self.longest} or fades {self.fades} does not fit the grid of {GRID}"
            raise ValueError(msg)


class _Frame(NamedTuple):
    start: int
    end: int
    probability: float


class Segmenter:
    """One microphone's frames in, in order; finished utterances out.

    Between frames that do not meet nothing was captured: that ends an utterance. The outputs after
    any moment are a function of the frames from the second of `anchor` on: another segmenter that
    starts in that second or an earlier one will agree.
    """

    def __init__(self, start: int, speech: Speech | None = None) -> None:
        self._speech = speech or Speech()
        self._begin = start  # no utterance reaches back beyond it
        self._heard = start  # end of the newest frame
        self._frames: deque[_Frame] = deque()  # of the open piece
        self._open: int | None = None  # start of the open piece
        self._kept = start  # end of the last frame of at least `keeps`
        self._strong = start  # end of the last frame of at least `opens`
        self._weakest: _Frame | None = None  # of the window that we are in
        self._weak = start  # the newest weak point
        self._anchors = (start, start)  # what the last piece's start, and this one's, follow from

    @property
    def heard(self) -> int:
        """The end of the newest frame. Ns."""
        return self._heard

    @property
    def upto(self) -> int:
        """No utterance still to come starts earlier. Ns; never decreases."""
        if self._open is not None:
            return self._open
        return max(self._begin, self._heard - self._speech.pad)

    @property
    def anchor(self) -> int:
        """What comes next depends on no frame of an earlier second. Ns."""
        return self.upto if self._open is None else self._anchors[0]

    def push(self, start: int, end: int, probability: float) -> list[SpeechSpan]:
        """The utterances that this frame finishes; raises ValueError unless frames are in order."""
        if not self._heard <= start < end:
            msg = f"frame [{start}, {end}) comes after {self._heard}"
            raise ValueError(msg)
        found = self.skip(start) if start > max(self._heard, self._begin) else []
        self._heard = end
        frame = _Frame(start, end, probability)
        self._look_for_weak(frame)
        if self._open is None and (probability < self._speech.opens or end <= self._begin):
            return found
        if self._open is None:
            self._open = max(self._begin, start - self._speech.pad)
            self._anchors = (self._open, self._open)
        self._frames.append(frame)
        if probability >= self._speech.keeps:
            self._kept = end
        if self._opens(frame):
            self._strong = end
        quiet = end - self._kept >= self._speech.hang or end - self._strong >= self._speech.fades
        return found + (self._close() if quiet else self._cut())

    def skip(self, upto: int) -> list[SpeechSpan]:
        """Nothing was captured before `upto`: the open utterance ends, the next starts after it."""
        found = self._close() if self._open is not None else []
        self._begin = max(self._begin, upto)
        self._weakest = None
        return found

    def _look_for_weak(self, frame: _Frame) -> None:
        """Keep the frame least like speech of `[grid - WINDOW, grid)`, the first of equals."""
        if frame.start % GRID < GRID - WINDOW:
            return
        if self._weakest is None or frame.probability < self._weakest.probability:
            self._weakest = frame
        if frame.end // GRID > frame.start // GRID:  # the window's last frame
            self._weak, self._weakest = self._weakest.start, None

    def _cut(self) -> list[SpeechSpan]:
        """The piece up to the newest weak point, once the open one is as long as may be."""
        if self._open is None or self._heard - self._open < self._speech.longest:
            return []
        found = self._piece(self._open, self._weak)
        strong = [f.start for f in self._frames if f.start <= self._weak and self._opens(f)]
        self._anchors = (self._anchors[1], strong[-1] if strong else self._anchors[1])
        self._open = self._weak
        while self._frames[0].end <= self._open:
            self._frames.popleft()
        return found

    def _close(self) -> list[SpeechSpan]:
        assert self._open is not None  # noqa: S101 - for the type checker
        faded = self._strong + self._speech.fades - self._speech.hang
        found = self._piece(self._open, min(min(self._kept, faded) + self._speech.pad, self._heard))
        self._open = None
        self._frames.clear()
        return found

    def _piece(self, start: int, end: int) -> list[SpeechSpan]:
        spoken = sum(
            f.end - f.start
            for f in self._frames
            if f.start < end and f.probability >= self._speech.keeps
        )
        return [SpeechSpan(start, end)] if spoken >= self._speech.least and start < end else []

    def _opens(self, frame: _Frame) -> bool:
        return frame.probability >= self._speech.opens
