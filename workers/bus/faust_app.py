"""Reads topics with a Faust agent for vision, hearing and text; stages run as without Faust.

    Kafka -> aiokafka -> Faust's consumer -> one agent -> FaustReader -> pipeline.run.step
             [- a thread, two event loops, of the app -]                 [the runner's thread]

Faust only reads and commits: raw bytes, one agent, acks. No tables, no codecs, no Records, no web
server, no leader topic. It creates no topic and writes to none: results are published by KafkaBus.
workers/bus/faust_consumer.py lists what Faust 0.15 does differently from what a worker needs, and
why. docs/explanations/faust.md helps to choose between Faust and plain workers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import faust
from aiokafka import errors
from faust.types import TP
from mode.supervisors import CrashingSupervisor

from pipeline.bus.kafka import record
from pipeline.bus.kafka.admin import Admin
from pipeline.bus.kafka.client_settings import context
from pipeline.config.schema import KafkaBus as Settings
from pipeline.errors import FusewatchError, OutsideError
from pipeline.ports import Bus
from workers.bus.faust_consumer import (
    FAUST_FETCH_BYTES,
    REBALANCE_TIMEOUT,
    App,
    Assignor,
    Transport,
)
from workers.bus.faust_reader import FaustEvent, FaustReader
from workers.bus.preflight import check_group

log = logging.getLogger("fusewatch")

MAX_WAITING_BYTES = 32 << 20  # bytes of records that wait for the runner
HANDED_OVER_AT_ONCE = 64  # records that cross from the consumer's thread to the app's at a time
COMMIT_EVERY = 1.0  # s between two commits
# s; a killed worker's partitions are free when the session ends
SESSION_TIMEOUT, HEARTBEAT_EVERY = 10.0, 3.0
REQUEST_TIMEOUT = 40.0  # s that a broker may take to answer
ERROR_LOOK_EVERY = 0.25  # s between checks for an error that Faust would not raise
STOP_TIMEOUT = 9.0  # s that an app gets to end


class FaustBus:
    """A Bus that reads by Faust and does everything else by `bus`, which the caller owns.

    `settings` are those of `bus`, with the password; `client` is the client name for the brokers.
    At most `bound` bytes of records wait in a reader, plus one fetch response of each broker.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        *,
        client: str = "fusewatch",
        bound: int = MAX_WAITING_BYTES,
    ) -> None:
        self.bus = bus
        self._settings = settings
        self._client = client
        self._bound = bound

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Publishes by `bus`."""
        self.bus.publish(topic, key, value, trace)

    def flush(self) -> None:
        """Flushes `bus`."""
        self.bus.flush()

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        """Fetches by `bus`."""
        return self.bus.fetch(topic, key, start, end)

    def close(self) -> None:
        """Closes `bus`; whoever created a reader closes it."""
        self.bus.close()

    def reader(self, topic: str, group: str) -> FaustReader:
        """Starts an app that reads `topic` as a member of `group`, until the reader is closed.

        Raises OutsideError when the topic is missing, the brokers are away, or plain workers are in
        the group: their assignment protocol and Faust's are not compatible.
        """
        with Admin(self._settings) as admin:
            if not admin.topics([topic]):
                name = admin.wire(topic)
                msg = f"the brokers have no topic {name}: `fusewatch topics create CONFIG` makes it"
                raise OutsideError(msg)
            check_group(admin, self._settings, group, faust=True)
        return _Served(self._settings, topic, group, self._client, self._bound).reader


class _Served:
    """One app in a thread of its own, and the reader that it feeds."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str,
        client: str,
        bound: int = MAX_WAITING_BYTES,
    ) -> None:
        self.reader = FaustReader(self, bound)
        self._settings = settings
        self._topic = f"{settings.prefix}.{topic}"
        self._group = f"{settings.prefix}-{group}"
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._asked = asyncio.Event()
        self._app: App | None = None
        self._thread = threading.Thread(target=self._run, name=f"faust {group}", daemon=True)
        self._thread.start()

    # -- from any thread

    def ack(self, events: Sequence[FaustEvent]) -> None:
        """Acks in the event loop, because an ack of Faust sets futures of that loop."""

        def each() -> None:
            for event in events:
                event.ack()

        self._soon(each)

    def flow(self) -> None:
        """Pauses or resumes fetching by the value of `reader.held` (back-pressure)."""
        if self._app is not None:
            self._app.flow()

    def behind(self, partition: int, offset: int) -> int:
        """Entries of the partition from `offset` on, by the last answer of its broker."""
        return 1 if self._app is None else self._app.behind(TP(self._topic, partition), offset)

    def stop(self) -> None:
        """Ends the app and its thread; a thread that hangs (brokers away) is abandoned."""
        self._soon(self._asked.set)
        self._thread.join(STOP_TIMEOUT + 1.0)
        if self._thread.is_alive():
            log.warning("%s: Faust does not end; it is left behind", self._group)

    def _soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: `poll` raises the reason
            self._loop.call_soon_threadsafe(call)

    # -- the thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # Faust raises SystemExit too: a thread would end silently
            self.reader.failed(_outside(error, self._group))

    async def _serve(self) -> None:
        """Runs the app until it is asked to stop; raises the error that ended it."""
        app = self._app = _made(self._settings, self._topic, self._group, self._client, self.reader)
        tasks = {
            asyncio.create_task(one) for one in (_started(app), _watched(app), self._asked.wait())
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(app.stop(), STOP_TIMEOUT)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _started(app: App) -> None:
    """Starts the app and ends only by an error; `_watched` raises the `crash_reason` of a stop."""
    await app.start()
    await asyncio.Event().wait()


async def _watched(app: App) -> None:
    """Raises errors that Faust does not raise.

    Faust does not check aiokafka's coordinator for errors: it would ask a group that refuses us
    again for ever, without a message. And a crashed service ends the other services, but not the
    task that runs the app.
    """
    while True:
        if app.crashed:
            raise app.crash_reason or RuntimeError("Faust crashed and does not say why")
        app.check()
        await asyncio.sleep(ERROR_LOOK_EVERY)


def _made(settings: Settings, topic: str, group: str, client: str, reader: FaustReader) -> App:
    """Creates the app of one group, not started; must be called in its loop."""
    tls = context(settings.tls) if settings.tls else None
    credentials: Any = None
    if settings.sasl is not None:
        credentials = faust.SASLCredentials(
            username=settings.sasl.username,
            password=settings.sasl.password,
            mechanism=settings.sasl.mechanism,
            ssl_context=tls,
        )
    elif tls is not None:
        credentials = faust.SSLCredentials(context=tls)
    app = App(
        group,
        env={},  # without it, BROKER_URL and a hundred other variables would override these
        broker=[f"kafka://{broker}" for broker in settings.brokers],
        broker_client_id=client,
        broker_credentials=credentials,
        broker_commit_interval=COMMIT_EVERY,
        broker_session_timeout=SESSION_TIMEOUT,
        broker_heartbeat_interval=HEARTBEAT_EVERY,
        broker_request_timeout=REQUEST_TIMEOUT,
        broker_rebalance_timeout=REBALANCE_TIMEOUT,
        broker_max_poll_records=HANDED_OVER_AT_ONCE,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=min(FAUST_FETCH_BYTES, settings.max_message + (64 << 10)),
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor=CrashingSupervisor,
        PartitionAssignor=Assignor,
        table_standby_replicas=1,  # there is no table, but without it Faust uses another assignor
        stream_wait_empty=False,  # it waits for acks; ours come when a record is no longer needed
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.reader = reader
    app.transport = Transport(app.conf.broker_consumer, app)
    app.boot_strategy.enable_kafka_producer = False
    source = app.topic(topic, key_type=bytes, value_type=bytes)

    @app.agent(source, name=group)
    async def feed(stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            await app.account(message.tp, message.offset)
            entry = record.entry(message.partition, message)
            event.value = message.value = None  # frees the record: its ack may wait long
            reader.put(entry, event)

    return app


def _outside(error: BaseException, group: str) -> BaseException:
    """Maps an error of the outside world to ours; returns a bug unchanged."""
    match error:
        case FusewatchError():
            return error
        case errors.InconsistentGroupProtocolError():
            msg = (  # the other worker joined after `check_group`
                f"the group {group} has plain workers, and this is a Faust one: they cannot share "
                "partitions; stop the others first, or start this one without --faust"
            )
            return OutsideError(msg)
        case errors.KafkaError():
            return OutsideError(f"{group}: Faust ended: {type(error).__name__}: {error}")
    return error
