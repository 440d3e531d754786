"""The daemon: runs the whole graph in one process over the local log, with one thread a stage.

Every thread is started here, in a `Supervisor`, and runs a plain function. The first error stops
all threads and ends the process. The service manager starts it again, and each stage goes on at its
offset in the log.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models import heap
from pipeline import topics
from pipeline.bus.log import LocalLog
from pipeline.config.model_needs import needed_encoders
from pipeline.config.schema import Config, LocalBus, Recording
from pipeline.errors import ConfigError, DiskFull, FileBusy, OutsideError
from pipeline.judge.findings import reason_at
from pipeline.types import SECOND, SYSTEM, Anomaly, Record, content_id
from workers import consumers, graph
from workers.bus.dead_letter_store import DaemonRetries
from workers.bus.history import history
from workers.bus.publish import publish_all
from workers.bus.site_configs import ConfigHistory, heads_of, read_configs
from workers.capture import factory, live
from workers.capture.clock import UtcClock
from workers.capture.reports import ReportBacklog
from workers.config import loader
from workers.config.findings import announce
from workers.config.missing import concerning
from workers.config.secrets import Secrets
from workers.consumers import WATCHDOG, delivery_consumer, stage_consumer
from workers.delivery import subscribers
from workers.delivery.delivery import Delivery, Subscriber
from workers.reload import reload_heads
from workers.replay.scene_player import MAX_AHEAD, ScenePlayer, scene_of
from workers.replay.scene_records import Scene
from workers.runtime.lag import (
    KeepingUp,
    LocalOffsets,
    StageLag,
    caught_up,
    count_earlier,
    count_missed,
)
from workers.runtime.state_folder import HELD, local_log, retention, state_folder
from workers.runtime.status import Status
from workers.runtime.storage_cap import StorageCap
from workers.runtime.supervisor import LOOK_EVERY, Supervisor
from workers.stages.encoders import Encoders, load_encoders
from workers.view import View

log = logging.getLogger("fusewatch")

# s to work off the log's backlog: without a message, and at most
QUIET_CATCH_UP, MAX_CATCH_UP = 1.0, 60.0
TRIM_EVERY = 60.0  # s
# s after which a thread must hand on the interpreter. With Python's 5 ms the thread of the detector
# waits behind those of sixteen cameras each time that it comes back from a C call.
SWITCH = 0.0005
# s that alerting gets to report a failed stage before the process ends
FAILURE_REPORT_TIMEOUT = 3.0


def run(
    path: Path,
    *,
    scene: Path | None = None,
    state: Path | None = None,
    speed: float | None = None,
    encoders: Encoders | None = None,
) -> int:
    """Runs the daemon until it is stopped, or its scene is over and every alert is delivered.

    `path` is the config, which also names the `encoders` unless they are given. Returns 0, or BUG
    when a thread failed by an internal error, with its traceback in the log. Raises ConfigError for
    a scene that does not fit or a bus with brokers, OutsideError when the state folder is in use,
    the disk fails, or a stage or a delivery has stalled.
    """
    sys.setswitchinterval(SWITCH)
    heap.bound()  # before a thread or a model takes memory
    found = loader.examine(path)
    settings = found.settings()
    if not isinstance(settings.bus, LocalBus):
        msg = (
            f"{path}: bus: `fusewatch run` is the whole pipeline in one process, over a log of its "
            "own; leave `bus` out of the config for that, or start `fusewatch worker STAGE "
            f"{path}` for each stage"
        )
        raise ConfigError(msg)
    played = scene_of(settings, scene) if scene else None
    secrets = Secrets(base=path.parent)
    status = Status()
    folder = state_folder(settings, state)
    supervisor = Supervisor()
    give = partial(subscribers.give_way, folder)
    missed = partial(count_missed, status)
    bus = local_log(settings, folder, give=give, stop=supervisor.stop, missed=missed)
    view = View(status, secrets, settings.sites, recorded=played is not None)
    announce(concerning(settings, found.warnings, sources=played is None))
    clock = UtcClock(floor=factory.newest_event_time(bus.last, settings.sites))
    daemon = Daemon(settings, path, folder, bus, secrets, status, view, supervisor, clock)

    def close() -> None:
        bus.close()
        view.close()

    return supervisor.run(partial(daemon.work, played, speed, encoders), close)


@dataclass(frozen=True)
class Daemon:
    """The settings and services that the threads of the daemon share."""

    settings: Config
    path: Path  # of the config; relative paths in it start at its folder
    folder: Path
    bus: LocalLog
    secrets: Secrets
    status: Status
    view: View
    supervisor: Supervisor
    clock: UtcClock

    def work(self, played: Scene | None, speed: float | None, encoders: Encoders | None) -> None:
        """Starts all threads, shows their status, and stops them in order."""
        supervisor, recorded = self.supervisor, played is not None
        who = self._subscribers()
        needed = needed_encoders(self.settings)
        encoders = encoders or load_encoders(self.settings.models, recorded=recorded, needed=needed)
        nodes = list(graph.nodes(self.settings, encoders, self.status, recorded=recorded))
        self._forget(nodes, who)
        configs = self._configs(recorded=recorded)
        heads = heads_of(node.stage for node in nodes) or {}
        configs.publish(heads, self.clock() if played is None else played.start)
        runners = [node.runner(self.bus, self.settings.bus.max_message) for node in nodes]
        deliveries = [self._delivery(one) for one in who]
        stages = [stage_consumer(runner) for runner in runners]
        offsets, keeps_up = LocalOffsets(self.bus), KeepingUp()
        positions = StageLag(offsets, [stage.progress for stage in stages])

        def show() -> None:
            _show(positions, keeps_up, deliveries, self.status, self.view)
            if supervisor.asked():
                reload_heads(self.path, nodes, swapped=lambda to: configs.publish(to, self.clock()))

        over: Callable[[], bool] = lambda: False  # noqa: E731
        captures = [] if recorded else self._captures(keeps_up, configs)
        if not recorded:
            count_earlier(self.bus, self.status, self._sources())
        try:
            all_ = [*stages, *(delivery_consumer(delivery) for delivery in deliveries)]
            gauge = self.status.gauge
            consumers.start(all_, supervisor, offsets, self.settings.bus.stall, gauge)
            if self.settings.recording is not None:
                self._start_recording(self.settings.recording)
            if played is not None:
                player = ScenePlayer(
                    self.settings,
                    played,
                    store=partial(publish_all, self.bus),
                    last=self.bus.last,
                    full=lambda: max(positions.behind().values()) > MAX_AHEAD,
                    status=self.status,
                    speed=speed,
                )
                supervisor.start("scene", partial(player.play, supervisor.stop))
                over = partial(_over, player.over, positions, deliveries, self.bus)
            else:
                self._catch_up(positions, show)
                for name, body in captures:
                    supervisor.start(name, body)
            supervisor.start("retention", self._retain)
            self.view.ready()
            trimmer = heap.Trimmer()
            while not supervisor.stop.wait(LOOK_EVERY) and not over():
                show()
                trimmer.look(time.monotonic())
        finally:
            supervisor.stop.set()
            late = supervisor.join()
        if supervisor.error is not None:
            alert = next(node for node in nodes if node.out == topics.ALERTS)
            self._tell(alert, who, late)

    def _start_recording(self, recording: Recording) -> None:
        """Starts the thread of the continuous recording; it reads the log, and holds nothing."""
        from workers.recorder.continuous import local_recorder  # noqa: PLC0415, few record

        with history(self.settings, self.path, self.folder) as stored:
            recorder = local_recorder(
                self.settings, recording, self.folder, stored, self.status.gauge
            )
        self.supervisor.start("recording", partial(recorder.loop, self.supervisor.stop))

    def _configs(self, *, recorded: bool) -> ConfigHistory:
        known = (self.bus.last(topics.CONFIGS, site) for site in self.settings.sites)
        before = read_configs(value for value in known if value is not None)
        return ConfigHistory(self.settings, self.bus, before, recorded=recorded)

    def _sources(self) -> set[tuple[str, str]]:
        """Site and name of every camera and microphone."""
        sites = self.settings.sites.items()
        return {(name, of) for name, site in sites for of in (*site.cameras, *site.microphones)}

    def _delivery(self, who: Subscriber) -> Delivery:
        return subscribers.delivery(who, self.bus, self.supervisor.stop.wait, self.status.count)

    def _subscribers(self) -> list[Subscriber]:
        return [
            *subscribers.every(self.settings, self.secrets, self.folder, self.bus),
            self.view.subscriber(),
        ]

    def _forget(self, nodes: Sequence[graph.Node], who: Sequence[Subscriber]) -> None:
        """The log stops holding records for stages and subscribers that left the config."""
        reads = {(node.topic, node.name) for node in nodes}
        reads |= {(topics.ALERTS, one.group) for one in who}
        for topic in HELD:
            for group in self.bus.groups(topic):
                if (topic, group) not in reads:
                    self.bus.forget(topic, group)

    def _retain(self) -> None:
        """Keeps the disk from filling up, each second; applies retention, once a minute.

        Appending applies it too, but a topic may receive no entries for long.
        """
        cap, stop, due = StorageCap(self.settings, self.folder), self.supervisor.stop, 0.0
        while not stop.wait(1.0):
            with suppress(DiskFull, FileBusy):  # a delete needs space too; a later turn does it
                if self.bus.keep_free() and time.monotonic() < due:
                    continue
                due = time.monotonic() + TRIM_EVERY
                self.bus.resize(retention(self.settings, cap()))
                self.bus.trim()

    def _catch_up(self, positions: StageLag, show: Callable[[], None]) -> None:
        """Lets the stages work off the backlog of the log before the sources start.

        Progress up to now would overtake a backlog that is older than a site's horizon: its sources
        would count as lost, and its records as late.
        """

        def turn() -> bool:
            show()
            return self.supervisor.stop.wait(LOOK_EVERY)

        if (
            caught_up(positions.behind, turn, round(QUIET_CATCH_UP / LOOK_EVERY))
            or self.supervisor.stop.is_set()
        ):
            return
        waiting = ", ".join(f"{name} {n}" for name, n in positions.behind().items() if n)
        log.info("the sources start when what waits in the log is worked off: %s", waiting)
        if caught_up(positions.behind, turn, round(MAX_CATCH_UP / LOOK_EVERY)):
            log.info("what waited in the log is worked off")
        elif not self.supervisor.stop.is_set():
            log.warning(
                "what waited in the log is not worked off in %g s; the sources start now, and the "
                "oldest of it may count as late",
                MAX_CATCH_UP,
            )

    def _captures(self, healthy: Callable[[], bool], configs: ConfigHistory) -> list[live.Thread]:
        place = live.CaptureContext(
            settings=self.settings,
            path=self.path,
            folder=self.folder,
            secrets=self.secrets,
            status=self.status,
            clock=self.clock,
            stop=self.supervisor.stop,
            judged=configs.newest,
        )
        return live.threads(
            place,
            store=self._store,
            last=self.bus.last,
            healthy=healthy,
            backlog=ReportBacklog(
                end=partial(self.bus.end, topics.REPORTS),
                read=partial(self.bus.read_below, topics.REPORTS),
            ),
            dead_retry=DaemonRetries(self.settings, self.folder, self.bus),
        )

    def _store(self, topic: str, records: Sequence[Record]) -> None:
        """Stores captured records; if the disk is full or a file is locked, stores none of them."""
        try:
            publish_all(self.bus, topic, records)
        except (DiskFull, FileBusy):
            self.bus.discard()
            raise

    def _tell(self, alert: graph.Node, who: Sequence[Subscriber], late: Sequence[str]) -> None:
        """Alerts every site that a thread failed, before the process ends, if alerting still works.

        The anomaly is in the log in any case, so the next process alerts if this one cannot.
        Threads that are `late` still hold their readers, so they are not used here.
        """
        try:
            self._log_failure()
        except OutsideError as error:
            log.warning("that %s failed cannot be told: %s", self.supervisor.failed, error)
            return
        hold = {self.supervisor.failed, *late}
        if alert.name in hold:
            return
        runner = alert.runner(self.bus, self.settings.bus.max_message)
        deliveries = [self._delivery(one) for one in who if f"deliver {one.name}" not in hold]
        until = time.monotonic() + FAILURE_REPORT_TIMEOUT
        while time.monotonic() < until and runner.step() + sum(d.step() for d in deliveries):
            pass
        runner.close()
        for delivery in deliveries:
            delivery.close()

    def _log_failure(self) -> None:
        failed, now = self.supervisor.failed, self.clock()
        why = f"{failed} failed; the process ends and is to be started again"
        if failed == WATCHDOG:  # it says which stage or delivery has stalled
            why = str(self.supervisor.error)
        modes = self.status.snapshot().modes
        for site, of in self.settings.sites.items():
            anomaly = Anomaly(
                site=site,
                source="fusewatch",
                id=content_id(site, SYSTEM, "stage-failed", now),
                start=now,
                end=now + SECOND,
                rule=SYSTEM,
                label="stage-failed",
                severity="high",
                score=1.0,
                reasons=(reason_at(now, why),),
                kind=SYSTEM,
                what=why,
                mode=modes[site].mode if site in modes else of.modes.default,
            )
            publish_all(self.bus, topics.ANOMALIES, [anomaly])


def _show(
    positions: StageLag,
    keeps_up: KeepingUp,
    deliveries: Sequence[Delivery],
    status: Status,
    view: View,
) -> None:
    """Sets the gauges and updates the view."""
    behind = positions.behind()
    keeps_up.saw(behind)
    for name, entries in behind.items():
        status.gauge(f"behind.{name}", entries)
    for name, entries in positions.lost().items():
        status.gauge(f"lost.{name}", entries)
    for delivery in deliveries:
        status.subscriber(delivery.name, delivery.state)
    view.tick()


def _over(
    played: threading.Event, positions: StageLag, deliveries: Sequence[Delivery], bus: LocalLog
) -> bool:
    """Whether the scene is over, every stage has answered, and every alert is done."""
    if not played.is_set() or any(positions.behind().values()):
        return False
    end = bus.end(topics.ALERTS)  # no stage adds to it any more
    return all(delivery.reached >= end for delivery in deliveries)
