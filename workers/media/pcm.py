"""Converts live sound of any rate to 16 kHz mono s16le chunks with exact times.

The times of the chunks neither drift nor overlap.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import numpy as np
import soxr

from models.hearing.waveform import RATE, Samples
from pipeline.config.schema import Hear
from pipeline.types import SECOND, AudioChunk
from workers.media.noise_floor import floor_for, measured

SOURCE_RATES = range(1_000, 768_001)
CANCELLED = 0.02  # share of the loudest channel's power; of two unlike channels the mean keeps 0.25
MAX_SLIP = SECOND // 5  # ns; a larger difference of sample count and clock resets the times
TOLERANCE = Fraction(1, 25)  # s; times of a recording are rounded, so a smaller hole is none
_BLOCKS = 20  # late blocks in a row before a gap: a stalled thread gets its blocks in a burst


def to_s16(samples: Samples) -> bytes:
    """Converts float32 to s16le, clipped; exact for samples that came from s16 at 16 kHz."""
    scaled = np.rint(np.clip(samples * np.float32(2**15), -(2**15), 2**15 - 1))
    return bytes(scaled.astype("<i2").data)


def from_s16(data: bytes, channels: int) -> Samples:
    """Converts interleaved s16le to one channel (`downmixed`), float32 -1 to 1."""
    values = np.frombuffer(data, "<i2").reshape(-1, channels).astype(np.float32)
    return downmixed(values.T)[0] / np.float32(2**15)


def downmixed(values: Samples) -> tuple[Samples, bool]:
    """Returns the mean of channels x samples, or the loudest channel where they cancel out.

    Two channels in opposite phase (a wire that is swapped) have a mean of silence. `True` says
    that the mean had less than `CANCELLED` of the power of the loudest channel.
    """
    mean: Samples = values.mean(axis=0, dtype=np.float32)
    if len(values) == 1 or not values.shape[1]:
        return mean, False
    powers = np.square(values, dtype=np.float64).mean(axis=1)
    loudest = int(powers.argmax())
    if np.square(mean, dtype=np.float64).mean() >= CANCELLED * powers[loudest]:
        return mean, False
    return values[loudest].astype(np.float32), True


class Resampler:
    """Lays blocks of mono sound one behind the other, at 16 kHz (soxr HQ).

    `push` takes a block and its time in seconds; where the time is more than `TOLERANCE` later than
    the sound so far, silence fills the hole, and where it is that much earlier, the overlap is cut.
    The rate may change. With `at=None` a block follows the one before it.
    """

    def __init__(self) -> None:
        self._rate = 0
        self._stream: soxr.ResampleStream | None = None
        self._begun = Fraction(0)  # s; where the present rate began
        self._taken = self._made = 0  # samples in at the present rate, and out in all

    @property
    def made(self) -> int:
        """Samples out so far."""
        return self._made

    def push(self, block: Samples, rate: int, at: Fraction | None) -> Samples:
        """Returns what is ready; `at` is the time of the block's first sample."""
        rest = self.end() if self._rate != rate else None
        if rest is not None:
            self._begun = Fraction(self._made, RATE)
            self._rate, self._taken = rate, 0
            if rate != RATE:
                self._stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
        if at is not None:
            block = self._placed(block, at)
        self._taken += len(block)
        made = self._out(self._stream.resample_chunk(block) if self._stream else block)
        return made if rest is None or not len(rest) else np.concatenate([rest, made])

    def end(self) -> Samples:
        """Returns the rest, which the filter still holds."""
        stream, self._stream = self._stream, None
        if stream is None:
            return np.zeros(0, np.float32)
        return self._out(stream.resample_chunk(np.zeros(0, np.float32), last=True))

    def _placed(self, block: Samples, at: Fraction) -> Samples:
        late = at - self._begun - Fraction(self._taken, self._rate)
        if late > TOLERANCE:
            return np.concatenate([np.zeros(round(late * self._rate), np.float32), block])
        return block[round(-late * self._rate) :] if late < -TOLERANCE else block

    def _out(self, samples: Samples) -> Samples:
        self._made += len(samples)
        return samples


class Chunks:
    """Converts blocks of mono samples at `rate` to AudioChunks of `source`.

    Times count samples from the first block on. If blocks keep arriving later than that by more
    than MAX_SLIP (samples were lost), the times get a gap. Blocks that arrive earlier (a fast
    device) are dropped and counted in `ahead`. So chunks never overlap, and never drift from the
    clock. `hear` says whether the noise of the microphone is learnt.
    """

    def __init__(
        self, site: str, source: str, rate: int, *, seq: int = 0, hear: Hear | None = None
    ) -> None:
        self.ahead = 0
        self.seq = seq  # of the next chunk
        self._site = site
        self._source = source
        self._rate = rate
        self._noise = floor_for(site, source, hear or Hear())
        self._resample = (
            soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
            if rate != RATE
            else None
        )
        self._anchor = -1
        self._taken = self._made = 0
        self._late: deque[int] = deque(maxlen=_BLOCKS)

    def push(self, samples: Samples, ended: int) -> AudioChunk | None:
        """Returns the next chunk, or None if there are too few samples; `ended` is the
        block's end, ns."""
        if self._anchor < 0:
            self._anchor = ended - len(samples) * SECOND // self._rate
        late = ended - self._anchor - (self._taken + len(samples)) * SECOND // self._rate
        if late < -MAX_SLIP:
            self.ahead += 1
            return None
        self._taken += len(samples)
        self._late.append(late)
        if (len(self._late) == _BLOCKS and min(self._late) > MAX_SLIP) or late > _BLOCKS * MAX_SLIP:
            self._anchor += min(self._late) if late <= _BLOCKS * MAX_SLIP else late
            self._late.clear()
        made = self._resample.resample_chunk(samples) if self._resample else samples
        return self._chunk(made) if len(made) else None

    def _chunk(self, samples: Samples) -> AudioChunk:
        start = self._anchor + self._made * SECOND // RATE
        self._made += len(samples)
        seq, self.seq = self.seq, self.seq + 1
        data = to_s16(samples)
        heard = measured(self._noise, data, start)
        return AudioChunk(
            site=self._site,
            source=self._source,
            start=start,
            end=self._anchor + self._made * SECOND // RATE,
            seq=seq,
            rate=RATE,
            channels=1,
            data=data,
            listen=heard.listen,
            noise_db=heard.noise_db,
        )
