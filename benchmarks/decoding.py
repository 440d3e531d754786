"""What it costs to read a camera: all frames, keyframes only, or keyframes while nothing moves.

    python -m benchmarks.decoding MEDIA [--seconds 60] [--weathers] [--found WEIGHTS]

Streams of 640 x 360 and 1280 x 720 (H.264, 25 frames/s, GOP 50, at most 4 Mbit/s): the empty room
of `office_a.mp4`, and that film with its visitors. Capture reads each as a live stream, with its
own code, from the packets to the JPEG at 5 frames/s. Printed are CPU seconds for a minute of the
stream, measured over its last `--seconds`, when the camera is idle. The modes run in turn, three
times; the least counts.

Then: what skipping frames saves that no published frame needs, for a stream with two B-frames. With
`--weathers`: for how much of the time `auto` leaves frames out, in the weathers of
`benchmarks.motion`, which no mode must take for motion. With `--found`: the visits to the office
that the tracker reports in each mode, and how much later than with all frames, at 640 x 360. The
visits follow 15 s of the empty room.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.motion import GOP, LIMIT, RATE, WEATHERS, Gray, Weather, rooms_of
from models.vision.detector import Detector
from pipeline.config.schema import Detect
from pipeline.errors import SourceLost
from pipeline.tracking.track import Tracker
from pipeline.types import SECOND, FrameChunk
from workers.capture.av_stream import MediaSource
from workers.config.source_address import Address
from workers.media.jpeg import decoded
from workers.media.picture_decoder import PictureDecoder
from workers.media.recordings import Picture, Video

SIZES = ((640, 360), (1280, 720))
MODES = ("all", "keyframes", "auto")
BEFORE = 14  # s of each stream that are not measured: after 11 s a camera may be idle
ROUNDS = 3
OFFICE = 72  # s; the length of `office_a.mp4`
APART = 3.0  # s between two visits


class Clock:
    """The time of the stream."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now


class Live:
    """A film as a live stream: its packets come at their time, on its clock."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file, self._clock, self._begin = av.open(str(path)), clock, clock.now
        self.begun = 0.0  # CPU seconds when the part that is measured begins

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def demux(self, streams: Any) -> Iterator[Any]:
        """Yields the packets."""
        for packet in self._file.demux(streams):
            if packet.dts is not None:
                passed = round(packet.dts * packet.time_base * SECOND)
                self._clock.now = self._begin + max(0, passed) + SECOND // 2
                if not self.begun and passed >= BEFORE * SECOND:
                    self.begun = time.process_time()
            yield packet


def empty(rooms: list[Gray], weathers: tuple[Weather, ...]) -> Iterator[Gray]:
    """The empty room in this weather, for ever, 1280 x 720."""
    dice, around, number = np.random.default_rng(1), [*rooms, *rooms[-2:0:-1]], 0
    while True:
        luma = around[number % len(around)]
        for weather in weathers:
            luma = weather(luma, number, dice)
        yield luma
        number += 1


def visited(media: Path) -> Iterator[Gray]:
    """The office with its visitors, again and again."""
    video = Video(media / "video/office_a.mp4", 1280, loop=True, count=lambda _: None)
    with closing(video):
        number = 0
        while True:
            shown = video.at(Fraction(number, RATE))
            assert isinstance(shown, Picture)
            yield shown.pixels()[:, :, 1]
            number += 1


def film(
    path: Path, size: tuple[int, int], lumas: Iterator[Gray], seconds: int, *, bframes: int = 0
) -> Path:
    """Writes a stream of these pictures."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = "yuv420p", GOP
        stream.options = {"preset": "veryfast", "bf": str(bframes), "sc_threshold": "0", **LIMIT}
        for number in range(seconds * RATE):
            luma = next(lumas)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(luma), "gray")
            small = frame.reformat(*size, format="yuv420p")
            small.pts, small.time_base = number, Fraction(1, RATE)
            file.mux(stream.encode(small))
        file.mux(stream.encode(None))
    return path


def captured(path: Path, mode: str) -> tuple[float, list[FrameChunk]]:
    """CPU seconds of the measured part, and all frames that are published."""
    clock = Clock()
    live = Live(path, clock)
    source = MediaSource(
        Address("rtsp", "rtsp://127.0.0.1/x"),
        "site",
        camera="camera",
        detect=Detect(decode=mode),
        clock=clock,
        count=lambda *_: None,
        opened=lambda *_: live,
    )
    frames: list[FrameChunk] = []
    with closing(source), suppress(SourceLost):
        frames.extend(chunk for chunk in source if isinstance(chunk, FrameChunk))
    return time.process_time() - live.begun, frames


def left_out(frames: list[FrameChunk]) -> float:
    """The share of the measured time in which only keyframes were decoded."""
    begin = frames[0].start + BEFORE * SECOND
    measured = [frame for frame in frames if frame.start >= begin]
    sparse = sum(f.end - f.start for f in measured if f.end - f.start > SECOND // 2)
    return sparse / max(1, measured[-1].end - measured[0].start)


def compared(path: Path, name: str, seconds: int) -> None:
    """Prints what the modes cost for one stream."""
    least = dict.fromkeys(MODES, float("inf"))
    share = {}
    for _ in range(ROUNDS):
        for mode in MODES:
            spent, frames = captured(path, mode)
            least[mode] = min(least[mode], spent * 60 / seconds)
            share[mode] = left_out(frames)
    told = "  ".join(
        f"{mode} {least[mode]:5.2f} s ({least['all'] / least[mode]:4.1f} times less)"
        for mode in MODES
    )
    print(f"{name:<22} {told}  auto leaves out {share['auto']:.0%} of the time", flush=True)


def skipping(path: Path, name: str, seconds: int) -> None:
    """Prints what it saves to skip frames that nobody needs."""
    skip, least = PictureDecoder.skip_unwanted, [float("inf")] * 2
    given: list[list[FrameChunk]] = [[], []]
    for _ in range(ROUNDS):
        for way, does in enumerate((lambda *_: None, skip)):
            PictureDecoder.skip_unwanted = does  # type: ignore[method-assign]
            spent, given[way] = captured(path, "all")
            least[way] = min(least[way], spent * 60 / seconds)
    PictureDecoder.skip_unwanted = skip  # type: ignore[method-assign]
    same = "the same frames" if given[0] == given[1] else "OTHER FRAMES"
    print(f"{name:<22} without skipping {least[0]:5.2f} s  with {least[1]:5.2f} s  {same}")


def followed(frames: list[FrameChunk], detector: Detector) -> list[float]:
    """The seconds, from the first frame on, of the frames in which a person is tracked."""
    tracker, seen = Tracker(), []
    for frame in frames:
        at, lasts = frame.start, frame.end - frame.start
        if not frame.look:
            tracks = tracker.hold(at, lasts)
        else:
            (boxes,) = detector([decoded(frame.data, frame.width, frame.height)])
            tracks = tracker.update([box for box in boxes if box.label == "person"], at, lasts)
        if any(track.last_seen == at for track in tracks):
            seen.append((at - frames[0].start) / SECOND)
    return seen


def found(path: Path, detector: Detector) -> None:
    """Prints the visits that are reported, and their delays."""
    at = {mode: followed(captured(path, mode)[1], detector) for mode in MODES}
    pairs = zip([-APART, *at["all"]], at["all"], strict=False)
    begins = [now for before, now in pairs if now - before >= APART]
    ends = [*begins[1:], float("inf")]
    for mode in MODES:
        told = []
        for begin, end in zip(begins, ends, strict=True):
            first = next((now for now in at[mode] if begin <= now < end), None)
            told.append("not found" if first is None else f"{first - begin:.1f} s later")
        print(f"{mode:<10} {len(begins)} visits: {', '.join(told)}")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("media", type=Path)
    ask.add_argument("--seconds", type=int, default=60, help="0: no costs")
    ask.add_argument("--weathers", action="store_true")
    ask.add_argument("--found", type=Path, metavar="WEIGHTS")
    given = ask.parse_args()
    whole, rooms = given.seconds + BEFORE, rooms_of(given.media)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        if given.seconds:
            print("CPU seconds for a minute of a stream")
        for size in SIZES if given.seconds else ():
            name = f"{size[0]} x {size[1]}"
            film(path, size, empty(rooms, WEATHERS["plain"]), whole)
            compared(path, f"{name}, idle", given.seconds)
            film(path, size, visited(given.media), whole)
            compared(path, f"{name}, visited", given.seconds)
            film(path, size, visited(given.media), whole, bframes=2)
            skipping(path, f"{name}, B-frames", given.seconds)
        for weather, draws in WEATHERS.items() if given.weathers else ():
            film(path, SIZES[1], empty(rooms, draws), whole)
            compared(path, weather, given.seconds)
        if given.found:
            detector = Detector(given.found / "yolox_nano/yolox_nano.onnx", threads=1)
            room = islice(empty(rooms, WEATHERS["plain"]), 15 * RATE)
            film(path, SIZES[0], chain(room, visited(given.media)), 15 + OFFICE)
            found(path, detector)


if __name__ == "__main__":
    main()
