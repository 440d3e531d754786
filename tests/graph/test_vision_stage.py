"""The vision stage: JPEG in, detections and promises out, and no frame lost without a count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.vision.detector import Detector
from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.codec import decode, encode
from pipeline.config import schema
from pipeline.errors import DecodeError
from pipeline.run import Runner, drain
from pipeline.tracking.frame_shape import aspect_of
from pipeline.types import (
    FOREVER,
    SECOND,
    Box,
    DeadLetter,
    Detections,
    FrameChunk,
    Progress,
    Record,
    Roster,
    ns,
)
from workers import graph
from workers.media.jpeg import decoded
from workers.runtime.status import Status
from workers.stages.encoders import load_encoders
from workers.stages.vision import VisionStage

PERSON = Box(label="person", score=0.9, x1=0.1, y1=0.1, x2=0.2, y2=0.6)
SHADOW = Box(label="person", score=0.15, x1=0.5, y1=0.1, x2=0.6, y2=0.6)


class Brightness:
    """A detector of one rule: bright pictures hold a person and a shadow. Keeps its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        self.batches.append(len(batch))
        return [(PERSON, SHADOW) if picture.mean() > 100 else () for picture in batch]


def jpeg(level: int = 200, width: int = 64, height: int = 48, kind: str = ".jpg") -> bytes:
    picture = np.full((height, width, 3), level, np.uint8)
    picture[::2] //= 2
    return bytes(cv2.imencode(kind, picture)[1])


def frame(
    number: int, data: bytes | None = None, source: str = "desk", size: tuple[int, int] = (64, 48)
) -> FrameChunk:
    return FrameChunk(
        site="office",
        source=source,
        start=number * SECOND,
        end=(number + 1) * SECOND,
        seq=number,
        width=size[0],
        height=size[1],
        data=jpeg() if data is None else data,
    )


def through(stage: VisionStage, *records: Record) -> list[Record]:
    """One poll."""
    state = stage.open({})
    made: list[Record] = []
    for record, inferred in zip(records, stage.infer(records), strict=True):
        made += state.on(record, inferred)
    return made


def progress(number: int, reason: str = "", source: str = "desk") -> Progress:
    return Progress(site="office", source=source, upto=number * SECOND + 1, reason=reason)


def found(
    number: int, *boxes: Box, source: str = "desk", seen: tuple[float, float] = (0.588, 4.602)
) -> Detections:
    """What is in `jpeg()`; `seen` is its luma and sharpness."""
    return Detections(
        site="office",
        source=source,
        start=number * SECOND,
        end=(number + 1) * SECOND,
        boxes=boxes,
        luma=seen[0],
        sharpness=seen[1],
        aspect=aspect_of(64, 48),
    )


def test_a_frame_becomes_detections_and_a_promise() -> None:
    made = through(VisionStage(Brightness()), frame(1))
    assert made == [found(1, PERSON, SHADOW), progress(1)]
    assert [decode(encode(record)) for record in made] == made


def test_an_empty_frame_is_an_observation_too() -> None:
    assert through(VisionStage(Brightness()), frame(1, jpeg(0))) == [
        found(1, seen=(0.0, 0.0)),
        progress(1),
    ]


def test_tiles_are_looked_at_in_one_batch_and_only_where_something_moves() -> None:
    detector = Brightness()
    known = {
        ("office", "desk"): schema.Detect(tiles=2, audit=0),
        ("office", "hall"): schema.Detect(),
    }
    still = msgspec.structs.replace(frame(2), look="")
    stage = VisionStage(detector, policy="all", known=known)
    made = through(stage, frame(1), still, frame(1, source="hall"))
    assert detector.batches == [6]  # the whole picture, 2 x 2 tiles, and the other camera's picture
    tiled, gated, whole = (record for record in made if isinstance(record, Detections))
    assert whole.boxes == (PERSON, SHADOW)
    assert set(whole.boxes) < set(tiled.boxes)  # this detector sees somebody in each tile
    assert len(tiled.boxes) == 10
    assert (gated.gated, gated.boxes, gated.aspect) == (True, (), 1.333)


def test_cameras_of_both_qualities_may_have_tiles() -> None:
    normal, high = Brightness(), Brightness()
    known = {
        ("office", "desk"): schema.Detect(tiles=2),
        ("office", "hall"): schema.Detect(tiles=3, quality="high"),
    }
    stage = VisionStage(normal, policy="all", known=known, detector_high=high)
    through(stage, frame(1), frame(1, source="hall"))
    assert (normal.batches, high.batches) == ([5], [7])


def test_what_is_below_min_score_is_cut_off() -> None:
    assert through(VisionStage(Brightness(), min_score=0.2), frame(1))[0] == found(1, PERSON)


def test_roster_and_progress_pass_as_they_are() -> None:
    roster = Roster(site="office", source="desk", sources=("desk",), start=0)
    lost = Progress(site="office", source="desk", upto=5, alive=False, reason="unplugged")
    assert through(VisionStage(Brightness()), roster, lost) == [roster, lost]


class Costly:
    """A detector that takes `cost` s of its own time for a frame, and keeps its batches."""

    def __init__(self, cost: float) -> None:
        self.cost, self.now, self.batches = cost, 0.0, list[int]()

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        self.now += self.cost * len(batch)
        self.batches.append(len(batch))
        return [() for _ in batch]

    def timer(self) -> float:
        return self.now


SHIPPED = 0.0084  # s a frame: YOLOX-Nano with its JPEG, on two cores (docs/measurements.md)
FPS = 5


def polls(cameras: int, seconds: int, limit: int = 64) -> Iterator[list[FrameChunk]]:
    """A backlog as it stands in the log: the cameras' frames in turn, poll after poll."""
    waiting = [
        msgspec.structs.replace(
            frame(0, source=f"camera-{camera}"),
            start=ns(number / FPS) + camera,
            end=ns((number + 1) / FPS) + camera,
        )
        for number in range(seconds * FPS)
        for camera in range(cameras)
    ]
    for at in range(0, len(waiting), limit):
        yield waiting[at : at + limit]


def looked_at(
    stage: VisionStage, polled: Iterable[Sequence[FrameChunk]]
) -> tuple[dict[str, list[float]], int]:
    """When each source was looked at, in s, and how many frames there were."""
    times: dict[str, list[float]] = defaultdict(list)
    frames = 0
    for batch in polled:
        frames += len(batch)
        for record in through(stage, *batch):
            if isinstance(record, Detections):
                times[record.source].append(record.start / SECOND)
    return times, frames


def widest(times: Mapping[str, Sequence[float]]) -> float:
    return max(b - a for each in times.values() for a, b in pairwise(each))


def test_what_is_live_is_looked_at_wholly_while_there_is_time() -> None:
    detector, status = Costly(SHIPPED), Status()
    stage = VisionStage(detector, "newest", status=status, timer=detector.timer)
    looked_at(stage, polls(cameras=10, seconds=4, limit=10))
    assert status.counted("office", "camera-3", "processed") == 4 * FPS
    assert status.counted("office", "camera-3", "dropped.stale") == 0
    assert set(detector.batches) == {10}


def test_a_backlog_is_worked_off_at_four_times_real_time_with_no_long_gap() -> None:
    detector, status = Costly(SHIPPED), Status()
    stage = VisionStage(detector, "newest", status=status, timer=detector.timer)
    stage.watch(lambda: 64)  # more waits
    times, frames = looked_at(stage, polls(cameras=10, seconds=120))
    assert detector.now < 120 / 4 * 1.1
    assert len(times) == 10
    assert widest(times) <= 0.8  # s of event time that no frame was looked at
    counted = sum(
        status.counted("office", source, what)
        for source in times
        for what in ("processed", "dropped.stale")
    )
    assert counted == frames == 6000


def test_a_backlog_of_few_cameras_is_looked_at_wholly() -> None:
    detector = Costly(SHIPPED)
    times, frames = looked_at(VisionStage(detector, timer=detector.timer), polls(4, 120))
    assert sum(map(len, times.values())) == frames


def test_a_poll_that_holds_one_of_several_sources_has_their_time_for_it() -> None:
    detector = Costly(SHIPPED)
    stage = VisionStage(detector, timer=detector.timer)
    stage.watch(lambda: 64)  # more waits
    parts: dict[str, list[FrameChunk]] = defaultdict(list)
    for waiting in polls(20, 120):
        for each in waiting:
            parts[each.source].append(each)
    turns = [part[at : at + 64] for at in range(0, 600, 64) for part in parts.values()]
    looked_at(stage, turns[:20])
    began = detector.now
    looked_at(stage, turns[20:])
    assert detector.now - began < 120 / 4 * 1.1


def test_the_first_frames_may_take_long_and_the_others_are_looked_at_nevertheless() -> None:
    detector = Costly(2.0)
    stage = VisionStage(detector, timer=detector.timer)

    def warm(batch: Sequence[np.ndarray]) -> list[tuple[Box, ...]]:
        said = detector(batch)
        detector.cost = SHIPPED
        return said

    stage = VisionStage(warm, timer=detector.timer)
    times, frames = looked_at(stage, polls(1, 60))
    assert sum(map(len, times.values())) == frames


def test_a_detector_that_is_too_slow_looks_at_the_newest_frame_of_each_source_only() -> None:
    detector, status = Costly(1.0), Status()
    stage = VisionStage(detector, "newest", status=status, timer=detector.timer)
    made = through(stage, frame(1), frame(1, source="door"), frame(2), frame(3))
    assert made == [
        progress(1),
        found(1, source="door"),
        progress(1, source="door"),
        progress(2),
        found(3),
        progress(3),
    ]
    assert detector.batches == [2]
    assert status.counted("office", "desk", "dropped.stale") == 2
    assert status.counted("office", "desk", "processed") == 1


def test_a_live_worker_of_many_cameras_polls_several_frames_of_each() -> None:
    camera = schema.Camera(source="device:0")
    hall = schema.Site(cameras={f"camera-{number}": camera for number in range(25)})
    settings = schema.Config(version=1, sites={"hall": hall, "yard": hall})
    encoders = load_encoders(settings.models, stages=())
    limits = {
        recorded: next(
            graph.nodes(settings, encoders, Status(), recorded=recorded, stages=("vision",))
        ).limit
        for recorded in (False, True)
    }
    assert limits == {False: 200, True: 64}


def test_policy_all_looks_at_every_frame_with_bounded_batches() -> None:
    detector = Costly(60.0)
    stage = VisionStage(detector, "all", timer=detector.timer)
    made = through(stage, *(frame(n) for n in range(40)))
    assert sum(isinstance(record, Detections) for record in made) == 40
    assert detector.batches == [16, 16, 8]


GOOD = jpeg()
SIZE = (48).to_bytes(2) + (64).to_bytes(2)  # height and width, as the frame header has them
BAD = {
    "empty": (b"", "no JPEG"),
    "a png": (jpeg(kind=".png"), "no JPEG"),
    "half": (GOOD[: len(GOOD) // 2], "broken JPEG: Premature end"),
    "all but the end mark": (GOOD[:-2], "broken JPEG: Premature end"),
    "a hole": (GOOD[:-60] + GOOD[-40:], "broken JPEG: Corrupt JPEG data"),
    "a header only": (GOOD[:4], "no JPEG"),
    "marks only": (b"\xff\xd8\xff\xd9", "no JPEG"),
    "a lying size": (jpeg(width=32), "32 x 48, its record says 64 x 48"),
    "a bomb": (GOOD.replace(SIZE, b"\xea\x60\xea\x60", 1), "60000 x 60000"),
    "larger than JPEG can be": (GOOD.replace(SIZE, b"\xff\xff\xff\xff", 1), "no JPEG"),
    "noise": (b"\xff\xd8" + bytes(range(256)) * 4, "no JPEG"),
    "4:4:1": (GOOD.replace(b"\x01\x22\x00", b"\x01\x14\x00", 1), "no JPEG"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_frame_that_is_no_whole_picture_is_counted_and_told(name: str) -> None:
    data, why = BAD[name]
    status, detector = Status(), Brightness()
    stage = VisionStage(detector, "all", status=status)
    dead, moved, *rest = through(stage, frame(1, data), frame(2))
    assert isinstance(dead, DeadLetter)
    assert why in dead.reason
    assert isinstance(moved, Progress)
    assert (moved.upto, moved.alive) == (SECOND + 1, True)
    assert why in moved.reason
    assert rest == [found(2, PERSON, SHADOW), progress(2)]
    assert status.counted("office", "desk", "dropped.undecodable") == 1
    assert detector.batches == [1]


def test_a_padded_jpeg_is_whole() -> None:
    assert decoded(GOOD + bytes(100), 64, 48).shape == (48, 64, 3)


def test_a_picture_that_is_too_large_is_refused_though_its_record_says_so() -> None:
    with pytest.raises(DecodeError, match="16384 on a side"):
        decoded(GOOD.replace(SIZE, b"\x50\x00\x50\x00", 1), 0x5000, 0x5000)


def test_progressive_and_restart_marks_are_read() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for flags in ([cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        data = bytes(cv2.imencode(".jpg", noise, flags)[1])
        assert decoded(data, 64, 48).shape == (48, 64, 3)
        for cut in range(0, len(data), 7):
            with pytest.raises(DecodeError):
                decoded(data[:cut], 64, 48)


def test_an_end_mark_does_not_make_a_cut_picture_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for flags in ([], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        data = bytes(cv2.imencode(".jpg", noise, flags)[1])
        for cut in range(3, len(data), 7):
            with pytest.raises(DecodeError):
                decoded(data[:-cut] + b"\xff\xd9", 64, 48)


@pytest.mark.parametrize("sampling", ["411", "420", "422", "440", "444"])
def test_pixels_are_those_of_opencv(sampling: str) -> None:
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    coarse = np.random.default_rng(1).integers(0, 255, (6, 9, 3), np.uint8)
    for size in ((64, 48), (33, 17), (1, 1)):
        picture = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        for source in (picture, picture[:, :, 0]):
            data = cv2.imencode(".jpg", source, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1]
            wanted = cv2.imdecode(data, cv2.IMREAD_COLOR_BGR)
            assert np.array_equal(decoded(bytes(data), *size), wanted)


@given(st.data())
def test_no_bytes_make_the_reader_fail_otherwise(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for at in data.draw(st.lists(st.integers(0, len(GOOD) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(GOOD)))
    try:
        pixels = decoded(bytes(damaged[:cut]), 64, 48)
    except DecodeError:
        return
    assert pixels.shape == (48, 64, 3)
    assert cut == len(GOOD)


def test_each_camera_has_the_detector_of_its_quality() -> None:
    normal, high = Brightness(), Brightness()
    known = {("office", "desk"): schema.Detect(), ("office", "door"): schema.Detect(quality="high")}
    stage = VisionStage(normal, "all", known=known, detector_high=high)
    frames = [frame(0), frame(0, source="door"), frame(1, source="door")]
    out = [one for one in through(stage, *frames) if isinstance(one, Detections)]
    assert [one.source for one in out] == ["desk", "door", "door"]
    assert all(one.boxes == (PERSON, SHADOW) for one in out)
    assert (normal.batches, high.batches) == ([1], [2])


def test_nothing_is_held() -> None:
    assert VisionStage(Brightness()).open({"office": 5}).floor("office") == FOREVER


def test_frames_on_the_bus_become_observations_that_find_the_person(
    media: Path, weights: Path
) -> None:
    capture = cv2.VideoCapture(str(media / "video/office_a.mp4"))
    bus = MemoryBus()
    for number in range(90):
        picture = capture.read()[1]
        if number % 10 == 0:
            data = bytes(cv2.imencode(".jpg", picture)[1])
            chunk = frame(number // 10, data, size=(picture.shape[1], picture.shape[0]))
            bus.publish(topics.FRAMES, topics.key_of(topics.FRAMES, chunk), encode(chunk))
    bus.flush()
    stage = VisionStage(Detector(weights / "yolox_nano/yolox_nano.onnx", threads=1), "all")
    drain([Runner(stage, bus, topic=topics.FRAMES, group="vision", out=topics.OBSERVATIONS)])
    persons = {}
    for value in bus.values(topics.OBSERVATIONS):
        record = decode(value)
        if isinstance(record, Detections):
            sure = [box for box in record.boxes if box.label == "person" and box.score >= 0.4]
            persons[record.start // SECOND] = len(sure)
    assert persons == {n: int(n >= 7) for n in range(9)}  # one comes in at 6.3 s
