"""Reads live streams by PyAV, picture and sound on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from models.hearing.waveform import Samples
from pipeline.config.schema import Detect, Hear
from pipeline.errors import SourceLost
from pipeline.limits import MAX_PIXELS
from pipeline.types import SECOND, AudioChunk, FrameChunk, Progress
from workers.capture.clock import Clock, FrameRateLimiter, StreamClock
from workers.capture.stream_opening import STREAM_TIMEOUT, chosen, open_stream, why
from workers.config.source_address import Address
from workers.media import recordings
from workers.media.containers import BROKEN, TIMELESS
from workers.media.jpeg import encoded, fits
from workers.media.motion import measured, model_for
from workers.media.pcm import SOURCE_RATES, Chunks

UNREADABLE_AFTER = 5 * SECOND  # ns in which no picture could be decoded, and some came
UNREADABLE = (
    "its pictures cannot be decoded: they are damaged, or have more than "
    f"{MAX_PIXELS // 1_000_000} million pixels"
)
BLOCK_LENGTH = SECOND // 10  # ns of audio that one block gathers


class MediaSource:
    """One connection to a stream; raises SourceLost when it cannot be opened, ends or hangs.

    `camera` and `microphone` are the names of the sources that the stream feeds; either may be
    empty. `track` is the number of the sound track. `patience` is how many seconds it may send
    nothing. `count(source, what)` counts frames and audio that could not be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        address: Address,
        site: str,
        *,
        camera: str = "",
        microphone: str = "",
        track: int | None = None,
        detect: Detect | None = None,
        hear: Hear | None = None,
        patience: float = STREAM_TIMEOUT,
        clock: Clock,
        count: Callable[[str, str], None],
        opened: Callable[[Address, float], Any] | None = None,
    ) -> None:
        self._site = site
        self._camera = camera
        self._microphone = microphone
        self._detect = detect or Detect()
        self._aspect = recordings.aspect_ratio(self._detect.aspect)
        self._clock = clock
        self._count = count
        self._motion = model_for(self._detect, self._detect.fps)
        self._times = StreamClock(clock)
        self._pace = FrameRateLimiter(self._detect.fps)
        self._seq = 0
        self._broken_since: int | None = None  # ns; no picture could be decoded since then
        self.native: tuple[int, int] | None = None  # px, width and height before scaling
        self._sound = _Gathered(site, microphone, hear)
        self._container = (opened or open_stream)(address, patience)
        self._streams = chosen(self._container, site, camera, microphone, track, "stream")

    def __iter__(self) -> Iterator[FrameChunk | AudioChunk | Progress]:
        timeless = self._container.format.name in TIMELESS
        for stream, frame in self._frames():
            if frame is None:
                yield from self._unreadable()
                continue
            made = self._seen if stream.type == "video" else self._heard
            timed = not timeless and frame.pts is not None and frame.time_base is not None
            try:
                chunk = made(stream, frame, frame.pts * frame.time_base if timed else None)
            except BROKEN:  # the frame was decoded but cannot be converted or encoded again
                self._bad(stream)
                continue
            if chunk is not None:
                yield chunk
        msg = "the stream stopped" if self._seq or self._sound.begun else "the stream is empty"
        raise SourceLost(msg)

    def close(self) -> None:
        """Closes the connection."""
        self._container.close()

    def _frames(self) -> Iterator[tuple[Any, Any]]:
        """Yields (stream, frame) in the order of the stream; None for a packet it cannot decode."""
        packets = self._container.demux(self._streams)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except BROKEN as error:
                raise SourceLost(why(error, "broke off")) from None
            try:
                frames = packet.decode()
            except BROKEN:
                self._bad(packet.stream)
                yield packet.stream, None
                continue
            yield from ((packet.stream, frame) for frame in frames)

    def _bad(self, stream: Any) -> None:
        if stream.type == "video":
            self._seq += 1
            self._count(self._camera, "dropped.undecodable")
            if self._broken_since is None:
                self._broken_since = self._clock()
        else:
            self._count(self._microphone, "damaged")

    def _unreadable(self) -> Iterator[Progress]:
        """Says that the camera is lost where all that it sends for a while cannot be decoded."""
        now = self._clock()
        if self._broken_since is not None and now - self._broken_since > UNREADABLE_AFTER:
            yield Progress(
                site=self._site, source=self._camera, upto=now, alive=False, reason=UNREADABLE
            )

    def _seen(self, stream: Any, frame: Any, position: Fraction | None) -> FrameChunk | None:
        start = self._times.at(_ns(position), "picture")
        seq, self._seq = self._seq, self._seq + 1
        self._broken_since = None
        if not self._pace.wants(start):
            return None
        if not fits(frame.width, frame.height):
            self._count(self._camera, "dropped.size")
            return None
        self.native = frame.width, frame.height
        shape = recordings.stretch_of(stream, frame, self._aspect)
        picture = recordings.Picture(frame, self._detect.width, shape)
        pixels = picture.pixels()
        data = encoded(pixels)
        seen = measured(self._motion, picture.luma, start)
        return FrameChunk(
            site=self._site,
            source=self._camera,
            start=start,
            end=start + self._pace.period,
            seq=seq,
            width=pixels.shape[1],
            height=pixels.shape[0],
            data=data,
            look=seen.look,
            motion=seen.motion,
            regions=seen.regions,
        )

    def _heard(self, stream: Any, frame: Any, position: Fraction | None) -> AudioChunk | None:
        rate = frame.sample_rate
        if rate not in SOURCE_RATES:
            msg = f"a sample rate of {rate}"
            raise ValueError(msg)
        mono = recordings.mono_samples(frame, lambda what, _: self._count(self._microphone, what))
        ended = self._times.at(
            None if position is None else _ns(position + _length(frame)), "sound"
        )
        chunk, ahead = self._sound.push(mono, rate, ended)
        if ahead:
            self._count(self._microphone, "ahead")
        return chunk


class _Gathered:
    """Joins decoded frames of about 20 ms into blocks of 100 ms and makes chunks of them."""

    def __init__(self, site: str, source: str, hear: Hear | None) -> None:
        self._site, self._source, self._hear = site, source, hear
        self._rate = 0
        self._chunks: Chunks | None = None
        self._parts: list[Samples] = []

    @property
    def begun(self) -> bool:
        """Whether any sound has come."""
        return self._rate > 0

    def push(self, mono: Samples, rate: int, ended: int) -> tuple[AudioChunk | None, bool]:
        """A live block that has just ended; returns the next chunk, and whether it was early."""
        if rate != self._rate or self._chunks is None:
            seq = self._chunks.seq if self._chunks is not None else 0
            self._rate, self._parts = rate, []
            self._chunks = Chunks(self._site, self._source, rate, seq=seq, hear=self._hear)
        block = self._block(mono, rate)
        if block is None:
            return None, False
        ahead = self._chunks.ahead
        return self._chunks.push(block, ended), self._chunks.ahead > ahead

    def _block(self, samples: Samples, rate: int) -> Samples | None:
        self._parts.append(samples)
        if sum(map(len, self._parts)) * SECOND < BLOCK_LENGTH * rate:
            return None
        block = np.concatenate(self._parts)
        self._parts = []
        return block


def _length(frame: Any) -> Fraction:
    """The seconds of an audio frame."""
    return Fraction(frame.samples, frame.sample_rate) if frame.sample_rate > 0 else Fraction(0)


def _ns(seconds: Fraction | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)
