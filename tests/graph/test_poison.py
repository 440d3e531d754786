"""What should never have been in a topic goes to `dead.v1` with its reason; the rest goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import KafkaBus as Settings
from pipeline.config.topic_plan import partitions_of
from pipeline.kafka_partitioner import partition_of
from pipeline.ports import Bus, Entry
from pipeline.run import KINDS, Runner, drain
from pipeline.types import Alert, DeadLetter, Record, Report, ns
from tests import make
from tests.graph.conftest import CONFIG, FAKES
from workers import graph
from workers.bus.dead_letters import Found, Retrier, shown
from workers.config import loader
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.jsonl import Jsonl
from workers.media.jpeg import encoded
from workers.runtime.status import Status

MAX = 65_536  # bytes of one record here
SOURCES = ("desk", "room", "room/speech", "reports")
PICTURE = encoded(np.full((96, 128, 3), 200, np.uint8))
REPORT = Report(
    site="office", source="reports", start=0, end=1, author="a guard", text="help, a ladder"
)
GOOD: dict[str, list[Record]] = {  # what each topic's readers answer, in their own order
    topics.FRAMES: [make.frame(1, PICTURE, width=128, height=96)],
    topics.AUDIO: [make.progress(1.0, source="room"), make.audio(1.0), make.audio(1.5)],
    topics.REPORTS: [REPORT],
    topics.OBSERVATIONS: [
        make.roster(*SOURCES),
        *(make.progress(upto, source=name) for upto in (1.0, 9.0) for name in SOURCES),
    ],
    topics.ANOMALIES: [make.anomaly(1)],
    topics.ALERTS: [make.alert()],
}
ALSO: dict[str, list[Record]] = {  # what else comes there
    topics.FRAMES: [make.progress(1.0), make.roster(*SOURCES)],
    topics.AUDIO: [make.roster(*SOURCES, source="room")],
    topics.REPORTS: [make.progress(1.0, source="reports"), make.mode(start=1.0)],
    topics.OBSERVATIONS: [
        *(make.detections(at, make.box()) for at in (1.0, 1.2)),
        make.sound(1.0, gunshot=0.9),
        make.utterance(1.0, "help"),
        make.described(1.0),
        make.mode(start=1.0, until=5.0),
    ],
    topics.ANOMALIES: [make.progress(9.0, source="fusion")],
}
ANSWERED = {topics.ANOMALIES: topics.ALERTS, topics.OBSERVATIONS: topics.ANOMALIES}
STRANGER: dict[str, Record] = {t: make.alert() for t in KINDS} | {topics.ALERTS: make.anomaly(1)}
POISON: dict[str, Callable[[str], bytes]] = {
    "bad bytes": lambda topic: b"\xc1 garbage",
    "empty": lambda topic: b"",
    "truncated": lambda topic: codec.encode(GOOD[topic][0])[:-3],
    "unknown tag": lambda topic: msgspec.msgpack.encode(
        {"type": "Hologram", "site": "office", "source": "desk"}
    ),
    "oversized": lambda topic: codec.encode(make.frame(1, bytes(MAX))),
    "another topic's": lambda topic: codec.encode(STRANGER[topic]),
    "a letter": lambda topic: codec.encode(make_letter()),
    "not text": lambda topic: codec.encode(REPORT).replace(b"a guard", b"\xff guard"),
    "a time that is none": lambda topic: codec.encode(make.progress(1)).replace(b"upto", b"upTo"),
}
REASON = {
    "oversized": "bytes, and a record has",
    "another topic's": "holds none of those",
    "a letter": "holds none of those",
}


def make_letter() -> DeadLetter:
    return DeadLetter(
        site="office", source="desk", topic="", partition=0, offset=0, reason="x", value=b""
    )


def key(topic: str) -> str:
    return topics.key_of(topic, GOOD[topic][-1])


class Place:
    """A receiver of alerts."""

    def __init__(self) -> None:
        self.taken: list[Alert] = []

    def send(self, alert: Alert, trace: str = "") -> None:
        self.taken.append(alert)


class Readers:
    """All that read one topic: its stages, or a delivery."""

    def __init__(self, bus: Bus, topic: str, config: Path) -> None:
        settings = loader.load(config)
        nodes = graph.nodes(settings, FAKES, Status(), recorded=True)
        self.place = Place()
        self._steps: list[Runner | Delivery] = [
            node.runner(bus, MAX) for node in nodes if node.topic == topic
        ]
        if topic == topics.ALERTS:
            subscriber = Subscriber(name="siem", sink=self.place)
            outside = DeliveryEnvironment(clock=time.time, random=lambda: 0.5)
            reader = bus.reader(topic, subscriber.group)
            self._steps.append(Delivery(subscriber, reader, dead_letter_publisher(bus), outside))

    def step(self) -> int:
        return sum(each.step(0.05) for each in self._steps)

    def close(self) -> None:
        for each in self._steps:
            each.close()


class World:
    """A bus, and what it holds."""

    def __init__(self, bus: Bus, values: Callable[[str], Sequence[tuple[int, Entry]]]) -> None:
        self.bus, self._values = bus, values

    def publish(self, topic: str, *values: bytes) -> None:
        for value in values:
            self.bus.publish(topic, key(topic), value)
        self.bus.flush()

    def good(self, topic: str) -> None:
        self.publish(topic, *(codec.encode(record) for record in GOOD[topic]))

    def records(self, topic: str) -> list[Record]:
        return [codec.decode(entry.value) for _, entry in self._values(topic)]

    def found(self, topic: str) -> list[Found]:
        """The dead letters of what stood in `topic`, in its order, each once."""
        letters: dict[int, Found] = {}
        for when, entry in self._values(topics.DEAD):
            letter = codec.decode(entry.value)
            assert isinstance(letter, DeadLetter)
            if letter.topic == topic:  # both stages that read sound tell of it
                letters.setdefault(letter.offset, Found(when, entry, letter))
        return [letters[offset] for offset in sorted(letters)]


def answers(world: World, topic: str, readers: Readers) -> list[Record]:
    """What the readers have said so far."""
    if topic == topics.ALERTS:
        return list(readers.place.taken)
    return world.records(ANSWERED.get(topic, topics.OBSERVATIONS))


def until(readers: Readers, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        readers.step()


def in_memory(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    bus = MemoryBus(keep=True)
    yield World(bus, lambda topic: [(0, Entry(0, n, "office", value))
                                    for n, value in enumerate(bus.values(topic))])  # fmt: skip


def in_the_log(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    from pipeline.bus.log_search import appended

    bus = LocalLog(tmp_path / "log", clock=lambda: ns(1))
    yield World(bus, lambda topic: list(appended(tmp_path / "log", topic, 0, ns(9))))
    bus.close()


def over_brokers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with brokered(tmp_path, request.getfixturevalue("kafka")) as (world, _):
        yield world


@contextmanager
def brokered(tmp_path: Path, brokers: str) -> Iterator[tuple[World, Settings]]:
    """A world over topics of its own on these brokers."""
    from pipeline.bus.kafka.bus import KafkaBus
    from tests.live.brokered import ALWAYS, over_kafka

    plain = tmp_path / "plain.yaml"
    plain.write_text(CONFIG)
    settings = loader.load(over_kafka(plain, brokers)).bus
    assert isinstance(settings, Settings)
    bus = KafkaBus(settings)
    yield World(bus, lambda topic: list(bus.appended(topic, 0, ALWAYS))), settings
    bus.close()


@pytest.fixture(
    params=[
        pytest.param(in_memory, id="memory"),
        pytest.param(in_the_log, id="log"),
        pytest.param(over_brokers, id="kafka", marks=pytest.mark.live),
    ]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from request.param(tmp_path, request)


@pytest.mark.parametrize("topic", GOOD)
def test_poison_of_every_kind_goes_to_dead_and_the_next_good_record_is_answered(
    world: World, config: Path, topic: str
) -> None:
    kinds = [kind for kind in POISON if (kind, topic) != ("oversized", topics.ALERTS)]
    poison = [POISON[kind](topic) for kind in kinds]
    readers = Readers(world.bus, topic, config)
    world.publish(topic, *poison)
    world.good(topic)
    until(readers, lambda: bool(answers(world, topic, readers)))
    letters = [found.letter for found in world.found(topic)]
    assert [letter.value for letter in letters if letter] == poison
    for kind, letter in zip(kinds, letters, strict=True):
        assert letter is not None
        assert REASON.get(kind, "not a Fusewatch record (schema 1)") in letter.reason, kind
        assert (letter.site, letter.topic) == ("office", topic)
    readers.close()
    again = Readers(world.bus, topic, config)  # a restart does not meet them again
    world.good(topic)
    before = len(world.records(topics.DEAD))
    for _ in range(20):
        again.step()
    assert len(world.records(topics.DEAD)) == before
    again.close()


@pytest.mark.parametrize("topic", GOOD)
def test_what_this_version_can_read_is_answered_when_it_is_tried_again(
    world: World, config: Path, topic: str
) -> None:
    """The stage of an older version did not know it; after the upgrade it does."""
    for record in GOOD[topic]:
        letter = make_letter()
        letter = msgspec.structs.replace(
            letter, source=record.source, topic=topic, value=codec.encode(record)
        )
        world.bus.publish(topics.DEAD, "office", codec.encode(letter))
    world.bus.publish(topics.DEAD, "office", codec.encode(
        msgspec.structs.replace(make_letter(), topic=topic, offset=7, value=b"\xc1 garbage")
    ))  # fmt: skip
    world.bus.flush()
    readers = Readers(world.bus, topic, config)
    retrier = Retrier(world.bus, dict)
    said = []
    for when, entry in world._values(topics.DEAD):
        found = codec.decode(entry.value)
        assert isinstance(found, DeadLetter)
        said.append(retrier.retry(Found(when, entry, found)))
    assert [went for went, _ in said] == [*(True for _ in GOOD[topic]), False]
    assert said[-1][1].startswith("it would come back: not a Fusewatch record")
    assert said[0][1] == f"published to {topic} again, under {key(topic)}"
    until(readers, lambda: bool(answers(world, topic, readers)))
    readers.close()


JUNK: dict[type, list[Any]] = {
    int: [0, -1, 2**31, 2**40, 2**62, 2**63, 2**64 - 1, -(2**63)],
    float: [float("nan"), float("inf"), -float("inf"), -1.0, 1e308, 2.0, 0.0],
    str: ["", "\x00", "x" * 5000, "a/b", "../../etc", "critical", "é" * 300],
    bytes: [b"", b"\0", b"\xff" * 7, b"\0" * 100],
    list: [[], [""], ["x" * 5000] * 30],
    dict: [{}, {"": 0.5}, {"gunshot": float("nan")}, {"desk": "lost"}],
    bool: [True, False],
    type(None): [0, -1],
}


def odd(record: Record, chance: random.Random) -> bytes:
    """The record with one or two of its values replaced by others of the same type."""
    fields = msgspec.msgpack.decode(codec.encode(record))
    for name in chance.sample(sorted(fields.keys() - {"type"}), chance.choice([1, 1, 2])):
        if name != "site" or chance.random() < 0.3:
            fields[name] = chance.choice(JUNK[type(fields[name])])
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize("topic", GOOD)
@pytest.mark.no_schema
def test_records_of_the_right_kind_with_impossible_values_end_nobody(
    config: Path, tmp_path: Path, topic: str
) -> None:
    settings = loader.load(config)
    given = [*GOOD[topic], *ALSO.get(topic, ())]
    with closing(Jsonl(tmp_path / "alerts.jsonl")) as sink:
        for seed in range(400):
            chance, bus = random.Random(seed), MemoryBus(keep=True)
            for record in chance.choices(given, k=3):
                bus.publish(topic, key(topic), odd(record, chance))
                bus.publish(topic, key(topic), codec.encode(record))
            bus.flush()
            runners = [
                node.runner(bus, MAX)
                for node in graph.nodes(settings, FAKES, Status(), recorded=bool(seed % 2))
            ]
            reader = bus.reader(topics.ALERTS, "delivery-jsonl")
            outside = DeliveryEnvironment(clock=time.time, random=lambda: 0.5)
            subscriber = Subscriber(name="jsonl", sink=sink)
            delivery = Delivery(subscriber, reader, dead_letter_publisher(bus), outside)
            while drain(runners) + delivery.step():
                pass
            assert delivery.idle, seed


@pytest.mark.live
@pytest.mark.parametrize("topic", GOOD)
def test_what_only_brokers_can_carry_goes_to_dead_with_its_reason(
    kafka: str, config: Path, tmp_path: Path, topic: str
) -> None:
    from kafka import KafkaProducer

    good = codec.encode(GOOD[topic][-1])
    ours = [("content-type", b"application/msgpack"), ("schema-version", b"1")]
    strange: list[tuple[dict[str, Any], str]] = [
        ({"value": good, "headers": [*ours[:1], ("schema-version", b"2")]}, "schema version '2'"),
        ({"value": good, "headers": [("content-type", b"text/\x1b[31m"), *ours[1:]]}, "content"),
        ({"value": good, "headers": ours, "key": b"\xff\xfe"}, "the key is no UTF-8"),
        ({"value": None, "headers": ours}, "a tombstone"),
        ({"value": good[:-2], "headers": []}, "not a Fusewatch record"),
    ]
    with brokered(tmp_path, kafka) as (world, settings):
        number = partition_of(key(topic), partitions_of(settings, topic))
        producer = KafkaProducer(bootstrap_servers=kafka)
        for record, _ in strange:
            given = {"key": key(topic).encode()} | record
            producer.send(f"{settings.prefix}.{topic}", partition=number, **given).get(30)
        producer.close()
        readers = Readers(world.bus, topic, config)
        world.good(topic)
        until(readers, lambda: bool(answers(world, topic, readers)))
        letters = [found.letter for found in world.found(topic)]
        readers.close()
    for (_, reason), letter in zip(strange, letters, strict=True):
        assert letter is not None
        assert reason in letter.reason
        assert shown(letter.reason) == letter.reason
