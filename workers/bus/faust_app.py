"""Vision, hearing and text as Faust agents: another way to read a topic, the same step over it.

    Kafka -> aiokafka -> Faust's consumer -> one agent -> FaustReader -> pipeline.run.step
             [- a thread, two event loops, of the app -]                 [the runner's thread]

Of Faust is used what reads and commits: raw bytes, one agent, acks. No tables, no codecs, no
Records, no web server, no leader topic; it makes no topic and writes to none: answers go by
KafkaBus. Where Faust 0.15 does not do what a worker here needs, workers/bus/faust_consumer.py says
what and why. docs/faust.md is for who must choose.
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
from workers.bus.faust_consumer import FETCH_BYTES, REBALANCE_TIMEOUT, App, Assignor, Transport
from workers.bus.faust_reader import FaustEvent, FaustReader
from workers.bus.preflight import check_group

log = logging.getLogger("fusewatch")

MAX_WAITING_BYTES = 32 << 20  # bytes of records that wait for the runner
HANDED_OVER_AT_ONCE = 64  # records that cross from the consumer's thread to the app's at a time
COMMIT_EVERY = 1.0  # s between two commits
# s; nobody else has a killed worker's partitions before it ends
SESSION_TIMEOUT, HEARTBEAT_EVERY = 10.0, 3.0
REQUEST_TIMEOUT = 40.0  # s that a broker may take to answer
ERROR_LOOK_EVERY = 0.25  # s between two looks for an error that Faust would not raise
STOP_TIMEOUT = 9.0  # s that an app gets to end


class FaustBus:
    """A Bus that reads by Faust and does everything else by `bus`, which stays the caller's.

    `settings` are those of `bus`, the password looked up; `client` is our name for the brokers.
    At most `bound` bytes of records wait in a reader, and one answer of each broker beside them.
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
        """As `bus`."""
        self.bus.publish(topic, key, value, trace)

    def flush(self) -> None:
        """As `bus`."""
        self.bus.flush()

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        """As `bus`."""
        return self.bus.fetch(topic, key, start, end)

    def close(self) -> None:
        """As `bus`; readers are closed by who asked for them."""
        self.bus.close()

    def reader(self, topic: str, group: str) -> FaustReader:
        """Starts an app that reads `topic` as a member of `group`, until the reader is closed.

        Raises OutsideError when the topic is missing, the brokers are away, or plain workers are in
        the group: those and Faust's share partitions in ways that do not go together.
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
        """Acks on the loop: Faust wakes futures of its own as it takes them."""

        def each() -> None:
            for event in events:
                event.ack()

        self._soon(each)

    def flow(self) -> None:
        """Fetches, or does not, as `reader.held` says when it comes to it."""
        if self._app is not None:
            self._app.flow()

    def behind(self, partition: int, offset: int) -> int:
        """Entries of the partition from `offset` on, as the last answer of its broker had it."""
        return 1 if self._app is None else self._app.behind(TP(self._topic, partition), offset)

    def stop(self) -> None:
        """Ends the app and its thread; one that hangs (brokers away) is left behind."""
        self._soon(self._asked.set)
        self._thread.join(STOP_TIMEOUT + 1.0)
        if self._thread.is_alive():
            log.warning("%s: Faust does not end; it is left behind", self._group)

    def _soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed: `poll` says why
            self._loop.call_soon_threadsafe(call)

    # -- the thread

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # Faust also raises SystemExit, which ends a thread unheard
            self.reader.failed(_outside(error, self._group))

    async def _serve(self) -> None:
        """Runs the app until it is asked to stop; raises what it died of."""
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
    """Ends only by an error: an app that was started and stopped says so by `crash_reason`."""
    await app.start()
    await asyncio.Event().wait()


async def _watched(app: App) -> None:
    """Raises what Faust keeps to itself.

    It does not ask aiokafka's coordinator for errors: a group that refuses us would be asked again
    for ever, in silence. And a service that crashed ends the others, but not what runs the app.
    """
    while True:
        if app.crashed:
            raise app.crash_reason or RuntimeError("Faust crashed and does not say why")
        app.check()
        await asyncio.sleep(ERROR_LOOK_EVERY)


def _made(settings: Settings, topic: str, group: str, client: str, reader: FaustReader) -> App:
    """The app of one group, not started; to be called in its loop."""
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
        env={},  # else BROKER_URL and a hundred others of the environment would win over these
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
        consumer_max_fetch_size=min(FETCH_BYTES, settings.max_message + (64 << 10)),
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor=CrashingSupervisor,
        PartitionAssignor=Assignor,
        table_standby_replicas=1,  # of no table; without it Faust takes another assignor
        stream_wait_empty=False,  # it waits for acks, and ours come when a record is not needed
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
            event.value = message.value = None  # acks wait long: a picture must not with them
            reader.put(entry, event)

    return app


def _outside(error: BaseException, group: str) -> BaseException:
    """An error of the outside world in our words; a bug stays what it is."""
    match error:
        case FusewatchError():
            return error
        case errors.InconsistentGroupProtocolError():
            msg = (  # it joined after `check_group` had looked
                f"the group {group} has plain workers, and this is a Faust one: they cannot share "
                "partitions; stop the others first, or start this one without --faust"
            )
            return OutsideError(msg)
        case errors.KafkaError():
            return OutsideError(f"{group}: Faust ended: {type(error).__name__}: {error}")
    return error
