"""Turns voice probabilities into utterances: finds where speech starts and ends. Pure.

A *run* of speech starts at a frame of at least `Speech.opens`, continues while frames are at least
`Speech.keeps`, and ends `Speech.hang` after the last of those. A long run is cut into pieces, so
that no alarm waits longer than `Speech.longest`.

A restart must find the same pieces without reading a long speech from its start. So a cut never
depends on the start of the run: every `GRID` of UTC has one *weak point*, the frame with the lowest
speech probability in the `WINDOW` before it, and runs are cut only at weak points. After its first
cut, the pieces of a run do not depend on where it started. So `Segmenter.anchor` is never far back.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

from pipeline.types import SECOND, ns

GRID = 4 * SECOND  # ns between weak points
WINDOW = 1 * SECOND  # ns before each grid line; the weak point lies in it


class SpeechSpan(NamedTuple):
    """An utterance in `[start, end)`, ns."""

    start: int
    end: int


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """The thresholds that define speech; times are in ns.

    Raises ValueError unless `hang` is at least twice `pad`, so that padding never makes two
    utterances overlap, and `longest` is at least `GRID + WINDOW`, so that a weak point is always
    available.
    """

    opens: float = 0.3  # probability
    keeps: float = 0.2  # probability
    hang: int = ns(0.6)
    fades: int = ns(2)  # a run ends after this time without a frame of at least `opens`
    least: int = ns(0.25)  # of frames of at least `keeps`; less is a click, not a word
    pad: int = ns(0.3)  # added before and after, since words begin and end softly
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
    """Takes one microphone's frames in order, and returns finished utterances.

    A gap between frames means that nothing was captured: it ends an utterance. The output after any
    moment depends only on the frames from the second of `anchor` on: another segmenter that starts
    in that second or earlier gives the same output.
    """

    def __init__(self, start: int, speech: Speech | None = None) -> None:
        self._speech = speech or Speech()
        self._begin = start  # no utterance reaches back beyond it
        self._heard = start  # end of the newest frame
        self._frames: deque[_Frame] = deque()  # of the open piece
        self._open: int | None = None  # start of the open piece
        self._kept = start  # end of the last frame of at least `keeps`
        self._strong = start  # end of the last frame of at least `opens`
        self._weakest: _Frame | None = None  # of the current window
        self._weak = start  # the newest weak point
        self._anchors = (start, start)  # what the starts of the last piece and this one depend on

    @property
    def heard(self) -> int:
        """The end of the newest frame, in ns."""
        return self._heard

    @property
    def open_start(self) -> int | None:
        """The start of the open utterance, in ns; None while there is no speech."""
        return self._open

    @property
    def upto(self) -> int:
        """No later utterance starts before this time. Ns; never decreases."""
        if self._open is not None:
            return self._open
        return max(self._begin, self._heard - self._speech.pad)

    @property
    def anchor(self) -> int:
        """Later output depends on no frame before the second of this time. Ns."""
        return self.upto if self._open is None else self._anchors[0]

    def push(self, start: int, end: int, probability: float) -> list[SpeechSpan]:
        """Returns the utterances that this frame ends; raises ValueError unless frames come
        in order."""
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
        """Marks the time before `upto` as not captured: ends the open utterance and returns
        it, if any."""
        found = self._close() if self._open is not None else []
        self._begin = max(self._begin, upto)
        self._weakest = None
        return found

    def _look_for_weak(self, frame: _Frame) -> None:
        """Keeps the frame with the lowest probability in `[grid - WINDOW, grid)`, the first
        of equals."""
        if frame.start % GRID < GRID - WINDOW:
            return
        if self._weakest is None or frame.probability < self._weakest.probability:
            self._weakest = frame
        if frame.end // GRID > frame.start // GRID:  # the window's last frame
            self._weak, self._weakest = self._weakest.start, None

    def _cut(self) -> list[SpeechSpan]:
        """Returns the piece up to the newest weak point, once the open piece has its greatest
        length."""
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
