"""Real clips through the sources: every way of capture measures the same motion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from pipeline.config.schema import Camera, Detect, Site
from pipeline.topics import FRAMES
from pipeline.types import SECOND, FrameChunk
from workers.capture.av_stream import MediaSource
from workers.capture.camera import CameraSource
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import parse
from workers.media.containers import open_file
from workers.media.recordings import Picture
from workers.replay.scene_file import load_scene
from workers.replay.scene_records import scene_records
from workers.training.video_cache import VideoCache

BEGIN = 1_767_650_400 * SECOND


def nobody(_: str, __: str) -> None:
    """Counts nothing."""


class Time:
    """A clock that goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


def told(chunks: Sequence[object]) -> list[tuple[object, ...]]:
    return [(c.look, c.motion, c.regions) for c in chunks if isinstance(c, FrameChunk)]


def looks(chunks: Sequence[object]) -> list[str]:
    return [c.look for c in chunks if isinstance(c, FrameChunk)]


def recorded(path: Path, detect: Detect) -> list[object]:
    clock = Time()
    source = RecordedSource(
        parse(str(path), "camera"), "office", camera="desk", detect=detect, clock=clock,
        count=nobody, wait=clock.wait,
    )  # fmt: skip
    return list(source)


def of_scene(path: Path, folder: Path, detect: Detect, **more: Any) -> list[FrameChunk]:
    file = folder / "scene.yaml"
    file.write_text(
        "site: office\nstart: 2026-01-05T22:00:00Z\nduration: 12\n"
        f"cameras: {{desk: {{file: {path}}}}}\n"
    )
    site = Site(cameras={"desk": Camera(source="x", detect=detect)})
    records = (record for _, record in scene_records(load_scene(file), site, **more))
    return [record for record in records if isinstance(record, FrameChunk)]


@pytest.fixture(scope="module")
def clip(media: Path) -> Path:
    return media / "video/office_a.mp4"


@pytest.fixture(scope="module")
def office(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[FrameChunk]:
    """The first 12 s of the office: nobody for 5.8 s, and then a person."""
    return of_scene(clip, tmp_path_factory.mktemp("office"), Detect())


def test_the_empty_office_is_gated_and_the_person_is_seen(office: list[FrameChunk]) -> None:
    said = looks(office)
    assert said[0] == "first"
    assert said[4:28].count("") >= 21
    assert set(said[1:4]) == {"first"}
    assert set(said[4:28]) == {"", "heartbeat"}
    assert set(said[30:50]) == {"motion"}
    assert all(frame.regions for frame in office[32:50])


def test_a_plaza_with_walkers_is_always_looked_at(media: Path, tmp_path: Path) -> None:
    assert "" not in looks(of_scene(media / "video/vtest_first25s.mp4", tmp_path, Detect()))


def test_a_file_is_measured_live_as_in_a_scene(clip: Path, office: list[FrameChunk]) -> None:
    assert told(recorded(clip, Detect()))[:60] == told(office)


def test_videos_of_the_cache_are_measured_as_without(
    clip: Path, office: list[FrameChunk], tmp_path: Path
) -> None:
    film = VideoCache()
    assert told(of_scene(clip, tmp_path, Detect(), film=film)) == told(office)
    assert told(of_scene(clip, tmp_path, Detect(), film=film)) == told(office)


@pytest.mark.parametrize("done", [0, 17, 29, 33, 58])
def test_a_scene_that_goes_on_measures_as_an_unbroken_one(
    clip: Path, office: list[FrameChunk], tmp_path: Path, done: int
) -> None:
    after = {(FRAMES, "desk"): office[done].start}
    assert of_scene(clip, tmp_path, Detect(), after=after) == office[done + 1 :]


def test_a_gate_that_is_off_marks_every_frame(clip: Path, tmp_path: Path) -> None:
    frames = of_scene(clip, tmp_path, Detect(gate="off"))
    assert set(told(frames)) == {("all", b"", ())}


class Live:
    """A container that moves the clock to each picture."""

    def __init__(self, clip: Path, clock: Time) -> None:
        self._clock = clock
        self._file = open_file(clip)
        self.format, self.streams = self._file.format, self._file.streams

    def demux(self, streams: list[Any]) -> Iterator[Any]:
        for packet in self._file.demux(streams):
            if packet.pts is None:
                return
            self._clock.now = max(
                self._clock.now, BEGIN + round(packet.pts * packet.time_base * SECOND)
            )
            yield packet

    def close(self) -> None:
        self._file.close()


def test_a_stream_is_measured(clip: Path) -> None:
    clock = Time()
    source = MediaSource(
        parse("rtsp://camera/1", "camera"), "office", camera="desk", clock=clock, count=nobody,
        opened=lambda *_: Live(clip, clock),
    )  # fmt: skip
    said = [chunk.look for _, chunk in zip(range(50), source, strict=False)]
    source.close()
    assert said[0] == "first"
    assert said[6:28].count("") >= 19
    assert set(said[32:50]) == {"motion"}


class Device:
    """A V4L2 camera that shows the office."""

    def __init__(self, clip: Path, clock: Time) -> None:
        self._clock = clock
        self._film = cv2.VideoCapture(str(clip))

    def grab(self) -> bool:
        self._clock.now += SECOND // 10
        return self._film.grab()

    def get(self, what: int) -> float:
        return 0.0 if what == cv2.CAP_PROP_POS_MSEC else self._film.get(what)

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return self._film.retrieve()

    def release(self) -> None:
        self._film.release()


def test_a_camera_of_this_machine_is_measured(clip: Path) -> None:
    clock = Time()
    source = CameraSource(
        parse("device:0", "camera"), "office", "desk", Detect(), clock=clock, count=nobody,
        opened=lambda _: Device(clip, clock),
    )  # fmt: skip
    said = [chunk.look for _, chunk in zip(range(50), source, strict=False)]
    source.close()
    assert said[0] == "first"
    assert said[6:28].count("") >= 19
    assert set(said[32:50]) == {"motion"}


@pytest.mark.parametrize(
    "kind", ["yuv420p", "yuvj422p", "nv12", "gray", "yuv420p10le", "bgr24", "rgba", "yuyv422"]
)
def test_the_luma_of_every_kind_of_frame_is_that_of_its_picture(kind: str) -> None:
    row = np.tile(np.linspace(30, 220, 322).astype(np.uint8), (182, 1))
    row[40:80, 60:150] = 20
    frame = av.VideoFrame.from_ndarray(cv2.cvtColor(row, cv2.COLOR_GRAY2BGR), "bgr24")
    frame = frame.reformat(format=kind)
    frame.pts, frame.time_base = 0, Fraction(1, 1)
    picture = Picture(frame, 640)
    luma, pixels = picture.luma(), picture.pixels()
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), (160, 90)).astype(float)
    assert np.corrcoef(luma.ravel(), grey.ravel())[0, 1] > 0.99
    assert picture.dark().luma().max() == 0
