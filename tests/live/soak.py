"""Three sites' scenes through worker processes over Kafka, while processes are killed with -9."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.brokers import Brokers
from tests.live.offsets import Offsets
from tests.live.processes import KILLED, Process, Processes
from tests.live.three_sites import SECRET, SUBSCRIBER, Site, scenes_of, written
from workers.delivery.receiver import Received, Receiver, Reply

FUSEWATCH = (sys.executable, "-m", "workers.cli")
# Which groups read which topic, in the order that records flow.
GROUPS = (
    ("frames.v1", "vision"),
    ("audio.v1", "sound"),
    ("audio.v1", "speech"),
    ("reports.v1", "text"),
    ("observations.v1", "fusion"),
    ("anomalies.v1", "alert"),
    ("alerts.v1", f"delivery-{SUBSCRIBER}"),
)
STORED = ("observations.v1", "anomalies.v1", "alerts.v1", "late.v1", "dead.v1")
VISION = ("vision-1", "vision-2")
CAUGHT_UP = 300  # s that a backlog may take on a machine that has other things to do
PAUSE = 3.0  # s between two kills, at most
WAYLAID = 15.0  # s to wait for an alert under way before delivery is killed anyhow
AGAIN = 0.2  # chance that a process is killed a second time while it starts


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is to be: `faust` is the stages under Faust; `speed` None, as fast as taken."""

    kills: int
    seed: int = 0
    brokers: int = 1
    broker_kills: int = 0
    faust: tuple[str, ...] = ()
    speed: float | None = None
    prefix: str = "soak"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run gave. `played` is the scenes of each site, in order."""

    played: Mapping[str, list[str]]
    posts: list[tuple[str, bytes]]  # webhook-id and body of each verified request
    unsigned: int
    kills: Counter[str]
    stored: Mapping[str, list[bytes]]  # what stands in a topic at the end
    looked: Mapping[str, int]  # frames that each vision worker looked at in its last life
    seconds: float


class Soak:
    """One run: `Soak(...).run()`."""

    def __init__(self, folder: Path, plan: Plan, shared: Path, brokers: Brokers) -> None:
        folder.mkdir(parents=True)
        self.folder, self.plan, self.brokers = folder, plan, brokers
        self.chance = random.Random(plan.seed)
        self.sites = {
            name: Site(name, files, folder) for name, files in scenes_of(shared / "scenes").items()
        }
        self.more = plan.kills > 0  # whether scenes are begun again when all were played
        self.broker_kills = 0
        self.killing = threading.Lock()
        self.waylaid = threading.Event()  # delivery is killed by the next alert that it sends
        self.environment = {"FUSEWATCH_WEIGHTS": str(shared / "weights")}

    def run(self) -> Told:
        began = time.monotonic()
        logs = self.folder / "logs"
        answer = self._answer
        with (
            Receiver(SECRET, answer=answer) as receiver,
            Processes(logs, self.environment) as processes,
        ):
            self.config = written(
                self.folder, self.plan.prefix, self.brokers.addresses, receiver.url
            )
            self.processes = processes
            self._make_topics()
            with Offsets(self.brokers.addresses, self.plan.prefix) as self.offsets:
                self._start()
                for victim in self._victims():
                    self._disturb(victim)
                self.more = False
                self._until("the scenes are over", self._over, 3600)
                self._until("everything is worked off", self._drained)
                codes = processes.stop(self.workers)
                assert set(codes.values()) == {0}, codes
                return Told(
                    played={name: site.played for name, site in self.sites.items()},
                    posts=[(post.event["id"], post.body) for post in receiver.posts if post.event],
                    unsigned=sum(post.event is None for post in receiver.posts),
                    kills=Counter({**processes.kills(), "broker": self.broker_kills}),
                    stored={topic: self.offsets.values(topic) for topic in STORED},
                    looked={name: self._looked(name) for name in VISION},
                    seconds=time.monotonic() - began,
                )

    # -- what is started

    def _make_topics(self) -> None:
        created = self.processes.start("topics", *FUSEWATCH, "topics", "create", self.config)
        self._until("topics are created", lambda: not created.alive)
        assert created.code == 0, created.tail()

    def _start(self) -> None:
        for stage in ("fusion", "alert", "delivery", "text", "hearing"):
            self._worker(stage, stage)
        for name in VISION:
            self._worker(name, "vision")
        self.workers = [name for name in self.processes.all if name != "topics"]
        for name in self.workers:
            self._until(f"{name} is ready", lambda name=name: self._ready(name) > 0)  # type: ignore[misc]
        for site in self.sites:
            self._capture(self.sites[site])

    def _worker(self, name: str, stage: str) -> None:
        options = ("--recorded", "--faust") if stage in self.plan.faust else ("--recorded",)
        self.processes.start(
            name,
            *(*FUSEWATCH, "worker", stage, self.config, "--instance", name),
            *("--state", self.folder / "state" / name, *options),
        )

    def _capture(self, site: Site) -> None:
        name = f"capture-{site.name}"
        self.processes.start(
            name,
            *(*FUSEWATCH, "worker", "capture", self.config, "--scene", site.next()),
            *("--state", self.folder / "state" / name, "--instance", name),
            *("--speed", str(self.plan.speed or "max")),
        )

    # -- what is killed

    def _victims(self) -> Iterator[str]:
        """A shuffled deck of all processes, again and again; brokers where chance puts them."""
        names = [*self.workers, *(f"capture-{site}" for site in self.sites)]
        at = set(self.chance.sample(range(self.plan.kills), self.plan.broker_kills))
        deck: list[str] = []
        for count in range(self.plan.kills):
            if count in at:
                yield "broker"
                continue
            deck = deck or self.chance.sample(names, len(names))
            yield deck.pop()

    def _disturb(self, victim: str) -> None:
        pause = time.monotonic() + self.chance.uniform(0, PAUSE)
        self._until("a moment has passed", lambda: time.monotonic() >= pause)
        began = time.monotonic()
        if victim == "broker":
            number = self.chance.randint(1, self.plan.brokers)
            self.brokers.kill(number)
            self.broker_kills += 1
            self.brokers.start(number)
            victim = f"broker {number}"
        else:
            self._killed(self.processes[victim])
        ends = self._ends()
        self._until(
            f"what came before {victim} was killed is worked off", lambda: self._passed(ends)
        )
        print(f"{victim} killed; worked off {time.monotonic() - began:.1f} s later", flush=True)

    def _answer(self, received: Received) -> Reply:
        """An alert has arrived, and whoever sent it is killed before it hears so."""
        with self.killing:
            if self.waylaid.is_set():
                self.processes["delivery"].kill()
                self.waylaid.clear()
        return Reply()

    def _killed(self, process: Process) -> None:
        if process.name == "delivery":
            self.waylaid.set()
            deadline = time.monotonic() + WAYLAID
            self._until(
                "an alert is sent",
                lambda: not self.waylaid.is_set() or time.monotonic() > deadline,
            )
        before = self._restarted(process)
        if self.chance.random() < AGAIN:
            pause = time.monotonic() + self.chance.uniform(0, PAUSE)
            self._until("it has begun to start", lambda: time.monotonic() >= pause)
            before = self._restarted(process)
        self._until(
            f"{process.name} is ready",
            lambda: self._ready(process.name) > before or process.code == 0,
        )

    def _restarted(self, process: Process) -> int:
        """Killed and started, unless it had ended by itself; how often it had been ready before."""
        with self.killing:
            process.kill()
            self.waylaid.clear()
            before = self._ready(process.name)
            if process.code != 0:
                process.start()
        return before

    # -- what is waited for

    def _ready(self, name: str) -> int:
        return self.processes[name].times("ready")

    def _tend(self) -> None:
        """A scene that is over is followed by the next; no other end is in order."""
        for process in self.processes.ended():
            if process.name == "topics" or (process.name, process.code) == ("delivery", KILLED):
                continue
            assert process.code == 0, f"{process.name} ended by {process.code}:\n{process.tail()}"
            kind, _, site = process.name.partition("-")
            assert kind == "capture", f"{process.name} ended:\n{process.tail()}"
            if self.more or not self.sites[site].through:
                self._capture(self.sites[site])

    def _looked(self, name: str) -> int:
        counts = self.processes[name].status().get("counts", {})
        sources = [one for site in counts.values() for one in site.values()]
        return sum(one.get("processed", 0) + one.get("gated.still", 0) for one in sources)

    def _over(self) -> bool:
        self._tend()
        return not any(self.processes[f"capture-{site}"].alive for site in self.sites)

    def _ends(self) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}

        def asked() -> bool:
            found.update({topic: self.offsets.ends(topic) for topic, _ in GROUPS})
            return True

        self._until("the brokers answer", lambda: self.offsets.answered(asked))
        return found

    def _passed(self, ends: Mapping[str, dict[int, int]]) -> bool:
        """Whether each group has answered what was there then."""
        return self.offsets.answered(
            lambda: all(self.offsets.passed(topic, group, ends[topic]) for topic, group in GROUPS)
        )

    def _drained(self) -> bool:
        """Asked in the order that records flow: who has answered everything adds nothing more."""
        return self.offsets.answered(
            lambda: all(
                self.offsets.passed(topic, group, self.offsets.ends(topic))
                for topic, group in GROUPS
            )
        )

    def _until(self, what: str, holds: Callable[[], object], within: float = CAUGHT_UP) -> None:
        deadline = time.monotonic() + within
        while not holds():
            self._tend()
            if time.monotonic() > deadline:
                for process in self.processes.all.values():
                    process.abort()
                pytest.fail(f"not within {within} s: {what}; see {self.folder}/logs")
            time.sleep(0.2)
