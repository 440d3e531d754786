"""Makes the clips of the shipped demo scene from the original media.

    python -m tests.golden.demo_clips MEDIA        writes workers/demo/scene/*.mp4 and *.flac anew

MEDIA is a folder with `video/office_a.mp4`, `audio/cc0_events/` and `speech/jfk.flac`. The same
versions of PyAV and soxr give the same bytes: one thread encodes, and no file holds a date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

SCENE = Path(__file__).resolve().parents[2] / "workers/demo/scene"
FPS = 5  # what the demo's camera looks at
WIDTH, HEIGHT = 640, 360
PARTS = ((0.0, 6.0), (21.0, 48.0))  # s of the video: an empty room; a man comes, stays and leaves
CRF = "27"  # the size of the file against its quality
EXACT = {"fflags": "+bitexact"}
SOUNDS = {  # name -> file, Hz
    "glass-1.flac": ("audio/cc0_events/sounds_node_dug_glass.1.ogg", 32_000),
    "glass-2.flac": ("audio/cc0_events/sounds_node_dug_glass.2.ogg", 32_000),
    "speech.flac": ("speech/jfk.flac", 16_000),
}


def pictures(file: Path) -> Iterator[Any]:
    """The frames of `PARTS`, at `FPS`, made small."""
    with av.open(str(file)) as film:
        stream = film.streams.video[0]
        stream.codec_context.thread_count = 1
        step = round(float(stream.average_rate or 0) / FPS)
        for number, frame in enumerate(film.decode(stream)):
            at = Fraction(frame.pts) * stream.time_base
            if number % step == 0 and any(first <= at < last for first, last in PARTS):
                yield frame.reformat(WIDTH, HEIGHT, format="yuv420p", interpolation="AREA")


def video(file: Path, out: Path) -> None:
    """Writes the demo's video: H.264, without sound."""
    options = {"movflags": "+faststart", **EXACT}
    with av.open(str(out), "w", format="mp4", options=options) as film:
        stream = film.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": CRF, "preset": "veryslow", "threads": "1", "g": str(10 * FPS)}
        for number, frame in enumerate(pictures(file)):
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            frame.pict_type = 0
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


def samples(file: Path, rate: int) -> np.ndarray:
    """The whole sound as mono, 16 bits, `rate` Hz."""
    with av.open(str(file)) as clip:
        stream = clip.streams.audio[0]
        mono = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
        frames = [new for frame in clip.decode(stream) for new in mono.resample(frame)]
    whole = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    at_rate = soxr.resample(whole, stream.rate, rate, quality="HQ")
    return np.clip(np.rint(at_rate * 2**15), -(2**15), 2**15 - 1).astype(np.int16)


def sound(file: Path, rate: int, out: Path) -> None:
    """Writes one sound as FLAC."""
    with av.open(str(out), "w", format="flac", options=EXACT) as clip:
        stream = clip.add_stream("flac", rate=rate, layout="mono", format="s16")
        stream.codec_context.thread_count = 1
        stream.options = {"compression_level": "12", "flags": "+bitexact"}
        frame = av.AudioFrame.from_ndarray(samples(file, rate)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))


def main(media: Path, folder: Path = SCENE) -> None:
    """Writes every clip into `folder`."""
    video(media / "video/office_a.mp4", folder / "office.mp4")
    for name, (file, rate) in SOUNDS.items():
        sound(media / file, rate, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
