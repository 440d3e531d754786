"""Creates the brokers' topics by the config and lists them (`fusewatch topics create|list`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from pipeline import stages, topics
from pipeline.bus.kafka.state import Lag
from pipeline.config.schema import Config, KafkaBus
from pipeline.config.topic_plan import Plan, Step, Topic, plans, step
from pipeline.errors import ConfigError, OutsideError

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


class TopicRow(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as `topics list --json` prints it; -1 is no limit.

    `bytes` and `records` are of one copy; `retention_bytes` is of one partition.
    """

    topic: str
    missing: bool = False
    partitions: int = 0
    replication: int = 0
    retention_ms: int = 0
    retention_bytes: int = 0
    max_message_bytes: int = 0
    records: int = 0
    bytes: int | None = None
    groups: tuple[Lag, ...] = ()


class TopicBrokers(Protocol):
    """The methods of `pipeline.bus.kafka.admin.Admin` used here; all raise OutsideError."""

    def wire(self, topic: str) -> str: ...
    def brokers(self) -> int: ...
    def topics(self, names: Sequence[str]) -> Mapping[str, Topic]: ...
    def create(
        self, topic: str, partitions: int, replication: int, config: Mapping[str, str]
    ) -> None: ...
    def alter(self, topic: str, config: Mapping[str, str]) -> None: ...
    def grow(self, topic: str, partitions: int) -> None: ...
    def sizes(self, topics: Sequence[str]) -> Mapping[str, int]: ...
    def held(self, topics: Mapping[str, int]) -> Mapping[tuple[str, int], tuple[int, int]]: ...
    def lags(self, topics: Mapping[str, int]) -> Mapping[str, list[Lag]]: ...


def create(
    settings: Config,
    bus: KafkaBus,
    brokers: TopicBrokers,
    *,
    dry: bool = False,
    grow: bool = False,
    shrink: bool = False,
) -> Iterator[str]:
    """Creates or alters the topics by the config; yields a line for each. `dry` changes nothing.

    All is checked before anything is changed: raises ConfigError with every change that is refused,
    and OutsideError if `grow` would break the order of records that are not read yet.
    """
    there = brokers.topics(topics.ALL_TOPICS)
    steps = [
        step(plan, there.get(plan.topic), name=brokers.wire(plan.topic), grow=grow, shrink=shrink)
        for plan in plans(settings, bus)
    ]
    refused = [why for each in steps for why in each.refused]
    most = brokers.brokers()
    if bus.replication > most and any(each.done == "created" for each in steps):
        refused.append(
            f"bus.replication: {bus.replication} copies of each record need {bus.replication} "
            f"brokers, and there {'is 1' if most == 1 else f'are {most}'}; for a trial set "
            "bus.replication and bus.min_insync to 1"
        )
    if refused:
        raise ConfigError("\n".join([*refused, "Nothing was changed."]))
    for each in steps:
        if each.grows_from:
            _settled(brokers, each)
    for each in steps:
        if not dry:
            _do(brokers, each)
        yield _told(brokers.wire(each.plan.topic), each, dry=dry)
    disk = sum(each.plan.most_disk for each in steps)
    yield f"Full, they take {size(disk)} of the brokers' disks, all copies together."


def _do(brokers: TopicBrokers, each: Step) -> None:
    plan = each.plan
    if each.done == "created":
        brokers.create(plan.topic, plan.partitions, plan.replication, plan.config)
    if each.grows_from:
        brokers.grow(plan.topic, plan.partitions)
    if each.altered:
        brokers.alter(plan.topic, {key: want for key, (_, want) in each.altered.items()})


def _settled(brokers: TopicBrokers, each: Step) -> None:
    """Raises OutsideError unless all records of the topic are read and nothing publishes to it.

    With more partitions, a key's next record may go to another partition, and it may be read there
    before the older records here.
    """
    topic, count = each.plan.topic, each.grows_from
    name = brokers.wire(topic)
    before = brokers.held({topic: count})
    lags = {one.group: one.records for one in brokers.lags({topic: count})[topic]}
    holds = any(end > oldest for oldest, end in before.values())
    prefix = name.removesuffix(f".{topic}")
    for reader in stages.readers(topic) if holds else ():
        lags.setdefault(f"{prefix}-{reader}", sum(end - oldest for oldest, end in before.values()))
    behind = [
        f"{group} has {many(n, 'record')} before it" for group, n in sorted(lags.items()) if n
    ]
    if brokers.held({topic: count}) != before:
        behind.append("something publishes to it")
    if behind:
        msg = (
            f"{name} cannot get more partitions now: {', '.join(behind)}. Stop capture, and let "
            "every worker finish first. Nothing was changed."
        )
        raise OutsideError(msg)


def _told(name: str, each: Step, *, dry: bool) -> str:
    would = "would be " if dry and each.done != "unchanged" else ""
    line = f"{name}: {would}{each.done}"
    if each.done == "created":
        line += f" ({_about(each.plan)})"
    if each.grows_from:
        line += f" from {each.grows_from} to {each.plan.partitions} partitions"
    changes = [f"{key} {have or '(unset)'} -> {want}" for key, (have, want) in each.altered.items()]
    return "; ".join([line, *changes, *each.notes])


def _about(plan: Plan) -> str:
    kept = int(plan.config["retention.bytes"]) * plan.partitions
    return (
        f"{many(plan.partitions, 'partition')}, {many(plan.replication, 'copy')}, keeps "
        f"{span(int(plan.config['retention.ms']))} or {size(kept)}"
    )


def rows(brokers: TopicBrokers) -> list[TopicRow]:
    """Returns a row for each of our topics, also for a missing one."""
    there = brokers.topics(topics.ALL_TOPICS)
    counts = {name: there[name].partitions for name in topics.ALL_TOPICS if name in there}
    sizes, lags, held = brokers.sizes(list(counts)), brokers.lags(counts), brokers.held(counts)
    found = []
    for name in topics.ALL_TOPICS:
        if name not in counts:
            found.append(TopicRow(topic=brokers.wire(name), missing=True))
            continue
        config, offsets = there[name].config, [held[name, n] for n in range(counts[name])]
        row = TopicRow(
            topic=brokers.wire(name),
            partitions=counts[name],
            replication=there[name].replication,
            retention_ms=int(config["retention.ms"]),
            retention_bytes=int(config["retention.bytes"]),
            max_message_bytes=int(config["max.message.bytes"]),
            records=sum(end - oldest for oldest, end in offsets),
            bytes=sizes.get(name),
            groups=tuple(lags[name]),
        )
        found.append(row)
    return found


def table(found: Sequence[TopicRow]) -> Iterator[str]:
    """Formats the rows as lines for a person."""
    for row in found:
        if row.missing:
            yield f"{row.topic}: missing; `fusewatch topics create CONFIG` makes it"
            continue
        most = size(row.retention_bytes) if row.retention_bytes >= 0 else "no limit of bytes"
        held = "size not told" if row.bytes is None else size(row.bytes)
        yield (
            f"{row.topic}: {many(row.partitions, 'partition')}, {many(row.replication, 'copy')}, "
            f"keeps {span(row.retention_ms)} or {most} a partition; "
            f"{many(row.records, 'record')}, {held}"
        )
        for one in row.groups:
            yield f"    {one.group}: {one.records} before it, {many(one.members, 'member')}"


def size(count: int) -> str:
    """Formats bytes for a person: `1.5 GB`."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:.0f} {unit}"


def many(count: int, what: str) -> str:
    """Formats a count with its noun: `1 copy`, `3 copies`."""
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{count} {what if count == 1 else plural}"


def span(ms: int) -> str:
    """Formats milliseconds for a person: `15 min`, `7 d`."""
    if ms < 0:
        return "for ever"
    seconds = ms / 1000
    for step_, unit in _UNITS:
        if seconds >= step_ and seconds % step_ == 0:
            return f"{seconds / step_:g} {unit}"
    return f"{seconds:g} s"
