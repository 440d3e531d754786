"""No picture of more than the limit is decoded, whatever its codec, and each one is counted."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.config.schema import Camera, Detect
from pipeline.errors import DecodeError, SourceLost
from pipeline.limits import MAX_PIXELS
from pipeline.types import SECOND, FrameChunk, Progress
from tests import make
from tests.hostile_cameras import played, serving
from workers.capture.av_stream import UNREADABLE
from workers.capture.camera import CameraSource
from workers.capture.factory import source
from workers.config.source_address import Address, parse
from workers.media import containers
from workers.media.jpeg import decoded, fits
from workers.media.recordings import Video
from workers.stages.vision import within_limit

ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE = (64, 64), (160, 128)
LIMIT = 10_000  # pixels, between the two
CODECS = {  # codec -> container in which its size may change
    "mjpeg": "mkv",
    "png": "mov",
    "libx264": "ts",
    "libx265": "ts",
    "libvpx-vp9": "mkv",
    "libsvtav1": "mkv",
    "mpeg2video": "ts",
}


def packets(codec: str, size: tuple[int, int], first: int) -> list[av.Packet]:
    """Ten keyframes of noise, 0.1 s each."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height = size
    context.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
    context.time_base, context.framerate, context.gop_size = Fraction(1, 10), Fraction(10), 1
    context.max_b_frames = 0
    made = []
    for number in range(10):
        noise = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format=context.pix_fmt)
        frame.pts, frame.time_base = first + number, context.time_base
        made += context.encode(frame)
    return made + context.encode(None)


def changing(path: Path, codec: str) -> Path:
    """Ten small pictures, ten large ones, ten small ones."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height = SMALL
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
        stream.codec_context.gop_size = 1
        for turn, size in enumerate((SMALL, LARGE, SMALL)):
            for packet in packets(codec, size, 10 * turn):
                packet.stream = stream
                file.mux(packet)
    return path


def seen(address: str) -> tuple[list[FrameChunk], Counter[str]]:
    """The pictures of a source, as fast as they come, and what it counts."""
    told: Counter[str] = Counter()
    times = itertools.count(0, SECOND)
    made = source(
        parse(address, "camera"), "office", "desk", "", Camera(source="", detect=Detect(fps=10)),
        clock=lambda: next(times), count=lambda _, what: told.update([what]),
    )  # fmt: skip
    frames = []
    with contextlib.closing(made), contextlib.suppress(SourceLost):
        frames.extend(chunk for chunk in made if isinstance(chunk, FrameChunk))
    return frames, told


@pytest.mark.parametrize("codec", CODECS)
def test_a_size_that_grows_midway_is_refused_by_the_decoder(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changing(tmp_path / f"a.{CODECS[codec]}", codec)
    told: Counter[str] = Counter()
    sizes = decoded_sizes(path, told)
    assert {SMALL, LARGE} == sizes
    assert not told
    monkeypatch.setitem(containers.PICTURE_LIMITS, "max_pixels", str(LIMIT))
    assert decoded_sizes(path, told) == {SMALL}
    assert told["unusable.undecodable"] >= 9


def decoded_sizes(path: Path, told: Counter[str]) -> set[tuple[int, int]]:
    sizes = set()
    video = Video(path, 1000, loop=False, count=lambda what: told.update([what]))
    with contextlib.closing(video):
        for tenth in range(31):
            picture = video.at(Fraction(tenth, 10))
            if not isinstance(picture, str):
                sizes.add(picture.pixels().shape[1::-1])
    return sizes


def test_a_stream_goes_on_after_a_picture_that_is_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(containers.PICTURE_LIMITS, "max_pixels", str(LIMIT))
    good, large = (
        cv2.imencode(".jpg", np.zeros((size[1], size[0], 3), np.uint8))[1].tobytes()
        for size in (SMALL, LARGE)
    )
    body = b"".join(
        b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data)
        for data in (good, large, large, good)
    )
    with serving(lambda *_: played(body, b"multipart/x-mixed-replace; boundary=b")) as camera:
        frames, told = seen(f"http://127.0.0.1:{camera.port}/")
    assert {(frame.width, frame.height) for frame in frames} == {SMALL}
    assert told == {"dropped.undecodable": 2}


def test_a_camera_of_which_no_picture_can_be_decoded_is_lost_with_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(containers.PICTURE_LIMITS, "max_pixels", str(LIMIT))
    large = cv2.imencode(".jpg", np.zeros((LARGE[1], LARGE[0], 3), np.uint8))[1].tobytes()
    head = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(large)
    body = (head + large + b"\r\n") * 20
    seconds = itertools.count()
    with serving(lambda *_: played(body, b"multipart/x-mixed-replace; boundary=b")) as camera:
        made = source(
            parse(f"http://127.0.0.1:{camera.port}/", "camera"), "office", "desk", "",
            Camera(source=""), clock=lambda: next(seconds) * SECOND, count=lambda *_: None,
        )  # fmt: skip
        with contextlib.closing(made):
            said = next(iter(made))
    assert isinstance(said, Progress)
    assert (said.source, said.alive, said.reason) == ("desk", False, UNREADABLE)


class LargeDevice:
    """A V4L2 camera that has been set to pictures of 64 million pixels."""

    def grab(self) -> bool:
        return True

    def get(self, what: int) -> float:
        sizes = {cv2.CAP_PROP_FRAME_WIDTH: 8000.0, cv2.CAP_PROP_FRAME_HEIGHT: 8000.0}
        return sizes.get(what, 0.0)

    def retrieve(self) -> tuple[bool, object]:
        pytest.fail("the picture is decoded")


def test_a_large_picture_of_a_device_is_not_decoded() -> None:
    told: Counter[str] = Counter()
    camera = CameraSource(
        Address("device", "0"), "office", "desk", Detect(), clock=lambda: 0,
        count=lambda _, what: told.update([what]), opened=lambda _: LargeDevice(),
    )  # fmt: skip
    assert camera._grabbed() == 0
    assert camera._picture() is None
    assert told == {"dropped.size": 1}


def test_the_command_limits_pictures_that_opencv_decodes() -> None:
    asks = "import os, sys; from workers.cli import main; main(['--version']); import cv2, numpy;"
    asks += "from tests.hostile_cameras import flat_jpeg as jpeg;"
    asks += "cv2.imdecode(numpy.frombuffer(jpeg(6000, 6000), 'u1'), 1)"
    done = subprocess.run(
        [sys.executable, "-c", asks], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "validateInputImageSize" in done.stderr


@pytest.mark.parametrize("size", [(16_000, 16_000), (30_000, 1), (6_000, 5_834)])
def test_a_jpeg_of_too_many_pixels_is_refused_by_its_head(size: tuple[int, int]) -> None:
    width, height = size
    data = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    head = bytes([0, 48, 0, 64])
    assert data.count(head) == 1
    data = data.replace(head, height.to_bytes(2) + width.to_bytes(2))
    assert not fits(*size)
    with pytest.raises(DecodeError, match=f"{MAX_PIXELS} pixels at most"):
        decoded(data, width, height)


def test_pictures_that_are_decoded_at_once_share_the_limit() -> None:
    frames = {
        index: make.frame(index, width=width, height=1000)
        for index, width in enumerate((20_000, 20_000, 15_000, 40_000, 10, 10))
    }
    assert within_limit([0, 1, 2], frames) == [0]
    assert within_limit([1, 2, 3], frames) == [1, 2]
    assert within_limit([3, 4], frames) == [3]
    assert within_limit([4, 5], frames) == [4, 5]
