"""Administers topics and consumer groups on the brokers: creates, alters and describes them.

No records are read here. Callers use the short topic names of Fusewatch (`frames.v1`); the brokers
know a topic as `PREFIX.frames.v1`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from kafka import TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.protocol.consumer import OffsetSpec

from pipeline.bus.kafka.connection import Connector, passing
from pipeline.bus.kafka.state import Lag, reached
from pipeline.config.schema import KafkaBus
from pipeline.config.topic_plan import Topic
from pipeline.errors import OutsideError

T = TypeVar("T")

ADMIN_TIMEOUT = 15.0  # s; limit for the first answer of the brokers, and then for each answer
GROUP_JOIN_TIMEOUT = 10.0  # s; longest wait for a rebalance of a group to end
_EXISTS = errors.TopicAlreadyExistsError.errno
_WORDS = {  # for these errors the broker's own message is better than the library's
    each.errno
    for each in (
        errors.InvalidReplicationFactorError,
        errors.InvalidPartitionsError,
        errors.InvalidConfigurationError,
        errors.InvalidRequestError,
        errors.PolicyViolationError,
        errors.InvalidTopicError,
    )
}


class Admin:
    """An admin connection to the brokers of `settings`, whose password is already resolved.

    The constructor and every method raise OutsideError when the brokers do not answer or refuse.
    The message says what to do about it.
    """

    def __init__(self, settings: KafkaBus, *, timeout: float = ADMIN_TIMEOUT) -> None:
        self._prefix, self._timeout = settings.prefix, timeout
        self._link = Connector(settings, "fusewatch-admin")
        self._client = self._link.open(KafkaAdminClient, request_timeout_ms=int(timeout * 1000))

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and stops its thread."""
        self._client.close()

    def wire(self, topic: str) -> str:
        """Returns the name of a topic on the brokers."""
        return f"{self._prefix}.{topic}"

    # -- topics

    def brokers(self) -> int:
        """Returns the number of brokers in the cluster, including those that are down."""
        told = self._ask("look at the cluster", self._client.describe_cluster)
        return len(told["brokers"])

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Returns the topics of `names` that exist, by short name."""
        short = {self.wire(name): name for name in names}

        def look() -> dict[str, Topic]:
            found = {}
            for one in self._client.describe_topics(list(short)):
                if one["error_code"] != errors.UnknownTopicOrPartitionError.errno:
                    _raise(one["error_code"], one["name"])
                    found[one["name"]] = one
            settings = self._configs(found)
            return {
                short[name]: Topic(
                    partitions=len(one["partitions"]),
                    replication=min(len(each["replica_nodes"]) for each in one["partitions"]),
                    config=settings[name],
                )
                for name, one in found.items()
            }

        return self._ask("look at the topics", look)

    def create(
        self, topic: str, partitions: int, replication: int, config: Mapping[str, str]
    ) -> None:
        """Creates a topic and waits until every partition has a leader; keeps an existing
        topic as it is."""
        name = self.wire(topic)
        what = f"make the topic {name}"
        new = {"num_partitions": partitions, "replication_factor": replication}

        def make() -> None:
            told = self._client.create_topics({name: new | {"configs": config}}, raise_errors=False)
            made = told["topics"][0]
            if made["error_code"] != _EXISTS:
                _judge(made["error_code"], made["error_message"], what)
            self._client.wait_for_topics([name], timeout_ms=self._timeout * 1000)

        self._ask(what, make)

    def alter(self, topic: str, config: Mapping[str, str]) -> None:
        """Changes the settings in `config`; the topic's other settings keep their values."""
        name = self.wire(topic)
        what = f"change the topic {name}"
        resource = ConfigResource(ConfigResourceType.TOPIC, name, dict(config))
        said = self._ask(
            what, partial(self._client.alter_configs, [resource], raise_on_unknown=False)
        )["topic"][name]
        if said != "OK":
            raise _refused(what, said)

    def grow(self, topic: str, partitions: int) -> None:
        """Adds partitions to a topic; keys then map to other ones (docs/reference/topics.md)."""
        name = self.wire(topic)

        def add() -> None:
            if self.topics([topic])[topic].partitions < partitions:
                told = self._client.create_partitions({name: partitions}, raise_errors=False)
                _judge(told.results[0].error_code, told.results[0].error_message, what)
            self._client.wait_for_topics([name], timeout_ms=self._timeout * 1000)
            if self.topics([topic])[topic].partitions < partitions:
                msg = f"{name} does not show its new partitions"
                raise errors.KafkaTimeoutError(msg)

        what = f"give the topic {name} more partitions"
        self._ask(what, add)

    def limits(self, topics: Iterable[str]) -> dict[str, int]:
        """Returns the size limit of a batch (max.message.bytes) of each topic, in bytes."""
        found = self.topics(topics)
        return {name: int(one.config["max.message.bytes"]) for name, one in found.items()}

    def sizes(self, topics: Iterable[str]) -> dict[str, int]:
        """Returns the bytes on disk of one replica of each topic.

        A topic whose size the brokers do not report is left out.
        """
        short = {self.wire(name): name for name in topics}
        largest: dict[tuple[str, int], int] = {}
        for broker in self._ask("ask for the sizes of topics", self._client.describe_log_dirs):
            for folder in broker["log_dirs"]:
                for one in folder["topics"]:
                    for each in one["partitions"]:
                        where = one["name"], each["partition_index"]
                        largest[where] = max(largest.get(where, 0), each["partition_size"])
        found: dict[str, int] = {}
        for (name, _), size in largest.items():
            if name in short:
                found[short[name]] = found.get(short[name], 0) + size
        return found

    def held(self, topics: Mapping[str, int]) -> dict[tuple[str, int], tuple[int, int]]:
        """Returns (topic, partition) -> (oldest offset, end offset).

        `topics` maps each topic name to its number of partitions.
        """
        places = {
            TopicPartition(self.wire(name), number): (name, number)
            for name, count in topics.items()
            for number in range(count)
        }
        if not places:
            return {}
        ask = self._client.list_partition_offsets
        oldest, ends = (
            self._ask("ask how far the topics go", partial(ask, dict.fromkeys(places, spec)))
            for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
        )
        return {place: (oldest[tp].offset, ends[tp].offset) for tp, place in places.items()}

    # -- groups

    def lags(self, topics: Mapping[str, int]) -> dict[str, list[Lag]]:
        """Returns the lag of every group that has committed an offset on a topic, ours or not.

        `topics` maps each topic name to its number of partitions.
        """
        what, ask = "ask the groups how far they are", self._client
        groups = [one["group_id"] for one in self._ask(what, ask.list_groups)]
        found: dict[str, list[Lag]] = {name: [] for name in topics}
        if not groups:
            return found
        committed = self._ask(what, partial(ask.list_group_offsets, groups))
        known = self._ask(what, partial(ask.describe_groups, groups))
        held = self.held(topics)
        for group, places in sorted(committed.items()):
            members = len(known.get(group, {}).get("members", ()))
            at = {
                (tp.topic, tp.partition): reached(each.offset, each.metadata or "")
                for tp, each in places.items()
                if each.offset >= 0
            }
            for name, count in topics.items():
                mine = [at.get((self.wire(name), number), -1) for number in range(count)]
                if max(mine) < 0:
                    continue
                waiting = 0
                for number, offset in enumerate(mine):
                    oldest, end = held[name, number]
                    waiting += max(0, end - max(oldest, offset))
                found[name].append(Lag(group, waiting, members))
        return found

    def assignor(self, group: str) -> str | None:
        """Returns how a group's members share partitions: `faust`, `range`, ...; None without
        members.

        `group` is the name on the brokers. Waits up to 10 s while the group rebalances.
        """
        until = time.monotonic() + GROUP_JOIN_TIMEOUT
        while True:
            told = self._ask(
                f"look at the group {group}", partial(self._client.describe_groups, [group])
            )[group]
            settling = told["group_state"] in ("PreparingRebalance", "CompletingRebalance")
            if not settling or time.monotonic() > until:
                return (told["protocol_data"] or None) if told["members"] else None
            time.sleep(0.1)

    def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        if not wanted:
            return {}
        told = self._client.describe_configs(wanted, config_filter="all")["topic"]
        return {
            name: {key: each["value"] or "" for key, each in settings.items()}
            for name, settings in told.items()
        }

    def _ask(self, what: str, ask: Callable[[], T]) -> T:
        """Returns the answer; retries while the cluster is changing.

        Raises OutsideError for errors of the brokers or the network. A bug is raised unchanged.
        """
        until = time.monotonic() + self._timeout
        while True:
            try:
                return ask()
            except errors.KafkaError as error:
                if not passing(error) or time.monotonic() > until:
                    raise self._link.outside(error, what) from error
            time.sleep(0.2)


def _judge(code: int, said: str | None, what: str) -> None:
    """Raises the error that a broker's answer for one topic means, with the broker's own
    message."""
    if code in _WORDS and said:
        raise _refused(what, said)
    _raise(code, said or "")


def _refused(what: str, said: str) -> OutsideError:
    words = "".join(c if c.isprintable() else " " for c in said)[:300]
    words = re.sub(r"^\[Error \d+\] \w+: ", "", words)  # removes kafka-python's error name
    return OutsideError(f"Kafka: cannot {what}: the brokers refuse: {words}")


def _raise(code: int, what: str) -> None:
    if code:
        raise errors.for_code(code)(what)
