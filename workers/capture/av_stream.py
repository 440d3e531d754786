"""Reads streams and recordings by PyAV, picture and sound on one clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from models.hearing.waveform import RATE, Samples
from pipeline.config.schema import Detect
from pipeline.errors import SourceLost
from pipeline.types import SECOND, AudioChunk, FrameChunk
from workers.capture.clock import Clock, FrameRateLimiter, PlaybackPacer, StreamClock
from workers.capture.reach import reach
from workers.config.source_address import NETWORK_SCHEMES, Address
from workers.media import containers, recordings
from workers.media.containers import BROKEN, TIMELESS, Unplayable
from workers.media.jpeg import MAX_SIDE, encoded
from workers.media.pcm import SOURCE_RATES, Chunks, Resampler
from workers.media.recording_reader import RecordingReader

STREAM_TIMEOUT = 5.0  # s to connect, and to wait for what comes next
STEP = Fraction(1, 2)  # s; in which a hole of a recording passes
# s that sound may stand behind the picture in a file; what is then missing is silence
INTERLEAVED = Fraction(1)
BLOCK_LENGTH = SECOND // 10  # ns of audio that one block gathers

_HOPELESS: dict[type[Exception], str] = {  # FFmpeg's errors that have a known cause
    av.error.HTTPUnauthorizedError: "refuses user or password",
    av.error.HTTPForbiddenError: "refuses user or password",
    av.error.HTTPNotFoundError: "has no stream of that path",
    av.error.TimeoutError: "does not answer in time",
    av.error.ExitError: "does not answer in time",
    av.error.ConnectionRefusedError: "refuses the connection",
}
log = logging.getLogger("fusewatch")


class MediaSource:
    """One connection to a stream; raises SourceLost when it cannot be opened, ends or hangs.

    `camera` and `microphone` are the names of the sources that the stream feeds; either may be
    empty. `track` is the number of the sound track. A file plays at its own speed, on the line of
    time of `timeline`, and its end raises nothing. `patience` is how many seconds it may send
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
        patience: float = STREAM_TIMEOUT,
        clock: Clock,
        count: Callable[[str, str], None],
        wait: Callable[[float], None] = time.sleep,
        opened: Callable[[Address, float], Any] | None = None,
    ) -> None:
        self._recorded = address.scheme == "file"
        self._site = site
        self._camera = camera
        self._microphone = microphone
        self._detect = detect or Detect()
        self._aspect = recordings.aspect_ratio(self._detect.aspect)
        self._clock = clock
        self._count = count
        self._speed = PlaybackPacer(clock, wait)
        self._times = StreamClock(clock)
        self._pace = FrameRateLimiter(self._detect.fps)
        self._seq = 0
        self._played = Fraction(0)  # s; how far a file has been played
        self._sound = _Gathered(site, microphone)
        self._container = (opened or _opened)(address, patience)
        try:
            self._streams = self._chosen(track)
        except LookupError as error:
            self._container.close()
            msg = f"the {'file' if self._recorded else 'stream'} {error}"
            raise SourceLost(msg) from None

    def __iter__(self) -> Iterator[FrameChunk | AudioChunk]:
        return self._recording() if self._recorded else self._live()

    def close(self) -> None:
        """Closes the connection."""
        self._container.close()

    def _chosen(self, track: int | None) -> list[Any]:
        streams = []
        if self._camera:
            streams.append(containers.picture_track(self._container))
        if self._microphone:
            streams.append(containers.sound_track(self._container, track or 1))
            tracks = len(self._container.streams.audio)
            if tracks > 1 and track is None:
                log.warning(
                    "%s/%s: there are %d sound tracks, and the first is taken; `track` chooses",
                    self._site,
                    self._microphone,
                    tracks,
                )
        return streams

    def _recording(self) -> Iterator[FrameChunk | AudioChunk]:
        """Plays a file: each frame when it is due, and silence where it has no sound."""
        told = RecordingReader(self._container, self._streams, lambda stream, _: self._bad(stream))
        self._speed.hold(0)
        for stream, at, frame in told:
            if at is not None:
                yield from self._until(at + _length(frame) if stream.type == "audio" else at)
            yield from self._made(stream, frame, at)
        rest = self._sound.end(self._times)
        if rest is not None:
            yield rest

    def _until(self, due: Fraction) -> Iterator[AudioChunk]:
        """Waits until `due` on the line of time; a hole passes in steps, and silence goes on."""
        while self._played < due:
            self._played = min(self._played + STEP, due)
            self._speed.hold(round(self._played * SECOND))
            rate = self._streams[-1].codec_context.sample_rate if self._microphone else 0
            if rate in SOURCE_RATES:
                silent = self._sound.silent_until(self._played - INTERLEAVED, rate, self._times)
                if silent is not None:
                    yield silent

    def _live(self) -> Iterator[FrameChunk | AudioChunk]:
        """Takes frames as they come; raises SourceLost at the end."""
        timeless = self._container.format.name in TIMELESS
        for stream, frame in self._frames():
            timed = not timeless and frame.pts is not None and frame.time_base is not None
            yield from self._made(stream, frame, frame.pts * frame.time_base if timed else None)
        msg = "the stream stopped" if self._seq or self._sound.begun else "the stream is empty"
        raise SourceLost(msg)

    def _frames(self) -> Iterator[tuple[Any, Any]]:
        """Yields (stream, frame) in the order of the stream; counts packets it cannot decode."""
        packets = self._container.demux(self._streams)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except BROKEN as error:
                raise SourceLost(_why(error, "broke off")) from None
            try:
                frames = packet.decode()
            except BROKEN:
                self._bad(packet.stream)
                continue
            yield from ((packet.stream, frame) for frame in frames)

    def _made(
        self, stream: Any, frame: Any, position: Fraction | None
    ) -> Iterator[FrameChunk | AudioChunk]:
        made = self._seen if stream.type == "video" else self._heard
        try:
            chunk = made(stream, frame, position)
        except BROKEN:  # the frame was decoded but cannot be converted or encoded again
            self._bad(stream)
            return
        if chunk is not None:
            yield chunk

    def _bad(self, stream: Any) -> None:
        if stream.type == "video":
            self._seq += 1
            self._count(self._camera, "dropped.undecodable")
        else:
            self._count(self._microphone, "damaged")

    def _seen(self, stream: Any, frame: Any, position: Fraction | None) -> FrameChunk | None:
        start = self._times.at(_ns(position), "picture")
        seq, self._seq = self._seq, self._seq + 1
        if not self._pace.wants(start):
            return None
        if not 0 < max(frame.width, frame.height) <= MAX_SIDE:
            self._count(self._camera, "dropped.size")
            return None
        shape = recordings.stretch_of(stream, frame, self._aspect)
        pixels = recordings.Picture(frame, self._detect.width, shape).pixels()
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

    def _heard(self, stream: Any, frame: Any, position: Fraction | None) -> AudioChunk | None:
        rate = frame.sample_rate
        if rate not in SOURCE_RATES:
            msg = f"a sample rate of {rate}"
            raise ValueError(msg)
        mono = recordings.mono_samples(frame, lambda what, _: self._count(self._microphone, what))
        if self._recorded:
            return self._sound.placed(mono, rate, position, self._times)
        ended = self._times.at(
            None if position is None else _ns(position + _length(frame)), "sound"
        )
        chunk, ahead = self._sound.push(mono, rate, ended)
        if ahead:
            self._count(self._microphone, "ahead")
        return chunk


class _Gathered:
    """Joins decoded frames of about 20 ms into blocks of 100 ms and makes chunks of them."""

    def __init__(self, site: str, source: str) -> None:
        self._site, self._source = site, source
        self._rate = 0
        self._chunks: Chunks | None = None
        self._line = Resampler()
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
            self._chunks = Chunks(self._site, self._source, rate, seq=seq)
        block = self._block(mono, rate)
        if block is None:
            return None, False
        ahead = self._chunks.ahead
        return self._chunks.push(block, ended), self._chunks.ahead > ahead

    def placed(
        self, mono: Samples, rate: int, at: Fraction | None, times: StreamClock
    ) -> AudioChunk | None:
        """A block of a recording, at its time on the line."""
        self._rate = rate
        block = self._block(self._line.push(mono, rate, at), RATE)
        return None if block is None else self._chunk(block, self._line.made, times)

    def silent_until(self, at: Fraction, rate: int, times: StreamClock) -> AudioChunk | None:
        """Silence of a recording from where its sound has ended to `at`."""
        return self.placed(np.zeros(0, np.float32), rate, at, times)

    def end(self, times: StreamClock) -> AudioChunk | None:
        """What is left of a recording at its end."""
        self._parts.append(self._line.end())
        block = np.concatenate(self._parts)
        self._parts = []
        return self._chunk(block, self._line.made, times) if len(block) else None

    def _block(self, samples: Samples, rate: int) -> Samples | None:
        self._parts.append(samples)
        if sum(map(len, self._parts)) * SECOND < BLOCK_LENGTH * rate:
            return None
        block = np.concatenate(self._parts)
        self._parts = []
        return block

    def _chunk(self, block: Samples, made: int, times: StreamClock) -> AudioChunk | None:
        if self._chunks is None:
            self._chunks = Chunks(self._site, self._source, RATE)
        return self._chunks.push(block, times.at(made * SECOND // RATE, "sound"))


def _length(frame: Any) -> Fraction:
    """The seconds of an audio frame."""
    return Fraction(frame.samples, frame.sample_rate) if frame.sample_rate > 0 else Fraction(0)


def _ns(seconds: Fraction | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)


def _opened(address: Address, patience: float) -> Any:
    if address.scheme == "file":
        try:
            return containers.open_file(Path(address.target))
        except Unplayable as error:
            msg = f"the file: {str(error).partition(': ')[2]}"
            raise SourceLost(msg) from None
    if address.scheme not in NETWORK_SCHEMES:
        msg = "a device carries no stream"
        raise SourceLost(msg)
    reach(address, STREAM_TIMEOUT)
    try:
        return av.open(
            address.target,
            options=containers.options(address.scheme),
            timeout=(STREAM_TIMEOUT, patience),
        )
    except BROKEN as error:
        raise SourceLost(_why(error, "cannot be opened")) from None  # the cause quotes the address


def _why(error: Exception, otherwise: str) -> str:
    """Our text for an FFmpeg error; FFmpeg's own text quotes the address."""
    return "the stream " + _HOPELESS.get(type(error), otherwise)
