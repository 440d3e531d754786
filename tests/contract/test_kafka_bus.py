"""What the Kafka bus alone must do: share, meet strangers, be refused, lose its broker."""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Thread, Timer
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove
from kafka.errors import KafkaConnectionError
from kafka.net.transport import KafkaTCPTransport

from pipeline import codec
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.bus import KafkaBus
from pipeline.config import schema
from pipeline.errors import BrokersAway, DecodeError, OutsideError
from pipeline.ports import Assigned, Entry, Revoked
from pipeline.run import Runner, decoded
from pipeline.types import ns
from tests import make
from tests.live.brokers import Brokers, SecureKafka, lag
from tests.live.late_proxy import late
from tests.live.servers import eventually

pytestmark = pytest.mark.live

TOPIC = "observations.v1"
GROUP = "fusion"
SETTLED = 30.0  # s for a group to form anew

_numbers = itertools.count()


def made(broker: str, partitions: int = 4, **more: Any) -> schema.KafkaBus:
    """Settings of a bus whose topic exists, under a prefix that no other test has."""
    prefix = f"kafka-bus-{os.getpid()}-{next(_numbers)}"
    settings = schema.KafkaBus(brokers=(broker,), prefix=prefix, **more)
    with Admin(settings) as admin:
        admin.create(TOPIC, partitions, 1, {"message.timestamp.type": "LogAppendTime"})
    return settings


@pytest.fixture
def buses() -> Iterator[Callable[..., KafkaBus]]:
    """Opens buses, each as a process of its own would; all are closed at the end."""
    opened: list[KafkaBus] = []

    def open_(settings: schema.KafkaBus, **more: Any) -> KafkaBus:
        opened.append(KafkaBus(settings, **more))
        return opened[-1]

    yield open_
    for bus in opened:
        bus.close()


class Member:
    """A worker: reads as `run.step` does, and has committed what it read before it polls again."""

    def __init__(self, bus: KafkaBus) -> None:
        self.reader = bus.reader(TOPIC, GROUP)
        self.next: dict[int, int] = {}
        self.read: list[Entry] = []
        self.told: list[Assigned | Revoked] = []
        self.failed: list[BaseException] = []
        self._stop = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
        except BaseException as error:
            self.failed.append(error)
        finally:
            self.reader.close()

    def _step(self) -> None:
        moved = set()
        for event in self.reader.poll(50, 0.1):
            match event:
                case Assigned():
                    assert event.partition not in self.next, "twice"
                    assert event.note == (f"at {event.offset}".encode() if event.offset else b"")
                    self.next[event.partition] = event.offset
                    self.told.append(event)
                case Revoked():
                    del self.next[event.partition]
                    self.told.append(event)
                case Entry():
                    assert event.offset == self.next[event.partition]
                    self.next[event.partition] += 1
                    self.read.append(event)
                    moved.add(event.partition)
        for partition in moved:
            offset = self.next[partition]
            self.reader.commit(partition, offset, f"at {offset}".encode())

    def close(self) -> None:
        """Leaves; raises what went wrong."""
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.failed:
            raise self.failed[0]


@pytest.fixture
def joined() -> Iterator[Callable[[KafkaBus], Member]]:
    """Starts members, which end with the test."""
    members: list[Member] = []

    def join(bus: KafkaBus) -> Member:
        members.append(Member(bus))
        return members[-1]

    yield join
    for member in members:
        member.close()


def write(bus: KafkaBus, count: int, *, since: int = 0, keys: int = 12) -> None:
    for i in range(since, since + count):
        bus.publish(TOPIC, f"site-{i % keys}", str(i).encode())
    bus.flush()


def values(*members: Member) -> list[int]:
    return sorted(int(entry.value) for member in members for entry in member.read)


def has_read(members: list[Member], count: int) -> bool:
    return sum(len(member.read) for member in members) >= count


def in_order(*members: Member) -> bool:
    """Whether each member read each key's records in the order that they were written in."""
    for member in members:
        last: dict[str, int] = {}
        for entry in member.read:
            if int(entry.value) <= last.get(entry.key, -1):
                return False
            last[entry.key] = int(entry.value)
    return True


def first(reader: Any, kind: type, within: float = SETTLED) -> Any:
    """The first event of a kind."""

    def look() -> Any:
        return next((event for event in reader.poll(1, 0.2) if isinstance(event, kind)), None)

    return eventually(look, within=within)


def test_members_share_partitions_and_a_rebalance_loses_and_reorders_nothing(
    kafka: str, buses: Callable[..., KafkaBus], joined: Callable[[KafkaBus], Member]
) -> None:
    settings = made(kafka)
    writer = buses(settings)
    one = joined(buses(settings))
    write(writer, 100)
    eventually(lambda: len(one.read) == 100, within=SETTLED)
    assert sorted(one.next) == [0, 1, 2, 3]
    two = joined(buses(settings))
    written = 100
    deadline = time.monotonic() + SETTLED
    while not len(one.next) == len(two.next) == 2:
        write(writer, 1, since=written)
        written += 1
        assert time.monotonic() < deadline
    write(writer, 100, since=written)
    written += 100
    eventually(lambda: len(one.read) + len(two.read) == written, within=SETTLED)
    assert {event.partition for event in one.told[4:]} == set(two.next), "the others stay put"
    assert all(isinstance(event, Assigned) and event.offset for event in two.told)
    two.close()
    eventually(lambda: len(one.next) == 4, within=SETTLED)
    write(writer, 100, since=written)
    written += 100
    eventually(lambda: len(one.read) + len(two.read) == written, within=SETTLED)
    assert values(one, two) == list(range(written)), "all, and once: each had committed"
    assert in_order(one, two)
    eventually(lambda: lag(writer, TOPIC, GROUP) == 0, within=SETTLED)


@pytest.mark.slow
def test_many_members_that_come_and_go_lose_and_reorder_nothing(
    kafka: str, buses: Callable[..., KafkaBus], joined: Callable[[KafkaBus], Member]
) -> None:
    settings = made(kafka, 6)
    writer = buses(settings)
    written = 0
    members: list[Member] = []
    for turn in range(6):
        members.append(joined(buses(settings)))
        if turn > 2:
            members[turn - 3].close()
        write(writer, 300, since=written, keys=30)
        written += 300
        eventually(partial(has_read, members, written), within=2 * SETTLED)
    assert values(*members) == list(range(written))
    assert in_order(*members)


def test_a_static_member_comes_back_to_its_partitions_and_nobody_else_notices(
    kafka: str, buses: Callable[..., KafkaBus], joined: Callable[[KafkaBus], Member]
) -> None:
    settings = made(kafka)
    writer = buses(settings)
    write(writer, 50)
    one = joined(buses(settings, instance="one"))
    two = joined(buses(settings, instance="two"))
    eventually(lambda: len(one.next) == len(two.next) == 2, within=SETTLED)
    eventually(lambda: len(one.read) + len(two.read) == 50, within=SETTLED)
    owned, told = set(one.next), len(two.told)
    one.close()
    write(writer, 50, since=50)
    again = joined(buses(settings, instance="one"))
    eventually(lambda: len(values(one, two, again)) == 100, within=SETTLED)
    assert set(again.next) == owned
    assert len(two.told) == told
    assert values(one, two, again) == list(range(100))


def test_a_commit_of_a_member_that_was_removed_does_nothing_and_poll_says_so(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    bus = buses(settings)
    write(bus, 3)
    reader = bus.reader(TOPIC, GROUP)
    assert first(reader, Entry).offset == 0
    remove_members(kafka, f"{settings.prefix}-{GROUP}")
    reader.commit(0, 1, b"of a member that is gone")
    assert bus.committed(TOPIC, GROUP) == {}
    told: list[Any] = []
    eventually(lambda: told.extend(reader.poll(1, 0.2)) or len(told) >= 5, within=SETTLED)
    moves = [event for event in told if not isinstance(event, Entry)]
    assert moves == [Revoked(0), Assigned(0, 0, b"")]
    again = told[told.index(moves[-1]) + 1 :]
    assert [entry.offset for entry in again] == [0, 1, 2], "what was not committed, from its start"
    reader.commit(7, 1, b"of a partition that it never had")
    reader.commit(0, 1, b"mine again")
    assert bus.committed(TOPIC, GROUP) == {0: (1, b"mine again")}


def test_a_commit_amid_a_rebalance_is_made_after_it_where_the_partition_stays(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka)
    bus, readers = buses(settings), [buses(settings).reader(TOPIC, GROUP) for _ in range(3)]
    write(bus, 40, keys=40)
    owned: list[set[int]] = [set(), set(), set()]
    hold, holds, held, stop = Event(), Event(), Event(), Event()

    def poll(number: int) -> None:
        for event in readers[number].poll(50, 0.1):
            match event:
                case Assigned():
                    owned[number].add(event.partition)
                case Revoked():
                    owned[number].remove(event.partition)

    def polls(number: int) -> None:
        while not stop.is_set():
            poll(number)
            if number == 1 and hold.is_set():
                holds.set()
                held.wait(30)

    def noted() -> dict[int, tuple[int, bytes]]:
        """Without what an idle reader commits again, which is what stood there."""
        return {n: commit for n, commit in bus.committed(TOPIC, GROUP).items() if commit[1]}

    threads = [Thread(target=polls, args=(number,), daemon=True) for number in (1, 2)]
    threads[0].start()
    eventually(lambda: poll(0) or len(owned[0]) == len(owned[1]) == 2, within=SETTLED)
    before = set(owned[0])
    hold.set()
    assert holds.wait(30)
    threads[1].start()  # the group cannot agree while its second member does not poll
    began = time.monotonic()
    while time.monotonic() < began + 6:  # s; heartbeats tell of it each 3 s
        poll(0)
    for number in before:
        readers[0].commit(number, 1, b"amid")
    assert noted() == {}
    held.set()
    eventually(lambda: poll(0) or (owned[2] and noted()), within=SETTLED)
    stop.set()
    for thread in threads:
        thread.join(30)
    kept = before & owned[0]
    assert kept
    assert noted() == {number: (1, b"amid") for number in kept}
    for reader, own in zip(readers, owned, strict=True):
        for number in {0, 1, 2, 3} - own:  # brokers do not ask whose a partition is
            reader.commit(number, 1, b"of somebody else's")
    assert b"of somebody else's" not in {note for _, note in noted().values()}


def test_a_reader_knows_what_is_behind_it(kafka: str, buses: Callable[..., KafkaBus]) -> None:
    bus = buses(made(kafka, 1))
    reader = bus.reader(TOPIC, GROUP)
    assert reader.behind(0) == 1, "nobody has said"
    first(reader, Assigned)
    eventually(lambda: not reader.poll(1, 0.2) and reader.behind(0) == 0, within=SETTLED)
    write(bus, 10)
    assert first(reader, Entry).offset == 0
    assert reader.behind(0) == 9
    write(bus, 10)
    for _ in range(9):
        assert first(reader, Entry)
    eventually(lambda: reader.poll(1, 0.1) and reader.behind(0), within=SETTLED)


def remove_members(broker: str, group: str) -> None:
    """As a broker does when a session times out."""
    admin = KafkaAdminClient(bootstrap_servers=broker)
    members = admin.describe_groups([group])[group]["members"]
    assert members
    admin.remove_group_members(group, [MemberToRemove(each["member_id"]) for each in members])
    admin.close()


class Interrupted:
    """A stage that answers nothing; in the midst of its first `infer` something happens."""

    def __init__(self, what: Callable[[], None]) -> None:
        self.what: list[Callable[[], None]] = [what]
        self.seen: list[Any] = []

    def infer(self, batch: Any) -> list[None]:
        while self.what:
            self.what.pop()()
        return [None for _ in batch]

    def open(self, floors: dict[str, int]) -> Interrupted:
        return self

    def on(self, record: Any, inferred: Any) -> list[Any]:
        self.seen.append(record)
        return []

    def floor(self, site: str) -> int:
        return 2**62


def test_a_step_whose_partition_is_lost_meanwhile_goes_on_and_the_work_is_done_again(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    bus = buses(settings)
    bus.publish(TOPIC, "office", codec.encode(make.progress(1.0)))
    bus.flush()
    stage = Interrupted(lambda: remove_members(kafka, f"{settings.prefix}-{GROUP}"))
    runner = Runner(stage, bus, topic=TOPIC, group=GROUP, out="anomalies.v1")
    eventually(lambda: runner.step(0.2), within=SETTLED)
    assert bus.committed(TOPIC, GROUP) == {}
    eventually(lambda: runner.step(0.2), within=SETTLED)
    assert len(stage.seen) == 2
    assert lag(bus, TOPIC, GROUP) == 0


def test_a_second_process_of_one_instance_fences_the_first(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    write(buses(settings), 2)
    one, two = (buses(settings, instance="i").reader(TOPIC, GROUP) for _ in range(2))
    assert first(one, Entry).offset == 0
    assert first(two, Entry).offset == 0
    with pytest.raises(OutsideError, match="--instance"):
        one.commit(0, 1, b"")
    two.commit(0, 1, b"")


@pytest.mark.slow
def test_a_fenced_process_that_has_nothing_to_commit_is_told_too(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    one, two = (buses(settings, instance="i").reader(TOPIC, GROUP) for _ in range(2))
    first(one, Assigned)
    first(two, Assigned)

    def polls() -> bool:
        one.poll(1, 0.5)
        two.poll(1, 0.1)
        return False

    with pytest.raises(OutsideError, match="--instance"):
        eventually(polls, within=SETTLED)


def test_what_strangers_publish_is_read_and_what_is_wrong_with_it_is_said(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    producer = KafkaProducer(bootstrap_servers=kafka)
    value = codec.encode(make.progress(1.0))
    ours = [("content-type", b"application/msgpack"), ("schema-version", b"1")]
    for key, content, headers in [
        (b"office", value, None),
        (b"office", value, [*ours, ("their-own", b"\xff"), ("traceparent", b"00-x")]),
        (None, value, ours),
        (b"office", value, [ours[0], ("schema-version", b"2")]),
        (b"office", value, [("content-type", b"application/json"), ours[1]]),
        (b"\xff\xfe", value, ours),
        (b"office", None, ours),
    ]:
        producer.send(f"{settings.prefix}.{TOPIC}", content, key, headers)
    producer.flush()
    producer.close()
    reader = buses(settings).reader(TOPIC, GROUP)
    read: list[Entry] = []
    while len(read) < 7:
        read += [event for event in reader.poll(10, 0.2) if isinstance(event, Entry)]
    assert [entry.fault for entry in read[:3]] == ["", "", ""]
    assert read[1].trace == "00-x"
    assert read[2].key == ""
    assert "'2'" in read[3].fault
    assert "reads 1" in read[3].fault
    assert "'application/json'" in read[4].fault
    assert "UTF-8" in read[5].fault
    assert read[5].key == r"\xff\xfe"
    assert "tombstone" in read[6].fault
    assert all(decoded(entry, TOPIC) == make.progress(1.0) for entry in read[:3])
    for entry in read[3:]:
        with pytest.raises(DecodeError):
            decoded(entry, TOPIC)


def test_what_retention_deleted_before_it_was_read_is_counted(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    bus = buses(settings)
    write(bus, 10)
    reader = bus.reader(TOPIC, GROUP)
    assert first(reader, Entry).offset == 0
    reader.commit(0, 1, b"at 1")
    reader.close()
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    part = TopicPartition(f"{settings.prefix}.{TOPIC}", 0)
    admin.delete_records({part: 4})
    reader = bus.reader(TOPIC, GROUP)
    assert first(reader, Assigned) == Assigned(0, 1, b"at 1"), "the note may count from it"
    assert bus.oldest(TOPIC) == {0: 4}
    assert reader.lost == 3
    assert first(reader, Entry).offset == 4
    write(bus, 20_000, since=10)  # more than one fetch holds
    assert lag(bus, TOPIC, GROUP) == 20_006
    admin.delete_records({part: 20_009})
    admin.close()
    assert lag(bus, TOPIC, GROUP) == 1
    read = 1

    def last() -> bool:
        nonlocal read
        entries = [event for event in reader.poll(500, 0.2) if isinstance(event, Entry)]
        read += len(entries)
        return bool(entries) and entries[-1].offset == 20_009

    eventually(last, within=SETTLED)
    assert reader.lost + read == 20_010 - 1


def test_a_group_that_stands_beyond_the_end_is_refused_with_advice(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1)
    bus = buses(settings)
    write(bus, 1)
    reader = bus.reader(TOPIC, GROUP)
    first(reader, Entry)
    reader.commit(0, 99, b"")
    reader.close()
    with pytest.raises(OutsideError, match=r"99.*ends at 1: .*made anew.*--delete-offsets"):
        first(bus.reader(TOPIC, GROUP), Assigned)


def test_a_note_over_the_brokers_limit_is_refused_with_advice(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    bus = buses(made(kafka, 1))
    reader = bus.reader(TOPIC, GROUP)
    first(reader, Assigned)
    reader.commit(0, 0, b"n" * 4096)
    with pytest.raises(OutsideError, match="more partitions"):
        reader.commit(0, 0, b"n" * 4097)


def test_a_group_that_shares_in_another_way_is_refused_with_the_reason(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka)
    other = KafkaConsumer(
        f"{settings.prefix}.{TOPIC}",
        group_id=f"{settings.prefix}-{GROUP}",
        bootstrap_servers=kafka,
    )
    eventually(lambda: other.poll(100) or other.assignment(), within=SETTLED)
    with pytest.raises(OutsideError, match="--faust"):
        first(buses(settings).reader(TOPIC, GROUP), Assigned)
    other.close()


def test_an_unknown_topic_is_an_error_that_names_the_command(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka)

    def told(does: Callable[[KafkaBus], object]) -> str:
        with pytest.raises(OutsideError) as error:
            does(buses(settings))
        return str(error.value)

    doings: tuple[Callable[[KafkaBus], object], ...] = (
        lambda bus: bus.publish("alerts.v1", "k", b""),
        lambda bus: bus.reader("alerts.v1", GROUP).poll(1),
        lambda bus: bus.end("alerts.v1"),
        lambda bus: bus.fetch("alerts.v1", "k", 0, 1),
        lambda bus: list(bus.between("alerts.v1", 0, 1)),
    )
    with ThreadPoolExecutor(len(doings)) as at_once:  # each waits: brokers may be about to know it
        for error in at_once.map(told, doings):
            assert re.search(r"alerts.v1: .*fusewatch topics create CONFIG", error)


@pytest.mark.parametrize(
    "look",
    [
        lambda bus: first(bus.reader("late.v1", GROUP), Assigned).partition,
        lambda bus: len(bus.end("late.v1")) - 1,
    ],
)
def test_a_topic_that_brokers_are_about_to_know_is_waited_for(
    kafka: str, buses: Callable[..., KafkaBus], look: Callable[[KafkaBus], int]
) -> None:
    settings = made(kafka)
    with Admin(settings) as admin:
        making = Timer(1.0, admin.create, ("late.v1", 1, 1, {}))
        making.start()
        assert look(buses(settings)) == 0
        making.join()


def test_a_value_over_the_limit_never_leaves_and_one_at_the_limit_does(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(kafka, 1, max_message=100_000)
    bus = buses(settings)
    with pytest.raises(OutsideError, match=r"100001 bytes.*bus\.max_message"):
        bus.publish(TOPIC, "k", b"x" * 100_001)
    with Admin(settings) as admin:
        admin.alter(TOPIC, {"max.message.bytes": "70000"})
    bus.publish(TOPIC, "k", os.urandom(60_000))
    bus.flush()
    bus.publish(TOPIC, "k", os.urandom(100_000))
    with pytest.raises(OutsideError, match=r"max\.message\.bytes"):
        bus.flush()
    bus.publish(TOPIC, "k", b"the bus still works")
    bus.flush()
    assert bus.end(TOPIC) == {0: 2}


def test_partitions_are_merged_by_append_time(kafka: str, buses: Callable[..., KafkaBus]) -> None:
    """One has far more records than another, and some have none."""
    bus = buses(made(kafka))
    keys = ["a" if n % 50 else "b" for n in range(3000)]
    for number, key in enumerate(keys):
        bus.publish(TOPIC, key, b"%d" % number)
        if number % 50 == 0:
            bus.flush()
    bus.flush()
    found = list(bus.appended(TOPIC, 0, time.time_ns() + 10**12))
    assert sorted(int(entry.value) for _, entry in found) == list(range(3000))
    assert [when for when, _ in found] == sorted(when for when, _ in found)
    for key in ("a", "b"):
        of_key = [int(entry.value) for _, entry in found if entry.key == key]
        assert of_key == sorted(of_key)


def test_what_lies_between_two_times_is_found_by_append_time(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    bus = buses(made(kafka, 3))
    marks = []
    for i in range(4):
        marks.append(time.time_ns())
        time.sleep(0.02)  # append times are whole milliseconds
        write(bus, 30, since=30 * i)
        time.sleep(0.02)
    found = [int(entry.value) for entry in bus.between(TOPIC, marks[1], marks[3])]
    assert sorted(found) == list(range(30, 90))
    assert list(bus.between(TOPIC, marks[3] + 10**12, marks[3] + 10**13)) == []
    assert list(bus.between(TOPIC, 0, marks[0])) == []
    for when, entry in bus.appended(TOPIC, marks[2], marks[3]):
        assert marks[2] - 10**6 <= when < marks[3], int(entry.value)


def test_fetch_reads_one_partition_from_near_the_time_on_and_stops(
    kafka: str, buses: Callable[..., KafkaBus]
) -> None:
    bus = buses(made(kafka, 3))
    now = time.time()
    for i in range(50):
        for site in ("a", "b"):
            chunk = codec.encode(make.frame(now + i, seconds=1, site=site, seq=i))
            bus.publish(TOPIC, site, chunk)
    bus.flush()
    found = bus.fetch(TOPIC, "a", ns(now + 10), ns(now + 12))
    assert [codec.decode(value).seq for value in found] == [10, 11]
    assert {codec.decode(value).site for value in found} == {"a"}
    assert bus.fetch(TOPIC, "a", ns(now + 3600), ns(now + 3601)) == []


def test_a_key_is_where_partition_of_says(kafka: str, buses: Callable[..., KafkaBus]) -> None:
    bus = buses(made(kafka, 4))
    write(bus, 40)
    reader = bus.reader(TOPIC, GROUP)
    read: list[Entry] = []
    while len(read) < 40:
        read += [event for event in reader.poll(100, 0.2) if isinstance(event, Entry)]
    assert all(bus.partition_of(TOPIC, entry.key) == entry.partition for entry in read)
    assert len({entry.partition for entry in read}) > 1


# --- who we are


def secured(settings: schema.KafkaBus, secure: SecureKafka, **more: Any) -> schema.KafkaBus:
    return schema.KafkaBus(
        brokers=(secure.sasl,),
        prefix=settings.prefix,
        tls=schema.Tls(ca=str(secure.ca)),
        **more,
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_over_tls_opens_the_brokers_and_is_never_logged(
    mechanism: str,
    secure_kafka: SecureKafka,
    buses: Callable[..., KafkaBus],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    sasl = schema.Sasl(
        mechanism=mechanism, username=secure_kafka.username, password=secure_kafka.password
    )
    settings = secured(made(secure_kafka.plain, 1), secure_kafka, sasl=sasl)
    bus = buses(settings)
    write(bus, 3)
    reader = bus.reader(TOPIC, GROUP)
    assert first(reader, Entry).value == b"0"
    reader.commit(0, 1, b"")
    assert lag(bus, TOPIC, GROUP) == 2
    assert secure_kafka.password not in caplog.text
    assert secure_kafka.password not in repr(bus)


def test_a_wrong_password_says_so_and_is_not_shown(
    secure_kafka: SecureKafka, buses: Callable[..., KafkaBus]
) -> None:
    sasl = schema.Sasl(
        mechanism="SCRAM-SHA-512", username=secure_kafka.username, password="hunter2-wrong"
    )
    bus = buses(secured(made(secure_kafka.plain, 1), secure_kafka, sasl=sasl))
    reader = bus.reader(TOPIC, GROUP)
    for doing in (
        lambda: bus.publish(TOPIC, "k", b""),
        lambda: reader.poll(1, 0.1),
        lambda: bus.end(TOPIC),
    ):
        for _ in range(20):
            began = time.monotonic()
            with pytest.raises(OutsideError, match=r"refuses? user fusewatch.*bus\.sasl") as was:
                doing()
            assert "hunter2" not in f"{was.value!r} {was.value.__cause__!r}"
            assert time.monotonic() - began < 30
            # The brokers of a busy machine may not answer in time. Another attempt knows.
            if not isinstance(was.value, BrokersAway):
                break
        assert not isinstance(was.value, BrokersAway)


def test_an_answer_before_the_end_of_a_connection_is_heard() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(b"refused")
        theirs.close()
        connection = KafkaTCPTransport(None, ours)
        assert connection._sock_recv() == (b"refused", None)
        data, error = connection._sock_recv()
    assert data == b""
    assert isinstance(error, KafkaConnectionError)


def test_a_refusal_that_comes_with_the_end_of_the_connection_is_a_refusal(
    secure_kafka: SecureKafka, buses: Callable[..., KafkaBus]
) -> None:
    sasl = schema.Sasl(
        mechanism="SCRAM-SHA-512", username=secure_kafka.username, password="hunter2-wrong"
    )
    with late(secure_kafka.sasl) as address:
        settings = secured(made(secure_kafka.plain, 1), secure_kafka, sasl=sasl)
        bus = buses(msgspec.structs.replace(settings, brokers=(address,)))
        with pytest.raises(OutsideError, match=r"refuse user fusewatch.*bus\.sasl"):
            bus.publish(TOPIC, "k", b"")


def test_a_client_certificate_opens_the_brokers_that_ask_for_one(
    secure_kafka: SecureKafka, buses: Callable[..., KafkaBus]
) -> None:
    prefix = made(secure_kafka.plain, 1).prefix
    ca = str(secure_kafka.ca)
    mutual = schema.Tls(ca=ca, cert=str(secure_kafka.cert), key=str(secure_kafka.key))
    write(buses(schema.KafkaBus(brokers=(secure_kafka.mutual,), prefix=prefix, tls=mutual)), 1)
    bare = schema.KafkaBus(brokers=(secure_kafka.mutual,), prefix=prefix, tls=schema.Tls(ca=ca))
    with pytest.raises(OutsideError):
        buses(bare).publish(TOPIC, "k", b"")


def test_certificates_of_others_and_for_other_names_are_not_believed(
    secure_kafka: SecureKafka, buses: Callable[..., KafkaBus]
) -> None:
    prefix = made(secure_kafka.plain, 1).prefix
    port = secure_kafka.mutual.rpartition(":")[2]
    ca = str(secure_kafka.ca)
    for brokers, tls, reason in [
        ((secure_kafka.sasl,), schema.Tls(), "self-signed|unable to get local issuer"),
        ((f"127.1:{port}",), schema.Tls(ca=ca), "mismatch"),
        ((secure_kafka.plain,), schema.Tls(ca=ca), "no TLS"),
    ]:
        bus = buses(schema.KafkaBus(brokers=brokers, prefix=prefix, tls=tls))
        with pytest.raises(OutsideError, match=reason):
            bus.publish(TOPIC, "k", b"")


# --- without brokers


def test_without_a_broker_every_question_is_answered_soon_with_an_error(
    buses: Callable[..., KafkaBus],
) -> None:
    bus = buses(schema.KafkaBus(brokers=("127.0.0.1:1",), prefix="nobody"))
    for doing in (
        lambda: bus.publish(TOPIC, "k", b""),
        lambda: bus.reader(TOPIC, GROUP).poll(1),
        lambda: bus.end(TOPIC),
        lambda: bus.committed(TOPIC, GROUP),
        lambda: bus.fetch(TOPIC, "k", 0, 1),
    ):
        began = time.monotonic()
        with pytest.raises(BrokersAway, match=r"127\.0\.0\.1:1: Connection refused"):
            doing()
        assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_broker_that_stops_and_comes_back_loses_and_doubles_nothing(
    lone_broker: Brokers, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(lone_broker.addresses, 2)
    bus = buses(settings)
    write(bus, 100)
    reader, read = buses(settings).reader(TOPIC, GROUP), []

    def entries(wait: float = 0.2) -> list[Entry]:
        return [event for event in reader.poll(50, wait) if isinstance(event, Entry)]

    def reads(count: int) -> bool:
        read.extend(entries())
        return len(read) >= count

    eventually(lambda: reads(100), within=SETTLED)
    eventually(lambda: not entries() and not any(map(reader.behind, (0, 1))), within=SETTLED)
    lone_broker.stop()
    for i in range(100, 200):
        bus.publish(TOPIC, f"site-{i % 12}", str(i).encode())
    assert not bus.settled(0.5)
    began, cpu = time.monotonic(), time.process_time()
    assert [list(reader.poll(10, 1.0)) for _ in range(6)] == [[]] * 6
    assert 4 < time.monotonic() - began < 20, "each poll waits as long as it was told to"
    assert time.process_time() - cpu < 3, "and does not spin"
    assert all(map(reader.behind, (0, 1))), "nobody knows"
    with pytest.raises(BrokersAway):
        lag(bus, TOPIC, GROUP)
    ends = {entry.partition: entry.offset + 1 for entry in read}
    commit = Thread(target=reader.commit, args=(0, ends[0], b"in the outage"))
    commit.start()
    lone_broker.start()
    commit.join(30)
    assert not commit.is_alive()
    assert bus.settled(30)
    assert bus.committed(TOPIC, GROUP)[0] == (ends[0], b"in the outage")
    eventually(lambda: reads(200), within=SETTLED)
    assert sorted(int(entry.value) for entry in read) == list(range(200))
    for key in {entry.key for entry in read}:
        ours = [int(entry.value) for entry in read if entry.key == key]
        assert ours == sorted(ours)
    assert entries(1.0) == []


@pytest.mark.slow
def test_any_broker_of_three_may_be_killed_under_busy_and_idle_workers(
    tmp_path: Any, buses: Callable[..., KafkaBus], joined: Callable[[KafkaBus], Member]
) -> None:
    with Brokers(tmp_path / "kafka", 3) as brokers:
        addresses = tuple(brokers.addresses.split(","))
        settings = schema.KafkaBus(brokers=addresses, prefix="three")
        with Admin(settings) as admin:
            for topic in (TOPIC, "alerts.v1"):
                admin.create(topic, 3, 3, {"min.insync.replicas": "2"})
        bus = buses(settings)
        member = joined(buses(settings))
        idle = buses(settings).reader("alerts.v1", "alert")
        first(idle, Assigned)
        written = 0
        for number in (1, 2, 3):
            brokers.kill(number)
            until = time.monotonic() + 12  # s; longer than an idle reader goes without a commit
            while time.monotonic() < until:
                write(bus, 20, since=written)
                written += 20
                assert idle.poll(1, 0.3) == []
            brokers.start(number)
        eventually(partial(has_read, [member], written), within=SETTLED)
        assert member.failed == []
        assert values(member) == list(range(written))
        assert in_order(member)
        assert len(member.told) == 3, "a coordinator that moves takes its groups along"


@pytest.mark.slow
def test_what_is_discarded_in_an_outage_does_not_arrive_after_it(
    lone_broker: Brokers, buses: Callable[..., KafkaBus]
) -> None:
    settings = made(lone_broker.addresses, 1)
    bus = buses(settings)
    write(bus, 1)
    lone_broker.stop()
    bus.publish(TOPIC, "k", b"given up")
    assert not bus.settled(0.2)
    bus.discard()
    assert bus.settled(0), "there is nothing to wait for"
    began = time.monotonic()
    with pytest.raises(BrokersAway):
        bus.publish(TOPIC, "k", b"no producer")
    assert time.monotonic() - began < 30
    lone_broker.start()
    bus.publish(TOPIC, "k", b"next")
    bus.flush()
    assert bus.end(TOPIC) == {0: 2}


@pytest.mark.slow
def test_a_bus_closes_in_seconds_though_its_broker_is_away(
    lone_broker: Brokers, buses: Callable[..., KafkaBus]
) -> None:
    bus = buses(made(lone_broker.addresses, 1))
    write(bus, 1)
    reader = bus.reader(TOPIC, GROUP)
    first(reader, Entry)
    assert lag(bus, TOPIC, GROUP) == 1
    lone_broker.stop()
    bus.publish(TOPIC, "k", b"never")
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            bus.publish(TOPIC, "k", b"never either")
            bus.settled(60)
        except OutsideError as error:
            failed.append(error)

    waiting = Thread(target=wait)
    waiting.start()
    eventually(waiting.is_alive, within=1)
    began = time.monotonic()
    bus.close()
    waiting.join(5)
    assert not waiting.is_alive()
    assert time.monotonic() - began < 15
    assert failed
