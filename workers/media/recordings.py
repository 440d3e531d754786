"""Recorded media for scenes, by PyAV: a film by exact time, clips mixed to the sample.

Times are `Fraction` seconds from the first frame or sample, whatever the file calls that moment.
Decoding uses one thread, so that damaged files too give the same bytes every time.
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

FORMATS = (  # what FFmpeg may take a file for: no playlist, no script, no list of other files
    "mov,mp4,m4a,3gp,matroska,webm,avi,mpegts,mpeg,flv,asf,mjpeg,mpjpeg,h264,hevc,"
    "wav,w64,flac,ogg,mp3,aac,aiff,caf,au"
)
MIN_ROUND = Fraction(1, 25)  # s that one round of a looped film takes at least
_LOUDEST = 1e6  # a float sample beyond it is a fault, not a sound
_SCALES = {"u8": 128, "s16": 2**15, "s32": 2**31, "s64": 2**63, "flt": 1, "dbl": 1}

av.logging.set_level(None)  # FFmpeg's own lines may quote addresses


class Unplayable(ConfigError):
    """A file that is not there or does not hold what it should."""


class Picture:
    """A decoded frame, turned into pixels only when somebody wants them."""

    def __init__(self, frame: Any, longest: int, *, black: bool = False) -> None:
        self._frame = frame
        self._longest = longest
        self._black = black

    def dark(self) -> Picture:
        """The same picture with the light off."""
        return Picture(self._frame, self._longest, black=True)

    def pixels(self) -> Pixels:
        """BGR, the longest side as asked, turned as the file says."""
        width, height = fitted(self._frame.width, self._frame.height, self._longest)
        if self._black:
            pixels: Pixels = np.zeros((height, width, 3), np.uint8)
        else:
            small = self._frame.reformat(width, height, format="bgr24", interpolation="AREA")
            pixels = small.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, round(self._frame.rotation / 90)))


class Playing(Protocol):
    """The pictures of a video by time, which only goes forward."""

    def at(self, time: Fraction) -> Picture | None: ...
    def close(self) -> None: ...


MakeFilm = Callable[..., Playing]  # as Film is made


class Video:
    """The pictures of a video file by time, which only goes forward; one frame is held.

    `count(what)` is told of each frame that cannot be used: damaged, untimed, rewound, too large.
    """

    def __init__(
        self, path: Path, longest: int, *, loop: bool, count: Callable[[str], None]
    ) -> None:
        self._path = path
        self._longest = longest
        self._loop = loop
        self._count = count
        self._begun = Fraction()  # when this round of a loop began
        self._lasts = Fraction()  # how long a round is, as far as it was seen
        self._now: Any = None
        self._next: tuple[Fraction, Any] | None = None
        self._frames = self._timed()
        self._step()
        if self._next is None:
            msg = f"{path}: no picture can be decoded"
            raise Unplayable(msg)

    def at(self, time: Fraction) -> Picture | None:
        """The last frame with pts <= `time`, or None after the end of the film."""
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
        """Let go of the file."""
        self._frames.close()

    def _step(self) -> None:
        self._next = next(self._frames, None)

    def _timed(self) -> Generator[tuple[Fraction, Any]]:
        """(seconds since the first frame, frame), strictly forward."""
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
    """Clips laid on silence: 16 kHz mono, summed in float32 and clipped once, as s16le.

    `clips` are (file, seconds at which it begins, gain in dB); `total` samples are made.
    `count(what, n)` is told of damage. Asked for in order, so that long clips need no memory.
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
        """Samples `[first, last)`; `first` is where the last call ended."""
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
        """Add the clip to `mixed`; what is left of its block, or None at its end."""
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
    """A file's sound in blocks: mean of its channels, 16 kHz (soxr HQ), float32 -1 to 1."""
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
            mono, bad = heard(frame)
            if bad:
                count("repaired.not-finite", bad)
            yield mono if rate == RATE else stream.resample_chunk(mono, last=False)
        if stream is not None and rate != RATE:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def heard(frame: Any) -> tuple[Samples, int]:
    """A decoded audio frame as the mean of its channels, and how many samples were no numbers."""
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
    """Seconds from the first frame to the end of the last; one frame only unless `whole`."""
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
    """Seconds of sound; its first frame only unless `whole`."""
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
    """The file as a container with a stream of `kind`; raises Unplayable."""
    if not os.path.isfile(path):  # a name that is too long is no error here
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
    """The stream's packets up to its end, or to where the file is cut off."""
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
