"""Hearing: what a microphone captured, second by second on the UTC grid, and what sound it is.

`Ear` cuts chunks of any size, rate and channel count into UTC seconds with two seconds of context;
the sound and the speech stage share it. Second k is a pure function of the samples in
`[k-2 s, k+1 s)`, so a restart that reads two seconds back hears the same.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.ports import Model
from pipeline.topics import AUDIO
from pipeline.types import (
    FOREVER,
    SECOND,
    AudioChunk,
    DeadLetter,
    Progress,
    Record,
    Roster,
    Sound,
)
from workers.runtime.status import Ledger

RATE = 16_000  # samples a second, what every model here listens to
CONTEXT = 2  # seconds heard before the second in question
MAX_CHANNELS = 64
RATES = range(4_000, 384_001)
FULL_SCALE = 0.999  # of it; a sample there is taken for clipped
FLOOR_PIECE = RATE // 50  # samples: 20 ms
FLOOR_PIECES = 5  # of the 50 in a second: the quietest tenth
TOLERANCE = SECOND // 10  # ns by which a chunk's span may differ from what its samples last
QUIET_DB = -60.0  # dBFS; a second below it is silence, and silence has no label
SILENCE_DB = -120.0
LISTENED = slice(RATE + 320, 3 * RATE - 80)  # [k-0.98 s, k+0.995 s): three patches of YAMNet

Samples = NDArray[np.float32]
Known = Container[tuple[str, str]]  # (site, microphone) of the config


@dataclass(frozen=True)
class Second:
    """UTC second `index`: `samples` are `[index-2 s, index+1 s)`, 48,000 of 16 kHz mono, -1 to 1.

    `heard`: something was captured within the second itself; what was not captured is zero.
    `clipped` is the share of what was captured in it, before any resampling, at `FULL_SCALE`.
    """

    index: int
    start: int  # ns
    samples: Samples
    heard: bool
    clipped: float = 0.0

    @property
    def own(self) -> Samples:
        """The 16,000 samples of the second itself."""
        return self.samples[CONTEXT * RATE :]


@dataclass(frozen=True)
class _Piece:
    at: int  # sample number since the epoch at the piece's own rate
    rate: int
    samples: Samples

    @property
    def end(self) -> int:
        return (self.at + len(self.samples)) * SECOND // self.rate


def mono(chunk: AudioChunk) -> Samples:
    """The chunk's samples, channels averaged, -1 to 1; raises DecodeError for what is no sound."""
    if not 0 <= chunk.start < chunk.end < FOREVER:
        msg = f"audio chunk spans [{chunk.start}, {chunk.end}) ns, which is no time"
        raise DecodeError(msg)
    if chunk.rate not in RATES or not 1 <= chunk.channels <= MAX_CHANNELS:
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
    """The number of the sample nearest to `time`: whole seconds are whole numbers, at any rate."""
    return (time * rate + SECOND // 2) // SECOND


class Ear:
    """One microphone on the UTC grid: chunks and promises in, complete seconds out, once, in order.

    A second is complete when a chunk or a promise reaches its end. Seconds whose whole context is
    empty are left out, so that a source that was lost for hours costs nothing. Gaps are zeros.
    Samples before the newest end are not used again: a repeated or rewound chunk adds nothing, an
    overlapping one only what is new; `repeated` counts the samples left out. A chunk that is no
    sound raises DecodeError and changes nothing. Rates other than 16 kHz are resampled (soxr HQ)
    three seconds at a time: a resampler's running state would not survive a restart.
    """

    def __init__(self) -> None:
        self.repeated = 0  # samples given again, or too late
        self._pieces: list[_Piece] = []
        self._newest = 0  # ns; end of the newest piece
        self._next: int | None = None  # index of the next second to do

    @property
    def upto(self) -> int:
        """No second that is still to come starts earlier. Ns; 0 before anything was heard."""
        return (self._next or 0) * SECOND

    @property
    def floor(self) -> int:
        """What was captured before this is needed no more. Ns; FOREVER if nothing was heard."""
        return FOREVER if self._next is None else self.upto - CONTEXT * SECOND

    def push(self, chunk: AudioChunk) -> list[Second]:
        """The seconds that this chunk completes; raises DecodeError if it holds no usable sound."""
        samples = mono(chunk)
        at = _position(chunk.start, chunk.rate)
        # What lasts longer than the chunk says would be forgotten by a restart after its end.
        samples = samples[: _position(chunk.end, chunk.rate) - at]
        again = min(max(_position(self._newest, chunk.rate) - at, 0), len(samples))
        self.repeated += again
        at, samples = at + again, samples[again:]
        if not len(samples):
            return []
        if self._next is None:
            self._next = at // chunk.rate
        piece = _Piece(at, chunk.rate, samples)
        self._pieces.append(piece)
        self._newest = piece.end
        return self._complete(piece.end)

    def promise(self, upto: int) -> list[Second]:
        """The seconds that are complete because nothing more starts before `upto` (ns)."""
        if self._next is None:
            self._next = max(upto, 0) // SECOND
        return self._complete(upto)

    def _complete(self, upto: int) -> list[Second]:
        seconds = []
        while self._next is not None and self.upto + SECOND <= upto:
            self._pieces = [piece for piece in self._pieces if piece.end > self.floor]
            oldest = min((piece.at // piece.rate for piece in self._pieces), default=upto // SECOND)
            if oldest > self._next:  # nothing at all is heard before it
                self._next = min(oldest, upto // SECOND)
                continue
            seconds.append(self._second(self._next))
            self._next += 1
        return seconds

    def _second(self, index: int) -> Second:
        first = index - CONTEXT
        whole = np.zeros((CONTEXT + 1) * RATE, np.float32)
        heard, clipped = False, 0.0
        for rate in sorted({piece.rate for piece in self._pieces}):
            span = np.zeros((CONTEXT + 1) * rate, np.float32)
            for piece in self._pieces:
                if piece.rate != rate:
                    continue
                low = max(piece.at, first * rate)
                high = min(piece.at + len(piece.samples), (index + 1) * rate)
                if low < high:
                    span[low - first * rate : high - first * rate] = piece.samples[
                        low - piece.at : high - piece.at
                    ]
                    heard = heard or high > index * rate
            # At the rate of its own: a resampler rounds off what a converter has cut off.
            full = np.abs(span[CONTEXT * rate :]) >= FULL_SCALE
            clipped += int(np.count_nonzero(full)) / rate
            whole += span if rate == RATE else soxr.resample(span, rate, RATE, "HQ")
        return Second(index, index * SECOND, whole, heard, round(clipped, 3))


def loudness(samples: Samples) -> float:
    """RMS in dB of full scale, to a tenth; -120 for nothing at all."""
    return round(_decibels(float(np.mean(np.square(samples, dtype=np.float64)))), 1)


def floor(samples: Samples) -> float:
    """RMS of the quietest tenth of the second's 20 ms pieces, in dB of full scale, to 1e-3.

    What is heard all the time: the noise of the room and of the microphone, without what happens.
    """
    pieces = np.square(samples, dtype=np.float64).reshape(-1, FLOOR_PIECE).mean(axis=1)
    return round(_decibels(float(np.sort(pieces)[:FLOOR_PIECES].mean())), 3)


def _decibels(power: float) -> float:
    return max(10 * float(np.log10(power + 1e-12)), SILENCE_DB)


class SoundStage:
    """audio.v1 -> observations.v1: a Sound for each second of which anything was captured.

    `model` takes waveforms (16 kHz mono) and gives YAMNet's 521 scores each; `head` makes labels of
    scores. Chunks that are no sound are counted as `dropped.unusable` and told in a DeadLetter;
    samples that come again as `repeated.samples`. Progress is held back to the second that is not
    yet complete, whether the source lives or is lost; Roster passes as it is. Of microphones that
    are not `known` nothing passes, and nothing is held: they left the config (None: all are).
    """

    def __init__(
        self,
        model: Model,
        head: Callable[[Samples], Mapping[str, float]],
        status: Ledger | None = None,
        known: Known | None = None,
    ) -> None:
        self._model, self._head, self._status, self._known = model, head, status, known

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        """Nothing: a second's context crosses chunks, so the model runs in `State.on`."""
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> _SoundState:
        """A state that rebuilds itself from the chunks of the two seconds before the next one."""
        return _SoundState(self._model, self._head, self._status, self._known)


class _SoundState:
    def __init__(
        self,
        model: Model,
        head: Callable[[Samples], Mapping[str, float]],
        status: Ledger | None,
        known: Known | None,
    ) -> None:
        self._model, self._head, self._status, self._known = model, head, status, known
        self._ears: dict[str, dict[str, Ear]] = {}  # site -> source -> ear

    def on(self, record: Record, inferred: None) -> Sequence[Record]:
        if self._known is not None and (record.site, record.source) not in self._known:
            return []  # no roster would ever end its ear, whose floor holds the site back
        match record:
            case AudioChunk():
                return self._chunk(record)
            case Progress():
                ear = self._ear(record)
                before = ear.upto
                sounds = self._sounds(record, ear.promise(record.upto))
                # A promise made for a lost source repeats each hop; of the others news is enough.
                if ear.upto == before and record.alive:
                    return sounds
                return [*sounds, self._progress(record, ear, record)]
            case Roster():
                ears = self._ears.get(record.site, {})
                for gone in ears.keys() - set(record.sources):
                    del ears[gone]  # else its floor would hold the site back for ever
                return [record]
            case _:
                return []

    def floor(self, site: str) -> int:
        """The second that comes next needs two seconds before it. Ns."""
        ears = self._ears.get(site, {}).values()
        return min((ear.floor for ear in ears), default=FOREVER)

    def _ear(self, record: Record) -> Ear:
        return self._ears.setdefault(record.site, {}).setdefault(record.source, Ear())

    def _chunk(self, chunk: AudioChunk) -> list[Record]:
        ear = self._ear(chunk)
        before, repeated = ear.upto, ear.repeated
        try:
            seconds = ear.push(chunk)
        except DecodeError as error:
            self._count(chunk, "dropped.unusable")
            return [_dead(chunk, str(error))]
        self._count(chunk, "repeated.samples", ear.repeated - repeated)
        self._count(chunk, "processed")
        sounds = self._sounds(chunk, seconds)
        return sounds if ear.upto == before else [*sounds, self._progress(chunk, ear)]

    def _sounds(self, record: Record, seconds: Sequence[Second]) -> list[Record]:
        return [self._sound(record, second) for second in seconds if second.heard]

    def _sound(self, record: Record, second: Second) -> Sound:
        (scores,) = self._model([second.samples[LISTENED]])
        labels, level = self._head(scores), loudness(second.own)
        if level < QUIET_DB:
            labels = dict.fromkeys(labels, 0.0)
        return Sound(
            site=record.site,
            source=record.source,
            start=second.start,
            end=second.start + SECOND,
            labels=labels,
            loudness_db=level,
            embedding=np.asarray(scores, "<f2").tobytes(),
            clipped=second.clipped,
            floor_db=floor(second.own),
        )

    def _progress(self, record: Record, ear: Ear, promised: Progress | None = None) -> Progress:
        return Progress(
            site=record.site,
            source=record.source,
            upto=ear.upto,
            alive=promised.alive if promised else True,
            reason=promised.reason if promised else "",
        )

    def _count(self, record: Record, what: str, n: int = 1) -> None:
        if self._status is not None:
            self._status.count(record.site, record.source, what, n)


def _dead(chunk: AudioChunk, reason: str) -> DeadLetter:
    return DeadLetter(
        site=chunk.site,
        source=chunk.source,
        topic=AUDIO,
        partition=0,  # a state knows no offset; `seq` leads to the chunk
        offset=0,
        reason=f"audio chunk {chunk.seq} cannot be heard: {reason}",
        value=b"",
    )
