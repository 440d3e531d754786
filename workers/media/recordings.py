"""Reads recorded media for scenes with PyAV: video by exact time, clips mixed by sample.

Times are `Fraction` seconds from the first frame or sample, whatever time the file gives it.
Decoding uses one thread, so that even damaged files give the same bytes every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import soxr

from models.hearing.waveform import RATE, Samples
from pipeline.errors import ConfigError
from workers.media.jpeg import MAX_SIDE, Pixels, fitted
from workers.media.pcm import SOURCE_RATES, to_s16

FORMATS = (  # formats that FFmpeg may detect: no playlist, no script, no list of other files
    "mov,mp4,m4a,3gp,matroska,webm,avi,mpegts,mpeg,flv,asf,mjpeg,mpjpeg,h264,hevc,"
    "wav,w64,flac,ogg,mp3,aac,aiff,caf,au"
)
MIN_ROUND = Fraction(1, 25)  # s; shortest round of a looped video
_LOUDEST = 1e6  # a larger float sample is a fault, not a sound
_SCALES = {"u8": 128, "s16": 2**15, "s32": 2**31, "s64": 2**63, "flt": 1, "dbl": 1}

av.logging.set_level(None)  # FFmpeg's own lines may quote addresses


class Unplayable(ConfigError):
    """A file is missing or does not contain the expected media."""


class Picture:
    """A decoded frame that is converted to pixels only on demand."""

    def __init__(self, frame: Any, longest: int, *, black: bool = False) -> None:
        self._frame = frame
        self._longest = longest
        self._black = black

    def dark(self) -> Picture:
        """Returns a black picture of the same size."""
        return Picture(self._frame, self._longest, black=True)

    def pixels(self) -> Pixels:
        """Returns BGR pixels, scaled to the longest side, rotated as the file says."""
        width, height = fitted(self._frame.width, self._frame.height, self._longest)
        if self._black:
            pixels: Pixels = np.zeros((height, width, 3), np.uint8)
        else:
            small = self._frame.reformat(width, height, format="bgr24", interpolation="AREA")
            pixels = small.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, round(self._frame.rotation / 90)))


class VideoReader(Protocol):
    """The pictures of a video by time, in ascending order of time."""

    def at(self, time: Fraction) -> Picture | None: ...
    def close(self) -> None: ...


OpenVideo = Callable[..., VideoReader]  # with the arguments of Video


class Video:
    """Returns the pictures of a video file by ascending time; holds one frame.

    `count(what)` is called for each unusable frame: damaged, untimed, rewound, too large. Raises
    Unplayable.
    """

    def __init__(
        self, path: Path, longest: int, *, loop: bool, count: Callable[[str], None]
    ) -> None:
        self._path = path
        self._longest = longest
        self._loop = loop
        self._count = count
        self._begun = Fraction()  # start of this round of a loop
        self._lasts = Fraction()  # length of a round, as far as known
        self._now: Any = None
        self._next: tuple[Fraction, Any] | None = None
        self._frames = self._timed()
        self._step()
        if self._next is None:
            msg = f"{path}: no picture can be decoded"
            raise Unplayable(msg)

    def at(self, time: Fraction) -> Picture | None:
        """Returns the last frame with pts <= `time`, or None after the end of the video."""
        while self._next is not None and self._begun + self._next[0] <= time:
            self._now = self._next[1]
            self._step()
            if self._next is None and self._loop:
                self._begun += max(self._lasts, MIN_ROUND)
                self._frames = self._timed()
                self._step()
        ended = self._next is None and time >= self._begun + self._lasts
        return None if ended else Picture(self._now, self._longest)

    def close(self) -> None:
        """Closes the file."""
        self._frames.close()

    def _step(self) -> None:
        self._next = next(self._frames, None)

    def _timed(self) -> Generator[tuple[Fraction, Any]]:
        """Yields (seconds since the first frame, frame), strictly ascending."""
        first: Fraction | None = None
        last = Fraction(-1)
        with _opened(self._path, "video") as container:
            for frame in _decoded(container, container.streams.video[0], self._count):
                if frame.pts is None or frame.time_base is None:
                    self._count("unusable.untimed")
                    continue
                if not 0 < max(frame.width, frame.height) <= MAX_SIDE:
                    self._count("unusable.size")
                    continue
                pts = frame.pts * frame.time_base
                first = pts if first is None else first
                if pts - first <= last:
                    self._count("unusable.rewound")
                    continue
                gap = pts - first - last if last >= 0 else MIN_ROUND
                last = pts - first
                self._lasts = last + max((frame.duration or 0) * frame.time_base, gap)
                yield last, frame


class AudioMix:
    """Mixes clips onto silence: 16 kHz mono, summed in float32, clipped once, s16le.

    `clips` are (file, start in seconds, gain in dB); the mix has `total` samples. `count(what, n)`
    is called for damage. Samples are requested in order, so long clips need no memory.
    """

    def __init__(
        self,
        clips: Sequence[tuple[Path, Fraction, float]],
        total: int,
        count: Callable[[str, int], None],
    ) -> None:
        self._waiting = sorted(
            ((round(at * RATE), path, gain) for path, at, gain in clips), key=lambda clip: clip[0]
        )
        self._playing: list[tuple[Iterator[Samples], Samples, np.float32]] = []
        self._total = total
        self._count = count
        self._at = 0

    def between(self, first: int, last: int) -> bytes:
        """Returns samples `[first, last)`; `first` is the end of the last call, else ValueError."""
        if first != self._at or last > self._total:
            msg = f"samples [{first}, {last}) asked at {self._at} of {self._total}"
            raise ValueError(msg)
        mixed = np.zeros(last - first, np.float32)
        still = []
        for blocks, rest, gain in self._playing:
            left = self._add(mixed, blocks, rest, gain)
            if left is not None:
                still.append((blocks, left, gain))
        while self._waiting and self._waiting[0][0] < last:
            at, path, gain_db = self._waiting.pop(0)
            gain = np.float32(10 ** (gain_db / 20))
            blocks = sound(path, self._count)
            left = self._add(mixed[at - first :], blocks, np.zeros(0, np.float32), gain)
            if left is not None:
                still.append((blocks, left, gain))
        self._playing = still
        self._at = last
        return to_s16(mixed)

    @staticmethod
    def _add(
        mixed: Samples, blocks: Iterator[Samples], rest: Samples, gain: np.float32
    ) -> Samples | None:
        """Adds the clip to `mixed`; returns the rest of its block, or None at the end of the
        clip."""
        done = 0
        while done < len(mixed):
            if not len(rest):
                block = next(blocks, None)
                if block is None:
                    return None
                rest = block
            n = min(len(rest), len(mixed) - done)
            mixed[done : done + n] += rest[:n] * gain
            rest, done = rest[n:], done + n
        return rest


def sound(path: Path, count: Callable[[str, int], None]) -> Iterator[Samples]:
    """Yields a file's sound in blocks: mean of its channels, 16 kHz (soxr HQ), float32 -1 to 1.

    Raises Unplayable.
    """
    with _opened(path, "audio") as container:
        stream: Any = None
        rate = 0
        for frame in _decoded(container, container.streams.audio[0], lambda what: count(what, 1)):
            if rate == 0:
                rate = frame.sample_rate
                stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
            if frame.sample_rate != rate:
                msg = f"{path}: its sample rate changes from {rate} to {frame.sample_rate}"
                raise Unplayable(msg)
            mono, bad = mono_samples(frame)
            if bad:
                count("repaired.not-finite", bad)
            yield mono if rate == RATE else stream.resample_chunk(mono, last=False)
        if stream is not None and rate != RATE:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def mono_samples(frame: Any) -> tuple[Samples, int]:
    """Returns an audio frame as the mean of its channels, and the number of invalid samples."""
    kind = frame.format.name.removesuffix("p")
    raw = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, len(frame.layout.channels)).T
    shifted = raw.astype(np.float32) - (128 if kind == "u8" else 0)
    values: Samples = shifted / np.float32(_SCALES[kind])
    sane = np.abs(values) < _LOUDEST  # False for NaN too
    bad = int(values.size - np.count_nonzero(sane))
    if bad:
        values = np.where(sane, values, np.float32(0))
    return values.mean(axis=0, dtype=np.float32), bad


def video_length(path: Path, *, whole: bool) -> Fraction:
    """Returns the seconds from the first frame to the end of the last; 0 unless `whole`.

    Decodes one frame to check the file. Raises Unplayable.
    """
    film = Video(path, 16, loop=False, count=lambda _: None)
    film.close()
    if not whole:
        return Fraction()
    with _opened(path, "video") as container:
        stream = container.streams.video[0]
        lasts = {p.pts: p.duration or 0 for p in _packets(container, stream) if p.pts is not None}
        base: Fraction = stream.time_base or Fraction(0)
    ticks = sorted(lasts)
    gap = (ticks[-1] - ticks[-2]) * base if len(ticks) > 1 else MIN_ROUND
    whole_film: Fraction = (ticks[-1] - ticks[0]) * base + max(lasts[ticks[-1]] * base, gap)
    return whole_film


def clip_length(path: Path, *, whole: bool) -> Fraction:
    """Returns the seconds of sound; only of the first frame unless `whole`. Raises Unplayable."""
    samples = rate = 0
    with _opened(path, "audio") as container:
        for frame in _decoded(container, container.streams.audio[0], lambda _: None):
            samples, rate = samples + frame.samples, frame.sample_rate
            if not whole:
                break
    if not samples:
        msg = f"{path}: no sound can be decoded"
        raise Unplayable(msg)
    if rate not in SOURCE_RATES:
        msg = (
            f"{path}: its sample rate is {rate}; {SOURCE_RATES[0]} to {SOURCE_RATES[-1]} are known"
        )
        raise Unplayable(msg)
    return Fraction(samples, rate)


def _opened(path: Path, kind: str) -> Any:
    """Opens the file as a container with a stream of `kind`; raises Unplayable."""
    if not os.path.isfile(path):  # returns False for a name that is too long
        msg = f"{path}: there is no such file"
        raise Unplayable(msg)
    if path.stat().st_size == 0:
        msg = f"{path}: is empty"
        raise Unplayable(msg)
    limits = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path.absolute()}", options=limits)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        msg = f"{path}: is not media that can be read ({getattr(error, 'strerror', '') or error})"
        raise Unplayable(msg) from error
    streams = container.streams.video if kind == "video" else container.streams.audio
    if not streams or streams[0].codec_context is None:
        container.close()
        msg = f"{path}: holds no {'picture' if kind == 'video' else 'sound'}"
        raise Unplayable(msg)
    streams[0].codec_context.thread_count = 1
    return container


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yields the stream's packets up to its end, or to where the file is cut off."""
    packets = container.demux(stream)
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.error.FFmpegError):
            return


def _decoded(container: Any, stream: Any, count: Callable[[str], None]) -> Iterator[Any]:
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            count("unusable.undecodable")
            continue
        yield from frames
