"""Learns the usual noise of a microphone, and which chunks hold more than that.

The levels of octave bands are compared, so that a quiet voice is told from a loud fan. The floor of
a band is the level that a fifth of the last five minutes did not exceed: sounds that come and go
never raise it, and a fan that was switched on is usual after four minutes. See
`docs/explanations/sound-gate.md`.
"""

from __future__ import annotations

import zlib
from collections import deque

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.hearing.waveform import RATE
from pipeline.config.schema import Hear
from pipeline.types import SECOND

LISTENS = ("all", "first", "sound", "heartbeat", "")  # of a chunk; the strongest first
HEARTBEAT = 10  # of so many UTC seconds one is heard whatever is in it
LEARNT = 10  # s of sound until the floor is known
REMEMBERED = 300  # s of sound that the floor is made of
USUAL = 0.2  # part of them that is at the floor or below
LOUD_DB = -35.0  # dBFS; a floor above it is no floor: such a place is never quiet
SILENT_DB = -85.0  # dBFS; a band is never quieter, as far as the floor is concerned

_EDGES = (62, 250, 500, 1000, 2000, 4000, 8000)  # Hz; of the bands
# dB by which a band is above its floor if there is more than noise; low bands hold fewer
# frequencies, so the level of their noise varies more
_MARGINS = np.array([7.0, 5.0, 4.0, 3.5, 3.0, 3.0])
_PIECE, _STEP = 1024, 512  # samples: 64 ms every 32 ms
_HANN = np.hanning(_PIECE + 1)[:-1].astype(np.float32)
_BINS = [edge * _PIECE // RATE for edge in _EDGES]
_SCALE = 2 / (_PIECE * float(np.sum(np.square(_HANN))))

Levels = NDArray[np.float64]  # dBFS by band


class Heard(msgspec.Struct, frozen=True):
    """What a chunk holds; the fields are those of `AudioChunk`."""

    listen: str
    noise_db: int | None


UNMEASURED = Heard(listen="all", noise_db=None)


def floor_for(site: str, source: str, hear: Hear) -> NoiseFloor | None:
    """A new floor for a microphone of these settings; None where the gate is off."""
    return None if hear.gate == "off" else NoiseFloor(site, source)


def measured(floor: NoiseFloor | None, data: bytes, start: int) -> Heard:
    """What a chunk of s16le at 16 kHz holds; without a floor nothing is measured, and every chunk
    is heard."""
    return UNMEASURED if floor is None else floor(data, start)


class NoiseFloor:
    """The noise floor of one microphone.

    The results depend on the chunks given so far and on nothing else. `site` and `source` only
    choose the seconds that are heard in any case, so that those of many microphones differ.
    """

    def __init__(self, site: str, source: str) -> None:
        self._phase = zlib.crc32(f"{site}/{source}".encode()) % HEARTBEAT
        self._before = np.zeros(_PIECE, np.float32)  # the last samples before the chunk
        self._second = -1  # the UTC second of the last chunk
        self._levels: list[Levels] = []  # of the pieces of this second
        self._past: deque[Levels] = deque(maxlen=REMEMBERED)  # by second
        self._floor: Levels | None = None  # from LEARNT seconds on

    def __call__(self, data: bytes, start: int) -> Heard:
        """Takes the next chunk, which starts at `start` (ns)."""
        levels = self._pieces(np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15))
        second = start // SECOND
        if second != self._second:
            self._learn()
            self._second = second
        self._levels.append(levels)
        if self._floor is None:
            return Heard("first", None)
        noise = round(float(10 * np.log10(np.sum(10 ** (self._floor / 10)))))
        if noise > LOUD_DB or bool(np.any(levels > self._floor + _MARGINS)):
            return Heard("sound", noise)
        return Heard("heartbeat" if second % HEARTBEAT == self._phase else "", noise)

    def _pieces(self, samples: NDArray[np.float32]) -> Levels:
        """The levels of the pieces that end in this chunk, the last one at its end."""
        count = -(-len(samples) // _STEP)
        known = np.concatenate([self._before, samples])
        self._before = known[-_PIECE:]
        first = len(known) - _PIECE - (count - 1) * _STEP
        pieces = np.lib.stride_tricks.sliding_window_view(known[first:], _PIECE)[::_STEP]
        spectrum = np.fft.rfft(pieces * _HANN)
        power = spectrum.real**2 + spectrum.imag**2
        bands = np.add.reduceat(power[:, : _BINS[-1]], _BINS[:-1], axis=1) * _SCALE
        levels: Levels = np.maximum(10 * np.log10(bands + 1e-12), SILENT_DB).round(1)
        return levels

    def _learn(self) -> None:
        """Adds the second that is over; learns the floor anew."""
        if not self._levels:
            return
        self._past.append(np.concatenate(self._levels).mean(axis=0))
        self._levels = []
        if len(self._past) >= LEARNT:
            rank = int(USUAL * (len(self._past) - 1))
            self._floor = np.partition(np.array(self._past), rank, axis=0)[rank].round(1)
