"""Plays a recorded file as a live source, at its own speed.

The pictures are those that a scene shows of the same file: at k/fps the last frame up to that time,
held for `HELD` seconds or three periods. The sound has silence where the file has a hole. So a
recording is judged live as it is in a replay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from models.hearing.waveform import RATE
from pipeline.config.schema import Detect, Hear
from pipeline.errors import SourceLost
from pipeline.types import SECOND, AudioChunk, Chunk, FrameChunk, Progress
from workers.capture.clock import Clock, PlaybackPacer, StreamClock
from workers.capture.stream_opening import chosen, why_no_file
from workers.config.source_address import Address
from workers.media import recordings
from workers.media.containers import BROKEN, Unplayable, open_file
from workers.media.jpeg import fits
from workers.media.motion import measured, model_for
from workers.media.pcm import SOURCE_RATES, Chunks, Resampler
from workers.media.recording_reader import RecordingReader
from workers.media.timeline import believed

STEP = Fraction(1, 2)  # s; in which a hole passes
SLACK = Fraction(1, 4)  # s that a picture may come out of its decoder late
NO_PICTURE = "the video has no picture here"
BLOCK = RATE // 10  # samples of a chunk


class RecordedSource:
    """A file as a camera, as a microphone, or as both; its end raises nothing.

    Arguments are those of `MediaSource`. Raises SourceLost for a file that cannot be played.
    `count(source, what)` counts what is unusable.
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
        clock: Clock,
        count: Callable[[str, str], None],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._site, self._camera, self._microphone = site, camera, microphone
        self._detect = detect or Detect()
        self._fps = Fraction(repr(float(self._detect.fps)))
        self._held = max(3 / self._fps, recordings.HELD)
        self._motion = model_for(self._detect, self._detect.fps)
        self._aspect = recordings.aspect_ratio(self._detect.aspect)
        self._count = count
        self._speed = PlaybackPacer(clock, wait)
        self._times = StreamClock(clock)
        self._line = Resampler()
        self._chunks = Chunks(site, microphone, RATE, hear=hear)
        self._block = np.zeros(0, np.float32)
        self.native: tuple[int, int] | None = None  # px, width and height before scaling
        self._seq = 0
        self._due = 0  # the next picture is that at _due / fps
        self._shown: tuple[Fraction, recordings.Picture] | None = None
        self._in_hole = False
        self._played = Fraction(0)  # s; how far the file has been played
        self._ends = Fraction(0)  # s; end of the last picture
        try:
            self._container = open_file(Path(address.target))
        except Unplayable:
            raise SourceLost(why_no_file(Path(address.target))) from None
        self._streams = chosen(self._container, site, camera, microphone, track, "file")
        self._reader = RecordingReader(self._container, self._streams, self._unusable)

    def __iter__(self) -> Iterator[Chunk | Progress]:
        self._speed.hold(0)
        for stream, at, frame in self._reader:
            try:
                if stream.type == "audio":
                    yield from self._heard(frame, at)
                elif at is not None:
                    yield from self._seen(stream, frame, at)
            except BROKEN:  # the frame was decoded but cannot be converted or encoded again
                self._unusable(stream, "unusable.undecodable")
        if self._camera:
            yield from self._until(self._ends, picture=True)
        yield from self._sounds(self._line.end(), whole=True)

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _until(self, due: Fraction, *, picture: bool = False) -> Iterator[Chunk | Progress]:
        """Waits until `due`, in steps: the last picture is held, and silence goes on.

        `picture` says that the next picture is that at `due`.
        """
        slack = Fraction(0) if picture else SLACK
        if self._camera and not picture:
            yield from self._pictures(self._played - slack)
        while self._played < due:
            at = self._due / self._fps + slack  # when the next picture is to be shown
            step = at if at > self._played else self._played + STEP
            self._wait(min(self._played + STEP, due, step))
            if self._camera and (self._played < due or not picture):
                yield from self._pictures(self._played - slack)
            yield from self._silence(self._played - SLACK)

    def _wait(self, until: Fraction) -> None:
        if until > self._played:
            self._played = until
            self._speed.hold(round(until * SECOND))

    def _seen(self, stream: Any, frame: Any, at: Fraction) -> Iterator[Chunk | Progress]:
        yield from self._until(at, picture=True)
        if not fits(frame.width, frame.height):
            self._unusable(stream, "unusable.size")
            return
        if self._shown is not None and at <= self._shown[0]:
            self._unusable(stream, "unusable.rewound")
            return
        yield from self._pictures(at, before=True)
        gap = recordings.MIN_ROUND if self._shown is None else at - self._shown[0]
        length = believed((frame.duration or 0) * (frame.time_base or Fraction(0)))
        self._ends = at + max(length, gap)
        self.native = frame.width, frame.height
        shape = recordings.stretch_of(stream, frame, self._aspect)
        self._shown = (at, recordings.Picture(frame, self._detect.width, shape))
        yield from self._pictures(at)

    def _pictures(self, until: Fraction, *, before: bool = False) -> Iterator[Chunk | Progress]:
        """Yields what is shown at each k/fps up to `until`, or `before` it."""
        while (now := self._due / self._fps) < until or (now == until and not before):
            if self._streams[0].index in self._reader.ended and now >= self._ends:
                return
            self._due += 1
            if self._shown is None or now - self._shown[0] > self._held:
                yield from self._hole(now)
                continue
            self._in_hole = False
            jpeg = self._shown[1].jpeg()
            start = self._times.at(round(now * SECOND), "picture")
            period = round(self._due / self._fps * SECOND) - round(now * SECOND)
            seen = measured(self._motion, self._shown[1].luma, start)
            seq, self._seq = self._seq, self._seq + 1
            yield FrameChunk(
                site=self._site,
                source=self._camera,
                start=start,
                end=start + period,
                seq=seq,
                width=jpeg.width,
                height=jpeg.height,
                data=jpeg.data,
                look=seen.look,
                motion=seen.motion,
                regions=seen.regions,
            )

    def _hole(self, now: Fraction) -> Iterator[Progress]:
        """Says once that the file has no picture here."""
        if not self._in_hole:
            self._in_hole = True
            upto = self._times.at(round(now * SECOND), "picture")
            yield Progress(
                site=self._site, source=self._camera, upto=upto, alive=False, reason=NO_PICTURE
            )

    def _heard(self, frame: Any, at: Fraction | None) -> Iterator[Chunk | Progress]:
        rate = frame.sample_rate
        if rate not in SOURCE_RATES:
            self._count(self._microphone, "unusable.rate")
            return
        mono = recordings.mono_samples(frame, lambda what, _: self._count(self._microphone, what))
        if at is not None:
            yield from self._until(at)
            self._wait(at + Fraction(frame.samples, rate))
        yield from self._sounds(self._line.push(mono, rate, at))

    def _silence(self, until: Fraction) -> Iterator[AudioChunk]:
        rate = self._streams[-1].codec_context.sample_rate if self._microphone else 0
        if rate in SOURCE_RATES:
            yield from self._sounds(self._line.push(np.zeros(0, np.float32), rate, until))

    def _sounds(self, samples: Any, *, whole: bool = False) -> Iterator[AudioChunk]:
        """Yields chunks of what has come, the last one only if `whole`."""
        self._block = np.concatenate([self._block, samples])
        if len(self._block) < BLOCK and not (whole and len(self._block)):
            return
        block, self._block = self._block, np.zeros(0, np.float32)
        ended = self._times.at(self._line.made * SECOND // RATE, "sound")
        chunk = self._chunks.push(block, ended)
        if chunk is not None:
            yield chunk

    def _unusable(self, stream: Any, what: str) -> None:
        source = self._camera if stream.type == "video" else self._microphone
        self._count(source, what)
