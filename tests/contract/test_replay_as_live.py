"""A recording is captured live as it is replayed: same pictures, sound and lost spans."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.schema import Camera, Detect, Microphone, Site
from pipeline.topics import AUDIO, FRAMES
from pipeline.types import SECOND, AudioChunk, FrameChunk, Progress, Record
from tests import reels
from workers.capture.capture import Capture, CaptureSettings
from workers.capture.factory import patience
from workers.capture.recorded_file import RecordedSource
from workers.config.source_address import parse
from workers.replay.scene_file import load_scene
from workers.replay.scene_records import scene_records
from workers.runtime.status import Status

RATE = 16_000
BEGIN = 1_767_650_400  # s; a whole second


class Recording:
    """Pictures at k/fps of a file's own rate with holes, and pieces of sound at their times."""

    def __init__(
        self, fps: int, pictures: Sequence[int], sounds: Sequence[tuple[int, int]]
    ) -> None:
        self.fps, self.pictures, self.sounds = fps, pictures, sounds

    def __repr__(self) -> str:
        return f"Recording({self.fps}, {list(self.pictures)}, {list(self.sounds)})"

    def write(self, path: Path) -> None:
        """Times are whole milliseconds, as Matroska has them."""
        dice = np.random.default_rng(1)
        with av.open(str(path), "w", format="matroska") as file:
            video = file.add_stream("ffv1", rate=1000)
            video.width, video.height, video.pix_fmt = 32, 24, "gray"
            video.codec_context.time_base = Fraction(1, 1000)
            audio = file.add_stream("pcm_s16le", rate=RATE, layout="mono") if self.sounds else None
            made: list[tuple[int, object]] = []
            for k in self.pictures:
                gray = np.full((24, 32), (k % 15) * reels.STEP, np.uint8)
                frame = av.VideoFrame.from_ndarray(gray, "gray")
                frame.pts, frame.time_base = k * 1000 // self.fps, Fraction(1, 1000)
                made.append((frame.pts, frame))
            for begin, length in self.sounds:
                noise = dice.integers(-9000, 9000, (1, length * RATE // 1000), dtype=np.int16)
                for first in range(0, noise.shape[1], 320):
                    sound = av.AudioFrame.from_ndarray(noise[:, first : first + 320], layout="mono")
                    sound.rate, sound.time_base = RATE, Fraction(1, RATE)
                    sound.pts = begin * RATE // 1000 + first
                    made.append((begin + first * 1000 // RATE, sound))
            for _, frame in sorted(made, key=lambda one: one[0]):
                stream = video if isinstance(frame, av.VideoFrame) else audio
                file.mux(stream.encode(frame))
            for stream in (video, audio):
                if stream is not None:
                    file.mux(stream.encode(None))


def live(path: Path, site: Site) -> list[Record]:
    """What a capture publishes that plays the file in a time of its own."""
    now, told = [BEGIN * SECOND], []
    microphone = "room" if site.microphones else ""
    address = parse(str(path), "camera")

    def wait(seconds: float) -> None:
        end = now[0] + round(seconds * SECOND)
        while now[0] < end:
            capture.publish_once()
            now[0] = min(end, now[0] + SECOND // 10)
        capture.publish_once()

    def source(count: object) -> RecordedSource:
        return RecordedSource(address, "office", camera="desk", microphone=microphone,
                              detect=site.cameras["desk"].detect, clock=lambda: now[0],
                              count=count, wait=wait)  # type: ignore[arg-type]  # fmt: skip

    capture = Capture(
        CaptureSettings(site="office", sources=("desk",), stalled=patience(site.cameras["desk"])),
        {"desk": FRAMES, **({"room": AUDIO} if microphone else {})},
        source,
        publish=lambda topic, records: told.extend(records),
        status=Status(),
        clock=lambda: now[0],
        chance=lambda: 0.0,
    )
    slot = capture._slot
    keep = slot.put

    def put(chunk: object) -> None:  # every frame is looked at: none is replaced by a newer one
        keep(chunk)  # type: ignore[arg-type]
        capture.publish_once()

    slot.put = put  # type: ignore[method-assign]
    capture.read(threading.Event())
    capture.publish_once()
    return told


def replayed(path: Path, site: Site) -> list[Record]:
    scene = path.with_suffix(".yaml")
    sound = f"\nmicrophones: {{room: [{{file: {path.name}}}]}}" if site.microphones else ""
    scene.write_text(
        "site: office\nstart: 2026-01-05T22:00:00Z\n"
        f"cameras: {{desk: {{file: {path.name}}}}}{sound}\n"
    )
    return [record for _, record in scene_records(load_scene(scene), site)]


def frames(records: Sequence[Record]) -> list[tuple[object, ...]]:
    return [(round(r.start / SECOND - BEGIN, 6), reels.number(r), r.look, r.motion, r.regions)
            for r in records if isinstance(r, FrameChunk)]  # fmt: skip


def heard(records: Sequence[Record]) -> np.ndarray:
    """The samples from the first second on, each at its place; what nobody captured is silence."""
    chunks = [r for r in records if isinstance(r, AudioChunk)]
    total = max(round((c.end / SECOND - BEGIN) * RATE) for c in chunks)
    line = np.zeros(total, np.int16)
    for chunk in chunks:
        samples = np.frombuffer(chunk.data, "<i2")
        at = round((chunk.start / SECOND - BEGIN) * RATE)
        line[at : at + len(samples)] = samples
    return line


def lost_spans(records: Sequence[Record]) -> list[tuple[float, float]]:
    """Spans from the first promise of an absent camera to its next picture."""
    spans: list[tuple[float, float]] = []
    began: float | None = None
    for record in records:
        if isinstance(record, FrameChunk) and began is not None:
            spans.append((began, record.start / SECOND - BEGIN))
            began = None
        if isinstance(record, Progress) and record.source == "desk" and not record.alive:
            began = record.upto / SECOND - BEGIN if began is None else began
    return spans


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    fps = draw(st.sampled_from([5, 10, 20]))
    pictures, at = [], draw(st.integers(0, 3)) * fps
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(2, 3 * fps))
        pictures += range(at, at + length)
        at += length + draw(st.sampled_from([1, fps // 5, fps, 3 * fps, 8 * fps]))
    sounds, begin = [], draw(st.integers(0, 20)) * 160
    for _ in range(draw(st.integers(0, 3))):
        length = draw(st.integers(1, 20)) * 160
        sounds.append((begin, length))
        begin += length + draw(st.sampled_from([80, 400, 5000]))
    return Recording(fps, pictures, sounds)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(recordings())
def test_live_and_replay_agree(
    tmp_path_factory: pytest.TempPathFactory, recording: Recording
) -> None:
    path = tmp_path_factory.mktemp("film") / "a.mkv"
    recording.write(path)
    rooms = {"room": Microphone(source="x")} if recording.sounds else {}
    site = Site(
        cameras={"desk": Camera(source="x", detect=Detect(fps=5, width=64))}, microphones=rooms
    )
    now, then = live(path, site), replayed(path, site)
    assert frames(now) == frames(then)
    for ours, theirs in zip(lost_spans(now), lost_spans(then), strict=True):
        assert 0 <= ours[0] - theirs[0] < 0.35  # less than two periods
        assert ours[1] == theirs[1]
    if recording.sounds:
        one, other = heard(now), heard(then)
        both = min(len(one), len(other))
        assert np.array_equal(one[:both], other[:both])
        assert not one[both:].any()
        assert not other[both:].any()
