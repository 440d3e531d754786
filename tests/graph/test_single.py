"""A worker's own doing, as far as no broker is needed: what is refused, and a scene's way out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.config import schema
from pipeline.errors import ConfigError, OutsideError
from pipeline.limits import most_bytes
from pipeline.stages import WORKERS
from tests.graph.conftest import CONFIG
from workers import daemon, worker
from workers.bus.preflight import FAUST_PROTOCOL, check_group, check_topics
from workers.bus.spool import Spool
from workers.config import loader
from workers.replay.scene_player import ScenePlayer, scene_of
from workers.runtime.status import Status
from workers.worker import WorkerOptions

Scene = Callable[..., Path]

BUS = 'bus: {kind: kafka, brokers: ["127.0.0.1:9"]}\n'
ROOMY = 1 << 24


@pytest.fixture
def brokered(tmp_path: Path) -> Path:
    """The office over brokers that are not there."""
    path = tmp_path / "kafka.yaml"
    path.write_text(CONFIG + BUS)
    return path


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (WorkerOptions(stage="vision", scene=Path("x")), "--scene and --sites are for the capture"),
        (
            WorkerOptions(stage="fusion", sites=("office",)),
            "--scene and --sites are for the capture",
        ),
        (WorkerOptions(stage="capture", scene=Path("x"), sites=("a",)), "a scene is one site"),
        (WorkerOptions(stage="capture", speed=2), "add --scene"),
        (WorkerOptions(stage="capture", recorded=True), "--recorded is for the stages"),
        *(
            (WorkerOptions(stage=stage, faust=True), "--faust is for vision, hearing, text")
            for stage in ("capture", "fusion", "alert", "delivery")
        ),
        (WorkerOptions(stage="vision", instance="vision 2"), "--instance"),
        (WorkerOptions(stage="vision", instance="x" * 101), "--instance"),
    ],
)
def test_what_does_not_go_together_is_refused(
    brokered: Path, order: WorkerOptions, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        worker.run(order, brokered)


def test_a_site_that_is_not_in_the_config_is_refused(brokered: Path) -> None:
    with pytest.raises(ConfigError, match="--sites: 'harbour' is not in the config"):
        worker.run(WorkerOptions(stage="capture", sites=("office", "harbour")), brokered)


@pytest.mark.parametrize("stage", WORKERS)
def test_a_worker_needs_brokers(config: Path, stage: str) -> None:
    with pytest.raises(ConfigError, match=r"a worker needs brokers.*fusewatch run"):
        worker.run(WorkerOptions(stage=stage), config)


def test_the_daemon_has_a_log_of_its_own(brokered: Path) -> None:
    with pytest.raises(ConfigError, match="fusewatch worker STAGE"):
        daemon.run(brokered)


def test_the_password_of_the_brokers_is_looked_up_and_named_by_its_place_only(
    tmp_path: Path,
) -> None:
    sasl = "{mechanism: PLAIN, username: me, password: 'file:none'}"
    path = tmp_path / "kafka.yaml"
    path.write_text(CONFIG + f'bus: {{kind: kafka, brokers: ["127.0.0.1:9"], sasl: {sasl}}}\n')
    with pytest.raises(ConfigError, match=r"bus\.sasl\.password: the secret's file"):
        worker.run(WorkerOptions(stage="text"), path)


class Known:
    """What brokers would say."""

    def __init__(self, limits: Mapping[str, int], protocol: str | None = None) -> None:
        self._limits, self._protocol = limits, protocol

    def limits(self, topics: Sequence[str]) -> Mapping[str, int]:
        return self._limits

    def assignor(self, group: str) -> str | None:
        assert group == "fusewatch-vision"
        return self._protocol


def settings() -> schema.KafkaBus:
    return schema.KafkaBus(brokers=("127.0.0.1:9",))


def enough() -> dict[str, int]:
    most = settings().max_message
    return {name: most_bytes(name, most) + (1 << 16) for name in topics.ALL_TOPICS}


def test_topics_that_are_there_and_take_our_records_are_fine() -> None:
    check_topics(Known(enough()), settings())


@pytest.mark.parametrize("name", topics.ALL_TOPICS)
def test_a_missing_topic_is_told_with_what_makes_it(name: str) -> None:
    limits = {topic: limit for topic, limit in enough().items() if topic != name}
    with pytest.raises(ConfigError, match=rf"fusewatch\.{name}.*fusewatch topics create"):
        check_topics(Known(limits), settings())


@pytest.mark.parametrize("name", topics.ALL_TOPICS)
def test_a_topic_that_does_not_take_our_largest_record_is_told(name: str) -> None:
    largest = most_bytes(name, settings().max_message)
    limits = enough() | {name: largest}  # its key and headers do not fit
    with pytest.raises(ConfigError, match=rf"{name} takes {largest}, and needs {largest + 2048}"):
        check_topics(Known(limits), settings())


@pytest.mark.parametrize(
    ("there", "faust"),
    [(None, False), (None, True), ("cooperative-sticky", False), (FAUST_PROTOCOL, True)],
)
def test_a_group_of_our_kind_or_of_nobody_is_joined(there: str | None, faust: bool) -> None:
    check_group(Known({}, there), settings(), "vision", faust=faust)


@pytest.mark.parametrize(
    ("there", "faust", "advice"),
    [
        (FAUST_PROTOCOL, False, "start this one with --faust"),
        ("range", True, "start this one without --faust"),
    ],
)
def test_a_group_of_the_other_kind_is_refused(there: str, faust: bool, advice: str) -> None:
    with pytest.raises(OutsideError, match=advice):
        check_group(Known({}, there), settings(), "vision", faust=faust)


def played(spool: Spool, scene: Path, config: Path, full: Callable[[], bool]) -> ScenePlayer:
    known = loader.load(config)
    return ScenePlayer(
        known,
        scene_of(known, scene),
        store=spool.put,
        last=spool.last,
        full=full,
        status=Status(),
        speed=None,
    )


def spooled(spool: Spool) -> dict[str, list[bytes]]:
    """By key, in order, without repeats: a promise may be said twice."""
    found: dict[str, dict[bytes, None]] = {}
    for each in spool.take(10_000, 1 << 30):
        found.setdefault(f"{each.topic} {each.key}", {})[each.value] = None
    return {key: list(values) for key, values in found.items()}


def test_a_scene_that_is_killed_goes_on_after_what_the_spool_has(
    tmp_path: Path, config: Path, scene: Scene
) -> None:
    path = scene(person=(3, 6), loud=(8, 9))
    whole = Spool(tmp_path / "whole.db", cap=ROOMY)
    played(whole, path, config, lambda: False).play(threading.Event())
    stop, left = threading.Event(), iter(range(7))

    def killed() -> bool:
        if next(left, None) is None:
            stop.set()
        return stop.is_set()

    first = Spool(tmp_path / "killed.db", cap=ROOMY)
    player = played(first, path, config, killed)
    player.play(stop)
    assert not player.over.is_set()
    assert 0 < first.waiting < whole.waiting
    first.close()
    again = Spool(tmp_path / "killed.db", cap=ROOMY)
    player = played(again, path, config, lambda: False)
    player.play(threading.Event())
    assert player.over.is_set()
    assert spooled(again) == spooled(whole)
    again.close()
    whole.close()
