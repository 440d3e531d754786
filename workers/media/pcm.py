"""Converts live sound of any rate to 16 kHz mono s16le chunks with exact times.

The times of the chunks neither drift nor overlap.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr
from numpy.typing import NDArray

from pipeline.types import SECOND, AudioChunk

RATE = 16_000  # samples a second of every chunk that capture publishes
RATES = range(1_000, 768_001)
SLIP = SECOND // 5  # ns; a larger difference of sample count and clock resets the times
_BLOCKS = 20  # late blocks in a row before a gap: a stalled thread gets its blocks in a burst

Samples = NDArray[np.float32]


def to_s16(samples: Samples) -> bytes:
    """Converts float32 to s16le, clipped; exact for samples that came from s16 at 16 kHz."""
    scaled = np.rint(np.clip(samples * np.float32(2**15), -(2**15), 2**15 - 1))
    return bytes(scaled.astype("<i2").data)


def from_s16(data: bytes, channels: int) -> Samples:
    """Converts interleaved s16le to the mean of its channels, float32 -1 to 1."""
    values = np.frombuffer(data, "<i2").reshape(-1, channels).astype(np.float32)
    mean: Samples = values.mean(axis=1, dtype=np.float32) / np.float32(2**15)
    return mean


class Chunks:
    """Converts blocks of mono samples at `rate` to AudioChunks of `source`.

    Times count samples from the first block on. If blocks keep arriving later than that by more
    than SLIP (samples were lost), the times get a gap. Blocks that arrive earlier (a fast device)
    are dropped and counted in `ahead`. So chunks never overlap, and never drift from the clock.
    """

    def __init__(self, site: str, source: str, rate: int) -> None:
        self.ahead = 0
        self._site = site
        self._source = source
        self._rate = rate
        self._resample = (
            soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
            if rate != RATE
            else None
        )
        self._anchor = -1
        self._taken = self._made = self._seq = 0
        self._late: deque[int] = deque(maxlen=_BLOCKS)

    def push(self, samples: Samples, ended: int) -> AudioChunk | None:
        """Returns the next chunk, or None if there are too few samples; `ended` is the
        block's end, ns."""
        if self._anchor < 0:
            self._anchor = ended - len(samples) * SECOND // self._rate
        late = ended - self._anchor - (self._taken + len(samples)) * SECOND // self._rate
        if late < -SLIP:
            self.ahead += 1
            return None
        self._taken += len(samples)
        self._late.append(late)
        if (len(self._late) == _BLOCKS and min(self._late) > SLIP) or late > _BLOCKS * SLIP:
            self._anchor += min(self._late) if late <= _BLOCKS * SLIP else late
            self._late.clear()
        made = self._resample.resample_chunk(samples) if self._resample else samples
        return self._chunk(made) if len(made) else None

    def _chunk(self, samples: Samples) -> AudioChunk:
        start = self._anchor + self._made * SECOND // RATE
        self._made += len(samples)
        seq, self._seq = self._seq, self._seq + 1
        return AudioChunk(
            site=self._site,
            source=self._source,
            start=start,
            end=self._anchor + self._made * SECOND // RATE,
            seq=seq,
            rate=RATE,
            channels=1,
            data=to_s16(samples),
        )
