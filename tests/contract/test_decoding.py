"""Which packets of a stream are decoded, and what the frames say of the time between them."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.config.schema import Detect
from pipeline.errors import SourceLost
from pipeline.types import SECOND, FrameChunk, Progress
from workers.capture.av_stream import MediaSource
from workers.capture.clock import FrameRateLimiter
from workers.config.source_address import Address
from workers.media import keyframes
from workers.media.keyframes import KeyframeGate
from workers.media.picture_decoder import PictureDecoder, on_device

RATE, GOP = 25, 50
SIZE = (320, 180)
Drawn = Callable[[float], np.ndarray]


def room(_: float = 0.0) -> np.ndarray:
    """An empty room."""
    return np.random.default_rng(3).integers(90, 110, (SIZE[1], SIZE[0])).astype(np.uint8)


def walked(*spans: tuple[float, float]) -> Drawn:
    """The room, and somebody who walks through it within these seconds."""

    def drawn(now: float) -> np.ndarray:
        picture = room().copy()
        if any(begin <= now < end for begin, end in spans):
            x = 20 + int(now * 20) % 240
            picture[60:140, x : x + 40] = 220
        return picture

    return drawn


def film(
    path: Path,
    seconds: float,
    drawn: Drawn = room,
    *,
    gop: int = GOP,
    keys: Callable[[int], bool] | None = None,
    bframes: int = 0,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        if codec == "libx264":
            stream.gop_size = gop
            stream.options = {"preset": "veryfast", "bf": str(bframes), "sc_threshold": "0"}
            stream.options |= options or {}
        for number in range(round(seconds * RATE)):
            frame = av.VideoFrame.from_ndarray(drawn(number / RATE), "gray")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            if keys and keys(number):
                frame.pict_type = av.video.frame.PictureType.I
            file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        file.mux(stream.encode(None))
    return path


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


class Live:
    """A film as a stream: its packets come at their time; `drop` leaves some out."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        drop: Callable[[Any], bool] | None = None,
        cut: Callable[[Any], list[Any]] | None = None,
    ) -> None:
        self._file, self._clock, self._drop = av.open(str(path)), clock, drop
        self._cut = cut or (lambda packet: [packet])
        self._begin = clock.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def demux(self, streams: Any) -> Iterator[Any]:
        for packet in self._file.demux(streams):
            if packet.size:
                at = self._begin + round(packet.dts * packet.time_base * SECOND) + SECOND // 10
                self._clock.now = max(self._clock.now, at)
            if self._drop is None or not packet.size or not self._drop(packet):
                yield from self._cut(packet) if packet.size else [packet]


class Run:
    """What a stream gave, and what was counted."""

    def __init__(
        self,
        path: Path,
        *,
        drop: Callable[[Any], bool] | None = None,
        cut: Callable[[Any], list[Any]] | None = None,
        hwaccel: str = "off",
        **detect: Any,
    ) -> None:
        self.told: Counter[str] = Counter()
        clock = Clock()
        source = MediaSource(
            Address("rtsp", "rtsp://127.0.0.1/x"),
            "office",
            camera="desk",
            detect=Detect(width=320, **detect),
            hwaccel=hwaccel,
            clock=clock,
            count=lambda _, what: self.told.update([what]),
            opened=lambda *_: Live(path, clock, drop, cut),
        )
        self.frames: list[FrameChunk] = []
        self.spoke: list[int] = []  # ns at which anything came
        with contextlib.closing(source), pytest.raises(SourceLost, match="stopped"):
            self._read(source, clock)
        self.decoder = source.decoder
        first = self.frames[0].start
        self.at = [round((frame.start - first) / SECOND, 2) for frame in self.frames]
        self.lasts = [round((frame.end - frame.start) / SECOND, 2) for frame in self.frames]

    def _read(self, source: MediaSource, clock: Clock) -> None:
        for chunk in source:
            self.spoke.append(clock.now)
            if isinstance(chunk, FrameChunk):
                self.frames.append(chunk)
            else:
                assert isinstance(chunk, Progress)
                assert chunk.alive

    def silence(self) -> float:
        """The longest time (s) in which nothing came."""
        return max(b - a for a, b in itertools.pairwise(self.spoke)) / SECOND


def all_wanted(path: Path, fps: float = 5) -> list[float]:
    """The seconds of the frames that are published where all are decoded."""
    pace = FrameRateLimiter(fps)
    with av.open(str(path)) as file:
        times = [round(float(frame.time), 2) for frame in file.decode(video=0)]
    return [round(at - times[0], 2) for at in times if pace.wants(round(at * SECOND))]


def holes(run: Run) -> list[float]:
    """The seconds between a frame's end and the next frame's start, where there are some."""
    pairs = itertools.pairwise(run.frames)
    return [(b.start - a.end) / SECOND for a, b in pairs if b.start - a.end > SECOND // 20]


def everything(decoder: PictureDecoder, unwanted: bool) -> None:
    """Has every frame decoded, also where nobody needs it."""


@pytest.mark.parametrize("bframes", [0, 2])
def test_frames_that_nobody_needs_are_not_decoded_and_the_same_are_published(
    tmp_path: Path, bframes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "film.mp4", 6, walked((0, 6)), bframes=bframes)
    run = Run(path)
    assert run.told == {}
    if not bframes:
        assert run.at == all_wanted(path)
        assert [frame.seq for frame in run.frames] == [round(at * RATE) for at in run.at]
    monkeypatch.setattr(PictureDecoder, "skip_unwanted", everything)
    assert run.frames == Run(path).frames


@pytest.mark.parametrize("bframes", [0, 2])
def test_keyframes_alone_last_until_the_next_one(tmp_path: Path, bframes: int) -> None:
    run = Run(film(tmp_path / "film.mp4", 12, bframes=bframes), decode="keyframes")
    assert [frame.seq for frame in run.frames[-5:]] == [50, 100, 150, 200, 250]
    assert run.lasts[-5:] == [2.0] * 5
    assert set(run.lasts[:-5]) == {0.2}
    assert holes(run) == []
    assert run.told == {"gated.undecoded": 4 * (GOP - 1)}


@pytest.mark.parametrize("bframes", [0, 2])
def test_an_idle_camera_is_decoded_by_keyframes_and_wakes_at_the_next_one(
    tmp_path: Path, bframes: int
) -> None:
    path = film(tmp_path / "film.mp4", 30, walked((21, 24)), bframes=bframes)
    run = Run(path, decode="auto")
    idle = [f.seq / RATE for f, lasts in zip(run.frames, run.lasts, strict=True) if lasts > 1]
    assert idle == [12, 14, 16, 18, 20]  # 10 s after its first second
    woken = next(i for i, frame in enumerate(run.frames) if frame.seq > 20 * RATE)
    assert run.frames[woken].seq == 22 * RATE  # the first keyframe after the motion began
    assert run.frames[woken].look == "motion"
    assert run.lasts[woken:] == [0.2] * (len(run.at) - woken)
    assert len(run.at) - woken in (40, 41)
    assert holes(run) == []
    assert set(run.told) == {"gated.undecoded"}


def test_a_stream_without_keyframes_is_decoded_whole(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 13, gop=1000)
    run = Run(path, decode="keyframes")
    assert run.told == {"keyframes.unusable": 1}
    assert run.at == all_wanted(path)
    assert set(run.lasts) == {0.2}


def test_when_keyframes_stay_away_nothing_is_lost_but_their_time(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 24)
    numbers = itertools.count()

    def late(packet: Any) -> bool:  # the keyframes from 6 s on are lost on the way
        return bool(packet.is_keyframe) and next(numbers) >= 3

    run = Run(path, drop=late, decode="keyframes")
    assert run.told["keyframes.unusable"] == 1
    at = next(i for i, lasts in enumerate(run.lasts) if lasts == 0.2 and run.at[i] > 4)
    assert 14 <= run.at[at] <= 14.5  # 10 s after the last keyframe
    assert run.at[-1] > 23.5
    counted = run.frames[-1].seq + 1 + run.told["dropped.undecodable"]
    assert counted <= 24 * RATE


def test_pictures_that_stand_alone_are_decoded_only_where_they_are_wanted(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi", 6, codec="mjpeg")
    run = Run(path, fps=2)
    assert run.at == all_wanted(path, 2)
    assert [frame.seq for frame in run.frames] == [round(at * RATE) for at in run.at]
    run = Run(path, fps=2, decode="keyframes")
    assert set(run.lasts) == {0.5}
    assert run.told == {}


def decoder_of(path: Path, hwaccel: str, opened: Any = on_device) -> tuple[Any, Any, list[str]]:
    file = av.open(str(path))
    told: list[str] = []
    stream = file.streams.video[0]
    stream.codec_context.thread_count = 1
    return file, PictureDecoder(stream, hwaccel, told.append, opened), told


def pts_of(frames: Any) -> list[int]:
    return [frame.pts for frame in frames]


@pytest.mark.parametrize("hwaccel", ["auto", "cuda", "vaapi", "qsv"])
def test_without_a_device_software_decodes_and_says_why(tmp_path: Path, hwaccel: str) -> None:
    path = film(tmp_path / "film.mp4", 2)
    run = Run(path, hwaccel=hwaccel)
    if not run.decoder.startswith("software"):
        pytest.skip("this machine has a device that decodes")
    assert run.told == {"hwaccel.failed": 1}
    assert run.decoder.startswith("software: no device can be used (")
    assert run.at == all_wanted(path)


class Device:
    """A device that fails at its `broken`th packet, or that gives frames which stay on it."""

    def __init__(self, stream: Any, broken: int, *, stays: bool = False) -> None:
        self._context = av.CodecContext.create("h264", "r")
        self._context.extradata = stream.codec_context.extradata
        self._context.thread_count = 1
        self._broken, self._stays = broken, stays

    def decode(self, packet: Any) -> Any:
        self._broken -= 1
        if self._broken >= 0:
            return self._context.decode(packet)
        if not self._stays:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
        return [Held(frame) for frame in self._context.decode(packet)]

    def flush_buffers(self) -> None:
        self._context.flush_buffers()


class Held:
    """A frame that is still on the device."""

    def __init__(self, frame: Any) -> None:
        self.pts = frame.pts
        self.format = av.VideoFormat("cuda")


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("broken", [0, 7, 60])
def test_what_a_device_fails_to_decode_is_decoded_in_software(
    tmp_path: Path, broken: int, stays: bool, bframes: int
) -> None:
    path = film(tmp_path / "film.mp4", 4, bframes=bframes)
    file, decoder, told = decoder_of(path, "cuda", lambda s, _: Device(s, broken, stays=stays))
    with file:
        assert decoder.name == "cuda"
        frames = [f for packet in file.demux(video=0) for f in decoder.decode(packet)]
    with av.open(str(path)) as whole:
        assert pts_of(frames) == pts_of(whole.decode(video=0))
    assert decoder.name == "software"
    assert len(told) == 1
    assert "cuda failed: " in told[0]


@pytest.mark.parametrize("bframes", [0, 2])
@pytest.mark.parametrize("broken", [50, 51, 52, 53, 54])
def test_a_device_that_fails_while_keyframes_are_decoded_loses_none(
    tmp_path: Path, broken: int, bframes: int
) -> None:
    path = film(tmp_path / "film.mp4", 16, bframes=bframes)
    file, decoder, told = decoder_of(path, "cuda", lambda s, _: Device(s, broken))
    clock, given = Clock(), list[Any]()
    gate = KeyframeGate(decoder, "keyframes", clock, told.append)
    with file:
        for packet in file.demux(video=0):
            clock.now = 1000 * SECOND + round((packet.dts or 0) * packet.time_base * SECOND)
            frames = gate.decode(packet)
            given += [round(frame.pts * file.streams.video[0].time_base, 2) for frame in frames]
    assert [float(at) for at in given if at > 3] == [4, 6, 8, 10, 12, 14]
    assert decoder.in_software
    assert len(told) == 1


def test_keyframes_that_give_no_frame_are_given_up(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 20)
    file, decoder, _ = decoder_of(path, "off")
    clock, told = Clock(), list[str]()
    decoder.alone = lambda packet: []  # type: ignore[method-assign]
    gate = KeyframeGate(decoder, "keyframes", clock, told.append)
    with file:
        for packet in file.demux(video=0):
            clock.now = 1000 * SECOND + round((packet.dts or 0) * packet.time_base * SECOND)
            gate.decode(packet)
    assert told == [keyframes.NOT_ALONE]


def test_too_many_bytes_without_a_keyframe_end_the_thrift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyframes, "KEPT_BYTES", 500)
    run = Run(film(tmp_path / "film.mp4", 8, walked((0, 8))), decode="keyframes")
    assert run.told["keyframes.unusable"] == 1
    assert run.lasts[-1] == 0.2


def slices(packet: Any) -> list[Any]:
    """The slices of a keyframe as packets of one time; other packets as they are."""
    data, parts = bytes(packet), list[bytes]()
    while packet.is_keyframe and data:
        size = 4 + int.from_bytes(data[:4])
        parts.append(data[:size])
        data = data[size:]
    return [copied(packet, part) for part in parts] or [packet]


def copied(packet: Any, data: bytes, pts: int | None = None) -> Any:
    """A packet with other data, or with another time."""
    made = av.Packet(data)
    made.pts, made.dts = packet.pts if pts is None else pts, packet.dts
    made.time_base, made.is_keyframe = packet.time_base, packet.is_keyframe
    made.stream = packet.stream
    return made


@pytest.mark.parametrize("decode", ["all", "keyframes", "auto"])
def test_a_keyframe_that_comes_in_several_packets_is_one_picture(
    tmp_path: Path, decode: str
) -> None:
    path = film(tmp_path / "film.mp4", 30, options={"slices": "4"})
    run, whole = Run(path, cut=slices, decode=decode), Run(path, decode=decode)
    pictures = {frame.data for frame in whole.frames}
    late = [f for f in run.frames if f.start > run.frames[0].start + 3 * SECOND]
    assert {frame.data for frame in late} <= pictures
    assert not {frame.look for frame in late} & {"first", "light"}
    assert run.at[-1] == whole.at[-1]
    assert run.lasts[-5:] == whole.lasts[-5:]
    assert holes(run) == []


@pytest.mark.parametrize("decode", ["keyframes", "auto"])
def test_packets_are_a_sign_of_life_while_keyframes_move_apart(tmp_path: Path, decode: str) -> None:
    near, far = 15 * RATE, round(9.5 * RATE)

    def keys(number: int) -> bool:
        return number % RATE == 0 if number < near else (number - near) % far == 0

    run = Run(film(tmp_path / "film.mp4", 45, gop=1000, keys=keys), decode=decode)
    assert run.at[-3:] == pytest.approx([24.5, 34.0, 43.5], abs=0.1)
    assert "keyframes.unusable" not in run.told
    assert run.silence() <= 2


@pytest.mark.parametrize("decode", ["keyframes", "auto"])
def test_a_stream_with_intra_refresh_is_decoded_whole_after_one_keyframe(
    tmp_path: Path, decode: str
) -> None:
    run = Run(film(tmp_path / "film.mp4", 24, options={"intra-refresh": "1"}), decode=decode)
    assert run.told["keyframes.unusable"] == 1
    assert run.silence() <= 2.2  # one GOP
    assert run.at[-1] > 23.5
    assert set(run.lasts) == {0.2}


@pytest.mark.parametrize("decode", ["keyframes", "auto"])
@pytest.mark.parametrize("begin", [0, 5])
def test_times_that_stand_still_are_told(tmp_path: Path, decode: str, begin: int) -> None:
    path = film(tmp_path / "film.mp4", 30)

    def still(packet: Any) -> list[Any]:
        if packet.pts * packet.time_base < begin:
            return [packet]
        return [copied(packet, bytes(packet), pts=round(begin / packet.time_base))]

    run = Run(path, cut=still, decode=decode)
    assert run.told["keyframes.unusable"] == 1
    assert set(run.lasts[-20:]) == {0.2}
    assert len(run.frames) > 5 * 20
    assert run.silence() <= 2.2


def test_a_burst_at_the_begin_is_no_reason_to_give_keyframes_up(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 30)
    file, decoder, _ = decoder_of(path, "off")
    clock, told = Clock(), list[str]()
    begin, gate = clock.now, KeyframeGate(decoder, "keyframes", clock, told.append)
    with file:
        for packet in file.demux(video=0):
            at = begin + round((packet.dts or 0) * packet.time_base * SECOND) - 12 * SECOND
            clock.now = max(clock.now, at)
            gate.decode(packet)
    assert told == []
    assert gate.sparse
