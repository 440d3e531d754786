"""Overrides for what Faust 0.15.3 and aiokafka 0.14 do differently from what a worker needs.

Every override states its reason. It uses internals, so pyproject.toml pins the versions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

import faust
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import WorkerThread

from pipeline.bus.kafka.connection import STALE_AFTER
from pipeline.errors import OutsideError
from workers.bus.faust_reader import FaustReader

FAUST_FETCH_BYTES = 8 << 20  # bytes of one answer of one broker, over all partitions
FETCH_WAIT = 0.25  # s that a broker may wait for records; later fetches wait behind this one
REBALANCE_TIMEOUT = 300.0  # s that a member may take to release its partitions
STEP_TIMEOUT = 270.0  # s of REBALANCE_TIMEOUT that a running step gets to end
_TURN = 0.01  # s

for _name in ("faust", "mode", "aiokafka", __name__):  # the last: services log by their module
    # They log a line for every attempt while the brokers are away, and a traceback in each service
    # that an error passes. `FaustReader.poll` raises an error once.
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class App(faust.App):
    """A Faust app whose one agent puts records into `reader`."""

    reader: FaustReader

    def _create_directories(self) -> None:
        """Creates no directories: nothing is stored in files."""

    def check(self) -> None:
        """Raises an error of the group that aiokafka has stored."""
        if (thread := self._thread) is not None:
            thread.check()

    async def account(self, tp: TP, offset: int) -> None:
        """Raises OutsideError if records before this one were left out."""
        consumer: Any = self.consumer
        await consumer.account(tp, offset)

    def flow(self) -> None:
        """Makes the consumer's thread check `reader.held`; any thread may call it."""
        thread = self._thread
        if thread is not None:
            with suppress(RuntimeError):  # its loop is closed: nothing is fetched any more
                thread.thread_loop.call_soon_threadsafe(thread.flow)

    def behind(self, tp: TP, offset: int) -> int:
        """Entries from `offset` on; 1 if no broker answered in the last `STALE_AFTER` s."""
        thread = self._thread
        return 1 if thread is None else thread.behind(tp, offset)

    @property
    def _thread(self) -> _Thread | None:
        consumer: Any = self._consumer
        return None if consumer is None else consumer._thread


class Assignor(PartitionAssignor):
    """Faust's assignor without replicas.

    The brokers keep plain workers out of the group, because the name of their assignor differs.
    With replicas (of tables, which we do not have) Faust's assignor may leave a worker without a
    partition while another has two more.
    """

    def __init__(self, app: Any, replicas: int = 0) -> None:
        super().__init__(app, replicas=0)


class _Worker(WorkerThread):
    """A daemon thread, so that a consumer that hangs cannot keep the process from ending."""

    def __init__(self, service: Any, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True

    def run(self) -> None:
        with suppress(Exception):  # the error has already crashed the app, which reports it
            super().run()


class _Thread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer, in a thread and loop of its own; `check` and `behind` only read it."""

    app: App
    Worker = _Worker

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust keeps aiokafka's default of 50 MB a broker, and lets brokers wait for 1.5 s.
        consumer._fetch_max_bytes = FAUST_FETCH_BYTES
        consumer._fetch_max_wait_ms = int(FETCH_WAIT * 1000)
        return consumer

    def check(self) -> None:
        coordinator = self._consumer and self._consumer._coordinator
        if not coordinator:
            return
        if coordinator._pending_exception is not None:
            raise coordinator._pending_exception
        task = coordinator._coordination_task
        if task.done() and not task.cancelled() and task.exception() is not None:
            raise task.exception()

    def flow(self) -> None:
        """Pauses every partition while the reader is full; records already fetched still come."""
        consumer = self._consumer
        if consumer is None or consumer._closed:
            return
        ours, paused = consumer.assignment(), consumer.paused()
        if self.app.reader.held:
            consumer.pause(*(ours - paused))
        else:
            consumer.resume(*paused)

    def behind(self, tp: TP, offset: int) -> int:
        subscription = self._consumer and self._consumer._subscription.subscription
        assignment = subscription and subscription.assignment
        place = driver.ensure_aiokafka_TP(tp)
        if not assignment or place not in assignment.tps:
            return 1
        state = assignment.state_value(place)
        answered = (state.timestamp or 0) / 1000  # s of the wall clock
        if state.highwater is None or time.time() - answered > STALE_AFTER:
            return 1
        return max(0, int(state.highwater) - offset)

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Prints nothing: Faust would print a traceback, but `poll` raises the error."""


class _Consumer(driver.Consumer):
    """Faust's consumer, with acks that are always a prefix of the partition."""

    app: App
    _new: frozenset[TP] = frozenset()  # assigned partitions whose start offset is not known yet

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seeking = asyncio.Lock()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Waits for the end of the running step and commits before the partitions are revoked.

        Faust drops the acks of revoked partitions without a commit: the next owner would process
        answered records again. A step that takes too long goes on; its results come twice.
        """
        until = time.monotonic() + STEP_TIMEOUT
        while not self.app.reader.still() and time.monotonic() < until:
            await asyncio.sleep(_TURN)
        await asyncio.sleep(0)  # the acks of the step are queued on this loop and run first
        await self.commit_and_end_transactions()
        self._new = frozenset()
        self.app.reader.revoked({tp.partition for tp in revoked})
        await super().on_partitions_revoked(revoked)

    async def commit_and_end_transactions(self) -> None:
        """Commits before partitions are revoked: Faust commits nothing while a commit runs."""
        await self.maybe_wait_for_commit_to_finish()
        await super().commit_and_end_transactions()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Notes the new partitions; Faust then seeks and starts to fetch in a task of its own."""
        self._new = frozenset(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Seeks to the committed offsets and tells the reader where a new partition begins.

        Two tasks of Faust call this in a rebalance, and fetching starts again after one of them.
        The reader must know its partitions by then, or it would drop the records as those of
        another member. And where nothing was committed Faust does not seek at all, so that records
        fetched and dropped during the rebalance would be left out.
        """
        async with self._seeking:
            new = self._new
            await super().perform_seek()  # of the partitions assigned now: `new`, perhaps more
            afresh = {tp for tp in self.assignment() if not self._read_offset[tp]}
            if not (looked := new | afresh):
                return
            first, ends = await self.earliest_offsets(*looked), await self.highwaters(*looked)
            if self._new is not new:
                return  # the next rebalance has come
            for tp in sorted(new):
                offset = self._read_offset[tp] or first[tp]
                if offset > ends[tp]:  # aiokafka would reset to the earliest, Faust drop all below
                    raise _beyond(tp, offset, ends[tp])
                lost = max(0, first[tp] - offset)  # retention deleted them unread
                self.app.reader.assigned(tp.partition, offset + lost, lost)
            self._new = frozenset()
            following = {tp: self.app.reader.following(tp.partition) for tp in afresh}
            await self.seek_wait({tp: at for tp, at in following.items() if at is not None})

    async def account(self, tp: TP, offset: int) -> None:
        """Raises OutsideError if records before this one were left out, and not deleted.

        It is called before a record is used. Acks are a prefix only if the records are: without
        this check the commit would skip a record that Faust lost.
        """
        following = self.app.reader.following(tp.partition)
        if following is None or offset <= following:
            return
        first = (await self.earliest_offsets(tp))[tp]
        if first < offset:
            msg = (
                f"Faust left out the offsets {following} to {offset - 1} of "
                f"{tp.topic}/{tp.partition}; the process ends, to be started anew and read them"
            )
            raise OutsideError(msg)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Does nothing: Faust would list every offset of a gap, millions after a long stop."""

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: after the newest ack, as acks come in order and without gaps.

        Faust's own method stops at gaps that retention made, and commits past a record without an
        ack if it is the first after the last commit.
        """
        acked = self._acked[tp]
        if not acked:
            return None
        offset = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset


class Transport(driver.Transport):
    """Faust's transport with the consumer of this module."""

    Consumer = _Consumer


def _beyond(tp: TP, offset: int, end: int) -> OutsideError:
    msg = (
        f"Kafka: the group goes on at offset {offset} of {tp.topic}/{tp.partition}, which ends at "
        f"{end}: the topic was made anew, or has lost its newest records. Delete the offsets of "
        "the group (kafka-consumer-groups --delete-offsets) to read it from its beginning"
    )
    return OutsideError(msg)
