"""Runs one worker in a process of its own, over Kafka: `fusewatch worker STAGE CONFIG`.

Graph, `Host` and `step` are those of the daemon; only the bus is different, and every worker is a
process. The first error ends it; the service manager starts it again, and its consumer group goes
on at its committed offsets. Capture has a spool on its disk, so that it goes on without brokers.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from models import heap
from models.fusion.head import Head
from pipeline import stages, topics
from pipeline.bus.disk_space import usual_spare
from pipeline.config import schema
from pipeline.config.model_needs import needed_encoders
from pipeline.config.schema import Config
from pipeline.errors import ConfigError, OutsideError
from pipeline.ports import Bus
from pipeline.types import FOREVER, ns
from workers import consumers, graph
from workers.bus import connect
from workers.bus.absent_captures import AbsenceDetectingBus
from workers.bus.site_configs import ConfigHistory, heads_of, read_configs
from workers.bus.spool import Spool
from workers.bus.spool_forwarder import Forwarder
from workers.capture import factory, live
from workers.capture.clock import UtcClock
from workers.config import loader
from workers.config.findings import announce
from workers.config.missing import concerning
from workers.config.secrets import Secrets
from workers.consumers import delivery_consumer, stage_consumer
from workers.delivery import subscribers
from workers.reload import reload_heads
from workers.replay.scene_player import ScenePlayer, scene_of
from workers.replay.scene_records import Scene
from workers.runtime.rate_limited_log import RateLimitedLog
from workers.runtime.state_folder import state_folder
from workers.runtime.status import Status
from workers.runtime.supervisor import LOOK_EVERY, Supervisor
from workers.stages.encoders import Encoders, load_encoders
from workers.view import View

if TYPE_CHECKING:  # optional extras
    from pipeline.bus.kafka.bus import KafkaBus

log = logging.getLogger("fusewatch")

# s between capture's attempts to reach brokers that were away at its start
BROKERS_LOOK_EVERY = 5.0
INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,100}")  # as Kafka requires
HEALTHY_SHARE = 0.9  # of the spool's cap; a fuller spool is not healthy
SCENE_WAITS_RECORDS = 500  # entries in the spool above which a scene waits,
SCENE_WAITS_SHARE = 0.5  # and the share of its cap: no record of a scene may be evicted


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line; `docs/guides/workers.md` explains each."""

    stage: str
    instance: str = ""
    recorded: bool = False
    faust: bool = False
    state: Path | None = None
    scene: Path | None = None
    speed: float | None = None
    sites: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises ConfigError for options that cannot be combined."""
        capture, can = self.stage == stages.CAPTURE, ", ".join(stages.BY_FAUST)
        wrong = {
            "--scene and --sites are for the capture worker": (self.scene or self.sites)
            and not capture,
            "--sites is for live sources: a scene is one site": self.scene and self.sites,
            "--speed is for a scene: add --scene SCENE": self.speed is not None and not self.scene,
            "--recorded is for the stages: capture plays a recording by --scene": self.recorded
            and capture,
            f"--faust is for {can}: the other stages need more than it keeps": self.faust
            and self.stage not in stages.BY_FAUST,
        }
        if self.instance and not INSTANCE.fullmatch(self.instance):
            wrong["--instance: up to 100 letters, digits, `.`, `_` and `-`"] = True
        for what, holds in wrong.items():
            if holds:
                raise ConfigError(what)


def run(order: WorkerOptions, path: Path, encoders: Encoders | None = None) -> int:
    """Runs one worker until it is stopped, or its scene is over and the brokers have all of it.

    `path` is the config; `encoders` are loaded by the config unless they are given. Returns 0, or
    BUG when a thread failed by an internal error. Raises ConfigError, and OutsideError when the
    brokers are away (capture waits for them instead) or when the stage has stalled.
    """
    worker = prepared(order, path)
    return worker.supervisor.run(partial(worker.work, encoders), worker.close)


def prepared(order: WorkerOptions, path: Path) -> Worker:
    """Creates the worker that `order` asks for, without starting it; raises ConfigError."""
    order.check()
    heap.bound()  # before a thread or a model takes memory
    found = loader.examine(path)
    settings = live.select_sites(found.settings(), order.sites)
    if not isinstance(settings.bus, schema.KafkaBus):
        msg = (
            f"{path}: bus: a worker needs brokers: `bus: {{kind: kafka, brokers: [...]}}`; on one "
            f"machine without any, `fusewatch run {path}` runs all stages"
        )
        raise ConfigError(msg)
    secrets, status = Secrets(base=path.parent), Status()
    recorded = order.recorded or order.scene is not None
    view = View(status, secrets, settings.sites, recorded=recorded)
    needs = concerning(
        settings,
        found.warnings,
        stages=stages.WORKERS[order.stage],
        sources=order.stage == stages.CAPTURE,
        deliveries=order.stage == stages.DELIVERY,
    )
    announce(needs)
    return Worker(
        order=order,
        settings=settings,
        brokers=settings.bus,
        path=path,
        bus=connect.kafka_bus(
            settings.bus, secrets, instance=order.instance, client=_client(order)
        ),
        secrets=secrets,
        status=status,
        view=view,
        supervisor=Supervisor(),
    )


def _client(order: WorkerOptions) -> str:
    return "-".join(filter(None, ("fusewatch", order.stage, order.instance)))


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The settings and services that the threads of a worker share."""

    order: WorkerOptions
    settings: Config
    brokers: schema.KafkaBus  # the bus of these settings
    path: Path  # of the config; relative paths in it start at its folder
    bus: KafkaBus
    secrets: Secrets
    status: Status
    view: View
    supervisor: Supervisor

    def work(self, encoders: Encoders | None = None) -> None:
        """Starts all threads, shows their status, and stops them in order."""
        with ExitStack() as after:  # after the threads have ended
            try:
                match self.order.stage:
                    case stages.CAPTURE:
                        self._capture(after)
                    case stages.DELIVERY:
                        self._deliver()
                    case _:
                        self._run_stages(encoders)
            finally:
                self.supervisor.stop.set()
                self.supervisor.join()

    def close(self) -> None:
        """Closes the connection to the brokers and restores the terminal."""
        self.bus.close()
        self.view.close()

    def _wait(
        self,
        over: Callable[[], bool] = lambda: False,
        nodes: Sequence[graph.Node] = (),
        configs: ConfigHistory | None = None,
    ) -> None:
        """Waits for the stop, or until `over` is true; a reload changes the heads of `nodes`, and
        is published to `configs`."""

        def swapped(heads: Mapping[str, Head]) -> None:
            if configs is not None:
                configs.publish(heads, time.time_ns())

        self.view.ready()
        trimmer = heap.Trimmer()
        while not self.supervisor.stop.wait(LOOK_EVERY) and not over():
            self.view.tick()
            trimmer.look(time.monotonic())
            if self.supervisor.asked():
                reload_heads(self.path, nodes, swapped=swapped)

    def _run_stages(self, encoders: Encoders | None) -> None:
        """Starts a thread for each node, and the watchdog."""
        recorded, faust = self.order.recorded, self.order.faust
        names = stages.WORKERS[self.order.stage]
        connect.check(self.brokers, self.secrets, names, faust=faust)
        needed = needed_encoders(self.settings, names)
        encoders = encoders or load_encoders(
            self.settings.models, recorded=recorded, stages=names, needed=needed
        )
        bus: Bus = self._by_faust() if faust else self.bus
        if not recorded:
            absent = ns(self.brokers.absent)
            bus = AbsenceDetectingBus(bus, self.bus, self.settings.sites, absent)
        nodes = list(
            graph.nodes(self.settings, encoders, self.status, recorded=recorded, stages=names)
        )
        heads = heads_of(node.stage for node in nodes)
        configs = None if heads is None else self._configs()
        if heads is not None and configs is not None:
            configs.publish(heads, time.time_ns())
        self._start([stage_consumer(node.runner(bus, self.brokers.max_message)) for node in nodes])
        self._wait(nodes=nodes, configs=configs)

    def _configs(self) -> ConfigHistory:
        stored = self.bus.between(topics.CONFIGS, 0, FOREVER)
        before = read_configs(entry.value for entry in stored)
        return ConfigHistory(self.settings, self.bus, before, recorded=self.order.recorded)

    def _by_faust(self) -> Bus:
        from workers.bus.faust_app import FaustBus  # noqa: PLC0415, an optional extra

        return FaustBus(self.bus, self.secrets.bus(self.brokers), client=_client(self.order))

    def _deliver(self) -> None:
        """Starts a thread for each subscriber, and the watchdog."""
        folder = state_folder(self.settings, self.order.state)
        who_gets = subscribers.every(self.settings, self.secrets, folder, self.bus)
        connect.check(self.brokers, self.secrets)
        pause, count = self.supervisor.stop.wait, self.status.count
        deliveries = [subscribers.delivery(who, self.bus, pause, count) for who in who_gets]
        self._start([delivery_consumer(delivery) for delivery in deliveries])

        def show() -> bool:
            for delivery in deliveries:
                self.status.subscriber(delivery.name, delivery.state)
            return False

        self._wait(over=show)

    def _start(self, given: Sequence[consumers.Consumer]) -> None:
        gauge = self.status.gauge
        consumers.start(given, self.supervisor, self.bus, self.brokers.stall, gauge)

    def _capture(self, after: ExitStack) -> None:
        """Captures sources or a scene into the spool, and forwards it to the brokers."""
        folder, cap = state_folder(self.settings, self.order.state), self.brokers.spool
        scene = scene_of(self.settings, self.order.scene) if self.order.scene else None
        count = self.status.count
        spool = Spool(
            folder / "spool.db",
            cap=schema.size_bytes(cap),
            dropped=lambda site, source, n: count(site, source, "dropped.spool", n),
            spare=usual_spare(folder),
        )
        for key, n in spool.chunks().items():
            site, _, source = key.partition("/")
            count(site, source, "captured.earlier", n)
        after.callback(spool.close)
        after.callback(self._gauge, spool)
        over = self._play(scene, spool) if scene else self._live(folder, spool)
        self.supervisor.start("forward", partial(self._forward, spool))
        self._wait(over)

    def _play(self, scene: Scene, spool: Spool) -> Callable[[], bool]:
        """Plays a scene into the spool; returns whether it is over and the brokers have it all."""
        player = ScenePlayer(
            self.settings,
            scene,
            store=spool.put,
            last=spool.last,
            full=lambda: spool.waiting > SCENE_WAITS_RECORDS or spool.share > SCENE_WAITS_SHARE,
            status=self.status,
            speed=self.order.speed,
        )
        self.supervisor.start("scene", partial(player.play, self.supervisor.stop))
        return lambda: player.over.is_set() and not spool.waiting

    def _live(self, folder: Path, spool: Spool) -> Callable[[], bool]:
        """Captures all sources into the spool; this is never over."""
        place = live.CaptureContext(
            settings=self.settings,
            path=self.path,
            folder=folder,
            secrets=self.secrets,
            status=self.status,
            clock=UtcClock(floor=factory.newest_event_time(spool.last, self.settings.sites)),
            stop=self.supervisor.stop,
        )
        for name, body in live.threads(
            place, store=spool.put, last=spool.last, healthy=lambda: spool.share < HEALTHY_SHARE
        ):
            self.supervisor.start(name, body)
        return lambda: False

    def _gauge(self, spool: Spool) -> None:
        """Sets the gauges of the spool; while there are brokers, the forwarder does it."""
        self.status.gauge("spool.waiting", spool.waiting)
        self.status.gauge("spool.bytes", spool.size)

    def _forward(self, spool: Spool) -> None:
        """Forwards the spool once the brokers are there and have what a worker needs."""
        stop, away = self.supervisor.stop, RateLimitedLog("what is captured waits in the spool: %s")
        while True:
            try:
                connect.check(self.brokers, self.secrets)
                break
            except OutsideError as error:
                away.warn(error)
            if stop.wait(BROKERS_LOOK_EVERY):
                return
        Forwarder(spool, self.bus, self.status, self.brokers.max_message).loop(stop)
