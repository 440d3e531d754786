"""Every adapter that makes chunks keeps one contract, on real files and real sockets."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from pipeline import codec
from pipeline.config.schema import Camera, Detect, Microphone, Site, Streams
from pipeline.errors import ConfigError, SourceLost
from pipeline.ports import Source
from pipeline.types import SECOND, AudioChunk, FrameChunk, Progress, Record, ns
from tests import make, reels
from workers.capture.av_stream import MediaSource
from workers.capture.camera import CameraSource
from workers.capture.factory import captures, newest_event_time, silence_limit
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import Address, parse
from workers.runtime.status import Status

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    """Time that goes on only where somebody waits, and a little with each look."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        self.now += 1000
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


class Told(Counter[tuple[str, str]]):
    def __call__(self, source: str, what: str) -> None:
        self[source, what] += 1


def _or_none(told: Told | None) -> Told:
    return Told() if told is None else told


def media(
    path: object,
    *,
    names: tuple[str, str] = ("desk", "room"),
    fps: float = 5,
    told: Told | None = None,
    clock: Clock | None = None,
) -> RecordedSource | MediaSource:
    clock = clock or Clock()
    address = parse(str(path), "camera")
    how: dict[str, Any] = {
        "camera": names[0],
        "microphone": names[1],
        "clock": clock,
        "detect": Detect(fps=fps, width=320),
        "count": _or_none(told),
    }
    if address.scheme == "file":
        return RecordedSource(address, "office", wait=clock.wait, **how)
    return MediaSource(address, "office", **how)


def chunks(source: Source) -> list[FrameChunk | AudioChunk]:
    with contextlib.closing(source):
        return [chunk for chunk in source if not isinstance(chunk, Progress)]  # type: ignore[arg-type]


def pictures(path: object, **more: object) -> RecordedSource | MediaSource:
    return media(path, names=("desk", ""), **more)  # type: ignore[arg-type]


def with_sound(path: object, **more: object) -> RecordedSource | MediaSource:
    return media(path, **more)  # type: ignore[arg-type]


def test_a_file_plays_at_its_own_speed_once(media: Path) -> None:
    clock = Clock()
    begin = clock.now
    frames = chunks(pictures(media / "video/vtest_first25s.mp4", clock=clock))
    assert abs(clock.now - begin - 25 * SECOND) < SECOND
    assert 124 <= len(frames) <= 127
    starts = [f.start for f in frames]
    assert starts == sorted(set(starts))
    assert abs(starts[-1] - starts[0] - 24.8 * SECOND) < SECOND / 5
    assert [f.seq for f in frames] == list(range(len(frames)))
    assert {(f.site, f.source, f.width, f.height) for f in frames} == {  # type: ignore[union-attr]
        ("office", "desk", 320, 240)
    }
    assert all(f.end - f.start == SECOND // 5 for f in frames)
    assert reels.picture(frames[7]).std() > 10  # type: ignore[arg-type]


def test_picture_and_sound_of_a_file_are_on_one_clock(media: Path) -> None:
    source = MediaSource_of(media / "video/Retail02_short.mp4")
    with contextlib.closing(source):
        made = list(itertools.islice(source, 60))
    heard = [c for c in made if isinstance(c, AudioChunk)]
    seen = [c for c in made if isinstance(c, FrameChunk)]
    assert abs(heard[0].start - seen[0].start) < SECOND // 10
    assert abs(heard[-1].end - seen[-1].start) < SECOND // 2
    assert len(seen) > 15
    lasted = (heard[-1].end - heard[0].start) / SECOND
    assert abs(len(reels.samples(heard)) - lasted * 16_000) < 16
    assert all(a.end <= b.start for a, b in itertools.pairwise(heard))


def MediaSource_of(path: Path) -> RecordedSource | MediaSource:
    return media(path)


@pytest.mark.parametrize("content", [None, b"", b"\0" * 5000, b"not a video\n" * 50])
def test_what_is_no_video_is_lost_with_a_reason(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s3cret.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceLost) as caught:
        chunks(pictures(path))
    assert "s3cret" not in str(caught.value)


def test_a_cut_file_ends_and_a_damaged_one_goes_on(tmp_path: Path) -> None:
    path = reels.film(
        tmp_path / "a.ts", [(i / 25, 3) for i in range(100)], codec="mpeg2video", rate=25
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 0 < len(chunks(pictures(path))) < 15
    third = len(data) // 3
    path.write_bytes(data[:third] + bytes(2000) + data[third + 2000 :])
    assert len(chunks(pictures(path))) > 10


def test_a_picture_that_changes_size_midway_says_its_size_each_time(tmp_path: Path) -> None:
    reels.film(tmp_path / "a.ts", [(i / 25, 2) for i in range(50)], codec="mpeg2video", rate=25)
    reels.film(tmp_path / "b.ts", [(2 + i / 25, 5) for i in range(50)], size=(160, 96),
               codec="mpeg2video", rate=25)  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames = chunks(pictures(both))
    assert reels.picture(frames[0]).shape == (48, 64, 3)  # type: ignore[arg-type]
    last = reels.picture(frames[-1])  # type: ignore[arg-type]
    assert last.shape == (96, 160, 3)
    assert abs(float(last.mean()) - 5 * reels.STEP) < 8


def test_time_that_goes_back_or_lies_goes_forward_in_chunks(tmp_path: Path) -> None:
    for name, first in (("a", 10), ("b", 2)):
        reels.film(tmp_path / f"{name}.ts", [(first + i / 25, 2) for i in range(50)],
                   codec="mpeg2video", rate=25)  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    clock = Clock()
    begin = clock.now
    starts = [c.start for c in chunks(pictures(both, clock=clock))]
    assert starts == sorted(set(starts))
    assert 19 <= len(starts) <= 21, "what comes after the jump is played at its speed, too"
    assert abs(clock.now - begin - 4 * SECOND) < SECOND / 5
    fast = reels.film(tmp_path / "fast.mkv", [(i / 1000, 2) for i in range(50)])  # 1,000 a second
    assert len(chunks(pictures(fast))) == 1


def test_a_file_whose_times_begin_below_zero_plays_whole(tmp_path: Path) -> None:
    shots = [(-2 + k / 25, k // 10) for k in range(100)]
    path = reels.film(tmp_path / "a.ts", shots, codec="mpeg2video", rate=25)
    with av.open(str(path)) as file:
        assert next(file.decode(video=0)).pts < 0, "the file is not what it should be"
    clock = Clock()
    begin = clock.now
    frames = chunks(pictures(path, clock=clock))
    assert abs(clock.now - begin - 4 * SECOND) < SECOND / 5
    assert 19 <= len(frames) <= 21
    starts = [c.start for c in frames]
    assert starts == sorted(set(starts))
    shown = [reels.number(c) for c in frames]  # type: ignore[arg-type]
    assert shown == sorted(shown)
    assert set(shown) == set(range(10))


def test_a_file_that_claims_to_last_for_weeks_is_not_waited_for(tmp_path: Path) -> None:
    shots = [(at + k / 25, 2) for at in (0, 2_000_000) for k in range(25)]
    path = reels.film(tmp_path / "a.mkv", shots)
    clock = Clock()
    begin = clock.now
    assert len(chunks(pictures(path, clock=clock))) >= 9
    assert clock.now - begin < 3 * SECOND


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_sound_that_is_no_number_is_silence_and_counted(tmp_path: Path, wrong: float) -> None:
    samples = np.full(16_000, 0.25, np.float32)
    samples[5000:5010] = wrong
    told = Told()
    source = media(reels.sound(tmp_path / "a.wav", samples), names=("", "room"), told=told)
    heard = reels.samples(c for c in chunks(source) if isinstance(c, AudioChunk))
    assert set(heard) == {0, 8192}
    assert told == {("room", "repaired.not-finite"): 1}


def test_a_signalling_nan_is_silence_and_raises_no_warning(tmp_path: Path) -> None:
    path = reels.sound(tmp_path / "a.wav", np.full(16_000, 0.25, np.float32))
    quiet, odd = np.float32(0.25).tobytes(), b"\x01\x00\xa0\x7f"
    path.write_bytes(path.read_bytes().replace(quiet * 4, odd * 4, 1))
    told = Told()
    made = chunks(media(path, names=("", "room"), told=told))
    assert set(reels.samples(c for c in made if isinstance(c, AudioChunk))) == {0, 8192}
    assert told == {("room", "repaired.not-finite"): 1}


def test_a_lying_wav_gives_what_it_holds_and_an_empty_one_is_lost(tmp_path: Path) -> None:
    path = reels.sound(tmp_path / "a.wav", np.full(16_000, 0.25))
    whole = path.read_bytes()
    for lie in (0, 1, 64_000_000, 2**31, 2**32 - 1):
        path.write_bytes(whole.replace((64_000).to_bytes(4, "little"), lie.to_bytes(4, "little")))
        made = chunks(media(path, names=("", "room")))
        assert len(made) <= 10
        if lie > 1:
            heard = reels.samples(c for c in made if isinstance(c, AudioChunk))
            assert set(heard) == {8192}
            assert len(heard) == 16_000
    for held in (b"", whole[:20], whole[:43]):
        path.write_bytes(held)
        with pytest.raises(SourceLost):
            chunks(media(path, names=("", "room")))


def test_a_stream_without_sound_is_lost_for_a_microphone(tmp_path: Path) -> None:
    path = reels.film(tmp_path / "a.mkv", [(0, 1), (1, 2)])
    with pytest.raises(SourceLost, match="holds no sound"):
        media(path)


class Breaks:
    """What OpenCV's capture, or FFmpeg's container, says when it breaks in the middle."""

    def __init__(self, error: Exception, pixels: object = None) -> None:
        self.error = error
        self.pixels = pixels
        self.video = types.SimpleNamespace(
            type="video", codec_context=av.CodecContext.create("h264", "r"), disposition=0
        )
        self.format = types.SimpleNamespace(name="rtsp")
        self.streams = types.SimpleNamespace(video=[self.video], audio=[])

    def grab(self) -> bool:
        if self.pixels is None:
            raise self.error
        return True

    def get(self, _: int) -> float:
        return 0.0

    def retrieve(self) -> tuple[bool, object]:
        return True, self.pixels

    def demux(self, _: object) -> Iterator[object]:
        yield from ()
        raise self.error

    def release(self) -> None:
        pass

    close = release


@pytest.mark.parametrize("error", [cv2.error("rtsp://a:b@h"), OSError(5, "rtsp://a:b@h")])
def test_a_camera_whose_library_breaks_is_lost_and_no_bug(error: Exception) -> None:
    source = CameraSource(Address("device", "0"), "office", "desk", Detect(),
                          clock=Clock(), count=Told(), opened=lambda _: Breaks(error))  # fmt: skip
    with pytest.raises(SourceLost, match="OpenCV failed") as caught:
        chunks(source)
    assert "rtsp" not in str(caught.value)


def test_a_picture_that_cannot_be_converted_is_dropped_and_counted() -> None:
    told, odd = Told(), np.zeros((4, 4, 7), np.uint8)  # no camera has seven channels
    source = CameraSource(Address("device", "0"), "office", "desk", Detect(), clock=Clock(),
                          count=told, opened=lambda _: Breaks(OSError(), odd))  # fmt: skip
    assert source._grabbed() == 0
    assert source._picture() is None
    assert told == {("desk", "dropped.undecodable"): 1}


@pytest.mark.parametrize("error", [OSError(5, "rtsp://a:b@h"), ValueError("rtsp://a:b@h")])
def test_a_stream_whose_library_breaks_is_lost_and_no_bug(error: Exception) -> None:
    source = MediaSource(Address("rtsp", "rtsp://a:b@h/x"), "office", camera="desk",
                         clock=Clock(), count=Told(), opened=lambda *_: Breaks(error))  # fmt: skip
    with pytest.raises(SourceLost, match="the stream broke off") as caught:
        chunks(source)
    assert "rtsp" not in str(caught.value)


def slowly(source: MediaSource, clock: Clock) -> Iterator[FrameChunk]:
    for chunk in source:
        yield chunk
        clock.wait(0.05)


def test_mjpeg_over_http_survives_broken_pictures_and_is_lost_at_its_end() -> None:
    clock = Clock()
    good = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()
    with reels.mjpeg(good, good[: len(good) // 2], good) as address:
        told = Told()
        source = pictures(address, fps=60, clock=clock, told=told)
        seen: list[FrameChunk] = []
        with (
            contextlib.closing(source),
            pytest.raises(SourceLost, match=r"the stream (stopped|broke off)"),
        ):
            seen.extend(slowly(source, clock))
    assert len(seen) == 100
    assert told == {("desk", "dropped.undecodable"): 50}
    assert seen[-1].seq == 149
    assert {(c.width, c.height) for c in seen} == {(64, 48)}
    assert abs(float(reels.picture(seen[0]).mean()) - 200) < 3


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_host_that_does_not_listen_is_told_without_its_address(scheme: str) -> None:
    with pytest.raises(SourceLost) as caught:
        pictures(f"{scheme}://ops:s3cretpw@127.0.0.1:1/x?token=s3cretpw")
    assert "refuse" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_playlists_and_scripts_are_no_video_whatever_they_are_called(tmp_path: Path) -> None:
    film = reels.film(tmp_path / "a.mkv", [(0, 1), (1, 2)])
    for text in (
        "#EXTM3U\n#EXTINF:1,\na.mkv\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile a.mkv\n",
    ):
        path = tmp_path / "list.mp4"
        path.write_text(text)
        for opened in (pictures, with_sound):
            with pytest.raises(SourceLost):
                opened(path)
    assert {reels.number(chunk) for chunk in chunks(pictures(film))} == {1, 2}  # type: ignore[arg-type]


def test_no_secret_leaves_by_stderr_or_process_title(tmp_path: Path) -> None:
    script = """
import contextlib, sys
from tests.contract.test_sources import media, pictures
from pipeline.errors import SourceLost
for make in (pictures, media):
    with contextlib.suppress(SourceLost):
        make(sys.stdin.readline().strip())
    with contextlib.suppress(SourceLost):
        make(sys.stdin.readline().strip())
print(open("/proc/self/cmdline").read(), open("/proc/self/comm").read())
"""
    closed = "rtsp://ops:s3cretpw@127.0.0.1:1/x"
    with reels.mjpeg(b"no jpeg") as address:
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, check=True,
                              capture_output=True, input=f"{address}\n{closed}\n" * 2, timeout=60,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert "s3cret" not in done.stdout + done.stderr
    assert "ops" not in done.stderr


def planned(site: Site, load: Callable[[str], object] = str) -> list[dict[str, str]]:
    def published(_: str, __: object) -> None:
        raise AssertionError

    def chance() -> float:
        return 0.5

    made = captures("office", site, expand=lambda source, _: source, base=Path("/etc"),
                    publish=published, status=Status(), clock=Clock(), chance=chance,
                    load=load)  # fmt: skip
    return [capture.topics for capture in made]


def test_a_camera_and_a_microphone_of_one_address_share_a_connection() -> None:
    url = "rtsp://h/live"
    site = Site(
        cameras={"a": Camera(source=url), "b": Camera(source="device:0")},
        microphones={"m": Microphone(source=url), "n": Microphone(source="device:0")},
    )
    assert planned(site) == [
        {"a": "frames.v1", "m": "audio.v1"},
        {"b": "frames.v1"},
        {"n": "audio.v1"},
    ]


def test_a_package_that_a_microphone_needs_is_named_before_anything_is_opened() -> None:
    def missing(name: str) -> object:
        msg = "No module named 'pyaudio'"
        raise ModuleNotFoundError(msg)

    device = Site(microphones={"m": Microphone(source="device:0")})
    with pytest.raises(ConfigError, match=r"pip install -c constraints.txt '\.\[microphone\]'"):
        planned(device, missing)
    stream = Site(microphones={"m": Microphone(source="rtsp://h/live")})
    assert planned(stream, missing) == [{"m": "audio.v1"}]


def test_the_log_has_reached_what_its_sources_said_last() -> None:
    site = Site(cameras={"a": Camera(source="device:0")}, microphones={"m": Microphone(source="x")})
    newest: dict[tuple[str, str], bytes] = {}

    def log_reached() -> int:
        return newest_event_time(lambda topic, key: newest.get((topic, key)), {"office": site})

    assert log_reached() == 0
    newest["reports.v1", "office/reports"] = b"no record"
    assert log_reached() == 0
    newest["frames.v1", "office/a"] = codec.encode(make.frame(7))
    assert log_reached() == ns(7) + 1
    newest["audio.v1", "office/m"] = codec.encode(make.audio(8))
    assert log_reached() == make.audio(8).end
    newest["reports.v1", "office/reports"] = codec.encode(make.progress(20, source="reports"))
    newest["frames.v1", "lobby/a"] = codec.encode(make.frame(99))
    assert log_reached() == ns(20)


def test_a_refused_address_is_a_config_error_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError):
        planned(Site(cameras={"a": Camera(source="exec:id")}))


def test_an_address_is_never_shown_whole() -> None:
    address = Address("rtsp", "rtsp://ops:s3cretpw@h/x")
    assert "s3cret" not in f"{address} {address!r} {[address]} {Record}"


def test_the_small_stream_of_a_camera_is_read_and_the_large_one_is_not() -> None:
    asked = []

    def expand(source: object, path: str) -> Any:
        asked.append((source, path))
        return source

    streams = Streams(detect="rtsp://h/small", record="rtsp://h/large")
    site = Site(
        cameras={"a": Camera(streams=streams)},
        microphones={"m": Microphone(source="rtsp://h/small")},
    )
    made = captures("office", site, expand=expand, base=Path("/etc"), publish=lambda *_: None,
                    status=Status(), clock=Clock(), chance=lambda: 0.5, load=str)  # fmt: skip
    assert [capture.topics for capture in made] == [{"a": "frames.v1", "m": "audio.v1"}]
    assert asked == [
        ("rtsp://h/small", "sites.office.cameras.a.streams.detect"),
        ("rtsp://h/small", "sites.office.microphones.m.source"),
    ]
    assert "rtsp" not in repr(site.cameras)


@pytest.mark.parametrize(("decode", "seconds"), [("all", 15), ("keyframes", 40), ("auto", 40)])
def test_the_watch_waits_for_keyframes_that_are_far_apart(decode: str, seconds: int) -> None:
    camera = Camera(source="rtsp://h/x", detect=Detect(decode=decode))
    assert silence_limit(camera) == seconds * SECOND
