"""Compares our Kafka bus with the bare clients, and a Faust reader with a plain one.

    python -m benchmarks.kafka [HOST:PORT]      (needs the extras `kafka`, `faust` and `bench`)

Without an address, deploy/kafka/kafka.sh starts one broker on this machine and its disk. All ways
are measured in one run, in turns, so that other load on the machine affects all of them alike.
Prints the median of the rounds, the ratio to kafka-python (the median of the ratios within each
round), and the CPU time of this process a record. All clients publish with acks=all, idempotence,
no compression, the same batch size, keys and headers to a new topic of four partitions, and wait
for the acknowledgement of each `flush` (64 records of 1 kB, 8 of 150 kB: as many as a step of ours
has). They read the same topic, in a group, with the same fetch sizes. A read is timed from its
first records on, because joining a group takes seconds. Takes about two minutes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import confluent_kafka
import kafka

from pipeline import codec, topics, trace
from pipeline.bus.kafka import bus as ours
from pipeline.bus.kafka import record
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.bus import KafkaBus
from pipeline.bus.kafka.writer import BATCH
from pipeline.config import schema
from pipeline.ports import Bus, Entry
from pipeline.run import Runner
from pipeline.types import Report
from tests.fakes import FakeText
from workers.bus.faust_app import FaustBus
from workers.stages.text import TextStage

ROUNDS = 5
PARTITIONS = 4
SIZES = {1_000: (20_000, 64), 150_000: (400, 8)}  # bytes -> records published, records a flush
READ = {1_000: 80_000, 150_000: 1_200}  # bytes -> records read
REPORTS = 3_000
LIMIT = 500  # records a poll
KEYS = [f"office/camera-{number}" for number in range(16)]
TRACE = "00-7bb0f1bc4e5c5f0a6f4c3d1a2b9e8f70-a3ce929d0e0e4736-01"
SCRIPT = Path(__file__).parents[1] / "deploy/kafka/kafka.sh"

Took = tuple[float, float]  # s of wall clock, s of CPU
Publish = Callable[[schema.KafkaBus, list[bytes], int], Took]
Read = Callable[[schema.KafkaBus, int], Took]


def now() -> Took:
    """The present wall clock and CPU time, s."""
    return time.perf_counter(), time.process_time()


def since(then: Took, share: float = 1.0) -> Took:
    """The wall clock and CPU time since `then`, divided by `share`."""
    wall, cpu = now()
    return (wall - then[0]) / share, (cpu - then[1]) / share


@contextmanager
def broker(address: str) -> Iterator[str]:
    """Yields `address`, or starts a broker and stops it afterwards."""
    if address:
        yield address
        return
    with tempfile.TemporaryDirectory() as folder:
        run = [str(SCRIPT), "start", folder]
        yield subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([str(SCRIPT), "stop", folder], check=True, capture_output=True)


def fresh(address: str, *names: str) -> schema.KafkaBus:
    """Creates topics under a new prefix and returns their settings."""
    settings = schema.KafkaBus(brokers=(address,), prefix=f"bench-{uuid4().hex[:12]}")
    with Admin(settings) as admin:
        for name in names:
            admin.create(name, PARTITIONS, 1, {"max.message.bytes": str(2 * BATCH)})
    return settings


def keyed(values: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yields the values with the keys of 16 cameras in turn."""
    for number, value in enumerate(values):
        yield KEYS[number % len(KEYS)], value


def wire(settings: schema.KafkaBus) -> str:
    """The name of the frames topic on the brokers."""
    return record.topic(settings.prefix, topics.FRAMES)


# -- publishing; each opens its client, sends one record, and then is timed


def by_us(settings: schema.KafkaBus, values: list[bytes], batch: int) -> Took:
    """Publishes with our bus."""
    bus = KafkaBus(settings)
    bus.publish(topics.FRAMES, KEYS[0], b"warm", TRACE)
    bus.flush()
    began = now()
    for number, (key, value) in enumerate(keyed(values), start=1):
        bus.publish(topics.FRAMES, key, value, TRACE)
        if number % batch == 0:
            bus.flush()
    bus.flush()
    took = since(began)
    bus.close()
    return took


def by_kafka_python(settings: schema.KafkaBus, values: list[bytes], batch: int) -> Took:
    """Publishes with kafka-python."""
    producer = kafka.KafkaProducer(
        bootstrap_servers=settings.brokers,
        acks="all",
        enable_idempotence=True,
        compression_type=None,
        batch_size=BATCH,
        max_request_size=8 << 20,
    )
    topic, headers = wire(settings), record.headers(TRACE)
    producer.send(topic, b"warm").get(30)
    began = now()
    for number, (key, value) in enumerate(keyed(values), start=1):
        producer.send(topic, value, key.encode(), headers)
        if number % batch == 0:
            producer.flush()
    producer.flush()
    took = since(began)
    producer.close()
    return took


def by_confluent(settings: schema.KafkaBus, values: list[bytes], batch: int) -> Took:
    """Publishes with confluent-kafka."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": ",".join(settings.brokers),
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "none",
            "batch.size": BATCH,
            "message.max.bytes": 8 << 20,
            "linger.ms": 0,
        }
    )
    topic, headers = wire(settings), record.headers(TRACE)
    producer.produce(topic, b"warm")
    producer.flush()
    began = now()
    for number, (key, value) in enumerate(keyed(values), start=1):
        producer.produce(topic, value, key.encode(), headers=headers)
        if number % batch == 0:
            producer.flush()
    producer.flush()
    return since(began)


# -- reading; each joins a group of its own


def reading(poll: Callable[[], int], count: int) -> Took:
    """Times the reads after the first `poll` with records, scaled to all `count` records."""
    first = read = 0
    while not first:
        first = read = poll()
    began = now()
    while read < count:
        read += poll()
    return since(began, (read - first) / count)


def read_by_us(settings: schema.KafkaBus, count: int) -> Took:
    """Reads with our bus."""
    bus = KafkaBus(settings)
    reader = bus.reader(topics.FRAMES, f"us-{uuid4().hex[:8]}")
    took = reading(lambda: sum(isinstance(e, Entry) for e in reader.poll(LIMIT, 1.0)), count)
    bus.close()
    return took


def read_by_kafka_python(settings: schema.KafkaBus, count: int) -> Took:
    """Reads with kafka-python."""
    consumer = kafka.KafkaConsumer(
        wire(settings),
        bootstrap_servers=settings.brokers,
        group_id=f"raw-{uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_bytes=ours.FETCH,
        max_partition_fetch_bytes=ours.FETCH_PARTITION,
    )
    took = reading(
        lambda: sum(map(len, consumer.poll(timeout_ms=1000, max_records=LIMIT).values())), count
    )
    consumer.close()
    return took


def read_by_confluent(settings: schema.KafkaBus, count: int) -> Took:
    """Reads with confluent-kafka."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": ",".join(settings.brokers),
            "group.id": f"confluent-{uuid4().hex[:8]}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.max.bytes": ours.FETCH,
            "max.partition.fetch.bytes": ours.FETCH_PARTITION,
        }
    )
    consumer.subscribe([wire(settings)])
    # Small polls: librdkafka waits until it has as many records as asked for, or for the timeout
    took = reading(lambda: len(consumer.consume(num_messages=64, timeout=0.01)), count)
    consumer.close()
    return took


WAYS: dict[str, tuple[Publish, Read]] = {
    "kafka-python": (by_kafka_python, read_by_kafka_python),
    "confluent-kafka": (by_confluent, read_by_confluent),
    "our bus": (by_us, read_by_us),
}


def throughput(address: str, size: int) -> None:
    """Prints the records/s of each way, published and read."""
    count, batch = SIZES[size]
    values = [number.to_bytes(4) + bytes(size - 4) for number in range(count)]
    took: dict[tuple[str, str], list[Took]] = defaultdict(list)
    filled = fresh(address, topics.FRAMES)
    by_us(filled, values * (READ[size] // count), 8 * batch)
    for turn in range(ROUNDS):
        for name in list(WAYS)[turn % 3 :] + list(WAYS)[: turn % 3]:  # each way is first in turn
            publish, read = WAYS[name]
            settings = fresh(address, topics.FRAMES)
            took["publish", name].append(publish(settings, values, batch))
            took["read", name].append(read(filled, READ[size]))
    print(f"\nrecords of {size / 1000:g} kB, {batch} a flush, {ROUNDS} rounds")
    for (what, name), times in sorted(took.items()):
        count = len(values) if what == "publish" else READ[size]
        seconds, cpu = (statistics.median(each) for each in zip(*times, strict=True))
        pairs = zip(took[what, "kafka-python"], times, strict=True)
        ratio = statistics.median(base[0] / mine[0] for base, mine in pairs)
        print(
            f"  {what:8} {name:16} {count / seconds:10,.0f} records/s "
            f"{count * size / seconds / 1e6:8,.1f} MB/s   {ratio:5.2f} of kafka-python"
            f"   {cpu / count * 1e6:6,.0f} us of CPU a record"
        )


# -- Faust


def work_off(bus: Bus, group: str) -> Took:
    """The time of one stage for all waiting reports: read, processed, committed."""
    runner = Runner(
        TextStage(FakeText()), bus, topic=topics.REPORTS, group=group, out=topics.OBSERVATIONS
    )
    done, began = 0, now()
    while done < REPORTS:
        if not runner.hosts:  # joining a group takes seconds
            began = now()
        done += runner.step(0.2)
    took = since(began)
    runner.close()
    return took


def stages(address: str) -> None:
    """Prints the cost of a record with a Faust reader and with our own reader."""
    settings = fresh(address, topics.REPORTS, topics.OBSERVATIONS, topics.DEAD)
    plain = KafkaBus(settings)
    for number in range(REPORTS):
        report = Report(
            site=f"site-{number % 16}",
            source="reports",
            start=number * 1_000_000,
            end=number * 1_000_000 + 1,
            author="guard-1",
            text=f"report {number}: all is well at the gate",
        )
        key = topics.key_of(topics.REPORTS, report)
        plain.publish(topics.REPORTS, key, codec.encode(report), trace.begin(report))
        if number % LIMIT == 0:
            plain.flush()
    plain.flush()
    faust = FaustBus(plain, settings)
    took: dict[str, list[Took]] = {"plain": [], "Faust": []}
    for turn in range(ROUNDS):
        for name, bus in {"plain": plain, "Faust": faust}.items():
            took[name].append(work_off(bus, f"{name.lower()}-{turn}"))
    plain.close()
    print(f"\n{REPORTS} reports through the text stage (a fake model), {ROUNDS} rounds")
    for name, times in took.items():
        wall, cpu = (statistics.median(each) / REPORTS * 1e6 for each in zip(*times, strict=True))
        pairs = zip(took["plain"], times, strict=True)
        ratio = statistics.median(mine[1] / base[1] for base, mine in pairs)
        print(
            f"  {name:6} {1e6 / wall:8,.0f} records/s  {wall:6.0f} us a record, "
            f"{cpu:6.0f} us of CPU: {ratio:5.2f} of plain"
        )


def main() -> None:
    """Runs all measurements."""
    with broker(sys.argv[1] if len(sys.argv) > 1 else "") as address:
        for size in SIZES:
            throughput(address, size)
        stages(address)


if __name__ == "__main__":
    main()
