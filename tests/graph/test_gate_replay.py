"""What was recorded behind the gate is replayed: the same frames give the same bytes each time.

A daemon plays a scene, and its log keeps the frames with their `look`. These are replayed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.ports import Entry
from pipeline.run import Runner, drain
from pipeline.sources import known_at
from pipeline.types import SECOND, Alert, Detections, FrameChunk, Progress, Record, Roster
from tests import reels
from tests.graph.conftest import CONFIG, FAKES
from workers import daemon, graph
from workers.bus.publish import publish_captured
from workers.config import loader
from workers.replay.scene_file import load_scene
from workers.replay.scene_records import scene_records
from workers.replay.scene_replay import slices_of
from workers.runtime.state_folder import local_log
from workers.runtime.status import Status
from workers.stages.encoders import Encoders, load_encoders

FPS, LONG = 5, 40  # frames/s; s
MADE = (topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS)
LOITERING = "      - {rule: loitering, zone: floor, seconds: 6, severity: high}\n    fusion"
Recorded = Sequence[tuple[str, Record]]
Bytes = Mapping[str, Sequence[bytes]]


def film(path: Path) -> Path:
    """A dark room; someone (the picture is bright) stands there and steps aside; it is dark again.

    The fake detector finds a person in each bright picture.
    """
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "gray"
        for k in range(LONG * FPS):
            gray = np.full((96, 128), 190 if 5 <= k / FPS < 30 else 20, np.uint8)
            left = min(max(0, k - 17 * FPS) * 6, 60)
            gray[30:70, left : left + 20] += 40
            frame = av.VideoFrame.from_ndarray(gray, "gray")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def office(folder: Path, *, gate: str = "auto") -> Path:
    """The closed office; a fifth of the gated frames are audited."""
    path = folder / f"office-{gate}.yaml"
    detect = f'"device:0"\n        detect: {{gate: "{gate}", audit: 0.2}}'
    path.write_text(CONFIG.replace('"device:0"', detect).replace("    fusion", LOITERING))
    return path


def scene(folder: Path, name: str = "scene", begin: float = 0, length: float = LONG) -> Path:
    """So many seconds of the film, with a shot."""
    wave = np.zeros(LONG * 16_000, np.float32)
    wave[24 * 16_000 : 25 * 16_000] = 0.95 * np.sin(np.arange(16_000))
    reels.sound(folder / "room.wav", wave)
    film(folder / "desk.mkv")
    path = folder / f"{name}.yaml"
    path.write_text(
        f"site: office\nstart: 2026-01-05T22:00:{begin:02g}Z\nduration: {length}\n"
        "cameras: {desk: {file: desk.mkv, fps: 5}}\n"
        "microphones: {room: [{file: room.wav, at: 0}]}\n"
    )
    return path


def recorded(settings: Config, state: Path) -> Recorded:
    """The captured records of a daemon's log."""
    log = local_log(settings, state)
    kept = [(topic, record) for topic in topics.CHUNKS for record in records(log, topic)]
    log.close()
    return sorted(kept, key=lambda pair: known_at(pair[1]))


def records(log: LocalLog, topic: str) -> list[Record]:
    return [codec.decode(value) for value in values(log, topic)]


def values(log: LocalLog, topic: str) -> list[bytes]:
    reader = log.reader(topic, "test")
    found: list[bytes] = []
    while polled := reader.poll(1000):
        found += [entry.value for entry in polled if isinstance(entry, Entry)]
    reader.close()
    return found


def replayed(
    settings: Config, told: Recorded, models: Encoders = FAKES, chance: random.Random | None = None
) -> Bytes:
    """What all stages make of the records; by chance, they get few at a time and are restarted."""
    bus, status = MemoryBus(), Status()

    def begun() -> list[Runner]:
        nodes = graph.nodes(settings, models, status, recorded=True)
        return [node.runner(bus) for node in nodes]

    runners = begun()
    for group in pieces(told, chance) if chance else (group for _, group in slices_of(iter(told))):
        for topic, record in group:
            publish_captured(bus, topic, record)
        bus.flush()
        drain(runners)
        if chance and chance.random() < 0.2:
            for runner in runners:
                runner.close()
            runners = begun()
    return {topic: bus.values(topic) for topic in MADE}


def pieces(told: Recorded, chance: random.Random) -> Iterator[Recorded]:
    at = 0
    while at < len(told):
        count = chance.randint(1, 60)
        yield told[at : at + count]
        at += count


def by_source(observations: Sequence[bytes]) -> dict[str, list[bytes]]:
    """What was seen and heard; only its order within a source is fixed, as stages do not wait for
    each other. How often a source speaks otherwise depends on the polls.
    """
    found: dict[str, list[bytes]] = {}
    for value in observations:
        record = codec.decode(value)
        if not isinstance(record, Progress | Roster):
            found.setdefault(record.source, []).append(value)
    return found


def last(alerts: Sequence[bytes]) -> dict[str, tuple[object, ...]]:
    """The last revision of each incident."""
    told = [alert for alert in map(codec.decode, alerts) if isinstance(alert, Alert)]
    return {a.id: (a.labels, a.start, a.end, a.severity, a.rules) for a in told}


def looks(told: Recorded) -> Counter[str]:
    return Counter(record.look for _, record in told if isinstance(record, FrameChunk))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Recorded, Bytes]:
    """The config, what the daemon recorded, and what it made of that."""
    folder = tmp_path_factory.mktemp("office")
    config, state = office(folder), folder / "state"
    assert daemon.run(config, scene=scene(folder), state=state, encoders=FAKES) == 0
    settings = loader.load(config)
    told = recorded(settings, state)
    log = local_log(settings, state)
    made = {topic: values(log, topic) for topic in MADE}
    log.close()
    return settings, told, made


def test_the_log_holds_frames_of_every_sort(played: tuple[Config, Recorded, Bytes]) -> None:
    _, told, made = played
    assert set(looks(told)) == {"first", "light", "motion", "heartbeat", ""}
    seen = [one for one in map(codec.decode, made[topics.OBSERVATIONS]) if type(one) is Detections]
    assert len(seen) == LONG * FPS
    audited = sum(not one.gated for one in seen) - (LONG * FPS - looks(told)[""])
    assert audited > 0
    assert {label for labels, *_ in last(made[topics.ALERTS]).values() for label in labels} == {
        "intrusion", "loitering", "gunshot",
    }  # fmt: skip


def test_ten_replays_give_the_same_bytes(played: tuple[Config, Recorded, Bytes]) -> None:
    settings, told, made = played
    first, *others = [replayed(settings, told) for _ in range(10)]
    assert all(first.values())
    assert all(other == first for other in others)
    assert by_source(first[topics.OBSERVATIONS]) == by_source(made[topics.OBSERVATIONS])
    assert last(first[topics.ALERTS]) == last(made[topics.ALERTS])


@pytest.mark.parametrize("seed", range(10))
def test_polls_and_restarts_of_any_stage_change_nothing(
    played: tuple[Config, Recorded, Bytes], seed: int
) -> None:
    settings, told, made = played
    again = replayed(settings, told, chance=random.Random(seed))
    assert by_source(again[topics.OBSERVATIONS]) == by_source(made[topics.OBSERVATIONS])
    assert last(again[topics.ALERTS]) == last(made[topics.ALERTS])


def connection(settings: Config, path: Path, shown: float) -> Recorded:
    """What one connection of capture records; the camera shows the film from `shown` on."""
    played = load_scene(path)
    (name, camera), *_ = played.cameras.items()
    cameras = {name: msgspec.structs.replace(camera, at=-shown)}
    played = msgspec.structs.replace(played, cameras=cameras)
    told = scene_records(played, settings.sites["office"])
    return [
        (topic, record)
        for topic, record in told
        if not isinstance(record, Progress) or record.upto <= played.end
    ]


def test_a_restart_of_capture_in_the_middle_is_replayed_too(tmp_path: Path) -> None:
    settings = loader.load(office(tmp_path))
    before = connection(settings, scene(tmp_path, "before", 0, 14), 0)
    after = connection(settings, scene(tmp_path, "after", 15, 25), 15)
    told = [*before, *after]
    begun = [r.look for _, r in after if isinstance(r, FrameChunk)]
    assert begun[:4] == ["first"] * 4, "nobody knows what has moved meanwhile"
    first, *others = [replayed(settings, told) for _ in range(10)]
    assert all(other == first for other in others)
    (one,) = last(first[topics.ALERTS]).values()
    assert one[0] == ("gunshot", "intrusion", "loitering")
    assert one[2] is None or one[2] - one[1] > 20 * SECOND  # type: ignore[operator]
    looked = replayed(loader.load(office(tmp_path, gate="off")), told)
    assert last(looked[topics.ALERTS]) == last(first[topics.ALERTS])


@pytest.mark.slow
def test_ten_replays_of_a_real_scene_give_the_same_bytes(
    scenes: Path, weights: Path, tmp_path: Path
) -> None:
    config = Path(__file__).parents[2] / "deploy/examples/office.yaml"
    settings = loader.load(config)
    models = load_encoders(settings.models, recorded=True)
    path, state = scenes / "office-after-hours.yaml", tmp_path / "state"
    assert daemon.run(config, scene=path, state=state, encoders=models) == 0
    told = recorded(settings, state)
    assert looks(told)[""] > 0.1 * sum(looks(told).values())
    first, *others = [replayed(settings, told, models) for _ in range(10)]
    assert all(other == first for other in others)
    log = local_log(settings, state)
    assert by_source(first[topics.OBSERVATIONS]) == by_source(values(log, topics.OBSERVATIONS))
    assert last(first[topics.ALERTS]) == last(values(log, topics.ALERTS))
    log.close()
