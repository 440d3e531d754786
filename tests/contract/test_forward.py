"""From the spool to the brokers: in order, however often and however long they are away."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import codec, topics, trace
from pipeline.errors import OutsideError
from tests import make
from workers.bus import spool_forwarder
from workers.bus.spool import SMALLEST_CAP, Spool
from workers.bus.spool_forwarder import Forwarder
from workers.runtime.status import Status

# What the brokers do when asked: take all, be slow, refuse, or take some and then refuse.
Turn = str | int


class FakeBrokers:
    """Brokers by a script; when it is over they take everything."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = deque(turns)
        self.got: list[tuple[str, str, bytes, str]] = []
        self.on_the_way: list[tuple[str, str, bytes, str]] = []
        self.asked = threading.Semaphore(0)

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        self.on_the_way.append((topic, key, value, trace))

    def settled(self, wait: float) -> bool:
        self.asked.release()
        turn = self.turns.popleft() if self.turns else "take"
        match turn:
            case "slow":
                return False
            case "refuse" | int():
                n = turn if isinstance(turn, int) else 0
                self.got += self.on_the_way[:n]
                del self.on_the_way[:n]
                msg = "no broker answers"
                raise OutsideError(msg)
        self.got += self.on_the_way
        self.on_the_way.clear()
        return True

    def discard(self) -> None:
        self.on_the_way.clear()


class Silent(FakeBrokers):
    """Brokers that never answer."""

    def settled(self, wait: float) -> bool:
        self.asked.release()
        return False


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.db", cap=SMALLEST_CAP)
    yield spool
    spool.close()


def fill(spool: Spool, n: int) -> None:
    for k in range(n):
        spool.put(topics.FRAMES, [make.frame(k, seq=k)])


def seqs(got: Sequence[tuple[str, str, bytes, str]]) -> list[int]:
    return [codec.decode(value).seq for _, _, value, _ in got]


def drain(forwarder: Forwarder, spool: Spool) -> None:
    while spool.waiting:
        forwarder.turn(lambda: False)


def test_a_record_comes_with_its_key_and_its_trace(spool: Spool) -> None:
    brokers, status = FakeBrokers(), Status()
    frame, report = make.frame(1), make.report(2)
    spool.put(topics.FRAMES, [frame])
    spool.put(topics.REPORTS, [report])
    assert Forwarder(spool, brokers, status).turn(lambda: False)
    assert brokers.got == [
        (topics.FRAMES, "office/desk", codec.encode(frame), trace.begin(frame)),
        (topics.REPORTS, "office/reports", codec.encode(report), trace.begin(report)),
    ]
    assert spool.waiting == 0
    assert status.snapshot().counts == {"office": {"desk": {"forwarded": 1}}}


def test_records_stay_until_they_are_acknowledged_and_are_published_once(spool: Spool) -> None:
    brokers = FakeBrokers("slow", "slow", "slow")
    fill(spool, 3)
    waiting: list[int] = []

    def over() -> bool:
        waiting.append(spool.waiting)
        return False

    assert Forwarder(spool, brokers, Status()).turn(over)
    assert waiting == [3, 3, 3]
    assert seqs(brokers.got) == [0, 1, 2]


def test_after_a_failure_nothing_of_it_comes_later_and_the_order_holds(spool: Spool) -> None:
    brokers = FakeBrokers("refuse", 2, "take")
    fill(spool, 4)
    forwarder = Forwarder(spool, brokers, Status())
    assert not forwarder.turn(lambda: False)
    assert spool.waiting == 4
    assert not brokers.on_the_way
    drain(forwarder, spool)
    assert seqs(brokers.got) == [0, 1, 0, 1, 2, 3], "a part that came comes again, in order"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(st.one_of(st.sampled_from(["slow", "refuse", "take"]), st.integers(0, 9))),
    more=st.lists(st.integers(0, 5), max_size=5),
)
def test_whatever_the_brokers_do_every_record_comes_first_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, turns: list[Turn], more: list[int]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool") / "spool.db", cap=SMALLEST_CAP)
    brokers, k = FakeBrokers(*turns), 0
    forwarder = Forwarder(spool, brokers, Status())
    for n in [3, *more]:
        for _ in range(n):
            spool.put(topics.FRAMES, [make.frame(k, seq=k)])
            k += 1
        if spool.waiting:
            forwarder.turn(lambda: False)
    drain(forwarder, spool)
    assert list(dict.fromkeys(seqs(brokers.got))) == list(range(k))
    for before, after in zip(seqs(brokers.got), seqs(brokers.got)[1:], strict=False):
        assert after <= before + 1, "it goes back to repeat, and never leaves one out"
    spool.close()


def test_a_large_backlog_goes_in_batches_of_a_bounded_size(spool: Spool) -> None:
    brokers = FakeBrokers()
    spool.put(topics.AUDIO, [make.audio(k, bytes(100_000), seq=k) for k in range(100)])
    forwarder = Forwarder(spool, brokers, Status())
    forwarder.turn(lambda: False)
    assert sum(len(value) for _, _, value, _ in brokers.got) < spool_forwarder.BATCH_BYTES + 200_000
    drain(forwarder, spool)
    assert seqs(brokers.got) == list(range(100))


def test_what_no_broker_would_take_keeps_nothing_else_back(spool: Spool) -> None:
    brokers, status = FakeBrokers(), Status()
    spool.put(topics.FRAMES, [make.frame(1), make.frame(2, bytes(5000)), make.frame(3)])
    spool.put(topics.REPORTS, [make.report(4)])
    Forwarder(spool, brokers, status, 1000).turn(lambda: False)
    assert [codec.decode(value) for _, _, value, _ in brokers.got] == [
        make.frame(1), make.frame(3), make.report(4),
    ]  # fmt: skip
    assert spool.waiting == 0
    assert status.snapshot().counts["office"]["desk"] == {"forwarded": 2, "dropped.too-large": 1}


def test_how_much_waits_is_shown_while_the_brokers_are_away(spool: Spool) -> None:
    status = Status()
    fill(spool, 5)
    Forwarder(spool, FakeBrokers("refuse"), status).turn(lambda: False)
    gauges = status.snapshot().gauges
    assert gauges == {"spool.waiting": 5, "spool.bytes": spool.size}


def looping(forwarder: Forwarder, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=forwarder.loop, args=(stop,))
    thread.start()
    return thread


def test_who_is_stopped_forwards_what_is_left(spool: Spool) -> None:
    brokers, stop = FakeBrokers("slow"), threading.Event()
    fill(spool, 600)
    loop = looping(Forwarder(spool, brokers, Status()), stop)
    assert brokers.asked.acquire(timeout=30)
    stop.set()
    loop.join(30)
    assert seqs(brokers.got) == list(range(600))
    assert spool.waiting == 0


def test_who_is_stopped_while_the_brokers_are_away_ends_and_keeps_what_waits(spool: Spool) -> None:
    brokers, stop = FakeBrokers(*["refuse"] * 1000), threading.Event()
    fill(spool, 3)
    loop = looping(Forwarder(spool, brokers, Status()), stop)
    assert brokers.asked.acquire(timeout=30)
    stop.set()
    loop.join(30)
    assert not loop.is_alive()
    assert spool.waiting == 3


def test_who_is_stopped_waits_for_silent_brokers_so_long_and_no_longer(spool: Spool) -> None:
    brokers, stop = Silent(), threading.Event()
    fill(spool, 3)
    now = [0.0]

    def monotonic() -> float:
        now[0] += spool_forwarder.DRAIN_TIMEOUT / 4
        return now[0]

    loop = looping(Forwarder(spool, brokers, Status(), monotonic=monotonic), stop)
    assert brokers.asked.acquire(timeout=30)
    stop.set()
    loop.join(30)
    assert not loop.is_alive()
    assert spool.waiting == 3


def test_that_the_brokers_are_away_is_said_once_a_minute(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    fill(spool, 1)
    forwarder = Forwarder(spool, FakeBrokers(*["refuse"] * 9), Status())
    for _ in range(9):
        forwarder.turn(lambda: False)
    assert [record.getMessage() for record in caplog.records] == [
        "what was captured waits in the spool for the brokers: no broker answers"
    ]
