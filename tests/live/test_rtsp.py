"""A real RTSP server: frames come, it dies, is lost with a reason, and comes back by itself."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.schema import Camera, Detect, Microphone, Site
from pipeline.errors import SourceLost
from pipeline.topics import AUDIO, FRAMES
from pipeline.types import SECOND, AudioChunk, FrameChunk, Progress, Record
from tests import reels
from tests.live.servers import eventually, rtsp_server
from workers.capture.av_stream import MediaSource
from workers.capture.capture import Capture
from workers.capture.clock import UtcClock
from workers.capture.factory import captures
from workers.config.source_address import parse
from workers.runtime.status import Status

pytestmark = pytest.mark.live


class Running:
    """The captures of a site in threads, and what they publish."""

    def __init__(self, site: Site) -> None:
        self.status = Status()
        self.clock = UtcClock()
        self.records: list[tuple[str, Record]] = []
        self.captures: list[Capture] = captures(
            "office", site, expand=lambda source, _: source, base=Path.cwd(),
            publish=lambda topic, records: self.records.extend((topic, r) for r in records),
            status=self.status, clock=self.clock, chance=random.random,
        )  # fmt: skip

    def of(self, kind: type, topic: str = FRAMES) -> list:
        return [r for t, r in list(self.records) if t == topic and isinstance(r, kind)]

    def state(self, source: str = "desk") -> tuple[str, str]:
        """Returns the state and its reason; empty before the capture has said anything."""
        state = self.status.snapshot().sources.get("office", {}).get(source)
        return (state.state, state.reason) if state else ("", "")


@contextlib.contextmanager
def running(site: Site) -> Iterator[Running]:
    run, stop = Running(site), threading.Event()
    threads = [
        threading.Thread(target=loop, args=(stop,))
        for capture in run.captures
        for loop in (capture.read, capture.publish_loop)
    ]
    for thread in threads:
        thread.start()
    try:
        yield run
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def site(camera: str, microphone: str = "") -> Site:
    return Site(
        cameras={"desk": Camera(source=camera, detect=Detect(fps=5))},
        microphones={"room": Microphone(source=microphone)} if microphone else {},
    )


def test_a_camera_is_lost_with_its_server_and_comes_back_with_it(media: Path) -> None:
    port = free_port()
    film = media / "video/office_a.mp4"
    with running(site(f"rtsp://127.0.0.1:{port}/live")) as run:
        eventually(lambda: "refused" in run.state()[1], within=10)
        with rtsp_server(film, port=port):
            eventually(lambda: len(run.of(FrameChunk)) > 10, within=30)
            assert run.state() == ("live", "")
        eventually(lambda: run.state()[0] in ("lost", "connecting"), within=15)
        eventually(lambda: run.of(Progress)[-1].reason, within=5)
        seen = len(run.of(FrameChunk))
        with rtsp_server(film, port=port):
            eventually(lambda: len(run.of(FrameChunk)) > seen + 10, within=60)
    frames = run.of(FrameChunk)
    assert reels.picture(frames[-1]).shape == (360, 640, 3)
    promised = -1
    for record in run.of(Record):
        if isinstance(record, Progress):
            assert not record.alive
            assert record.upto >= promised
            promised = record.upto
        elif isinstance(record, FrameChunk):
            assert record.start >= promised
    starts = [frame.start for frame in frames]
    assert starts == sorted(set(starts))
    assert abs(starts[-1] - run.clock()) < 20 * SECOND
    counts = run.status.snapshot().counts["office"]["desk"]
    spent = sum(n for what, n in counts.items() if what.split(".")[0] in ("gated", "dropped"))
    assert 0 <= counts["captured"] - spent - counts["published"] <= 1


def test_picture_and_sound_of_one_stream_come_over_one_connection(media: Path) -> None:
    with rtsp_server(media / "video/Retail02_short.mp4", "--sound") as url:
        with running(site(url, url)) as run:
            eventually(lambda: len(run.of(AudioChunk, AUDIO)) > 30, within=30)
            eventually(lambda: len(run.of(FrameChunk)) > 10, within=10)
        assert len(run.captures) == 1
        heard, seen = run.of(AudioChunk, AUDIO), run.of(FrameChunk)
        assert abs(heard[-1].end - seen[-1].start) < SECOND
        assert all(b.start >= a.end for a, b in itertools.pairwise(heard))


@pytest.mark.parametrize("more", [(), ("--digest",)])
def test_a_wrong_password_is_told_and_not_shown(media: Path, more: tuple[str, ...]) -> None:
    guard = ("--user", "ops", "--password", "right-one", *more)
    with rtsp_server(media / "video/office_a.mp4", *guard) as url:
        with pytest.raises(SourceLost, match="password") as caught:
            camera(url.replace("//", "//ops:wr0ng-one@"))
        assert "wr0ng" not in str(caught.value)
        right = camera(url.replace("//", "//ops:right-one@"))
        with contextlib.closing(right):
            chunk = next(iter(right))
            assert isinstance(chunk, FrameChunk)
            assert chunk.width == 640


def camera(url: str) -> MediaSource:
    return MediaSource(
        parse(url, "camera"),
        "office",
        camera="desk",
        clock=UtcClock(),
        count=lambda source, what: None,
    )


def test_keyframes_of_a_stream_last_until_the_next_one(media: Path) -> None:
    with rtsp_server(media / "video/office_a.mp4", "--gop", "20") as url:
        detect = Detect(fps=5, decode="keyframes")
        keyed = Site(cameras={"desk": Camera(source=url, detect=detect, hwaccel="auto")})
        with running(keyed) as run:
            eventually(lambda: [f for f in run.of(FrameChunk) if apart(f) > 1][3:], within=40)
            assert run.state() == ("live", "")
    frames = [f for f in run.of(FrameChunk) if apart(f) > 1]
    assert all(b.start - a.end < SECOND // 5 for a, b in itertools.pairwise(frames))
    assert {apart(frame) for frame in frames} <= {2.0, 2.2}
    counts = run.status.snapshot().counts["office"]["desk"]
    assert counts["gated.undecoded"] >= 3 * 19
    assert not any("dropped.undecodable" in what for what in counts)
    spent = sum(n for what, n in counts.items() if what.split(".")[0] in ("gated", "dropped"))
    assert 0 <= counts["captured"] - spent - counts["published"] <= 1


def apart(frame: FrameChunk) -> float:
    """The seconds until the next frame is due."""
    return (frame.end - frame.start) / SECOND
