"""Times that no recording has: a picture that lasts for hours, one that is shown in years."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.types import FrameChunk, ns
from tests import reels
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import parse
from workers.media import recordings
from workers.media.timeline import MAX_HOLE


def long_pictures(path: Path) -> Path:
    """Four pictures, each of which lasts 65,536 s by the header of the AVI file."""
    reels.film(path, [(k / 25, k + 1) for k in range(4)], codec="mpeg4", rate=25)
    data = path.read_bytes()
    at = data.index(b"strh") + 8 + 20  # dwScale and dwRate
    path.write_bytes(data[:at] + struct.pack("<II", 65_536, 1) + data[at + 8 :])
    return path


def far_picture(path: Path) -> Path:
    """Ten pictures; the third is to be shown years after it is decoded."""
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 1
        for k in range(10):
            gray = np.full((48, 64), (k + 1) * reels.STEP, np.uint8)
            frame = av.VideoFrame.from_ndarray(gray, "gray")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            for packet in stream.encode(frame):
                if k == 2:
                    packet.pts += 100_000
                file.mux(packet)
        file.mux(stream.encode(None))
    return path


def played(path: Path) -> tuple[list[int], float]:
    """The numbers of the pictures, and the seconds that the file took."""
    begin = ns(1_767_650_400)
    now = [begin]

    def wait(seconds: float) -> None:
        now[0] += ns(max(seconds, 0))
        assert now[0] < begin + ns(3600)

    source = RecordedSource(
        parse(str(path), "camera"), "office", camera="desk",
        clock=lambda: now[0], count=lambda *_: None, wait=wait,
    )  # fmt: skip
    seen = [reels.number(chunk) for chunk in source if isinstance(chunk, FrameChunk)]
    source.close()
    return list(dict.fromkeys(seen)), (now[0] - begin) / 1e9


@pytest.mark.parametrize(
    ("make", "name", "shown", "most"),
    [
        (long_pictures, "a.avi", [1, 2, 3, 4], 4 * float(MAX_HOLE)),
        (far_picture, "a.mp4", [1, 2, 4, 6, 8, 10], 1.1),
    ],
)
def test_a_wild_time_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], Path], name: str, shown: list[int], most: float
) -> None:
    path = make(tmp_path / name)
    seen, seconds = played(path)
    assert set(seen) <= set(range(1, 11))
    assert len(seen) >= len(shown) - 1
    assert seconds <= most
    assert recordings.video_length(path, whole=True) <= most
    video = recordings.Video(path, 64, loop=False, count=lambda _: None)
    assert not isinstance(video.at(Fraction(0)), str)
    assert video.at(Fraction(3600)) == "the video has ended"
    video.close()
