"""How far the groups of a run are, asked of the brokers by kafka-python alone."""

from __future__ import annotations

from collections.abc import Callable

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from pipeline.host import unpack

DELIVERY = "delivery-"  # whose notes are of another kind, and whose commit is how far it is


class Offsets:
    """Topics and groups by the names that our code has for them; partitions by number."""

    def __init__(self, addresses: str, prefix: str) -> None:
        self._addresses, self._prefix = addresses.split(","), prefix
        self._stale = False

    def __enter__(self) -> Offsets:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _open(self) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers=self._addresses)
        self._consumer = KafkaConsumer(
            bootstrap_servers=self._addresses, enable_auto_commit=False, check_crcs=True
        )

    def _close(self) -> None:
        self._consumer.close()
        self._admin.close()

    def answered(self, asked: Callable[[], bool]) -> bool:
        """What `asked` says; False while brokers are away.

        Then new clients are made: old ones may ask a broker that no longer leads for minutes.
        """
        try:
            if self._stale:
                self._close()
                self._open()
                self._stale = False
            return asked()
        except KafkaError:
            self._stale = True
            return False

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record of each partition."""
        ends = self._consumer.end_offsets(self._partitions(topic))
        return {place.partition: end for place, end in ends.items()}

    def reached(self, topic: str, group: str) -> dict[int, int]:
        """The offset below which a group has answered everything; by commit, or by its note."""
        name = f"{self._prefix}-{group}"
        found = self._admin.list_group_offsets({name: self._partitions(topic)})[name]
        return {
            place.partition: self._answered_below(group, commit.offset, commit.metadata or "")
            for place, commit in found.items()
        }

    def passed(self, topic: str, group: str, ends: dict[int, int]) -> bool:
        """Whether a group has answered everything below `ends`."""
        reached = self.reached(topic, group)
        return all(reached.get(number, 0) >= end for number, end in ends.items() if end)

    def values(self, topic: str) -> list[bytes]:
        """Everything that a topic holds, in order by partition."""
        places = self._partitions(topic)
        ends = self._consumer.end_offsets(places)
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)
        found: dict[TopicPartition, list[bytes]] = {place: [] for place in places}
        while any(self._consumer.position(place) < ends[place] for place in places):
            for place, records in self._consumer.poll(timeout_ms=500).items():
                found[place] += [record.value for record in records]
        return [value for place in places for value in found[place]]

    def _partitions(self, topic: str) -> list[TopicPartition]:
        name = f"{self._prefix}.{topic}"
        numbers = self._consumer.partitions_for_topic(name)
        assert numbers, f"no topic {name}"
        return [TopicPartition(name, number) for number in sorted(numbers)]

    @staticmethod
    def _answered_below(group: str, offset: int, note: str) -> int:
        return offset if group.startswith(DELIVERY) else max(offset, unpack(note.encode())[0])
