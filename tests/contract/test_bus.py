"""What every bus promises: the same tests over memory, the local log and Apache Kafka."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from pipeline import codec
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.bus import KafkaBus, KafkaReader
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.config import schema
from pipeline.ports import Assigned, Bus, Entry, Reader, Revoked
from pipeline.types import FrameChunk, ns
from tests import make
from tests.live.servers import eventually

TOPIC = "frames.v1"
SETTLED = 20.0  # s for a group to form, and for what is acknowledged to be read
QUIET = 0.5  # s in which whatever else there is would come: a fetch answers in milliseconds

_numbers = itertools.count()


def kafka_bus(broker: str, partitions: int) -> KafkaBus:
    prefix = f"contract-{os.getpid()}-{next(_numbers)}"
    settings = schema.KafkaBus(brokers=(broker,), prefix=prefix)
    with Admin(settings) as admin:
        for topic in (TOPIC, "audio.v1"):
            admin.create(topic, partitions, 1, {"message.timestamp.type": "LogAppendTime"})
    return KafkaBus(settings)


class Clock:
    """Ns that pass when a test says so."""

    now = ns(1000)

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """By which the local log ages."""
    return Clock()


@pytest.fixture(
    params=[
        "memory",
        "memory of 3 partitions",
        "log",
        pytest.param("kafka", marks=pytest.mark.live),
        pytest.param("kafka of 3 partitions", marks=pytest.mark.live),
    ]
)
def bus(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Bus]:
    opened: dict[str, Callable[[], Bus]] = {
        "memory": lambda: MemoryBus(keep_bytes=0),
        "memory of 3 partitions": lambda: MemoryBus(3, keep_bytes=0),
        "log": lambda: LocalLog(tmp_path / "log", clock=clock),
        "kafka": lambda: kafka_bus(request.getfixturevalue("kafka"), 1),
        "kafka of 3 partitions": lambda: kafka_bus(request.getfixturevalue("kafka"), 3),
    }
    bus = opened[request.param]()
    yield bus
    bus.close()


def publish(bus: Bus, *values: bytes, key: str = "office/desk", topic: str = TOPIC) -> None:
    for value in values:
        bus.publish(topic, key, value)
    bus.flush()


def events(reader: Reader, count: int, limit: int = 1000) -> list[Assigned | Entry | Revoked]:
    """All that comes until there are `count` entries, and what comes after them though it should
    not. Memory and log say everything at once; Kafka first has to gather a group."""
    if not isinstance(reader, KafkaReader):
        return list(reader.poll(limit))
    found: list[Assigned | Entry | Revoked] = []
    until = time.monotonic() + SETTLED
    while sum(isinstance(event, Entry) for event in found) < count:
        assert time.monotonic() < until, f"only {found}"
        found += reader.poll(limit, 0.2)
    return found + list(reader.poll(limit, QUIET))


def entries(reader: Reader, count: int) -> list[Entry]:
    return [event for event in events(reader, count) if isinstance(event, Entry)]


def values(reader: Reader, count: int) -> list[bytes]:
    return [entry.value for entry in entries(reader, count)]


def assigned(reader: Reader) -> list[Assigned | Entry | Revoked]:
    """The first poll that says anything."""
    until = time.monotonic() + SETTLED
    while not (found := reader.poll(1000, 0.2)):
        assert time.monotonic() < until, "no partition"
    return list(found)


def test_a_key_keeps_its_order_and_its_partition(bus: Bus) -> None:
    for i in range(20):
        publish(bus, f"{i}".encode(), key=f"site/{i % 4}")
    read = entries(bus.reader(TOPIC, "vision"), 20)
    assert len(read) == 20
    for k in range(4):
        ours = [entry for entry in read if entry.key == f"site/{k}"]
        assert [int(entry.value) for entry in ours] == list(range(k, 20, 4))
        assert len({entry.partition for entry in ours}) == 1


def test_offsets_count_up_by_one_from_zero_in_each_partition(bus: Bus) -> None:
    for i in range(12):
        publish(bus, b"x", key=f"k{i}")
    seen: dict[int, list[int]] = {}
    for entry in entries(bus.reader(TOPIC, "g"), 12):
        seen.setdefault(entry.partition, []).append(entry.offset)
    assert all(offsets == list(range(len(offsets))) for offsets in seen.values())


def test_the_first_poll_assigns_every_partition_before_its_entries(bus: Bus) -> None:
    publish(bus, b"a", b"b")
    first = events(bus.reader(TOPIC, "g"), 2)
    kinds = [type(event) for event in first]
    assert kinds == sorted(kinds, key=lambda kind: kind is not Assigned)
    ours = {e.partition for e in first if isinstance(e, Assigned)}
    assert {e.partition for e in first if isinstance(e, Entry)} <= ours
    assert all(e.offset == 0 and e.note == b"" for e in first if isinstance(e, Assigned))


def test_an_empty_topic_assigns_once_and_then_is_quiet(bus: Bus) -> None:
    reader = bus.reader(TOPIC, "g")
    assert {type(event) for event in assigned(reader)} == {Assigned}
    assert events(reader, 0) == []


def test_what_is_flushed_is_there_and_what_is_not_may_wait(bus: Bus) -> None:
    reader = bus.reader(TOPIC, "g")
    bus.publish(TOPIC, "k", b"a")
    if not isinstance(bus, KafkaBus):  # it sends in the background: flush says that it arrived
        assert entries(reader, 0) == []
    bus.flush()
    assert values(reader, 1) == [b"a"]


def test_a_poll_gives_no_more_than_its_limit_and_none_twice(bus: Bus) -> None:
    publish(bus, *(f"{i}".encode() for i in range(10)))
    reader = bus.reader(TOPIC, "g")
    read: list[bytes] = []
    until = time.monotonic() + SETTLED
    while len(read) < 10:
        assert time.monotonic() < until
        polled = reader.poll(4, 0.2)
        assert sum(isinstance(event, Entry) for event in polled) <= 4
        read += [event.value for event in polled if isinstance(event, Entry)]
    assert read == [f"{i}".encode() for i in range(10)]
    assert values(reader, 0) == []


def test_a_group_goes_on_from_its_commit_with_its_note(bus: Bus) -> None:
    publish(bus, b"a", b"b", b"c")
    reader = bus.reader(TOPIC, "g")
    last = entries(reader, 3)[-1]
    reader.commit(last.partition, last.offset, b"a note")
    reader.close()
    again = events(bus.reader(TOPIC, "g"), 1)
    assert Assigned(last.partition, last.offset, b"a note") in again
    assert [event.value for event in again if isinstance(event, Entry)] == [b"c"]


def test_what_was_not_committed_is_read_again(bus: Bus) -> None:
    publish(bus, b"a", b"b")
    reader = bus.reader(TOPIC, "g")
    assert values(reader, 2) == [b"a", b"b"]
    reader.close()
    assert values(bus.reader(TOPIC, "g"), 2) == [b"a", b"b"]


def test_a_commit_may_stay_behind_what_was_read(bus: Bus) -> None:
    publish(bus, b"a", b"b", b"c")
    reader = bus.reader(TOPIC, "g")
    first = entries(reader, 3)[0]
    reader.commit(first.partition, first.offset + 1, b"n")
    publish(bus, b"d")
    assert values(reader, 1) == [b"d"]
    reader.close()
    assert values(bus.reader(TOPIC, "g"), 3) == [b"b", b"c", b"d"]


def test_groups_do_not_see_each_other(bus: Bus) -> None:
    publish(bus, b"a", b"b")
    one, two = bus.reader(TOPIC, "one"), bus.reader(TOPIC, "two")
    last = entries(one, 2)[-1]
    one.commit(last.partition, last.offset + 1, b"n")
    assert values(two, 2) == [b"a", b"b"]


def test_topics_do_not_see_each_other(bus: Bus) -> None:
    publish(bus, b"a", topic="audio.v1")
    publish(bus, b"b", topic="frames.v1")
    assert values(bus.reader("audio.v1", "g"), 1) == [b"a"]


def test_a_second_reader_of_a_group_is_refused(bus: Bus) -> None:
    first = bus.reader(TOPIC, "g")
    with pytest.raises(RuntimeError, match="already"):
        bus.reader(TOPIC, "g")
    first.close()
    first.close()
    bus.reader(TOPIC, "g")


def test_a_note_of_four_kilobytes_comes_back_whole(bus: Bus) -> None:
    reader = bus.reader(TOPIC, "g")
    assigned(reader)
    note = bytes(range(33, 127)) * 43
    reader.commit(0, 0, note)
    reader.close()
    assert Assigned(0, 0, note) in assigned(bus.reader(TOPIC, "g"))


def test_values_come_back_byte_for_byte(bus: Bus) -> None:
    odd = [b"", b"\x00", bytes(range(256)) * 600, "höhö".encode(), b"\xff\xfe"]
    publish(bus, *odd, key="büro/tür")
    read = entries(bus.reader(TOPIC, "g"), 5)
    assert [entry.value for entry in read] == odd
    assert {entry.key for entry in read} == {"büro/tür"}


def test_a_trace_travels_with_its_record(bus: Bus) -> None:
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    bus.publish(TOPIC, "k", b"a", trace)
    bus.publish(TOPIC, "k", b"b")
    bus.flush()
    assert [(e.value, e.trace) for e in entries(bus.reader(TOPIC, "g"), 2)] == [
        (b"a", trace),
        (b"b", ""),
    ]


def test_fetch_gives_the_chunks_of_one_source_that_overlap(bus: Bus) -> None:
    bus.reader(TOPIC, "g")
    for i in range(20):
        for source in ("desk", "door"):
            chunk = make.frame(i / 5, source=source, seq=i)
            publish(bus, codec.encode(chunk), key=f"office/{source}")
    found = [codec.decode(v) for v in bus.fetch(TOPIC, "office/door", ns(1.0), ns(2.0))]
    assert {chunk.source for chunk in found} == {"door"}
    assert [chunk.seq for chunk in found if isinstance(chunk, FrameChunk)] == [5, 6, 7, 8, 9]


def test_fetch_takes_half_open_spans_and_passes_over_what_has_none(bus: Bus) -> None:
    records = [make.progress(1.0), make.roster(), make.frame(1.0, seconds=1)]
    publish(bus, b"no record", *(codec.encode(record) for record in records))
    assert len(bus.fetch(TOPIC, "office/desk", 0, ns(9))) == 1
    assert list(bus.fetch(TOPIC, "office/desk", ns(2), ns(9))) == []
    assert list(bus.fetch(TOPIC, "office/desk", 0, ns(1))) == []
    assert list(bus.fetch(TOPIC, "nobody", 0, ns(9))) == []


def test_behind_counts_what_waits_to_be_polled(bus: Bus) -> None:
    reader = bus.reader(TOPIC, "g")
    assert reader.behind(0) >= 1, "nobody knows before it is assigned"
    owned = [event.partition for event in assigned(reader) if isinstance(event, Assigned)]
    publish(bus, b"a", b"b", b"c")
    polled = eventually(lambda: list(reader.poll(1, 0.2)), within=SETTLED)
    assert isinstance(polled, list)
    (first,) = polled
    assert first.value == b"a"
    eventually(lambda: reader.behind(first.partition) == 2, within=SETTLED)
    assert values(reader, 2) == [b"b", b"c"]
    reader.commit(first.partition, 0, b"")  # which is no poll
    eventually(lambda: not any(map(reader.behind, owned)), within=SETTLED)


def test_lost_counts_what_was_deleted_before_the_reader_came(bus: Bus, clock: Clock) -> None:
    publish(bus, b"a", b"b", b"c")
    reader = bus.reader(TOPIC, "g")
    (number,) = {entry.partition for entry in entries(reader, 3)}
    reader.commit(number, 0, b"")
    assert reader.lost == 0
    reader.close()
    delete(bus, number, 3, clock)
    publish(bus, b"d", b"e")
    reader = bus.reader(TOPIC, "g")
    assert values(reader, 2) == [b"d", b"e"]
    assert reader.lost == 3


def delete(bus: Bus, number: int, count: int, clock: Clock) -> None:
    """Delete the first `count` entries of a partition, all that it holds, as retention does."""
    match bus:
        case MemoryBus():  # it keeps what a group has not committed: the group goes back
            reader = bus.reader(TOPIC, "g")
            reader.commit(number, count, b"")
            reader.commit(number, 0, b"")
            reader.close()
        case LocalLog():
            clock.now += ns(31 * 86400)
            bus.trim()
        case KafkaBus():
            settings = bus._settings
            admin = KafkaAdminClient(bootstrap_servers=settings.brokers)
            admin.delete_records({TopicPartition(f"{settings.prefix}.{TOPIC}", number): count})
            admin.close()
