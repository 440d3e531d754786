"""Mutated media files, read as a scene reads them and played as a live source."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.config.schema import Detect
from pipeline.errors import SourceLost
from pipeline.types import SECOND, AudioChunk, FrameChunk
from tests.fuzz.mutations import damaged
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import Address
from workers.media import recordings

WIDTH = 32  # px; longest side of a picture that is asked for
LOOKS = 60  # pictures that a scene asks for
CHUNKS = 1500  # of a live source; a file with holes may last for hours
BLOCKS = 400  # of sound
FORMATS = (  # name, format, codec of pictures, of sound, samples a second
    ("a.mkv", "matroska", "mpeg4", "aac", 16_000),
    ("b.mkv", "matroska", "ffv1", "flac", 16_000),
    ("a.mp4", "mp4", "libx264", "aac", 16_000),
    ("b.mp4", "mp4", "mpeg4", "alac", 48_000),
    ("a.mov", "mov", "mjpeg", "pcm_s16be", 8_000),
    ("a.ts", "mpegts", "libx264", "aac", 16_000),
    ("b.ts", "mpegts", "mpeg2video", "mp2", 48_000),
    ("a.mpg", "mpeg", "mpeg2video", "mp2", 48_000),
    ("a.avi", "avi", "mjpeg", "pcm_s16le", 16_000),
    ("b.avi", "avi", "mpeg4", "libmp3lame", 44_100),
    ("a.flv", "flv", "flv", "libmp3lame", 22_050),
    ("a.wmv", "asf", "msmpeg4v3", "pcm_s16le", 16_000),
    ("a.webm", "webm", "libvpx", "libopus", 48_000),
    ("a.wav", "wav", None, "pcm_f32le", 16_000),
    ("b.wav", "wav", None, "pcm_mulaw", 8_000),
    ("c.wav", "wav", None, "adpcm_ima_wav", 16_000),
    ("a.w64", "w64", None, "pcm_s24le", 48_000),
    ("a.flac", "flac", None, "flac", 16_000),
    ("a.ogg", "ogg", None, "libopus", 48_000),
    ("b.ogg", "ogg", None, "flac", 16_000),
    ("a.mp3", "mp3", None, "libmp3lame", 16_000),
    ("a.aac", "adts", None, "aac", 44_100),
    ("a.aiff", "aiff", None, "pcm_s16be", 16_000),
    ("a.caf", "caf", None, "pcm_s16be", 16_000),
    ("a.au", "au", None, "pcm_alaw", 8_000),
    ("a.mjpeg", "mjpeg", "mjpeg", None, 0),
    ("a.mpjpeg", "mpjpeg", "mjpeg", None, 0),
    ("a.h264", "h264", "libx264", None, 0),
)


def made(folder: Path) -> list[tuple[str, bytes]]:
    """Writes half a second in each format; returns names and bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind, pictures, sound, rate in FORMATS:
        with av.open(str(folder / name), "w", format=kind) as file:
            streams = []
            if pictures:
                video = file.add_stream(pictures, rate=25, options={"threads": "1"})
                video.width, video.height = 48, 32
                video.pix_fmt = "yuvj420p" if pictures == "mjpeg" else "yuv420p"
                video.gop_size = 5
                streams.append((video, _pictures()))
            if sound:
                audio = file.add_stream(sound, rate=rate, layout="mono")
                size = 1152 if sound == "libmp3lame" else audio.codec_context.frame_size or 0
                streams.append((audio, _sounds(audio, rate, size)))
            for stream, frames in streams:
                for frame in frames:
                    file.mux(stream.encode(frame))
            for stream, _ in streams:
                file.mux(stream.encode(None))
    return [(name, (folder / name).read_bytes()) for name, *_ in FORMATS]


def _pictures() -> Iterator[Any]:
    for k in range(12):
        gray = np.full((32, 48), k * 20, np.uint8)
        gray[k : k + 8, k * 2 : k * 2 + 8] = 255 - k * 20
        frame = av.VideoFrame.from_ndarray(gray, "gray")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        yield frame


def _sounds(stream: Any, rate: int, size: int) -> Iterator[Any]:
    """Frames of the size that the encoder takes; without one, all in one frame."""
    if not stream.codec_context.is_open:
        stream.codec_context.open()
    size = stream.codec_context.frame_size or size or rate // 2
    wave = (np.sin(np.arange(rate // 2) / 9) * 9000).astype(np.int16)
    change = av.AudioResampler(stream.codec_context.format, "mono", rate)
    for first in range(0, len(wave) - size + 1, size):
        frame = av.AudioFrame.from_ndarray(wave[None, first : first + size], layout="mono")
        frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first
        yield from change.resample(frame)


class Media:
    """A case is one file; it is read by all readers of recordings."""

    name, target, batch, patience = "media", 2000, 1, 40.0
    files = True  # the file of a finding is kept

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seeds = made(folder / "seeds")

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Reads one mutated file."""
        name, data = dice.choice(self._seeds)
        data = damaged(dice, data, [other for _, other in self._seeds])
        path = self._folder / f"{number}-{name}"
        path.write_bytes(data)
        readings = (_as_a_scene, _as_a_sound, _as_both, _as_a_camera, _as_a_microphone)
        for reading in readings:
            with suppress(recordings.Unplayable, SourceLost):
                reading(path, dice)
        path.unlink()


def _as_a_scene(path: Path, dice: random.Random) -> None:
    assert recordings.video_length(path, whole=True) >= 0
    fps = dice.choice((Fraction(5), Fraction(1, 10), Fraction(30)))
    video = recordings.Video(
        path,
        WIDTH,
        loop=fps > 1 and dice.random() < 0.3,
        count=lambda _: None,
        aspect=dice.choice((None, None, Fraction(16, 9))),
    )
    try:
        for k in range(LOOKS):
            shown = video.at(k / fps)
            if not isinstance(shown, str):
                assert max(shown.pixels().shape[:2]) <= WIDTH
    finally:
        video.close()


def _as_a_sound(path: Path, dice: random.Random) -> None:
    track = dice.choice((1, 1, 2))
    assert recordings.clip_length(path, whole=True, track=track) > 0
    for number, block in enumerate(recordings.sound(path, lambda *_: None, track)):
        assert block.dtype == np.float32
        assert np.isfinite(block).all()
        if number == BLOCKS:
            break


def _as_both(path: Path, dice: random.Random) -> None:
    _played(path, dice, "desk", "room")


def _as_a_camera(path: Path, dice: random.Random) -> None:
    _played(path, dice, "desk", "")


def _as_a_microphone(path: Path, dice: random.Random) -> None:
    _played(path, dice, "", "room")


def _played(path: Path, dice: random.Random, camera: str, microphone: str) -> None:
    now = [1_767_650_400 * SECOND]

    def wait(seconds: float) -> None:
        assert seconds < 3600
        now[0] += round(max(seconds, 0) * SECOND)

    source = RecordedSource(
        Address("file", str(path)),
        "office",
        camera=camera,
        microphone=microphone,
        detect=Detect(fps=dice.choice((5, 0.1, 30)), width=WIDTH),
        clock=lambda: now[0],
        count=lambda *_: None,
        wait=wait,
    )
    last: dict[type, int] = {}
    try:
        for number, chunk in enumerate(source):
            if isinstance(chunk, FrameChunk | AudioChunk):
                assert last.get(type(chunk), 0) <= chunk.start < chunk.end, chunk.start
                last[type(chunk)] = chunk.end if isinstance(chunk, AudioChunk) else chunk.start
            if number == CHUNKS:
                break
    finally:
        source.close()
