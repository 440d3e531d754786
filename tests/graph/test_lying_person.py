"""A real person falls, lies still behind a closed gate, and gets up: known all the time.

The film is a recorded fall, then its last second forwards and back with a sensor's noise, and then
the fall backwards. The detector, the gate, the tracker and the rules are the real ones.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import msgspec
import numpy as np
import pytest

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.tracking.track import Tracker
from pipeline.types import SECOND, Alert, Detections, FrameChunk, Record
from tests.graph.conftest import FAKES
from workers.config import loader
from workers.media.recordings import Video
from workers.replay.scene_replay import replay
from workers.stages.encoders import load_encoders

FPS = 5
CLIP = "behaviour/falls/subject1/fall/14.mp4"  # the detector finds this person also on the ground
MOVED = 0.01  # share of the pixels that differ when the person moves again

CONFIG = """
version: 1
api: {{listen: "127.0.0.1:0"}}
sites:
  office:
    cameras:
      desk:
        source: "device:0"
        detect: {{audit: 0}}
        zones: {{floor: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}}}
    rules:
      - {{rule: zone, zone: floor, severity: high}}
      - {{rule: loitering, zone: floor, seconds: {lies}, severity: high}}
    stationary: {{after: {ever}}}
    windows: {{horizon: {ever}, patience: {ever}}}
    incidents: {{max_duration: 3600}}   # one incident, however long
    fusion: {{head: rules}}
"""


class Watched(NamedTuple):
    """What a run made of the film, frame by frame, and its alerts."""

    looks: list[str]
    seen: list[Detections]
    alerts: tuple[Alert, ...]


def frames(clip: Path) -> list[np.ndarray]:
    """The pictures of a video."""
    video, found = Video(clip, 320, loop=False, count=lambda _: None), []
    while not isinstance(picture := video.at(Fraction(len(found), FPS)), str):
        found.append(picture.pixels())
    video.close()
    return found


def film(path: Path, fall: list[np.ndarray], lies: int) -> None:
    """The fall, so many seconds on the ground, and the fall backwards."""
    dice = np.random.default_rng(2)
    noises = dice.normal(0, 1.5, (40, *fall[0].shape)).round().astype(np.int16)
    ground = [*fall[-FPS:], *fall[-2:-FPS:-1]]
    still = (ground[-1 - k % len(ground)] for k in range(lies * FPS))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.height, stream.width = fall[0].shape[0] & ~1, fall[0].shape[1] & ~1
        stream.pix_fmt, stream.gop_size = "yuv420p", 2 * FPS
        stream.options = {"preset": "ultrafast", "crf": "20"}
        for number, picture in enumerate((*fall, *still, *fall[::-1])):
            noisy = picture + noises[dice.integers(40)]
            shown = np.clip(noisy, 0, 255).astype(np.uint8)[: stream.height, : stream.width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "bgr24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def watched(folder: Path, seconds: float, lies: int) -> Watched:
    """The film through the gate, the detector, the tracker and the rules."""
    config, scene, bus = folder / "office.yaml", folder / "scene.yaml", MemoryBus()
    config.write_text(CONFIG.format(lies=lies - 5, ever=max(lies + 60, 120)))
    scene.write_text(
        f"site: office\nstart: 2026-01-05T22:00:00Z\nduration: {seconds}\n"
        "cameras: {desk: {file: film.mp4}}\n"
    )
    settings = loader.load(config)
    detector = load_encoders(settings.models, recorded=True).detector
    encoders = msgspec.structs.replace(FAKES, detector=detector)
    alerts = replay(settings, scene, encoders, bus=bus).alerts
    told: list[Record] = [codec.decode(value) for value in bus.values(topics.FRAMES)]
    seen: list[Record] = [codec.decode(value) for value in bus.values(topics.OBSERVATIONS)]
    return Watched(
        [record.look for record in told if isinstance(record, FrameChunk)],
        [record for record in seen if isinstance(record, Detections)],
        alerts,
    )


def stirs(fall: list[np.ndarray]) -> int:
    """In which frame of the fall played backwards the person no longer lies as before."""
    small = [cv2.GaussianBlur(cv2.resize(p, (160, 90)), (5, 5), 0).astype(int) for p in fall[::-1]]
    return next(
        number
        for number, picture in enumerate(small)
        if np.mean(np.abs(picture - small[0]).max(axis=2) > 15) > MOVED
    )


@pytest.mark.parametrize(
    "lies", [45, pytest.param(600, marks=pytest.mark.slow)], ids=["45-s", "ten-minutes"]
)
def test_one_who_lies_still_is_known_all_the_time(
    tmp_path: Path, media: Path, weights: Path, lies: int
) -> None:
    fall = frames(media / CLIP)
    film(tmp_path / "film.mp4", fall, lies)
    down, up = len(fall), len(fall) + lies * FPS
    looks, seen, alerts = watched(tmp_path, (down + up) / FPS, lies)

    lying = Counter(looks[down:up])
    assert set(lying) == {"", "heartbeat"}
    assert lying[""] > 0.89 * lies * FPS
    assert looks[up + stirs(fall)] == "motion", "the background has not swallowed the person"

    tracker = Tracker()
    tracks = [
        tracker.hold(one.start) if one.gated else tracker.update(one.boxes, one.start)
        for one in seen
    ]
    assert {len(now) for now in tracks[down:up]} == {1}
    assert len({track.id for now in tracks[down:up] for track in now}) == 1

    (told,) = {alert.id: alert for alert in alerts}.values()
    assert told.labels == ("intrusion", "loitering")
    assert told.end is not None
    assert told.end - told.start > lies * SECOND
    loitered = next(alert for alert in alerts if "loitering" in alert.labels)
    assert loitered.time - told.start == pytest.approx((lies - 5) * SECOND, abs=2 * SECOND)
