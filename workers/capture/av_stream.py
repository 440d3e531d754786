"""Reads live streams by PyAV, picture and sound on one clock."""

from __future__ import annotations

import logging
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
from workers.media.jpeg import fits
from workers.media.keyframes import KeyframeGate
from workers.media.motion import measured, model_for
from workers.media.pcm import SOURCE_RATES, Chunks
from workers.media.picture_decoder import OFF, SOFTWARE, PictureDecoder

log = logging.getLogger("fusewatch")

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
    nothing. `hwaccel` is the device that decodes pictures. `count(source, what)` counts frames and
    audio that could not be used. `decoder` says what decodes the pictures, and why it is software.
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
        hwaccel: str = OFF,
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
        self._reached = 0  # ns; no later frame starts before it
        self._spoke = clock()  # ns; when it last gave a frame or said that packets come
        self._broken_since: int | None = None  # ns; no picture could be decoded since then
        self.native: tuple[int, int] | None = None  # px, width and height before scaling
        self._sound = _Gathered(site, microphone, hear)
        self._container = (opened or open_stream)(address, patience)
        self._streams = chosen(self._container, site, camera, microphone, track, "stream")
        self._timeless = self._container.format.name in TIMELESS
        self.decoder = SOFTWARE
        if camera:
            self._open_decoder(self._streams[0], hwaccel)

    def _open_decoder(self, stream: Any, hwaccel: str) -> None:
        self._decoder = PictureDecoder(stream, hwaccel, self._without_device)
        if not self._decoder.in_software:
            self.decoder = self._decoder.name
            log.info("%s/%s: is decoded by %s", self._site, self._camera, self.decoder)
        self._intra = stream.codec_context.codec.intra_only  # every packet is a whole picture
        mode = "all" if self._intra else self._detect.decode  # none is left out then
        self._decode = KeyframeGate(
            self._decoder, mode, self._clock, self._without_keyframes, joins=not self._intra
        )

    def _without_device(self, why: str) -> None:
        self.decoder = f"{SOFTWARE}: {why}"
        self._count(self._camera, "hwaccel.failed")
        log.warning("%s/%s: is decoded in software: %s", self._site, self._camera, why)

    def _without_keyframes(self, why: str) -> None:
        self._count(self._camera, "keyframes.unusable")
        log.warning(
            "%s/%s: all frames are decoded, until it is connected again, since %s",
            self._site,
            self._camera,
            why,
        )

    def __iter__(self) -> Iterator[FrameChunk | AudioChunk | Progress]:
        for packet in self._packets():
            if packet.stream.type == "video":
                yield from self._pictures(packet)
            else:
                yield from self._sounds(packet)
        msg = "the stream stopped" if self._seq or self._sound.begun else "the stream is empty"
        raise SourceLost(msg)

    def close(self) -> None:
        """Closes the connection."""
        self._container.close()

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._streams)
        while True:
            try:
                yield next(packets)
            except (StopIteration, av.error.EOFError):
                return
            except BROKEN as error:
                raise SourceLost(why(error, "broke off")) from None

    def _position(self, timed: Any) -> int | None:
        """The stream's own time (ns) of a packet or frame, if it has one."""
        if self._timeless or timed.pts is None or timed.time_base is None:
            return None
        return _ns(timed.pts * timed.time_base)

    def _pictures(self, packet: Any) -> Iterator[FrameChunk | Progress]:
        start = None
        if self._intra and packet.size:
            start = self._times.at(self._position(packet), "picture")
            if not self._pace.would(start):  # no other picture needs it
                self._seq += 1
                return
        try:
            frames = self._decoded(packet)
        except BROKEN:
            self._bad_picture()
            yield from self._unreadable()
            return
        if not frames:
            yield from self._still_there()
        for left, frame in enumerate(frames, start=1 - len(frames)):
            at = self._times.at(self._position(frame), "picture") if start is None else start
            try:
                chunk = self._seen(packet.stream, frame, at, self._decode.sparse and not left)
            except BROKEN:  # the frame was decoded but cannot be converted or encoded again
                self._bad_picture()
                continue
            if chunk is not None:
                yield chunk

    def _decoded(self, packet: Any) -> list[Any]:
        position = None if self._decode.sparse or self._intra else self._position(packet)
        due = None if position is None else self._times.expected(position)
        unwanted = due is not None and not self._pace.would(due)
        self._decoder.skip_unwanted(unwanted)
        frames = self._decode.decode(packet)
        if unwanted and not frames and not self._decode.holds:
            self._seq += 1
        for _ in range(self._decode.take_left_out()):
            self._seq += 1
            self._count(self._camera, "gated.undecoded")
        return frames

    def _bad_picture(self) -> None:
        self._seq += 1
        self._count(self._camera, "dropped.undecodable")
        if self._broken_since is None:
            self._broken_since = self._clock()

    def _unreadable(self) -> Iterator[Progress]:
        """Says that the camera is lost where all that it sends for a while cannot be decoded."""
        now = self._clock()
        if self._broken_since is not None and now - self._broken_since > UNREADABLE_AFTER:
            yield Progress(
                site=self._site, source=self._camera, upto=now, alive=False, reason=UNREADABLE
            )

    def _still_there(self) -> Iterator[Progress]:
        """Says once a second that packets come while only keyframes are decoded."""
        now = self._clock()
        if self._decode.sparse and now - self._spoke >= SECOND:
            self._spoke = now
            yield Progress(site=self._site, source=self._camera, upto=self._reached)

    def _seen(self, stream: Any, frame: Any, start: int, alone: bool) -> FrameChunk | None:
        """The chunk of a frame that is wanted; `alone`: the frames after it are not decoded."""
        seq, self._seq = self._seq, self._seq + 1
        self._broken_since = None
        wanted = self._pace.wants(start)
        if not wanted and not (alone and self._decode.distance > self._pace.period):
            return None
        if not fits(frame.width, frame.height):
            self._count(self._camera, "dropped.size")
            return None
        self.native = frame.width, frame.height
        shape = recordings.stretch_of(stream, frame, self._aspect)
        picture = recordings.Picture(frame, self._detect.width, shape)
        jpeg = picture.jpeg()
        seen = measured(self._motion, picture.luma, start, sparse=alone)
        self._decode.looked(seen.look, start)
        lasts = self._decode.lasts(self._pace.period) if alone else self._pace.period
        self._spoke, self._reached = self._clock(), start + 1
        return FrameChunk(
            site=self._site,
            source=self._camera,
            start=start,
            end=start + lasts,
            seq=seq,
            width=jpeg.width,
            height=jpeg.height,
            data=jpeg.data,
            look=seen.look,
            motion=seen.motion,
            regions=seen.regions,
        )

    def _sounds(self, packet: Any) -> Iterator[AudioChunk]:
        try:
            frames = packet.decode()
        except BROKEN:
            self._count(self._microphone, "damaged")
            return
        for frame in frames:
            try:
                chunk = self._heard(frame)
            except BROKEN:
                self._count(self._microphone, "damaged")
                continue
            if chunk is not None:
                yield chunk

    def _heard(self, frame: Any) -> AudioChunk | None:
        rate = frame.sample_rate
        if rate not in SOURCE_RATES:
            msg = f"a sample rate of {rate}"
            raise ValueError(msg)
        mono = recordings.mono_samples(frame, lambda what, _: self._count(self._microphone, what))
        position = self._position(frame)
        ended = self._times.at(
            None if position is None else _ns(frame.pts * frame.time_base + _length(frame)), "sound"
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


def _ns(seconds: Fraction) -> int:
    return round(seconds * SECOND)
