"""The daemon: the whole graph in one process over the local log, one thread a stage.

Every thread of Fusewatch is started here; what runs in one is a plain function. There is one stop
event. The first error stops everything and ends the process: a supervisor starts it again, and the
log knows where each stage was.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec import to_builtins

from pipeline import topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.config import Config, size_bytes
from pipeline.errors import FusewatchError, OutsideError
from pipeline.run import Runner
from pipeline.types import SECOND, Anomaly, Record, content_id
from workers import configfile, graph, sources, subscribers
from workers.alert import SYSTEM
from workers.capture import roster
from workers.clock import UtcClock
from workers.delivery import Delivery, Outside, Subscriber, dead_letters
from workers.endpoint import Endpoint
from workers.player import Player, publish_all, scene_of
from workers.reports import Api, Desk, own_token, promised
from workers.scene import Scene
from workers.secrets import Secrets
from workers.status import Status
from workers.view import View
from workers.watch import Watch

log = logging.getLogger("fusewatch")

WAIT = 0.25  # s that an idle stage sleeps between looks at the stop event; new entries wake it
PATIENCE = 15.0  # s that threads get to end what they are doing
GRACE = 3.0  # s that alerting gets to tell of a failed stage before everything stops
DAY = 86_400  # s
BUG = 70  # exit code for a defect of ours (sysexits.h: EX_SOFTWARE)


class Crew:
    """Threads under one stop event; the first error of any is kept, and stops the rest."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.failed = ""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Run `body` in a thread of its own; it watches `stop`."""
        thread = threading.Thread(target=self._guarded, args=(name, body), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self, patience: float = PATIENCE) -> list[str]:
        """Wait for all to end; the names of those that did not."""
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _guarded(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.blame(name, error)

    def blame(self, name: str, error: BaseException) -> None:
        """Keep the first error, and stop all."""
        with self._lock:
            if self.error is None:
                self.error, self.failed = error, name
        self.stop.set()


class Positions:
    """How far each stage has come: offsets below it are answered, published and committed."""

    def __init__(self, bus: LocalLog, runners: Sequence[Runner]) -> None:
        self._bus = bus
        self._topics = {runner.group: runner.topic for runner in runners}
        self._at: dict[str, int] = dict.fromkeys(self._topics, 0)

    def moved(self, runner: Runner) -> None:
        """Called by the stage's own thread after each step."""
        self._at[runner.group] = sum(host.reached for host in runner.hosts.values())

    def behind(self) -> dict[str, int]:
        """Entries that each stage has not answered yet, in the order that records flow."""
        return {name: self._bus.end(topic) - self._at[name] for name, topic in self._topics.items()}


def run(
    path: Path,
    *,
    scene: Path | None = None,
    state: Path | None = None,
    speed: float | None = None,
    encoders: graph.Encoders | None = None,
) -> int:
    """Run the daemon until it is stopped, or its scene is over and every alert is delivered.

    `path` is the config; `encoders` are loaded as it says unless they are given. Returns 0, or BUG
    when a thread failed by a defect of ours, with its traceback in the log. Raises ConfigError for
    a scene that does not fit, OutsideError when the state folder is in use or the disk fails.
    """
    settings = configfile.load(path)
    folder = (state or Path(settings.state)).expanduser()
    played = scene_of(settings, scene) if scene else None
    secrets = Secrets(base=path.parent)
    status = Status()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}; choose another state folder: --state"
        raise OutsideError(msg) from error
    bus = LocalLog(folder / "log", clock=time.time_ns, retention=_retention(settings))
    view = View(status, secrets)
    daemon = Daemon(settings, path.parent, folder, bus, secrets, status, view, Crew())
    before = [signal.signal(s, daemon.stopped) for s in (signal.SIGTERM, signal.SIGINT)]
    try:
        daemon.work(played, speed, encoders)
    except (FusewatchError, OSError):
        raise
    except Exception as error:
        # A bug: its traceback goes where secrets are cut out, as a thread's does.
        daemon.crew.blame("the start", error)
    finally:
        bus.close()
        view.close()
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    return daemon.outcome()


@dataclass(frozen=True)
class Daemon:
    """What the threads of one process share."""

    settings: Config
    base: Path  # relative paths of the config start here
    folder: Path
    bus: LocalLog
    secrets: Secrets
    status: Status
    view: View
    crew: Crew

    def stopped(self, *_: object) -> None:
        """Somebody asked us to stop (a signal handler)."""
        self.crew.stop.set()

    def work(
        self, played: Scene | None, speed: float | None, encoders: graph.Encoders | None
    ) -> None:
        """Start everything, watch it, and bring it to an end in order."""
        crew, recorded = self.crew, played is not None
        who = self._subscribers()
        encoders = encoders or graph.load(self.settings.models, recorded=recorded)
        nodes = list(graph.nodes(self.settings, encoders, self.status, recorded=recorded))
        runners = [self._runner(node) for node in nodes]
        deliveries = [self._delivery(one) for one in who]
        positions = Positions(self.bus, runners)
        player = None
        try:
            for runner in runners:
                crew.start(runner.group, partial(_work, crew, runner, positions))
            for delivery in deliveries:
                crew.start(f"deliver {delivery.name}", partial(_deliver, crew, delivery))
            if played is not None:
                player = Player(
                    self.settings, played, self.bus, positions.behind, self.status, speed
                )
                crew.start("scene", partial(player.play, crew.stop))
            else:
                self._start_sources()
            crew.start("retention", partial(_trim, crew, self.bus))
            _watch(crew, positions, deliveries, self.status, self.view, player)
        finally:
            crew.stop.set()
            late = crew.join()
        if late:
            log.warning("threads that did not end in %g s: %s", PATIENCE, ", ".join(late))
        elif crew.error is not None:
            alert = next(node for node in nodes if node.name == "alert")
            self._tell(alert, [self._delivery(one) for one in who])

    def outcome(self) -> int:
        """The exit code; raises the error of a thread if the outside world was its reason."""
        error = self.crew.error
        if error is None:
            return 0
        if isinstance(error, FusewatchError):
            log.critical("%s failed: %s", self.crew.failed, error)
            raise error
        log.critical("%s failed", self.crew.failed, exc_info=error)
        return BUG

    def _runner(self, node: graph.Node) -> Runner:
        return Runner(node.stage, self.bus, topic=node.topic, group=node.name, out=node.out)

    def _delivery(self, who: Subscriber) -> Delivery:
        outside = Outside(
            clock=time.time,
            random=random.random,
            pause=self.crew.stop.wait,
            count=self.status.count,
        )
        reader = self.bus.reader(topics.ALERTS, who.group)
        return Delivery(who, reader, dead_letters(self.bus), outside)

    def _subscribers(self) -> list[Subscriber]:
        """Who gets alerts; the log keeps nothing for a subscriber that left the config."""
        who = [
            *subscribers.webhooks(self.settings, self.secrets),
            *subscribers.files(self.settings, self.folder),
            subscribers.evidence(self.settings, self.folder, self.bus),
            self.view.subscriber(),
        ]
        for group in set(self.bus.groups(topics.ALERTS)) - {one.group for one in who}:
            self.bus.forget(topics.ALERTS, group)
        return who

    def _start_sources(self) -> None:
        """Cameras, microphones, the endpoint for reports, and who watches over them."""
        crew, clock = self.crew, UtcClock()
        watch = Watch(clock)

        def publish(topic: str, records: Sequence[Record]) -> None:
            publish_all(self.bus, topic, records)
            watch.saw(topic, records)

        for name, site in self.settings.sites.items():
            for capture in sources.captures(
                name,
                site,
                expand=self.secrets.source,
                base=self.base,
                publish=publish,
                status=self.status,
                clock=clock,
                chance=random.random,
            ):
                for source, topic in capture.topics.items():
                    watch.expect(topic, name, source, roster(site))
                names = "+".join(capture.topics)
                crew.start(f"read {name}/{names}", partial(capture.read, crew.stop))
                crew.start(f"publish {name}/{names}", partial(capture.publish_loop, crew.stop))
        sites = self.settings.sites
        desk = Desk(sites, publish, clock, promised(self.bus.last, tuple(sites)))
        api = Api(desk, self._token(), lambda: to_builtins(self.status.snapshot()))
        endpoint = Endpoint(self.settings.api.listen, api, desk)
        crew.start("reports", partial(endpoint.serve, crew.stop))
        crew.start("reports progress", partial(endpoint.progress_loop, crew.stop))
        crew.start("watch", partial(_speak, crew, watch, self.bus))

    def _token(self) -> str:
        """The endpoint's token: the config's, else that of the state folder."""
        if self.settings.api.token:
            return self.secrets.lookup(self.settings.api.token, "api.token").reveal()
        token = own_token(self.folder)
        self.secrets.remember(token)
        return token

    def _tell(self, alert: graph.Node, deliveries: list[Delivery]) -> None:
        """Tell every site that a thread failed, before the process ends, if alerting works."""
        failed, now = self.crew.failed, time.time_ns()
        for site in self.settings.sites:
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
                reasons=(f"{failed} failed; the process ends and is to be started again",),
            )
            publish_all(self.bus, topics.ANOMALIES, [anomaly])
        if failed == alert.name or failed.startswith("deliver "):
            return  # it is in the log, and is told by the next process
        runner = self._runner(alert)
        until = time.monotonic() + GRACE
        while time.monotonic() < until and runner.step() + sum(d.step() for d in deliveries):
            pass
        runner.close()
        for delivery in deliveries:
            delivery.close()


def _retention(settings: Config) -> dict[str, Retention]:
    """Shares of the cap on disk; evidence has the rest."""
    cap = size_bytes(settings.storage.cap)
    chunks = settings.storage.frames
    shares = {
        topics.FRAMES: (50, chunks),
        topics.AUDIO: (5, chunks),
        topics.REPORTS: (2, 28 * DAY),
        topics.OBSERVATIONS: (10, 7 * DAY),
        topics.ANOMALIES: (4, 28 * DAY),
        topics.ALERTS: (4, 28 * DAY),
        topics.LATE: (1, 28 * DAY),
        topics.DEAD: (2, 28 * DAY),
    }
    return {
        topic: Retention(
            max_bytes=cap * percent // 100,
            max_age=age,
            hold=topic == topics.ALERTS,
            durable=topic in (topics.ALERTS, topics.REPORTS),
        )
        for topic, (percent, age) in shares.items()
    }


def _work(crew: Crew, runner: Runner, positions: Positions) -> None:
    """One stage, step after step."""
    try:
        while not crew.stop.is_set():
            runner.step(WAIT)
            positions.moved(runner)
    finally:
        runner.close()


def _deliver(crew: Crew, delivery: Delivery) -> None:
    """One subscriber, step after step."""
    try:
        while not crew.stop.is_set():
            delivery.step(WAIT)
    finally:
        delivery.close()


def _watch(
    crew: Crew,
    positions: Positions,
    deliveries: Sequence[Delivery],
    status: Status,
    view: View,
    player: Player | None,
) -> None:
    """Show how things are until somebody says stop, or the scene is over and all is delivered."""
    view.ready()
    while not crew.stop.wait(0.1):
        behind = positions.behind()
        for name, entries in behind.items():
            status.gauge(f"behind.{name}", entries)
        for delivery in deliveries:
            status.gauge(f"pending.{delivery.name}", delivery.pending)
        view.tick()
        over = player is not None and player.over.is_set() and not any(behind.values())
        # A delivery is only done if nothing came after it looked: so the stages are asked twice.
        if over and all(d.idle for d in deliveries) and not any(positions.behind().values()):
            return


def _trim(crew: Crew, bus: LocalLog) -> None:
    """Let topics age in which nothing is written any more."""
    while not crew.stop.wait(60.0):
        bus.trim()


def _speak(crew: Crew, watch: Watch, bus: LocalLog) -> None:
    """Say, once a second, what the watch has to say."""
    while not crew.stop.wait(1.0):
        for topic, record in watch.speak():
            publish_all(bus, topic, [record])
