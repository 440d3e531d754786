"""`fusewatch topics` on real brokers: made once, changed on purpose, never shrunk in passing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import codec, topics
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.bus import KafkaBus
from pipeline.config import schema
from pipeline.ports import Entry
from tests import make
from tests.live.brokers import SecureKafka
from workers.cli import main
from workers.config import loader

pytestmark = pytest.mark.live
SECRET = "planted-secret"


class Place:
    """A config over the brokers under a prefix of its own; `say` changes it."""

    def __init__(self, folder: Path, brokers: str) -> None:
        self.path = folder / "office.yaml"
        self.prefix = f"t{uuid.uuid4().hex[:12]}"
        self._brokers = brokers
        self.say()

    def say(self, bus: str = "", cap: str = "20 GB", frames: int = 900) -> None:
        self.path.write_text(
            "version: 1\nsites: {office: {}}\n"
            f"storage: {{cap: {cap}, frames: {frames}}}\n"
            f"bus:\n  kind: kafka\n  brokers: {json.dumps(self._brokers.split(','))}\n"
            f"  prefix: {self.prefix}\n"
            + (bus if "replication" in bus else f"  replication: 1\n  min_insync: 1\n{bus}")
        )

    @property
    def bus(self) -> schema.KafkaBus:
        bus = loader.load(self.path).bus
        assert isinstance(bus, schema.KafkaBus)
        return bus


@pytest.fixture
def place(tmp_path: Path, kafka: str) -> Place:
    return Place(tmp_path, kafka)


@pytest.fixture
def admin(place: Place) -> Iterator[Admin]:
    with Admin(place.bus) as admin:
        yield admin


def create(place: Place, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Exit code and what was said."""
    code = main(["topics", "create", str(place.path), *options])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out + said.err


def test_topics_are_made_once_and_then_left_alone(
    place: Place, admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = create(place, capsys, "--dry-run")
    assert (code, said.count(": would be created (")) == (0, len(topics.ALL_TOPICS))
    assert admin.topics(topics.ALL_TOPICS) == {}
    code, said = create(place, capsys)
    assert (code, said.count(": created (")) == (0, len(topics.ALL_TOPICS))
    assert f"{place.prefix}.frames.v1: created (12 partitions, 1 copy, keeps 15 min" in said
    there = admin.topics(topics.ALL_TOPICS)
    assert set(there) == set(topics.ALL_TOPICS)
    assert there[topics.FRAMES].partitions == 12
    assert there[topics.ALERTS].config["message.timestamp.type"] == "LogAppendTime"
    assert admin.limits([topics.DEAD, topics.FRAMES]) == {
        topics.FRAMES: 1_065_536,
        topics.DEAD: 1_131_072,
    }
    code, said = create(place, capsys)
    assert (code, said.count(": unchanged\n")) == (0, len(topics.ALL_TOPICS))
    assert admin.topics(topics.ALL_TOPICS) == there


def test_longer_and_larger_is_done_and_shorter_and_smaller_refused(
    place: Place, admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    create(place, capsys)
    place.say("  max_message: 2000000\n", cap="40 GB", frames=1800)
    code, said = create(place, capsys)
    assert code == 0
    assert "retention.ms 900000 -> 1800000" in said
    assert admin.topics([topics.FRAMES])[topics.FRAMES].config["max.message.bytes"] == "2065536"
    larger = admin.topics(topics.ALL_TOPICS)
    place.say()
    code, said = create(place, capsys)
    assert code == 2
    for words in (
        f"{place.prefix}.frames.v1 has retention.ms 1800000 ms, and the config says 900000 ms",
        f"{place.prefix}.alerts.v1 has retention.bytes 533333333 bytes, and the config says 2666",
        f"{place.prefix}.dead.v1 has max.message.bytes 2131072 bytes, and the config says 1131072",
        "To do it on purpose add --shrink",
        "Nothing was changed.",
    ):
        assert words in said
    assert admin.topics(topics.ALL_TOPICS) == larger
    assert create(place, capsys, "--shrink")[0] == 0
    assert admin.limits([topics.DEAD]) == {topics.DEAD: 1_131_072}


def test_fewer_partitions_are_refused_for_ever_and_more_until_all_is_read(
    place: Place, admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    place.say("  partitions: {reports: 2}\n")
    create(place, capsys)
    place.say("  partitions: {reports: 1}\n")
    code, said = create(place, capsys, "--grow", "--shrink")
    assert code == 2
    assert "has 2 partitions, and the config says 1: Kafka cannot take partitions away" in said
    place.say("  partitions: {reports: 4}\n")
    code, said = create(place, capsys)
    assert code == 2
    assert "has 2 partitions, and the config says 4: keys would move" in said
    bus = KafkaBus(place.bus)
    try:
        bus.publish(topics.REPORTS, "office/reports", codec.encode(make.progress(1)))
        bus.flush()
        code, said = create(place, capsys, "--grow")
        assert code == 3
        assert f"cannot get more partitions now: {place.prefix}-text has 1 record before" in said
        reader = bus.reader(topics.REPORTS, "text")
        (entry,) = taken(reader)
        reader.commit(entry.partition, entry.offset, b"")
        assert create(place, capsys, "--grow")[0] == 3
        reader.commit(entry.partition, entry.offset + 1, b"")
        code, said = create(place, capsys, "--grow", "--dry-run")
        assert code == 0
        assert "would be grown from 2 to 4 partitions" in said
        assert admin.topics([topics.REPORTS])[topics.REPORTS].partitions == 2
        code, said = create(place, capsys, "--grow")
        assert code == 0
        assert admin.topics([topics.REPORTS])[topics.REPORTS].partitions == 4
        reader.close()
    finally:
        bus.close()


def taken(reader: object) -> list[Entry]:
    found: list[Entry] = []
    while not found:
        found = [e for e in reader.poll(10, 0.5) if isinstance(e, Entry)]  # type: ignore[attr-defined]
    return found


def test_more_copies_than_brokers_are_refused_before_anything_is_made(
    place: Place, admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    place.say("  replication: 9\n  min_insync: 2\n")
    code, said = create(place, capsys)
    assert code == 2
    assert "9 copies of each record need 9 brokers, and there" in said
    assert admin.topics(topics.ALL_TOPICS) == {}


def test_the_list_has_sizes_and_who_reads_what(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topics", "list", str(place.path)]) == 0
    assert capsys.readouterr().out.count("missing; `fusewatch topics create CONFIG`") == len(
        topics.ALL_TOPICS
    )
    create(place, capsys)
    bus = KafkaBus(place.bus)
    for n in range(3):
        bus.publish(topics.ALERTS, "office", bytes(10_000 + n))
    bus.flush()
    reader = bus.reader(topics.ALERTS, "delivery-siem")
    entry = taken(reader)[0]
    reader.commit(entry.partition, entry.offset + 1, b"")
    assert main(["topics", "list", str(place.path), "--json"]) == 0
    rows = {row["topic"]: row for row in json.loads(capsys.readouterr().out)}
    row = rows[f"{place.prefix}.alerts.v1"]
    group = f"{place.prefix}-delivery-siem"
    assert row["groups"] == [{"group": group, "records": 2, "members": 1}]
    assert (row["records"], row["partitions"], row["replication"]) == (3, 3, 1)
    assert row["bytes"] > 0
    assert main(["topics", "list", str(place.path)]) == 0
    assert f"    {group}: 2 before it, 1 member\n" in capsys.readouterr().out
    reader.close()
    bus.close()


def test_a_group_says_how_its_members_share_partitions(
    place: Place, admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    create(place, capsys)
    assert admin.assignor(f"{place.prefix}-alert") is None
    bus = KafkaBus(place.bus)
    reader = bus.reader(topics.ANOMALIES, "alert")
    while not reader.poll(1, 0.5):
        pass
    assert admin.assignor(f"{place.prefix}-alert") == "cooperative-sticky"
    reader.close()
    bus.close()


def test_brokers_that_are_away_are_told_soon_and_by_name(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = Place(tmp_path, "127.0.0.1:1,nowhere.invalid:9092")
    assert main(["topics", "list", str(away.path)]) == 3
    said = capsys.readouterr().err
    assert "127.0.0.1:1: Connection refused; nowhere.invalid:9092: " in said


def test_no_secret_is_shown_whatever_the_brokers_refuse(
    tmp_path: Path, secure_kafka: SecureKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pw").write_text(SECRET)
    for ca, mechanism, password in (
        (secure_kafka.ca, "PLAIN", "file:pw"),  # the wrong one
        (secure_kafka.ca, "SCRAM-SHA-512", SECRET),
        (tmp_path / "none.pem", "PLAIN", SECRET),
        (secure_kafka.cert, "PLAIN", SECRET),  # it vouches for nobody
    ):
        place = Place(tmp_path, secure_kafka.sasl)
        place.say(
            f"  tls: {{ca: '{ca}'}}\n"
            f"  sasl: {{mechanism: {mechanism}, username: fusewatch, password: '{password}'}}\n"
        )
        for command in (["topics", "create"], ["topics", "list"], ["dead", "list"]):
            assert main([*command, str(place.path)]) in (2, 3)
            said = capsys.readouterr()
            assert SECRET not in said.out + said.err
            assert "bus." in said.err or "certificate" in said.err
            assert "Traceback" not in said.err


def test_a_password_is_looked_up_and_topics_are_made_over_tls(
    tmp_path: Path, secure_kafka: SecureKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pw").write_text(secure_kafka.password)
    place = Place(tmp_path, secure_kafka.sasl)
    place.say(
        f"  tls: {{ca: '{secure_kafka.ca}'}}\n"
        "  sasl: {mechanism: SCRAM-SHA-256, username: fusewatch, password: 'file:pw'}\n"
    )
    code, said = create(place, capsys)
    assert (code, said.count(": created (")) == (0, len(topics.ALL_TOPICS))
