"""`fusewatch dead` over real brokers: poison is listed, and what can be read is tried again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from pipeline import codec, topics
from pipeline.bus.kafka.bus import KafkaBus
from pipeline.config import schema
from pipeline.config.topic_plan import partitions_of
from pipeline.kafka_partitioner import partition_of
from pipeline.limits import MAX_DEAD_BYTES
from pipeline.ports import Entry
from pipeline.run import Runner
from pipeline.types import Progress, Record
from tests import make
from tests.graph.conftest import FAKES
from tests.live.brokered import ALWAYS, over_kafka
from tests.live.brokers import SecureKafka
from workers import graph
from workers.cli import main
from workers.config import loader
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.enable_mark import EnableMark
from workers.delivery.receiver import Receiver, Reply
from workers.delivery.webhook import Webhook
from workers.runtime.status import Status

pytestmark = pytest.mark.live
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="
KEY = "office/desk"


class Place:
    """A config over brokers, its bus, and a producer that puts anything anywhere."""

    def __init__(self, folder: Path, brokers: str, webhooks: str = "[]") -> None:
        plain = folder / "office.yaml"
        plain.write_text(
            "version: 1\nsites: {office: {cameras: {desk: {source: 'device:0'}}}}\n"
            f"webhooks: {webhooks}\n"
        )
        self.path = over_kafka(plain, brokers)
        self.settings = loader.load(self.path)
        assert isinstance(self.settings.bus, schema.KafkaBus)
        self.bus = KafkaBus(self.settings.bus)
        self._producer = KafkaProducer(bootstrap_servers=brokers, max_request_size=2_000_000)

    def poison(self, topic: str, key: str, value: bytes, version: bytes = b"1") -> int:
        """The offset of what another program put where our records of `key` go."""
        assert isinstance(self.settings.bus, schema.KafkaBus)
        number = partition_of(KEY, partitions_of(self.settings.bus, topic))
        sent = self._producer.send(
            f"{self.settings.bus.prefix}.{topic}",
            value,
            key.encode(),
            [("content-type", b"application/msgpack"), ("schema-version", version)],
            partition=number,
        )
        return int(sent.get(30).offset)

    def publish(self, topic: str, *records: Record) -> None:
        for record in records:
            self.bus.publish(topic, topics.key_of(topic, record), codec.encode(record))
        self.bus.flush()

    def vision(self) -> Runner:
        nodes = graph.nodes(self.settings, FAKES, Status(), recorded=True, stages=("vision",))
        (node,) = nodes
        return node.runner(self.bus, self.settings.bus.max_message)

    def held(self, topic: str) -> list[Record]:
        return [codec.decode(entry.value) for entry in self.bus.between(topic, 0, ALWAYS)]

    def close(self) -> None:
        self._producer.close()
        self.bus.close()


def until(runner: Runner | Delivery, done: Any) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        runner.step(0.05)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, list[str]]:
    code = main(["dead", *map(str, words)])
    said = capsys.readouterr()
    assert said.err == ""
    return code, said.out.splitlines()


def test_poison_is_listed_and_what_an_upgrade_can_read_is_answered(
    tmp_path: Path, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, kafka)
    frame = codec.encode(make.progress(5.0))
    place.poison(topics.FRAMES, KEY, b"\xc1 garbage")
    place.poison(topics.FRAMES, KEY, frame, version=b"2")
    place.publish(topics.FRAMES, make.progress(1.0))
    vision = place.vision()
    until(vision, lambda: place.held(topics.OBSERVATIONS))
    _, lines = run(capsys, "list", place.path, "--json", "--since", "1h")
    rows = [json.loads(line) for line in lines]
    assert [(row["topic"], row["site"], row["source"], row["offset"]) for row in rows] == [
        ("frames.v1", "office", "desk", 0),
        ("frames.v1", "office", "desk", 1),
    ]
    assert rows[0]["reason"].startswith("not a Fusewatch record (schema 1): ")
    assert rows[1]["reason"] == "schema version '2', and this Fusewatch reads 1"
    code, lines = run(capsys, "retry", place.path, "--all")
    assert code == 1
    assert lines[0].startswith(f"{rows[0]['id']}: not sent: it would come back")
    assert lines[1] == f"{rows[1]['id']}: published to frames.v1 again, under {KEY}"
    until(vision, lambda: len(place.held(topics.OBSERVATIONS)) == 2)
    assert place.held(topics.OBSERVATIONS)[1] == make.progress(5.0)
    assert isinstance(place.held(topics.OBSERVATIONS)[1], Progress)
    vision.close()
    place.close()


def test_the_largest_poison_with_the_worst_key_fits_into_dead(tmp_path: Path, kafka: str) -> None:
    place = Place(tmp_path, kafka)
    largest = 1_000_000
    place.poison(topics.FRAMES, "k" * 60_000, b"\xc1" + os.urandom(largest - 1))
    place.poison(topics.FRAMES, KEY, os.urandom(largest + 1))
    place.publish(topics.FRAMES, make.progress(1.0))
    vision = place.vision()
    until(vision, lambda: place.held(topics.OBSERVATIONS))
    first, second = place.held(topics.DEAD)
    assert [len(letter.value) for letter in (first, second)] == [MAX_DEAD_BYTES] * 2  # type: ignore[attr-defined]
    assert "1000001 bytes, and a record has 1000000" in second.reason  # type: ignore[attr-defined]
    vision.close()
    place.close()


def test_an_alert_that_was_refused_goes_again_to_its_subscriber_alone(
    tmp_path: Path, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = [Reply(410), Reply(204)]
    with Receiver(SECRET, answer=lambda _: gone.pop(0)) as receiver:
        hook = f"{{url: '{receiver.url}', secret: '{SECRET}', name: siem}}"
        place = Place(tmp_path, kafka, f"[{hook}]")
        place.publish(topics.ALERTS, make.alert())
        subscriber = Subscriber(
            name="siem", sink=Webhook(place.settings.webhooks[0]), address=receiver.url
        )
        reader = place.bus.reader(topics.ALERTS, subscriber.group)
        outside = DeliveryEnvironment(clock=time.time, random=lambda: 0.5)
        delivery = Delivery(subscriber, reader, dead_letter_publisher(place.bus), outside)
        until(delivery, lambda: place.held(topics.DEAD))
        delivery.close()
        (row,) = map(json.loads, run(capsys, "list", place.path, "--json")[1])
        assert (row["source"], row["reason"]) == (
            "delivery/siem",
            "410 Gone: the receiver wants no more alerts",
        )
        assert run(capsys, "retry", place.path, row["id"]) == (0, [f"{row['id']}: siem took it"])
        first, second = receiver.posts
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
    entries = [e for e in place.bus.between(topics.ALERTS, 0, ALWAYS) if isinstance(e, Entry)]
    assert len(entries) == 1  # nobody else gets it again
    place.close()


def test_one_that_is_disabled_in_the_notes_of_brokers_is_enabled_by_a_mark(
    tmp_path: Path, kafka: str, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [Reply(410), Reply(204)]
    with Receiver(SECRET, answer=lambda _: replies.pop(0)) as receiver:
        hook = f"{{url: '{receiver.url}', secret: '{SECRET}', name: siem}}"
        place = Place(tmp_path, kafka, f"[{hook}]")
        mark = EnableMark(tmp_path, "siem")
        subscriber = Subscriber(
            name="siem",
            sink=Webhook(place.settings.webhooks[0]),
            address=receiver.url,
            enabled=mark,
        )

        def delivery() -> Delivery:
            reader = place.bus.reader(topics.ALERTS, subscriber.group)
            outside = DeliveryEnvironment(clock=time.time, random=lambda: 0.5)
            return Delivery(subscriber, reader, dead_letter_publisher(place.bus), outside)

        place.publish(topics.ALERTS, make.alert())
        first = delivery()
        until(first, lambda: first.state.state == "disabled")
        first.close()
        words = ["webhooks", "enable", str(place.path), "siem", "--state", str(tmp_path)]
        assert main(words) == 3
        assert "is not the state folder of a delivery worker" in capsys.readouterr().err
        assert mark() == ""
        (tmp_path / "alerts.jsonl").touch()
        assert main(words) == 0
        enabled, dead, *_ = capsys.readouterr().out.splitlines()
        assert enabled.startswith("siem is enabled again; a running delivery worker")
        assert dead.startswith("1 alert became a dead letter because of 410 Gone; ")
        again = delivery()
        place.publish(topics.ALERTS, make.alert(id="02"))
        until(again, lambda: "02_0" in receiver.events)
        assert again.state.state == "taking"
        again.close()
        place.close()


def test_no_password_is_shown_by_dead(
    tmp_path: Path, secure_kafka: SecureKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "office.yaml"
    path.write_text(
        "version: 1\nsites: {office: {}}\nbus:\n  kind: kafka\n"
        f"  brokers: ['{secure_kafka.sasl}']\n  tls: {{ca: '{secure_kafka.ca}'}}\n"
        "  sasl: {mechanism: PLAIN, username: fusewatch, password: planted-secret}\n"
    )
    for command in (("list",), ("retry", "--all"), ("list", "--json")):
        assert main(["dead", command[0], str(path), *command[1:]]) == 3
        said = capsys.readouterr()
        assert "bus.sasl" in said.err
        assert "planted" not in said.out + said.err
