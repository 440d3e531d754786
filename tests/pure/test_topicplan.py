"""Which topics a config asks for, and what must not happen to those that are there."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.bus.kafka.state import reached
from pipeline.config.schema import Config, KafkaBus, Partitions, Site, Storage, size_bytes
from pipeline.config.topic_plan import Plan, Step, Topic, plans, shares, step
from pipeline.host import pack
from pipeline.kafka_partitioner import murmur2, partition_of
from pipeline.limits import MAX_DEAD_BYTES, most_bytes
from pipeline.types import Late
from tests import make
from workers.delivery.outbox import CircuitBreaker
from workers.delivery.outbox import pack as delivery_note

BUS = KafkaBus(brokers=("kafka:9092",))


def plan_of(topic: str, bus: KafkaBus = BUS, **storage: object) -> Plan:
    config = Config(version=1, sites={"lobby": Site()}, bus=bus, storage=Storage(**storage))
    return next(plan for plan in plans(config, bus) if plan.topic == topic)


def there(plan: Plan, **config: object) -> Topic:
    """The topic as planned, but for what is given; `_` stands for a dot."""
    changed = {key.replace("_", "."): str(value) for key, value in config.items()}
    return Topic(plan.partitions, plan.replication, {**plan.config, "other": "1"} | changed)


def judged(plan: Plan, topic: Topic | None, **options: bool) -> Step:
    return step(plan, topic, name=f"fusewatch.{plan.topic}", **options)


def test_every_topic_has_a_plan_and_every_broker_setting_is_text() -> None:
    config = Config(version=1, sites={"lobby": Site()}, bus=BUS)
    assert [plan.topic for plan in plans(config, BUS)] == list(topics.ALL_TOPICS)
    for plan in plans(config, BUS):
        assert plan.config["cleanup.policy"] == "delete"
        assert plan.config["message.timestamp.type"] == "LogAppendTime"
        assert all(type(value) is str for value in plan.config.values())


def test_partitions_and_copies_are_those_of_the_config() -> None:
    bus = msgspec.structs.replace(BUS, partitions=Partitions(frames=24), replication=2)
    assert (plan_of("frames.v1", bus).partitions, plan_of("frames.v1", bus).replication) == (24, 2)
    assert plan_of("dead.v1", bus).partitions == plan_of("late.v1", bus).partitions == 1


def test_raw_chunks_are_kept_for_as_long_as_evidence_needs_and_alerts_for_weeks() -> None:
    def kept(topic: str) -> int:
        return int(plan_of(topic, frames=600.5).config["retention.ms"])

    day = 86_400_000
    assert kept("frames.v1") == kept("audio.v1") == 600_500
    assert kept("observations.v1") == 7 * day
    assert {kept(t) for t in ("anomalies.v1", "alerts.v1", "late.v1", "dead.v1")} == {28 * day}
    assert kept("configs.v1") == 36_500 * day


@given(
    cap=st.integers(200, 2_000_000),
    frames=st.integers(1, 1000),
    max_message=st.integers(65_536, 2**26),
    seconds=st.floats(1, 86_400),
)
def test_whatever_the_config_the_topics_share_the_cap_and_segments_hold_a_record(
    cap: int, frames: int, max_message: int, seconds: float
) -> None:
    bus = msgspec.structs.replace(
        BUS, partitions=Partitions(frames=frames), max_message=max_message
    )
    storage = Storage(cap=f"{cap} MB", frames=seconds)
    config = Config(version=1, sites={"lobby": Site()}, bus=bus, storage=storage)
    made = plans(config, bus)
    kept = sum(int(plan.config["retention.bytes"]) * plan.partitions for plan in made)
    assert kept <= size_bytes(storage.cap)
    for plan in made:
        segment, largest = (int(plan.config[k]) for k in ("segment.bytes", "max.message.bytes"))
        assert segment >= max(1 << 20, largest)
        assert 60_000 <= int(plan.config["segment.ms"]) <= 86_400_000
        assert largest > most_bytes(plan.topic, max_message)


def test_segments_are_so_small_that_a_retention_is_true() -> None:
    plan = plan_of("frames.v1")
    assert int(plan.config["segment.bytes"]) * 10 <= int(plan.config["retention.bytes"])
    assert int(plan.config["segment.ms"]) * 10 <= int(plan.config["retention.ms"])


def test_a_full_topic_takes_its_retention_and_a_segment_a_partition_and_copy() -> None:
    plan = plan_of("frames.v1", cap="20 GB")
    assert plan.most_disk == (833_333_333 + 83_333_333) * 12 * 3


def test_a_late_record_of_the_largest_size_fits_into_its_topic() -> None:
    record = codec.encode(make.utterance(1, "x" * 999_000))
    late = codec.encode(Late(site="l" * 40, source="r" * 49, start=1, kind="sound", record=record))
    assert len(late) <= most_bytes(topics.LATE, len(record))
    assert most_bytes(topics.DEAD, 65_536) > MAX_DEAD_BYTES


def test_a_topic_that_is_missing_is_created_and_one_as_planned_is_left_alone() -> None:
    plan = plan_of("frames.v1")
    assert judged(plan, None).done == "created"
    same = judged(plan, there(plan))
    assert (same.done, same.refused, same.altered) == ("unchanged", (), {})


def test_what_is_longer_or_larger_is_altered() -> None:
    plan = plan_of("frames.v1")
    found = judged(plan, there(plan, retention_ms=1, max_message_bytes=7, cleanup_policy="compact"))
    assert found.done == "altered"
    assert found.refused == ()
    assert found.altered == {
        "retention.ms": ("1", "900000"),
        "max.message.bytes": ("7", "1065536"),
        "cleanup.policy": ("compact", "delete"),
    }


@pytest.mark.parametrize(
    ("setting", "has", "wants"),
    [
        ("retention_ms", "900001", "900000"),
        ("retention_ms", "-1", "900000"),
        ("retention_bytes", "999999999", "833333333"),
        ("retention_bytes", "-1", "833333333"),
        ("max_message_bytes", "2000000", "1065536"),
    ],
)
def test_what_would_shrink_is_refused_with_both_numbers(setting: str, has: str, wants: str) -> None:
    plan = plan_of("frames.v1")
    topic = there(plan, **{setting: has})
    (why,) = judged(plan, topic).refused
    assert why.startswith("fusewatch.frames.v1 has ")
    assert wants in why
    assert (has if has != "-1" else "no limit") in why
    assert why.endswith("add --shrink")
    on_purpose = judged(plan, topic, shrink=True)
    assert (on_purpose.done, on_purpose.refused) == ("altered", ())


def test_partitions_are_never_taken_away() -> None:
    plan = plan_of("frames.v1")
    more = msgspec.structs.replace(there(plan), partitions=24)
    for options in ({}, {"grow": True}, {"grow": True, "shrink": True}):
        (why,) = judged(plan, more, **options).refused
        assert "has 24 partitions, and the config says 12: Kafka cannot" in why


def test_partitions_are_added_only_on_purpose_and_the_cap_is_divided_anew() -> None:
    bus = msgspec.structs.replace(BUS, partitions=Partitions(frames=24))
    plan, topic = plan_of("frames.v1", bus), there(plan_of("frames.v1"))
    (why,) = judged(plan, topic).refused
    assert "has 12 partitions, and the config says 24: keys would move" in why
    grown = judged(plan, topic, grow=True)
    assert (grown.done, grown.grows_from, grown.refused) == ("grown", 12, ())
    assert grown.altered["retention.bytes"] == ("833333333", "416666666")


def test_a_topic_with_too_few_copies_for_min_insync_is_refused() -> None:
    plan = plan_of("alerts.v1")
    alone = msgspec.structs.replace(there(plan), replication=1)
    (why,) = judged(plan, alone, grow=True, shrink=True).refused
    assert "has 1 copies, and bus.min_insync is 2: nothing could be written" in why


def test_other_copies_and_weaker_acknowledgements_are_told() -> None:
    plan = plan_of("alerts.v1")
    found = judged(plan, msgspec.structs.replace(there(plan), replication=2))
    assert "has 2 copies, and bus.replication is 3" in found.notes[0]
    weaker = judged(plan, there(plan, min_insync_replicas=3))
    assert "is on 2 disks now, and was on 3" in weaker.notes[0]


@pytest.mark.parametrize(
    ("key", "hashed"),  # of Kafka's own UtilsTest.testMurmur2
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_keys_go_where_kafkas_clients_send_them(key: str, hashed: int) -> None:
    assert murmur2(key.encode()) == hashed & 0xFFFFFFFF
    assert partition_of(key, 7) == (hashed & 0x7FFFFFFF) % 7


def test_a_note_says_how_far_a_group_has_read() -> None:
    assert reached(5, pack(17, {1: 2}).decode()) == 17
    assert reached(5, delivery_note(5, 23, CircuitBreaker(), {}).decode()) == 23
    for foreign in ("", "1", "hello", "1AAAA", pack(17, {}).decode()[:-4] + "AAAA"):
        assert reached(5, foreign) == 5


def test_shares_leave_room_for_evidence() -> None:
    config = Config(version=1, sites={"lobby": Site()}, storage=Storage(cap="100 GB"))
    assert sum(size for size, _ in shares(config).values()) <= 80 * 10**9
