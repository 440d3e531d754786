"""deploy/kafka/kafka.sh gives a real Apache Kafka: by kafka-python alone, nothing of ours."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from tests.live.brokers import Brokers, SecureKafka
from tests.live.servers import eventually

pytestmark = pytest.mark.live


def create(topic: str, copies: int = 1, **client: object) -> None:
    """A topic of one partition."""
    admin = KafkaAdminClient(**client)
    admin.create_topics([NewTopic(topic, 1, copies)])
    admin.close()


def write(value: bytes, topic: str, **client: object) -> None:
    """Into a topic that is there; a producer finds its way around brokers that are gone."""
    producer = KafkaProducer(acks="all", **client)
    producer.send(topic, value).get(60)
    producer.close()


def read(topic: str, count: int, **client: object) -> list[bytes]:
    consumer = KafkaConsumer(auto_offset_reset="earliest", **client)
    consumer.assign([TopicPartition(topic, 0)])
    try:
        values: list[bytes] = []

        def enough() -> bool:
            found = consumer.poll(timeout_ms=200)
            values.extend(record.value for records in found.values() for record in records)
            return len(values) >= count

        eventually(enough, within=60)
        return values
    finally:
        consumer.close()


def test_what_is_produced_is_consumed(kafka: str) -> None:
    topic = f"broker-{uuid4().hex}"
    create(topic, bootstrap_servers=kafka)
    write(b"one", topic, bootstrap_servers=kafka)
    assert read(topic, 1, bootstrap_servers=kafka) == [b"one"]


def test_a_topic_is_never_made_by_asking_for_it(kafka: str) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka, max_block_ms=1500)
    with pytest.raises(KafkaError):
        producer.send(f"broker-{uuid4().hex}", b"lost").get(10)
    producer.close()


@pytest.mark.parametrize(
    "end", [Brokers.stop, lambda brokers: brokers.kill(1)], ids=["stop", "kill"]
)
def test_a_broker_keeps_its_data_and_its_address(
    lone_broker: Brokers, end: Callable[[Brokers], None]
) -> None:
    topic = f"kept-{uuid4().hex}"
    before = lone_broker.addresses
    create(topic, bootstrap_servers=before)
    write(b"one", topic, bootstrap_servers=before)
    end(lone_broker)
    lone_broker.start()
    assert lone_broker.addresses == before
    write(b"two", topic, bootstrap_servers=before)
    assert read(topic, 2, bootstrap_servers=before) == [b"one", b"two"]


@pytest.mark.slow
def test_three_brokers_go_on_without_one_and_take_it_back(tmp_path: Path) -> None:
    with Brokers(tmp_path / "kafka", 3) as brokers:
        where = brokers.addresses.split(",")
        assert len(where) == 3
        create("kept", 3, bootstrap_servers=where)
        write(b"one", "kept", bootstrap_servers=where)
        brokers.kill(2)
        write(b"two", "kept", bootstrap_servers=where)
        brokers.start(2)
        brokers.stop(1)
        write(b"three", "kept", bootstrap_servers=where)
        assert read("kept", 3, bootstrap_servers=where) == [b"one", b"two", b"three"]


def test_a_foreign_pid_in_the_file_is_left_alone(lone_broker: Brokers) -> None:
    lone_broker.stop()
    (lone_broker.folder / "1" / "pid").write_text(str(os.getpid()))
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("stopped a stranger"))
    try:
        lone_broker.stop()
        lone_broker.start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert lone_broker.pid(1) != os.getpid()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password_over_tls_lets_in(secure_kafka: SecureKafka, mechanism: str) -> None:
    client = {
        "bootstrap_servers": secure_kafka.sasl,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(secure_kafka.ca),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": secure_kafka.username,
        "sasl_plain_password": secure_kafka.password,
    }
    topic = f"secure-{uuid4().hex}"
    create(topic, **client)
    write(b"one", topic, **client)
    assert read(topic, 1, **client) == [b"one"]
    with pytest.raises(KafkaError):
        KafkaAdminClient(
            **client | {"sasl_plain_password": "wrong"}, bootstrap_timeout_ms=2000
        ).list_topics()


def test_a_certificate_lets_in_and_none_does_not(secure_kafka: SecureKafka) -> None:
    client = {
        "bootstrap_servers": secure_kafka.mutual,
        "security_protocol": "SSL",
        "ssl_cafile": str(secure_kafka.ca),
    }
    topic = f"mutual-{uuid4().hex}"
    ours = {"ssl_certfile": str(secure_kafka.cert), "ssl_keyfile": str(secure_kafka.key)}
    create(topic, **client, **ours)
    write(b"one", topic, **client, **ours)
    assert read(topic, 1, **client, **ours) == [b"one"]
    with pytest.raises((KafkaError, ssl.SSLError)):
        KafkaAdminClient(**client, bootstrap_timeout_ms=2000).list_topics()
