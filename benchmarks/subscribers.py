"""Delivers alerts to five receivers in trouble, while the sender is killed again and again.

    python -m benchmarks.subscribers [FOLDER] [--alerts N] [--kills N] [--seed N]

A child process appends alerts to a local log and delivers them by the code of the daemon, with its
default retention. The receivers are local: `good` takes all, `flaky` answers 503 to 30 % of the
requests, `hanging` reads a request and never answers, `resetting` resets each connection, and
`away` does not listen for some time.

1. Rounds of equal length, in turn: `good` alone, and all five. They give the delay of `good` from
   the append to the receipt, with and without the others.
2. The child is killed (SIGKILL) at random moments until all alerts are in the log.
3. All but `hanging` get well, and are enabled by hand, so that nobody waits for a retry. It is
   checked that each has every alert under its id, and that every alert for `hanging` still waits.
4. `hanging` gets well, and it is checked that it gets every alert.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

import msgspec
from msgspec.structs import replace

from benchmarks.troubled_receivers import NAMES, SECRET, Town
from pipeline import codec, topics
from pipeline.bus import log_search
from pipeline.bus.log_commits import commits
from pipeline.config.schema import Config, Site, Webhook
from pipeline.types import Alert, ns
from workers.config.secrets import Secrets
from workers.delivery import subscribers
from workers.delivery.cloudevent import event_id
from workers.delivery.enable_mark import EnableMark
from workers.delivery.outbox import unpack
from workers.delivery.receiver import Received
from workers.runtime.state_folder import local_log
from workers.runtime.supervisor import IDLE_WAIT, Supervisor

TIMEOUT = 5.0  # s of one attempt
LONGEST = 900.0  # s of the whole run
FOREVER = 2**62


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done; `rate` is alerts a second."""

    alerts: int = 10_000
    kills: int = 20
    rounds: int = 8
    in_round: int = 150
    rate: float = 40.0
    rate_killed: float = 120.0
    alive: tuple[float, float] = (1.0, 5.0)  # s between the start of a child and its kill
    seed: int = 1


class Outcome(msgspec.Struct, kw_only=True):
    """What was measured; delays in seconds, those of the rounds a list each."""

    alone: list[list[float]] = []
    among: list[list[float]] = []
    killed: list[float] = []
    kills: int = 0
    repeats: dict[str, int] = {}
    before_well: dict[str, int] = {}  # alerts taken before it got well
    waited: int = 0  # alerts that waited for `hanging` when the others had all
    dead: int = 0
    seconds: float = 0.0


def numbered(n: int) -> Alert:
    """The alert at offset `n` of the log."""
    return Alert(
        site="office",
        source="alert",
        id=f"{n:016x}",
        revision=0,
        state="opened",
        time=ns(1000 + n),
        label="intrusion",
        labels=("intrusion",),
        rules=("zone-floor",),
        severity="high",
        score=0.9,
        start=ns(999 + n),
        end=None,
        reasons=("person in floor for 3 s",),
    )


def config_of(folder: Path, ports: dict[str, int]) -> Config:
    """The config of the child: a webhook for each receiver."""
    hooks = tuple(
        Webhook(name=name, url=f"http://127.0.0.1:{port}/alerts", secret=SECRET, timeout=TIMEOUT)
        for name, port in ports.items()
    )
    return Config(version=1, sites={"office": Site()}, state=str(folder), webhooks=hooks)


# The sender


def send(folder: Path, ports: dict[str, int], until: int, rate: float) -> int:
    """Appends alerts up to the offset `until`, and delivers, until SIGTERM. A child process."""
    settings, supervisor = config_of(folder, ports), Supervisor()
    bus = local_log(settings, folder, stop=supervisor.stop)
    stop = supervisor.stop

    def publish() -> None:
        began, first = time.monotonic(), bus.end(topics.ALERTS)
        for n in range(first, until):
            if stop.wait(max(0.0, began + (n - first) / rate - time.monotonic())):
                return
            one = numbered(n)
            bus.publish(topics.ALERTS, topics.key_of(topics.ALERTS, one), codec.encode(one))
            bus.flush()
        print("published", flush=True)

    def body() -> None:
        all_ = subscribers.every(settings, Secrets({}), folder, bus)
        for who in all_:
            delivery = subscribers.delivery(who, bus, stop.wait, lambda site, source, what: None)
            supervisor.repeat(who.name, partial(delivery.step, IDLE_WAIT), delivery.close)
        print("up", flush=True)
        supervisor.start("publish", publish)
        stop.wait()
        supervisor.join()

    return supervisor.run(body, bus.close)


@contextmanager
def sender(
    folder: Path, ports: dict[str, int], until: int, rate: float
) -> Iterator[subprocess.Popen[str]]:
    """The child; it is up when this returns, and is stopped in order unless it was killed."""
    words = [f"{name}={port}" for name, port in ports.items()]
    module = "benchmarks.subscribers"
    child = subprocess.Popen(
        [sys.executable, "-m", module, "--send", str(folder), str(until), str(rate), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        _said(child, "up")
        yield child
        if child.poll() is None:
            child.terminate()
            assert child.wait(60) == 0, child.returncode
    finally:
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()


def _said(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdout
    line = child.stdout.readline().strip()
    assert line == word, f"the sender said {line!r} instead of {word!r}"


# The run


def run(folder: Path, plan: Plan, say: Callable[[str], object] = print) -> Outcome:
    """Does all four parts; an AssertionError says what was lost."""
    began, found = time.monotonic(), Outcome()
    chance = random.Random(plan.seed)  # noqa: S311
    with ExitStack() as after:
        town = Town(after, plan.seed)
        alone, among = _rounds(folder, plan, town)
        say(f"rounds are over after {time.monotonic() - began:.0f} s")
        first = among[-1][-1]
        ports, rate = town.ports, plan.rate_killed
        for _ in range(plan.kills):
            with sender(folder, ports, plan.alerts, rate) as child:
                time.sleep(chance.uniform(*plan.alive))
                child.send_signal(signal.SIGKILL)
                child.wait()
                found.kills += 1
            if found.kills == plan.kills // 2:
                town.well("away")
        say(f"{found.kills} kills are over after {time.monotonic() - began:.0f} s")
        with sender(folder, ports, plan.alerts, rate) as child:
            _said(child, "published")
            found.before_well = {name: len(got) for name, got in town.got.items()}
            for name in ("flaky", "resetting"):
                _mend(folder, town, name)
            deadline = began + LONGEST
            for name in ("good", "flaky", "resetting", "away"):
                _all_there(town, name, plan.alerts, deadline)
            found.waited = _waiting(folder, "hanging", plan.alerts)
            say(f"all but `hanging` have all after {time.monotonic() - began:.0f} s")
            _mend(folder, town, "hanging")
            _all_there(town, "hanging", plan.alerts, deadline)
        found.seconds = time.monotonic() - began
        _judge(folder, plan, town, found)
        times = _appended(folder)
        of = town.got["good"]
        delays = [(of[event_id(numbered(n))] - times[n]) / 1e9 for n in range(plan.alerts)]
        found.alone = [[delays[n] for n in each] for each in alone]
        found.among = [[delays[n] for n in each] for each in among]
        found.killed = delays[first + 1 :]
    return found


def _rounds(folder: Path, plan: Plan, town: Town) -> tuple[list[range], list[range]]:
    """The offsets that were sent to `good` alone, and those that were sent to all, by round."""
    alone: list[range] = []
    among: list[range] = []
    end = 0
    for _ in range(plan.rounds):
        for ports, offsets in (({"good": town.ports["good"]}, alone), (town.ports, among)):
            offsets.append(range(end, end + plan.in_round))
            end += plan.in_round
            with sender(folder, ports, end, plan.rate) as child:
                _said(child, "published")
                assert town.receivers["good"].wait(end, 60), "`good` did not get all of a round"
    return alone, among


def _mend(folder: Path, town: Town, name: str) -> None:
    """The receiver gets well, and its operator says so: what waits is tried at once."""
    town.well(name)
    EnableMark(folder, name).write(time.time_ns())


def _all_there(town: Town, name: str, count: int, deadline: float) -> None:
    left = max(0.0, deadline - time.monotonic())
    got = town.receivers[name].wait(count, left)
    assert got, f"{name} has {len(town.got[name])} of {count} alerts after {LONGEST:g} s"


def _waiting(folder: Path, name: str, end: int) -> int:
    """How many alerts wait for a subscriber: those of its note, and those it has not read."""
    offset, note = commits(folder / "log", topics.ALERTS)[f"delivery-{name}"]
    reached, _, items = unpack(offset, note)
    oldest = next(log_search.appended(folder / "log", topics.ALERTS, 0, FOREVER))[1].offset
    assert oldest <= min(items, default=reached), "the log has deleted what waits"
    return len(items) + end - reached


def _appended(folder: Path) -> dict[int, int]:
    stored = log_search.appended(folder / "log", topics.ALERTS, 0, FOREVER)
    return {entry.offset: when for when, entry in stored}


def _judge(folder: Path, plan: Plan, town: Town, found: Outcome) -> None:
    """Nothing is lost, and an alert has one id and one content everywhere."""
    expected = {event_id(numbered(n)) for n in range(plan.alerts)}
    contents: dict[str, set[bytes]] = {}
    for name in NAMES:
        assert set(town.got[name]) == expected, f"{name} has other ids"
        # The kill of a sender may cut a request short; all others are signed.
        posts = [post for post in town.receivers[name].posts if _whole(post)]
        assert all(post.event is not None for post in posts), f"{name} got a wrong signature"
        times = Counter(post.headers["webhook-id"] for post in posts)
        found.repeats[name] = times.total() - len(expected)
        for post in posts:
            contents.setdefault(post.headers["webhook-id"], set()).add(post.body)
    assert all(len(bodies) == 1 for bodies in contents.values()), "one id with two contents"
    assert found.waited == plan.alerts, f"{plan.alerts - found.waited} left the hanging one's queue"
    stored = log_search.appended(folder / "log", topics.DEAD, 0, FOREVER)
    found.dead = sum(1 for _ in stored)
    assert found.dead == 0, f"{found.dead} dead letters"


def _whole(post: Received) -> bool:
    named = {name.lower(): value for name, value in post.headers.items()}
    return len(post.body) == int(named["content-length"])


def p95(delays: Sequence[float]) -> float:
    """The delay that 95 % do not exceed."""
    return quantiles(delays, n=20)[-1]


def main() -> None:
    """Runs the benchmark and prints the figures."""
    if sys.argv[1:2] == ["--send"]:
        folder, until, rate, *words = sys.argv[2:]
        ports = {name: int(port) for name, _, port in (word.partition("=") for word in words)}
        sys.exit(send(Path(folder), ports, int(until), float(rate)))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--alerts", type=int, default=Plan().alerts)
    parser.add_argument("--kills", type=int, default=Plan().kills)
    parser.add_argument("--seed", type=int, default=Plan().seed)
    given = parser.parse_args()
    plan = replace(Plan(), alerts=given.alerts, kills=given.kills, seed=given.seed)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = run(Path(folder), plan)
    print(f"{plan.alerts} alerts to five receivers, {found.kills} kills: {found.seconds:.0f} s")
    ratios = [p95(b) / p95(a) for a, b in zip(found.alone, found.among, strict=True)]
    print("delay of good, ms               p50      p95")
    for name, delays in (
        ("alone", list(chain(*found.alone))),
        ("among the others", list(chain(*found.among))),
        ("while the sender is killed", found.killed),
    ):
        print(f"  {name:26}{1000 * median(delays):8.1f} {1000 * p95(delays):8.1f}")
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"p95 among the others / alone: median {median(ratios):.2f} of the rounds ({told})")
    print(f"waited for `hanging` when the others had all: {found.waited}")
    for name in NAMES:
        early = found.before_well.get(name, 0)
        print(f"{name:10} all, {found.repeats[name]} repeats; {early} when the troubles ended")
    print("nothing is lost, every id has one content, no dead letter")


if __name__ == "__main__":
    main()
