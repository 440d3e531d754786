"""Resamples audio chunks of any rate, length and channel count to UTC seconds of 16 kHz mono.

A second has two seconds of context before it. Second k is a pure function of the samples in
`[k-2 s, k+1 s)`, so a restart that reads two seconds back gives the same result. The sound stage
and the speech stage both use this grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import soxr

from models.hearing.waveform import RATE, Samples
from pipeline.config.schema import Hear
from pipeline.errors import DecodeError
from pipeline.types import FOREVER, SECOND, AudioChunk

CONTEXT_SECONDS = 2  # seconds of audio before the second itself
MAX_CHANNELS = 64
CHUNK_RATES = range(4_000, 384_001)
FULL_SCALE = 0.999  # of full scale; a sample of this size or more counts as clipped
TOLERANCE = SECOND // 10  # ns by which a chunk's span may differ from the length of its samples
HOLE = SECOND // 100  # ns that may be missing of two seconds that are gated
Known = Mapping[tuple[str, str], Hear]  # (site, microphone) of the config -> how it is heard


def hear_of(known: Known | None, site: str, source: str) -> Hear:
    """How a microphone is heard; as by default where no config names it."""
    return Hear() if known is None else known[site, source]


@dataclass(frozen=True)
class Second:
    """UTC second `index`: `samples` are `[index-2 s, index+1 s)`, 48,000 of 16 kHz mono, -1 to 1.

    An early one ends in the middle of UTC second `index`; the first half second of its samples is
    zero.

    `heard` is true if audio was captured within the second itself; samples that were not captured
    are zero. `clipped` is the share of its samples at `FULL_SCALE`, before any resampling. `still`
    is true if the second and the one before hold the usual noise alone, as capture has measured it.
    """

    index: int
    start: int  # ns
    samples: Samples
    heard: bool
    clipped: float = 0.0
    still: bool = False
    early: bool = False

    @property
    def own(self) -> Samples:
        """The 16,000 samples of the second itself."""
        return self.samples[CONTEXT_SECONDS * RATE :]


@dataclass(frozen=True)
class _Piece:
    at: int  # sample number since the epoch at the piece's own rate
    rate: int
    samples: Samples
    listen: str

    @property
    def begin(self) -> int:
        return self.at * SECOND // self.rate

    @property
    def end(self) -> int:
        return (self.at + len(self.samples)) * SECOND // self.rate


def mono(chunk: AudioChunk) -> Samples:
    """The chunk's samples, channels averaged, -1 to 1; raises DecodeError for unusable audio."""
    if not 0 <= chunk.start < chunk.end < FOREVER:
        msg = f"audio chunk spans [{chunk.start}, {chunk.end}) ns, which is no time"
        raise DecodeError(msg)
    if chunk.rate not in CHUNK_RATES or not 1 <= chunk.channels <= MAX_CHANNELS:
        msg = f"audio chunk claims {chunk.channels} channels at {chunk.rate} Hz"
        raise DecodeError(msg)
    frame = 2 * chunk.channels
    if not chunk.data or len(chunk.data) % frame:
        msg = f"audio chunk has {len(chunk.data)} bytes, not a multiple of {frame}"
        raise DecodeError(msg)
    lasts = len(chunk.data) // frame * SECOND // chunk.rate
    if abs(lasts - (chunk.end - chunk.start)) > TOLERANCE:
        msg = f"audio chunk spans {chunk.end - chunk.start} ns but its samples last {lasts} ns"
        raise DecodeError(msg)
    frames = np.frombuffer(chunk.data, "<i2").reshape(-1, chunk.channels)
    averaged: Samples = frames.mean(axis=1, dtype=np.float32) / np.float32(32768)
    return averaged


def _position(time: int, rate: int) -> int:
    """The number of the sample nearest to `time`; exact for whole seconds at any rate."""
    return (time * rate + SECOND // 2) // SECOND


class AudioGrid:
    """One microphone on the UTC grid; returns each complete second once, in order.

    A second is complete when a chunk or a Progress reaches its end. Seconds whose whole context is
    empty are left out, so that a source that was lost for hours costs nothing. Gaps are zeros.
    Samples before the newest end are not used again: a repeated or rewound chunk adds nothing, an
    overlapping one adds only its new samples; `repeated` counts the samples left out. A chunk
    without usable audio raises DecodeError and changes nothing. Rates other than 16 kHz are
    resampled (soxr HQ) three seconds at a time: the running state of a resampler would not survive
    a restart.

    With `halves` there is an early second before each second of which the first half was captured.
    It is complete with that half, and depends on no sample behind it.
    """

    def __init__(self, *, halves: bool = False) -> None:
        self._halves = halves
        self._halved: int | None = None  # the index of the last early second
        self.repeated = 0  # samples that came again or too late
        self._pieces: list[_Piece] = []
        self._newest = 0  # ns; end of the newest piece
        self._next: int | None = None  # index of the next second

    @property
    def upto(self) -> int:
        """Start of the next second: no later second starts before it. Ns; 0 before any audio."""
        return (self._next or 0) * SECOND

    @property
    def floor(self) -> int:
        """Audio captured before this is not needed any more. Ns; FOREVER before any audio."""
        return FOREVER if self._next is None else self.upto - CONTEXT_SECONDS * SECOND

    def push(self, chunk: AudioChunk) -> list[Second]:
        """Returns the seconds that this chunk completes; raises DecodeError for unusable audio."""
        samples = mono(chunk)
        at = _position(chunk.start, chunk.rate)
        # A restart that begins after the chunk's end would not have samples that go beyond it.
        samples = samples[: _position(chunk.end, chunk.rate) - at]
        again = min(max(_position(self._newest, chunk.rate) - at, 0), len(samples))
        self.repeated += again
        at, samples = at + again, samples[again:]
        if not len(samples):
            return []
        if self._next is None:
            self._next = at // chunk.rate
        piece = _Piece(at, chunk.rate, samples, chunk.listen)
        self._pieces.append(piece)
        self._newest = piece.end
        return self._complete(piece.end)

    def promise(self, upto: int) -> list[Second]:
        """Returns the seconds that are complete as no later chunk starts before `upto` (ns)."""
        if self._next is None:
            self._next = max(upto, 0) // SECOND
        return self._complete(upto)

    def _complete(self, upto: int) -> list[Second]:
        seconds = []
        while self._next is not None and self.upto + SECOND <= upto:
            self._pieces = [piece for piece in self._pieces if piece.end > self.floor]
            oldest = min((piece.at // piece.rate for piece in self._pieces), default=upto // SECOND)
            if oldest > self._next:  # there is no audio before it
                self._next = min(oldest, upto // SECOND)
                continue
            seconds += [*self._half(), self._second(self._next)]
            self._next += 1
        if self._next is not None and self.upto + SECOND // 2 <= upto:
            seconds += self._half()
        return seconds

    def _half(self) -> list[Second]:
        """The early second of the next second, once."""
        if not self._halves or self._next is None or self._halved == self._next:
            return []
        self._halved = self._next
        half = self._second(self._next, early=True)
        return [half] if half.heard else []

    def _second(self, index: int, *, early: bool = False) -> Second:
        first = index - CONTEXT_SECONDS
        halves = 2 * index + (1 if early else 2)  # what comes after so many does not count
        whole = np.zeros((CONTEXT_SECONDS + 1) * RATE, np.float32)
        heard, clipped = False, 0.0
        for rate in sorted({piece.rate for piece in self._pieces}):
            span = np.zeros((CONTEXT_SECONDS + 1) * rate, np.float32)
            for piece in self._pieces:
                if piece.rate != rate:
                    continue
                low = max(piece.at, first * rate)
                high = min(piece.at + len(piece.samples), halves * rate // 2)
                if low < high:
                    span[low - first * rate : high - first * rate] = piece.samples[
                        low - piece.at : high - piece.at
                    ]
                    heard = heard or high > index * rate
            # Measured at the original rate: a resampler rounds the flat tops of clipped samples.
            full = np.abs(span[CONTEXT_SECONDS * rate :]) >= FULL_SCALE
            clipped += int(np.count_nonzero(full)) / rate
            whole += span if rate == RATE else soxr.resample(span, rate, RATE, "HQ")
        start = (halves - 2) * SECOND // 2
        if early:
            rest = whole[: -RATE // 2]
            whole = np.concatenate([np.zeros(len(whole) - len(rest), np.float32), rest])
        return Second(
            index, start, whole, heard, round(clipped, 3), self._still(start), early=early
        )

    def _still(self, start: int) -> bool:
        """Whether the second from `start` and the one before were captured, and neither wants to be
        heard; a heartbeat wants the second in which its chunk starts."""
        covered = 0
        for piece in self._pieces:
            low, high = max(piece.begin, start - SECOND), min(piece.end, start + SECOND)
            if low >= high:
                continue
            if piece.listen and (piece.listen != "heartbeat" or piece.begin >= start):
                return False
            covered += high - low
        return covered >= 2 * SECOND - HOLE
