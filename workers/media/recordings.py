"""Reads recorded media for scenes with PyAV: video by exact time, clips mixed by sample.

Times are `Fraction` seconds from the earliest track of the file (`timeline`). Decoding uses one
thread, so that even damaged files give the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.hearing.waveform import RATE, Samples
from workers.media.containers import Unplayable, converted, open_file, picture_track, sound_track
from workers.media.jpeg import Pixels, encoded, fits, fitted
from workers.media.motion import HEIGHT, WIDTH, Luma, small_luma
from workers.media.pcm import SOURCE_RATES, Resampler, downmixed, to_s16
from workers.media.recording_reader import RecordingReader
from workers.media.timeline import believed

__all__ = [
    "AudioMix",
    "Picture",
    "Unplayable",
    "Video",
    "clip_length",
    "sound",
    "sound_tracks",
    "video_length",
]

MIN_ROUND = Fraction(1, 25)  # s; shortest round of a looped video
MAX_STRETCH = Fraction(8)  # a pixel that is more than so many times wider than high is a fault
SQUARE = Fraction(1)
HELD = Fraction(2)  # s that a picture is held at least; three frame periods if that is more
_LOUDEST = 1e6  # a larger float sample is a fault, not a sound
_SCALES = {"u8": 128, "s16": 2**15, "s32": 2**31, "s64": 2**63, "flt": 1, "dbl": 1}


class Jpeg(NamedTuple):
    """One JPEG and its size in pixels."""

    data: bytes
    width: int
    height: int


class Picture:
    """A decoded frame that is converted to pixels and to JPEG only on demand, and once.

    `stretch` is how many times wider than high a pixel is (the sample aspect ratio).
    """

    _jpeg: Jpeg | None = None

    def __init__(
        self, frame: Any, longest: int, stretch: Fraction = SQUARE, *, black: bool = False
    ) -> None:
        self._frame = frame
        self._longest = longest
        self._stretch = stretch
        self._black = black

    def jpeg(self) -> Jpeg:
        """Returns the JPEG of `pixels`; a picture that is shown again is not encoded again."""
        if self._jpeg is None:
            pixels = self.pixels()
            self._jpeg = Jpeg(encoded(pixels), pixels.shape[1], pixels.shape[0])
        return self._jpeg

    def dark(self) -> Picture:
        """Returns a black picture of the same size."""
        return Picture(self._frame, self._longest, self._stretch, black=True)

    def pixels(self) -> Pixels:
        """Returns BGR pixels, scaled to the longest side, rotated as the file says."""
        width, height = fitted(*_stretched(self._frame, self._stretch), self._longest)
        if self._black:
            pixels: Pixels = np.zeros((height, width, 3), np.uint8)
        else:
            small = converted(self._frame, width, height, format="bgr24", interpolation="AREA")
            pixels = small.to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, round(self._frame.rotation / 90)))

    def luma(self) -> Luma:
        """Returns the small luma in which motion is measured, turned as `pixels` are."""
        if self._black:
            return np.zeros((HEIGHT, WIDTH), np.uint8)
        return small_luma(_luma_plane(self._frame), round(self._frame.rotation / 90))


def _luma_plane(frame: Any) -> NDArray[np.uint8]:
    """The luma of a frame: that of the decoder without a copy, where it has one of 8 bits."""
    kind, plane = frame.format, frame.planes[0]
    planar = (kind.is_planar and not kind.is_rgb) or kind.name == "gray"
    if planar and kind.components[0].bits == 8 and plane.line_size >= frame.width:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return rows[: frame.height, : frame.width]
    return converted(frame, format="gray").to_ndarray()  # type: ignore[no-any-return]


class VideoReader(Protocol):
    """The pictures of a video by time, in ascending order of time."""

    def at(self, time: Fraction) -> Picture | str: ...
    def close(self) -> None: ...


def aspect_ratio(text: str | None) -> Fraction | None:
    """`detect.aspect` as a number: 16:9 is 16/9."""
    if text is None:
        return None
    wide, _, high = text.partition(":")
    return Fraction(int(wide), int(high))


def stretch_of(stream: Any, frame: Any, aspect: Fraction | None) -> Fraction:
    """The sample aspect ratio of a frame: what the config says the picture is, else the stream.

    `aspect` is width by height of the whole picture. An unbelievable ratio counts as square.
    """
    if aspect is not None:
        wide = frame.rotation % 180 == 0
        return (aspect if wide else 1 / aspect) * Fraction(frame.height, frame.width)
    ratio = stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio
    return ratio if ratio is not None and 1 / MAX_STRETCH <= ratio <= MAX_STRETCH else SQUARE


def _stretched(frame: Any, stretch: Fraction) -> tuple[int, int]:
    """The size in square pixels; the longer way, so that no picture loses detail."""
    if stretch >= 1:
        return round(frame.width * stretch), frame.height
    return frame.width, round(frame.height / stretch)


OpenVideo = Callable[..., VideoReader]  # with the arguments of Video


class Video:
    """Returns the pictures of a video file by ascending time; holds one frame.

    A picture is held for `held` seconds at most: what comes later is a hole, in which nothing is
    seen. `aspect` is that of the config, if any. `count(what)` is called for each unusable frame:
    damaged, untimed, rewound, too large. Raises Unplayable.
    """

    def __init__(
        self,
        path: Path,
        longest: int,
        *,
        loop: bool,
        count: Callable[[str], None],
        held: Fraction = HELD,
        aspect: Fraction | None = None,
    ) -> None:
        self._path = path
        self._longest = longest
        self._loop = loop
        self._count = count
        self._held = held
        self._aspect = aspect
        self._begun = Fraction()  # start of this round of a loop
        self._lasts = Fraction()  # length of a round, as far as known
        self._now: tuple[Fraction, Picture] | None = None
        self._next: tuple[Fraction, Picture] | None = None
        self._frames = self._timed()
        self._step()
        if self._next is None:
            msg = f"{path}: no picture can be decoded"
            raise Unplayable(msg)

    def at(self, time: Fraction) -> Picture | str:
        """Returns the last frame with pts <= `time`, or the reason why there is none."""
        while self._next is not None and self._begun + self._next[0] <= time:
            self._now = (self._begun + self._next[0], self._next[1])
            self._step()
            if self._next is None and self._loop:
                self._begun += max(self._lasts, MIN_ROUND)
                self._frames = self._timed()
                self._step()
        if self._next is None and time >= self._begun + self._lasts:
            return "the video has ended"
        if self._now is None or time - self._now[0] > self._held:
            return "the video has no picture here"
        return self._now[1]

    def close(self) -> None:
        """Closes the file."""
        self._frames.close()

    def _step(self) -> None:
        self._next = next(self._frames, None)

    def _timed(self) -> Generator[tuple[Fraction, Picture]]:
        """Yields (seconds on the file's line of time, picture), strictly ascending."""
        last: Fraction | None = None
        with closing(open_file(self._path)) as container:
            stream = _track(container, self._path, "picture")
            told = RecordingReader(container, [stream], lambda _, what: self._count(what))
            for _, at, frame in told:
                if at is None:
                    continue  # counted by the reader
                if not fits(frame.width, frame.height):
                    self._count("unusable.size")
                    continue
                if last is not None and at <= last:
                    self._count("unusable.rewound")
                    continue
                gap = MIN_ROUND if last is None else at - last
                last = at
                length = believed((frame.duration or 0) * (frame.time_base or Fraction(0)))
                self._lasts = at + max(length, gap)
                shape = stretch_of(stream, frame, self._aspect)
                yield at, Picture(frame, self._longest, shape)


class AudioMix:
    """Mixes clips onto silence: 16 kHz mono, summed in float32, clipped once, s16le.

    `clips` are (file, start in seconds, gain in dB, number of the sound track); the mix has `total`
    samples. `count(what, n)` is called for damage. Samples are requested in order, so long clips
    need no memory.
    """

    def __init__(
        self,
        clips: Sequence[tuple[Path, Fraction, float, int]],
        total: int,
        count: Callable[[str, int], None],
    ) -> None:
        self._waiting = sorted(
            ((round(at * RATE), path, gain, track) for path, at, gain, track in clips),
            key=lambda clip: clip[0],
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
            at, path, gain_db, track = self._waiting.pop(0)
            gain = np.float32(10 ** (gain_db / 20))
            blocks = sound(path, self._count, track)
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


def sound(path: Path, count: Callable[[str, int], None], track: int = 1) -> Iterator[Samples]:
    """Yields a file's sound in blocks from time zero: one channel, 16 kHz, float32 -1 to 1.

    Silence stands where the file has a hole. Raises Unplayable.
    """
    line = Resampler()
    with closing(open_file(path)) as container:
        stream = _track(container, path, "sound", track)
        told = RecordingReader(container, [stream], lambda _, what: count(what, 1))
        for _, at, frame in told:
            if frame.sample_rate not in SOURCE_RATES:
                count("unusable.rate", 1)
                continue
            block = mono_samples(frame, count)
            yield line.push(block, frame.sample_rate, at)
        yield line.end()


def mono_samples(frame: Any, count: Callable[[str, int], None]) -> Samples:
    """Returns an audio frame as one channel (`downmixed`); counts what had to be repaired."""
    kind = frame.format.name.removesuffix("p")
    raw = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, len(frame.layout.channels)).T
    with np.errstate(invalid="ignore", over="ignore"):  # a file may hold any float
        shifted = raw.astype(np.float32) - (128 if kind == "u8" else 0)
        values: Samples = shifted / np.float32(_SCALES[kind])
        sane = np.abs(values) < _LOUDEST  # False for NaN too
    bad = int(values.size - np.count_nonzero(sane))
    if bad:
        values = np.where(sane, values, np.float32(0))
        count("repaired.not-finite", bad)
    mono, cancelled = downmixed(values)
    if cancelled:
        count("repaired.opposite-phase", 1)
    return mono


def video_length(path: Path, *, whole: bool) -> Fraction:
    """Returns the seconds to the end of the last frame; 0 unless `whole`.

    Decodes one frame to check the file. Raises Unplayable.
    """
    Video(path, 16, loop=False, count=lambda _: None).close()
    if not whole:
        return Fraction()
    with closing(open_file(path)) as container:
        stream = _track(container, path, "picture")
        return RecordingReader(container, [stream], lambda *_: None).length(stream)


def sound_tracks(path: Path) -> int:
    """Returns how many sound tracks a file has. Raises Unplayable."""
    with closing(open_file(path)) as container:
        return len(container.streams.audio)


def clip_length(path: Path, *, whole: bool, track: int = 1) -> Fraction:
    """Returns the seconds of sound; only of the first block unless `whole`. Raises Unplayable."""
    samples = 0
    unusable: set[str] = set()
    for block in sound(path, lambda what, _: unusable.add(what), track):
        samples += len(block)
        if samples and not whole:
            break
    if not samples:
        rates = f"its sample rate is not within {SOURCE_RATES[0]} to {SOURCE_RATES[-1]}"
        msg = f"{path}: {rates if 'unusable.rate' in unusable else 'no sound can be decoded'}"
        raise Unplayable(msg)
    return Fraction(samples, RATE)


def _track(container: Any, path: Path, kind: str, number: int = 1) -> Any:
    try:
        return picture_track(container) if kind == "picture" else sound_track(container, number)
    except LookupError as error:
        msg = f"{path}: {error}"
        raise Unplayable(msg) from error
