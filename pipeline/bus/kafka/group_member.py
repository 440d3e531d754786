"""A KafkaConsumer in a group, with workarounds for the membership bugs of kafka-python 3.0.12."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener
from kafka import errors as kafka
from kafka.structs import MemberState

JOIN = 2.0  # s; shortest poll while the group rebalances
CLOSE = 3.0  # s


class _Home(Exception):
    """Raised in the rebalance listener, where kafka-python allows it, to make `poll` return
    at once."""


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Records rebalance events in order; runs on the client's thread while `poll` waits for it."""

    def __init__(self, pause: Callable[..., None]) -> None:
        self.moves: deque[tuple[bool, list[int]]] = deque()
        self._pause = pause

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Pauses the partitions until the reader has set their start offsets and resumes them."""
        self._pause(*assigned)
        self.moves.append((True, sorted(part.partition for part in assigned)))
        raise _Home

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Also handles lost partitions: another member already owns what was not committed."""
        self.moves.append((False, sorted(part.partition for part in revoked)))


class Member:
    """One group member: `consumer` reads `topic`.

    `moves` holds (assigned or revoked, partitions), oldest first.
    """

    def __init__(self, consumer: Any, topic: str) -> None:
        self.consumer = consumer
        listener = _RebalanceListener(consumer.pause)
        self.moves = listener.moves
        consumer.subscribe([topic], listener=listener)
        # Otherwise the partitions become known during the first join, and all members rejoin
        with suppress(kafka.KafkaError):
            consumer.partitions_for_topic(topic)

    def poll(self, limit: int, wait: float) -> dict[Any, list[Any]]:
        """Returns records by partition, and returns early for moves. Raises kafka-python's
        errors."""
        self._rejoin()
        # kafka-python forgets a join that completes between two polls and joins again, which
        # disturbs the whole group: so poll long enough for the join to complete within
        stable = self.consumer.group_metadata().state is MemberState.STABLE
        lasting = wait if stable else max(wait, JOIN)
        try:
            polled: dict[Any, list[Any]] = self.consumer.poll(
                timeout_ms=int(lasting * 1000), max_records=limit
            )
        except kafka.NoOffsetForPartitionError:
            return {}  # partitions just assigned: the reader sets their start offsets
        except kafka.KafkaError as error:
            if isinstance(error.__cause__, _Home):
                return {}
            raise
        return polled

    def close(self) -> None:
        """Leaves the group; takes up to 3 s when the brokers do not answer."""
        with suppress(kafka.KafkaError):  # the group notices by itself
            self.consumer.close(autocommit=False, timeout_ms=int(CLOSE * 1000))

    def _rejoin(self) -> None:
        """Requests the join again where kafka-python would forget it, leaving the member in no
        group.

        A leader that rejoins because its topic's partitions changed stores them before the join
        ends. If a poll times out just then, the next poll sees no reason to wait for the join.
        """
        coordinator = self.consumer._coordinator  # noqa: SLF001
        if coordinator.rejoining and not coordinator.rejoin_needed:
            coordinator.request_rejoin()
