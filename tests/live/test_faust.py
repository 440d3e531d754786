"""Workers under Faust on a real Apache Kafka: nothing lost, bounded, alone in their group."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer, TopicPartition

from pipeline import codec, topics
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.bus import KafkaBus, KafkaReader
from pipeline.config import schema
from pipeline.errors import OutsideError
from pipeline.ports import Assigned, Entry, Reader, Revoked
from pipeline.run import Runner
from pipeline.types import SECOND, DeadLetter, Detections, FrameChunk
from tests import make
from tests.live.brokers import SecureKafka, lag
from tests.live.faust_worker import Seen
from tests.live.servers import eventually
from workers.bus import faust_app
from workers.bus.faust_app import FaustBus
from workers.media.jpeg import encoded

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
TOPICS = (topics.FRAMES, topics.REPORTS, topics.OBSERVATIONS, topics.DEAD)
SETTLED = 60.0  # s for a group to form, also after a session that nobody ended
_numbers = itertools.count()


class Place:
    """Topics of one test, and what lies in them."""

    def __init__(self, broker: str, partitions: int = PARTITIONS) -> None:
        self.prefix = f"faust-{os.getpid()}-{next(_numbers)}"
        self.settings = schema.KafkaBus(brokers=(broker,), prefix=self.prefix)
        with Admin(self.settings) as admin:
            for topic in TOPICS:
                admin.create(topic, partitions, 1, {"message.timestamp.type": "LogAppendTime"})
        self.bus = KafkaBus(self.settings)
        self.faust = FaustBus(self.bus, self.settings)

    def publish(self, frames: list[FrameChunk]) -> None:
        for number, frame in enumerate(frames):
            key = topics.key_of(topics.FRAMES, frame)
            self.bus.publish(topics.FRAMES, key, codec.encode(frame))
            if number % 50 == 49:
                self.bus.flush()
        self.bus.flush()

    def answered(self) -> dict[str, list[int]]:
        """Starts of the Detections of each source, in the order of their topic."""
        found: dict[str, list[int]] = {}
        for entry in self.bus.between(topics.OBSERVATIONS, 0, 2**62):
            record = codec.decode(entry.value)
            if isinstance(record, Detections):
                found.setdefault(record.source, []).append(record.start)
        return found

    def count(self, topic: str = topics.OBSERVATIONS) -> int:
        return sum(self.bus.end(topic).values())

    def committed(self) -> dict[int, int]:
        return {
            number: offset
            for number, (offset, _) in self.bus.committed(topics.FRAMES, "vision").items()
        }

    def entries(self) -> dict[int, list[FrameChunk]]:
        """The frames by partition; the place in the list is the offset."""
        found: dict[int, list[FrameChunk]] = {}
        for entry in self.bus.between(topics.FRAMES, 0, 2**62):
            found.setdefault(entry.partition, []).append(codec.decode(entry.value))
        return found


@pytest.fixture
def place(kafka: str) -> Iterator[Place]:
    place = Place(kafka)
    yield place
    place.bus.close()


Worker = subprocess.Popen[str]
Start = Callable[..., Worker]


@pytest.fixture
def start(place: Place, kafka: str, tmp_path: Path) -> Iterator[Start]:
    """`start("--lag", "5")`: a worker process that has partitions."""
    with ExitStack() as ends:

        def begin(*options: str, environment: dict[str, str] | None = None) -> Worker:
            command = [sys.executable, "-m", "tests.live.faust_worker", kafka, place.prefix]
            errors = ends.enter_context((tmp_path / f"{time.monotonic_ns()}.err").open("w+"))
            worker = ends.enter_context(
                subprocess.Popen(
                    [*command, *options],
                    cwd=ROOT,
                    env={**os.environ, **(environment or {})},
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
            )
            ends.callback(worker.kill)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n", Path(errors.name).read_text()
            return worker

        yield begin


def frames(count: int, *, sources: int = 8, size: int = 100, first: int = 0) -> list[FrameChunk]:
    """`count` of each source, five a second."""
    return [
        make.frame(1000 + k / 5, b"x" * size, source=f"cam{n}", seq=k)
        for k in range(first, first + count)
        for n in range(sources)
    ]


def starts(sent: list[FrameChunk]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for frame in sent:
        found.setdefault(frame.source, []).append(frame.start)
    return found


def once(answers: dict[str, list[int]]) -> dict[str, list[int]]:
    """The same without repeats: each answer where it first stood."""
    return {source: list(dict.fromkeys(each)) for source, each in answers.items()}


def runner(place: Place, **options: float) -> Runner:
    stage = Seen(options.get("lag", 0.0), 0.0, -1)
    return Runner(stage, place.faust, topic=topics.FRAMES, group="vision", out=topics.OBSERVATIONS)


def worked(place: Place, entries: int) -> None:
    """Everything through a worker in this process."""
    mine = runner(place)
    try:
        eventually(lambda: mine.step(0.2) and place.count() >= entries, within=SETTLED)
    finally:
        mine.close()


def test_it_goes_on_where_it_was_when_it_is_stopped_and_started(place: Place) -> None:
    for turn in range(3):
        place.publish(frames(10, first=10 * turn))
        worked(place, 80 * (turn + 1))
    assert place.answered() == starts(frames(30)), "nothing lost, nothing twice"
    assert sum(place.committed().values()) == 240


def test_after_a_kill_nothing_is_lost_and_what_is_repeated_is_in_order(
    place: Place, start: Start, tmp_path: Path
) -> None:
    crawls, sent = tmp_path / "crawls", frames(60)
    place.publish(sent)
    worker = start("--lag", "5", "--slow", "0.005", "--limit", "8", "--crawls", str(crawls))
    eventually(lambda: len(place.committed()) and place.count() > 300, within=SETTLED)
    crawls.touch()
    worker.kill()
    worker.wait()
    answered, committed = place.answered(), place.committed()
    held = 0
    for number, entries in place.entries().items():
        done = [frame for frame in entries if frame.start in answered.get(frame.source, ())]
        if number in committed:
            safe = [frame.end <= done[-1].end - 5 * SECOND for frame in entries].index(False)
            assert committed[number] <= safe, "what the state still holds is not committed"
            held += len(done) - committed[number]
    assert held > 0
    assert place.count() < len(sent), "it was killed amid its work"
    start("--lag", "5")
    eventually(lambda: once(place.answered()) == starts(sent), within=SETTLED)


def test_two_workers_share_the_cameras_and_neither_loses_or_repeats_a_frame(
    place: Place, start: Start, tmp_path: Path
) -> None:
    crawls = tmp_path / "crawls"
    crawls.touch()
    slow = ("--slow", "0.005", "--limit", "8", "--crawls", str(crawls))
    sent = frames(100)
    place.publish(sent)
    first = start(*slow)
    eventually(lambda: place.count() > 20, within=SETTLED)
    second = start(*slow)
    assert place.count() < len(sent), "it came amid the work of the first"
    sent += frames(50, first=100)
    place.publish(sent[800:])
    crawls.unlink()
    eventually(lambda: place.count() > 600, within=SETTLED)
    crawls.touch()
    first.terminate()
    assert place.count() < len(sent), "and that left amid the work"
    assert first.wait(20) == 0
    crawls.unlink()
    eventually(lambda: place.count() >= len(sent), within=SETTLED)
    second.terminate()
    assert second.wait(20) == 0
    assert place.answered() == starts(sent)


def test_a_model_that_fails_ends_the_process_and_its_records_are_not_acked(
    place: Place, start: Start
) -> None:
    sent = frames(50, sources=1)
    place.publish(sent)
    worker = start("--fail-at", "37", "--limit", "10")
    assert worker.wait(SETTLED) == 70
    answered = place.answered()["cam0"]
    (committed,) = (offset for offset in place.committed().values() if offset)
    assert committed == len(answered) <= 37
    start()
    eventually(lambda: place.answered() == starts(sent), within=SETTLED)


def test_it_listens_on_no_port_and_needs_no_topic_of_its_own(place: Place, start: Start) -> None:
    strange = {"WEB_ENABLED": "1", "WEB_PORT": "36066", "BROKER_URL": "kafka://127.0.0.1:1"}
    worker = start(environment=strange)
    assert connections(worker.pid, "01"), "it has connections, so that they can be seen at all"
    assert not connections(worker.pid, "0A")
    with Admin(place.settings) as admin:
        known = {one["name"] for one in admin._client.describe_topics()}
    ours = {name for name in known if place.prefix in name}
    assert ours == {f"{place.prefix}.{name}" for name in TOPICS}


def connections(pid: int, state: str) -> list[str]:
    """TCP sockets of a process in a state of the kernel's: 01 established, 0A listening."""
    links = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        links.append(os.readlink(each))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state and f"socket:[{fields[9]}]" in links:
                found.append(line)
    return found


def picture() -> bytes:
    """A JPEG of 150 kB."""
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    found = encoded(noise)
    while len(found) < 150_000:
        noise = np.concatenate([noise, noise[:20]])
        found = encoded(noise)
    return found


def memory(pid: int, what: str) -> float:
    """MB, as the kernel counts: VmRSS now, VmHWM at its peak."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0, 1 << 40], ids=["bounded", "without the bound"])
def test_a_backlog_of_3000_frames_does_not_fill_the_memory(
    place: Place, start: Start, bound: int
) -> None:
    data = picture()
    height = (len(data) and _height(data)) or 0
    worker = start("--pictures", "--slow", "0.01", "--bound", str(bound))
    before = memory(worker.pid, "VmRSS")
    place.publish(
        [
            make.frame(k / 5, data, source=f"cam{n}", seq=k, width=400, height=height)
            for k in range(250)
            for n in range(12)
        ]
    )
    eventually(
        lambda: len(place.committed()) and lag(place.bus, topics.FRAMES, "vision") == 0,
        within=240,
        every=0.5,
    )
    grown = memory(worker.pid, "VmHWM") - before
    print(f"{3000 * len(data) / 1e6:.0f} MB of frames, the worker grew by {grown:.0f} MB")
    assert grown > 300 if bound else grown < 300


def _height(data: bytes) -> int:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return int(pixels.shape[0])


def joined(reader: Reader) -> Reader:
    def assigned() -> bool:
        return any(isinstance(event, Assigned) for event in reader.poll(10, 0.2))

    eventually(assigned, within=SETTLED)
    return reader


def test_a_group_with_plain_workers_is_refused_at_the_start(place: Place) -> None:
    plain = joined(place.bus.reader(topics.FRAMES, "vision"))
    with pytest.raises(OutsideError, match=r"has plain workers .* without --faust"):
        place.faust.reader(topics.FRAMES, "vision")
    plain.close()


def test_who_joins_a_group_of_plain_workers_at_the_same_moment_ends_with_the_reason(
    place: Place,
) -> None:
    plain = joined(place.bus.reader(topics.FRAMES, "vision"))
    late = faust_app._Served(place.settings, topics.FRAMES, "vision", "late").reader
    try:
        with pytest.raises(OutsideError, match="vision has plain workers"):
            eventually(lambda: late.poll(10, 0.2), within=30)
    finally:
        late.close()
        plain.close()


def test_a_plain_worker_cannot_join_a_group_of_faust_workers(place: Place) -> None:
    with Admin(place.settings) as admin:
        assert admin.assignor(f"{place.prefix}-vision") is None
        mine = joined(place.faust.reader(topics.FRAMES, "vision"))
        assert admin.assignor(f"{place.prefix}-vision") == "faust"
    plain: KafkaReader = place.bus.reader(topics.FRAMES, "vision")
    try:
        with pytest.raises(OutsideError, match="members of another kind"):
            eventually(lambda: plain.poll(10, 0.2), within=30)
        place.publish(frames(1))
        eventually(lambda: any(isinstance(e, Entry) for e in mine.poll(10, 0.2)), within=SETTLED)
    finally:
        plain.close()
        mine.close()


def test_a_poisoned_record_is_a_dead_letter_and_the_partition_moves_on(place: Place) -> None:
    good = codec.encode(make.frame(1000))
    kind, version = ("content-type", codec.CONTENT_TYPE.encode()), ("schema-version", b"1")
    poisoned: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]], str]] = [
        (b"office/desk", good, [kind, ("schema-version", b"99")], "schema version '99'"),
        (b"office/desk", good, [("content-type", b"text/html"), version], "content type"),
        (b"office/desk", b"\xc1\x00", [kind, version], "not a Fusewatch record"),
        (b"office/desk", None, [kind, version], "no value"),
        (b"\xff\xfe", good, [kind, version], "no UTF-8"),
    ]
    producer = KafkaProducer(bootstrap_servers=list(place.settings.brokers))
    for key, value, headers, _ in poisoned:
        producer.send(f"{place.prefix}.frames.v1", value, key=key, headers=headers, partition=0)
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    headers = [kind, version, ("traceparent", trace.encode())]
    producer.send(
        f"{place.prefix}.frames.v1", good, key=b"office/desk", headers=headers, partition=0
    )
    producer.flush()
    producer.close()
    worked(place, 1)
    (after,) = [e for e in place.bus.between(topics.OBSERVATIONS, 0, 2**62)]
    assert after.trace.startswith("00-" + "1" * 32)
    dead = [codec.decode(e.value) for e in place.bus.between(topics.DEAD, 0, 2**62)]
    assert sorted(d.offset for d in dead if isinstance(d, DeadLetter)) == [0, 1, 2, 3, 4]
    for letter in dead:
        assert poisoned[letter.offset][3] in letter.reason
    assert place.committed()[0] == 6


@pytest.mark.parametrize("codec_name", ["gzip", "lz4", "zstd"])
def test_it_reads_what_was_compressed(place: Place, codec_name: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=list(place.settings.brokers), compression_type=codec_name, linger_ms=1000
    )
    sent = [codec.encode(make.report(k, "two men at the till " * 10)) for k in range(50)]
    for value in sent:
        producer.send(f"{place.prefix}.reports.v1", value, key=b"office/reports")
    producer.flush()
    producer.close()
    found = read_all(place.faust, 50, topics.REPORTS, "text")
    assert [entry.value for entry in found] == sent


def test_records_that_retention_took_are_passed_over(place: Place) -> None:
    place.publish(frames(10, sources=1))
    worked(place, 10)
    place.publish(frames(20, sources=1, first=10))
    number = place.bus.partition_of(topics.FRAMES, "office/cam0")
    with Admin(place.settings) as admin:
        part = TopicPartition(f"{place.prefix}.frames.v1", number)
        admin._client.delete_records({part: 25})
    worked(place, 15)
    assert place.answered() == starts([*frames(10, sources=1), *frames(5, sources=1, first=25)])
    assert place.committed()[number] == 30


def test_a_partition_that_expired_unread_begins_behind_what_is_gone(place: Place) -> None:
    place.publish(frames(10, sources=1))
    worked(place, 10)
    place.publish(frames(20, sources=1, first=10))
    number = place.bus.partition_of(topics.FRAMES, "office/cam0")
    with Admin(place.settings) as admin:
        part = TopicPartition(f"{place.prefix}.frames.v1", number)
        admin._client.delete_records({part: 30})
    reader = place.faust.reader(topics.FRAMES, "vision")
    found = {event.partition: event for event in joined_events(reader)}
    reader.close()
    assert found[number] == Assigned(number, 30, b""), "so that nothing seems to wait"
    assert reader.lost == 20


def test_a_missing_topic_is_said_at_the_start(place: Place) -> None:
    with pytest.raises(OutsideError, match=r"no topic faust-.*\.audio\.v1.*topics create"):
        place.faust.reader(topics.AUDIO, "sound")


def test_a_topic_that_was_made_anew_is_not_read_in_silence(place: Place) -> None:
    place.publish(frames(3))
    worked(place, 24)
    other = place.bus.reader(topics.FRAMES, "vision")
    moved = [event for event in joined_events(other) if isinstance(event, Assigned)]
    other.commit(moved[0].partition, 1000, b"")
    other.close()
    mine = place.faust.reader(topics.FRAMES, "vision")
    try:
        with pytest.raises(OutsideError, match="goes on at offset 1000 of"):
            eventually(lambda: mine.poll(10, 0.2) and False, within=SETTLED)
    finally:
        mine.close()


def joined_events(reader: Reader) -> list[Assigned | Entry | Revoked]:
    found: list[Assigned | Entry | Revoked] = []

    def all_there() -> bool:
        found.extend(reader.poll(10, 0.2))
        return sum(isinstance(event, Assigned) for event in found) == PARTITIONS

    eventually(all_there, within=SETTLED)
    return found


def test_behind_is_what_waits_and_nothing_when_all_is_read(place: Place) -> None:
    place.publish(frames(5, sources=1))
    reader = joined(place.faust.reader(topics.FRAMES, "vision"))
    number = place.bus.partition_of(topics.FRAMES, "office/cam0")
    given: list[Entry] = []

    def read(count: int) -> bool:
        given.extend(e for e in reader.poll(1, 0.2) if isinstance(e, Entry))
        return len(given) >= count

    eventually(lambda: read(2), within=SETTLED)
    assert reader.behind(number) == 3
    eventually(lambda: read(5), within=SETTLED)
    assert reader.behind(number) == 0
    reader.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_it_reads_over_tls_with_a_password(secure_kafka: SecureKafka, mechanism: str) -> None:
    secure = secure_kafka
    place = Place(secure.plain)
    place.publish(frames(1))
    settings = schema.KafkaBus(
        brokers=(secure.sasl,),
        prefix=place.prefix,
        tls=schema.Tls(ca=str(secure.ca)),
        sasl=schema.Sasl(mechanism=mechanism, username=secure.username, password=secure.password),
    )
    assert len(read_all(FaustBus(place.bus, settings), 8)) == 8
    place.bus.close()


def test_it_shows_a_certificate_where_the_brokers_ask_for_one(secure_kafka: SecureKafka) -> None:
    secure = secure_kafka
    place = Place(secure.plain)
    place.publish(frames(1))
    tls = schema.Tls(ca=str(secure.ca), cert=str(secure.cert), key=str(secure.key))
    settings = schema.KafkaBus(brokers=(secure.mutual,), prefix=place.prefix, tls=tls)
    assert len(read_all(FaustBus(place.bus, settings), 8)) == 8
    place.bus.close()


def read_all(
    bus: FaustBus, count: int, topic: str = topics.FRAMES, group: str = "vision"
) -> list[Entry]:
    reader = bus.reader(topic, group)
    found: list[Entry] = []

    def all_there() -> bool:
        found.extend(e for e in reader.poll(10, 0.2) if isinstance(e, Entry))
        return len(found) >= count

    try:
        eventually(all_there, within=SETTLED)
    finally:
        reader.close()
    return found
