"""Reads streams and files that carry audio, with or without video, by PyAV, on one clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np

from models.hearing.waveform import Samples
from pipeline.config.schema import Detect
from pipeline.errors import SourceLost
from pipeline.types import SECOND, AudioChunk, FrameChunk
from workers.capture.clock import Clock, FrameRateLimiter, PlaybackPacer, StreamClock
from workers.capture.stream_opening import BROKEN, open_stream, why, without_decoder
from workers.config.source_address import Address
from workers.media import recordings
from workers.media.jpeg import MAX_SIDE, encoded
from workers.media.pcm import SOURCE_RATES, Chunks

BLOCK_LENGTH = SECOND // 10  # ns of audio that one block gathers


class MediaSource:
    """One connection to a stream; raises SourceLost when it cannot be opened, ends or hangs.

    `camera` and `microphone` are the names of the sources that the stream feeds; either may be
    empty. A file plays at its own speed, and its end raises nothing. `count(source, what)` counts
    frames and audio that could not be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        address: Address,
        site: str,
        *,
        camera: str = "",
        microphone: str = "",
        detect: Detect | None = None,
        clock: Clock,
        count: Callable[[str, str], None],
        wait: Callable[[float], None] = time.sleep,
        opened: Callable[[Address], Any] | None = None,
    ) -> None:
        self._address = address
        self._site = site
        self._camera = camera
        self._microphone = microphone
        self._detect = detect or Detect()
        self._clock = clock
        self._count = count
        self._speed = PlaybackPacer(clock, wait)
        self._times = StreamClock(clock)
        self._pace = FrameRateLimiter(self._detect.fps)
        self._seq = 0
        self.native: tuple[int, int] | None = None  # px, width and height before scaling
        self._sound: _Gathered | None = None
        self._container = (opened or open_stream)(address)
        self._streams = self._chosen()

    def __iter__(self) -> Iterator[FrameChunk | AudioChunk]:
        for stream, frame in self._frames():
            position = _ended(frame)
            if self._address.scheme == "file" and position is not None:
                self._speed.hold(position, stream.type)
            made = self._seen if stream.type == "video" else self._heard
            try:
                chunk = made(frame, position)
            except BROKEN:  # the frame was decoded but cannot be converted or encoded again
                self._bad(stream)
                continue
            if chunk is not None:
                yield chunk
        if self._address.scheme != "file":
            msg = "the stream stopped"
            raise SourceLost(msg)

    def close(self) -> None:
        """Closes the connection."""
        self._container.close()

    def _chosen(self) -> list[Any]:
        streams = []
        for name, kind, found in (
            (self._camera, "picture", self._container.streams.video),
            (self._microphone, "sound", self._container.streams.audio),
        ):
            if name and (reason := without_decoder(self._container, kind)):
                self._container.close()
                raise SourceLost(reason)
            if name:
                found[0].codec_context.thread_count = 1  # each further thread delays by a frame
                streams.append(found[0])
        return streams

    def _frames(self) -> Iterator[tuple[Any, Any]]:
        """Yields (stream, frame) in the order of the stream; counts packets it cannot decode."""
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
                self._damaged(packet.stream)
                continue
            yield from ((packet.stream, frame) for frame in frames)

    def _damaged(self, stream: Any) -> None:
        if stream.type == "video":
            self._seq += 1
        self._bad(stream)

    def _bad(self, stream: Any) -> None:
        if stream.type == "video":
            self._count(self._camera, "dropped.undecodable")
        else:
            self._count(self._microphone, "damaged")

    def _seen(self, frame: Any, position: int | None) -> FrameChunk | None:
        start = self._times.at(position, "picture")
        seq, self._seq = self._seq, self._seq + 1
        if not self._pace.wants(start):
            return None
        if not 0 < max(frame.width, frame.height) <= MAX_SIDE:
            self._count(self._camera, "dropped.size")
            return None
        self.native = frame.width, frame.height
        pixels = recordings.Picture(frame, self._detect.width).pixels()
        return FrameChunk(
            site=self._site,
            source=self._camera,
            start=start,
            end=start + self._pace.period,
            seq=seq,
            width=pixels.shape[1],
            height=pixels.shape[0],
            data=encoded(pixels),
        )

    def _heard(self, frame: Any, position: int | None) -> AudioChunk | None:
        rate = frame.sample_rate
        if rate not in SOURCE_RATES:
            msg = f"a sample rate of {rate}"
            raise ValueError(msg)
        if self._sound is None or self._sound.rate != rate:
            self._sound = _Gathered(self._site, self._microphone, rate)
        ended = self._times.at(position, "sound")
        mono, bad = recordings.mono_samples(frame)
        if bad:
            self._count(self._microphone, "repaired.not-finite")
        ahead = self._sound.chunks.ahead
        chunk = self._sound.push(mono, ended)
        if self._sound.chunks.ahead > ahead:
            self._count(self._microphone, "ahead")
        return chunk


class _Gathered:
    """Joins decoded frames of about 20 ms into blocks of 100 ms and makes chunks of them."""

    def __init__(self, site: str, source: str, rate: int) -> None:
        self.rate = rate
        self.chunks = Chunks(site, source, rate)
        self._parts: list[Samples] = []

    def push(self, mono: Samples, ended: int) -> AudioChunk | None:
        self._parts.append(mono)
        if sum(map(len, self._parts)) * SECOND < BLOCK_LENGTH * self.rate:
            return None
        block = np.concatenate(self._parts)
        self._parts.clear()
        return self.chunks.push(block, ended)


def _ended(frame: Any) -> int | None:
    """Position in the stream (ns) of a picture, or of the end of a piece of audio.

    Video and audio of one stream count from the same moment.
    """
    if frame.pts is None or frame.time_base is None:
        return None
    position = round(frame.pts * frame.time_base * SECOND)
    if isinstance(frame, av.AudioFrame) and frame.sample_rate > 0:
        position += frame.samples * SECOND // frame.sample_rate
    return int(position)
