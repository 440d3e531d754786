"""Plans the Kafka topics of a config, and the changes to topics that exist.

Nothing shrinks by accident: a change that would delete records, or make records too large for their
topic, is a `Step` with a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pipeline import topics
from pipeline.config.schema import Config, KafkaBus, size_bytes
from pipeline.limits import RECORD_HEADROOM, most_bytes

DAY = 86_400  # s
ALWAYS = 36_500 * DAY  # s; a hundred years: never deleted by age
MIN_SEGMENT_BYTES = 1 << 20  # bytes; the minimum of Kafka 4
MAX_SEGMENT_BYTES = 1 << 28
UNIT_OF_SETTING = {"retention.ms": "ms", "retention.bytes": "bytes", "max.message.bytes": "bytes"}


class Plan(msgspec.Struct, frozen=True):
    """The planned state of a topic; `config` is in the brokers' terms."""

    topic: str
    partitions: int
    replication: int
    config: Mapping[str, str]

    @property
    def most_disk(self) -> int:
        """The bytes on all brokers' disks together when the topic is full.

        Brokers delete only whole segments, so each partition keeps one segment beyond its
        retention. Records that arrive between two cleanups of the broker (five minutes) are not
        counted.
        """
        kept = int(self.config["retention.bytes"]) + int(self.config["segment.bytes"])
        return kept * self.partitions * self.replication


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The change to a topic: `created`, `grown`, `altered` or `unchanged`.

    `refused` says why the change must not be made, and how to make it on purpose; `notes` inform
    the operator.
    """

    plan: Plan
    done: str
    altered: Mapping[str, tuple[str, str]] = {}  # setting -> as it is, as it should be
    grows_from: int = 0
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def shares(settings: Config, cap: int | None = None) -> dict[str, tuple[int, float]]:
    """Returns topic -> (bytes of `cap` that it may keep, seconds); storage.cap unless given.

    Raw chunks are kept for evidence and for workers that return after an outage; small records are
    kept for long, and configs until they take too many bytes. The rest of the cap is for evidence
    and files.
    """
    cap = size_bytes(settings.storage.cap) if cap is None else cap
    chunks = settings.storage.frames
    percent = {
        topics.FRAMES: (50, chunks),
        topics.AUDIO: (5, chunks),
        topics.REPORTS: (2, 28 * DAY),
        topics.OBSERVATIONS: (10, 7 * DAY),
        topics.ANOMALIES: (4, 28 * DAY),
        topics.ALERTS: (4, 28 * DAY),
        topics.LATE: (1, 28 * DAY),
        topics.DEAD: (2, 28 * DAY),
        topics.CONFIGS: (1, ALWAYS),
    }
    return {topic: (cap * share // 100, seconds) for topic, (share, seconds) in percent.items()}


def partitions_of(bus: KafkaBus, topic: str) -> int:
    """Returns the configured number of partitions of a topic; others have one."""
    return int(getattr(bus.partitions, topic.removesuffix(".v1"), 1))


def plans(settings: Config, bus: KafkaBus) -> list[Plan]:
    """Returns the plans of all topics of a config, in the order of the data flow."""
    return [_plan(topic, size, age, bus) for topic, (size, age) in shares(settings).items()]


def _plan(topic: str, size: int, seconds: float, bus: KafkaBus) -> Plan:
    partitions = partitions_of(bus, topic)
    largest = most_bytes(topic, bus.max_message) + RECORD_HEADROOM
    kept = size // partitions
    # Brokers delete whole segments and never the newest: with ten, retention is close to exact
    segment = min(max(kept // 10, MIN_SEGMENT_BYTES, largest), max(MAX_SEGMENT_BYTES, largest))
    config = {
        "cleanup.policy": "delete",
        "retention.ms": round(seconds * 1000),
        "retention.bytes": kept,
        "segment.bytes": segment,
        "segment.ms": round(min(max(seconds / 10, 60), DAY) * 1000),
        "max.message.bytes": largest,
        "message.timestamp.type": "LogAppendTime",
        "compression.type": "producer",
        "min.insync.replicas": bus.min_insync,
        "unclean.leader.election.enable": "false",
    }
    told = {name: str(value) for name, value in config.items()}
    return Plan(topic, partitions, bus.replication, told)


def step(
    plan: Plan, there: Topic | None, *, name: str, grow: bool = False, shrink: bool = False
) -> Step:
    """Returns the change that turns `there` into `plan`; `name` is the topic's name on the brokers.

    The operator allows more partitions with `grow`, and a shorter or smaller retention or smaller
    records with `shrink`.
    """
    if there is None:
        return Step(plan=plan, done="created")
    altered = {
        key: (there.config.get(key, ""), value)
        for key, value in plan.config.items()
        if there.config.get(key) != value
    }
    refused = _partitions(plan, there, name, grow=grow)
    if not shrink:
        refused += _shrinks(plan, there, altered, name)
    refused += _copies(plan, there, name)
    more = plan.partitions > there.partitions
    return Step(
        plan=plan,
        done="grown" if more else "altered" if altered else "unchanged",
        altered=altered,
        grows_from=there.partitions if more else 0,
        refused=refused,
        notes=_notes(plan, there, altered),
    )


def _partitions(plan: Plan, there: Topic, name: str, *, grow: bool) -> tuple[str, ...]:
    setting = f"bus.partitions.{plan.topic.removesuffix('.v1')}"
    if plan.partitions < there.partitions:
        return (
            f"{name} has {there.partitions} partitions, and the config says {plan.partitions}: "
            f"Kafka cannot take partitions away. Set {setting} to {there.partitions}, or begin "
            "anew with another bus.prefix",
        )
    if plan.partitions > there.partitions and not grow:
        return (
            f"{name} has {there.partitions} partitions, and the config says {plan.partitions}: "
            "keys would move to other partitions, away from what their workers know of them. To do "
            f"it on purpose stop capture, let every worker finish, stop them all, and add --grow; "
            f"or set {setting} to {there.partitions}",
        )
    return ()


def _shrinks(
    plan: Plan, there: Topic, altered: Mapping[str, tuple[str, str]], name: str
) -> tuple[str, ...]:
    found = []
    for key, unit in UNIT_OF_SETTING.items():
        if key not in altered:
            continue
        have, want = (int(text) if text else -1 for text in altered[key])
        if have < 0:
            less = key != "max.message.bytes"  # kept for ever, or without a limit
        elif key == "retention.bytes":  # the total counts: growing only divides it differently
            less = want * plan.partitions < have * there.partitions - plan.partitions
        else:
            less = want < have
        if less:
            has = f"{have} {unit}" if have >= 0 else "no limit"
            found.append(
                f"{name} has {key} {has}, and the config says {want} {unit}: "
                f"{_lost(key)}. To do it on purpose add --shrink"
            )
    return tuple(found)


def _lost(key: str) -> str:
    if key == "max.message.bytes":
        return "records that fitted would be refused"
    return "what lies beyond would be deleted"


def _copies(plan: Plan, there: Topic, name: str) -> tuple[str, ...]:
    wanted = int(plan.config["min.insync.replicas"])
    if there.replication < wanted:
        return (
            f"{name} has {there.replication} copies, and bus.min_insync is {wanted}: nothing could "
            "be written. Give it more with Kafka's kafka-reassign-partitions.sh, or lower "
            "bus.min_insync",
        )
    return ()


def _notes(plan: Plan, there: Topic, altered: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    found = []
    if there.replication != plan.replication:
        found.append(
            f"has {there.replication} copies, and bus.replication is {plan.replication}: only "
            "Kafka's kafka-reassign-partitions.sh changes that"
        )
    have, want = altered.get("min.insync.replicas", ("0", "0"))
    if int(want) < int(have or 0):
        found.append(
            f"an acknowledged record is on {want} disks now, and was on {have}: fewer brokers may "
            "fail"
        )
    return tuple(found)


class Topic(msgspec.Struct, frozen=True):
    """The present state of a topic.

    `replication` is that of the partition with the fewest replicas; `config` has every setting,
    defaults included.
    """

    partitions: int
    replication: int
    config: Mapping[str, str]
