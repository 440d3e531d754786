"""A KafkaConsumer in a group, and the ways around what kafka-python 3.0.12 makes of membership."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener
from kafka import errors as kafka
from kafka.structs import MemberState

JOIN_POLL = 2.0  # s that a poll lasts at least while the group agrees on who reads what
CLOSE_TIMEOUT = 3.0  # s


class _Home(Exception):
    """Raised in the listener, where kafka-python allows it, to bring `poll` home at once."""


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """What a rebalance says, in order; called on the client's thread while `poll` waits for it."""

    def __init__(self, pause: Callable[..., None]) -> None:
        self.moves: deque[tuple[bool, list[int]]] = deque()
        self._pause = pause

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Nothing is fetched of them before the reader knows where to begin, and resumes them."""
        self._pause(*assigned)
        self.moves.append((True, sorted(part.partition for part in assigned)))
        raise _Home

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Also those that are lost: what was not committed is somebody else's already."""
        self.moves.append((False, sorted(part.partition for part in revoked)))


class Member:
    """`consumer` reads `topic`; `moves` are (assigned or not, partitions), the oldest first."""

    def __init__(self, consumer: Any, topic: str) -> None:
        self.consumer = consumer
        listener = _RebalanceListener(consumer.pause)
        self.moves = listener.moves
        consumer.subscribe([topic], listener=listener)
        # Or the partitions become known amid the first join, and everybody joins once more
        with suppress(kafka.KafkaError):
            consumer.partitions_for_topic(topic)

    def poll(self, limit: int, wait: float) -> dict[Any, list[Any]]:
        """Records by partition; returns early for moves. Raises kafka-python's errors."""
        self._rejoin()
        # A group that was joined between two polls is forgotten, and joined again, which disturbs
        # all the others: so be in a poll when it happens
        stable = self.consumer.group_metadata().state is MemberState.STABLE
        lasting = wait if stable else max(wait, JOIN_POLL)
        try:
            polled: dict[Any, list[Any]] = self.consumer.poll(
                timeout_ms=int(lasting * 1000), max_records=limit
            )
        except kafka.NoOffsetForPartitionError:
            return {}  # of those that were just assigned: the reader says where they begin
        except kafka.KafkaError as error:
            if isinstance(error.__cause__, _Home):
                return {}
            raise
        return polled

    def close(self) -> None:
        """Leaves the group; takes seconds where it cannot be told so."""
        with suppress(kafka.KafkaError):  # the group notices by itself
            self.consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT * 1000))

    def _rejoin(self) -> None:
        """Goes on with a join that would be forgotten, the member then in no group for ever.

        A leader that joins again since its topic's partitions changed takes note of them before
        the join is done; where a poll runs out just then, the next sees no reason to wait for it.
        """
        coordinator = self.consumer._coordinator  # noqa: SLF001
        if coordinator.rejoining and not coordinator.rejoin_needed:
            coordinator.request_rejoin()
