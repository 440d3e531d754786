"""What the brokers know of topics and groups: made, changed and looked at, never read.

Topics go by our own short names here (`frames.v1`); the brokers know them as `PREFIX.frames.v1`.
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

ADMIN_TIMEOUT = 15.0  # s for the brokers to answer at all, and then for each answer
GROUP_JOIN_TIMEOUT = 10.0  # s that a group may take to agree on who reads what
_EXISTS = errors.TopicAlreadyExistsError.errno
_WORDS = {  # what brokers say of these is better than what a library could
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
    """A connection to the brokers of `settings` (which has its password looked up).

    Making one, and every method, raises OutsideError when the brokers are away or refuse, and says
    what to do about it.
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
        """Ends the connection and its thread."""
        self._client.close()

    def wire(self, topic: str) -> str:
        """The name of a topic on the brokers."""
        return f"{self._prefix}.{topic}"

    # -- topics

    def brokers(self) -> int:
        """How many brokers there are, also those that are down at the moment."""
        told = self._ask("look at the cluster", self._client.describe_cluster)
        return len(told["brokers"])

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Those of `names` that exist."""
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
        """Makes a topic, and returns when every partition has a leader. One that exists stays."""
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
        """Changes these settings of a topic, and no others."""
        name = self.wire(topic)
        what = f"change the topic {name}"
        resource = ConfigResource(ConfigResourceType.TOPIC, name, dict(config))
        said = self._ask(
            what, partial(self._client.alter_configs, [resource], raise_on_unknown=False)
        )["topic"][name]
        if said != "OK":
            raise _refused(what, said)

    def grow(self, topic: str, partitions: int) -> None:
        """Gives a topic more partitions: from now on keys go elsewhere (docs/topics.md)."""
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
        """Bytes of the largest batch that each topic takes (max.message.bytes)."""
        found = self.topics(topics)
        return {name: int(one.config["max.message.bytes"]) for name, one in found.items()}

    def sizes(self, topics: Iterable[str]) -> dict[str, int]:
        """Bytes on disk of one copy of each topic; those that brokers do not tell are left out."""
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
        """(topic, partition) -> (oldest offset, end), of topics with so many partitions each."""
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
        """What each group that has ever committed on a topic has before it, ours or not.

        `topics` are names with their numbers of partitions.
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
        """How the members of a group (by its name on the wire) share their partitions: `faust`,
        `range`, ..; None when nobody is in it. Waits a while for one that is just finding out."""
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
        """The answer; asks again while the cluster is just changing. What brokers and network did
        is an OutsideError then; a bug stays one."""
        until = time.monotonic() + self._timeout
        while True:
            try:
                return ask()
            except errors.KafkaError as error:
                if not passing(error) or time.monotonic() > until:
                    raise self._link.outside(error, what) from error
            time.sleep(0.2)


def _judge(code: int, said: str | None, what: str) -> None:
    """Raises what a broker's answer for one topic means; its own words say most."""
    if code in _WORDS and said:
        raise _refused(what, said)
    _raise(code, said or "")


def _refused(what: str, said: str) -> OutsideError:
    words = "".join(c if c.isprintable() else " " for c in said)[:300]
    words = re.sub(r"^\[Error \d+\] \w+: ", "", words)  # kafka-python's names for it
    return OutsideError(f"Kafka: cannot {what}: the brokers refuse: {words}")


def _raise(code: int, what: str) -> None:
    if code:
        raise errors.for_code(code)(what)
