"""A stage that works ahead gives what it would give in its turn, at the same place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import pytest

from pipeline import codec
from pipeline.bus.memory import MemoryBus
from pipeline.run import Runner, drain
from pipeline.types import FOREVER, SECOND, Record, event_start
from tests import make
from workers.graph import Node
from workers.stored.stage_ahead import Outgoing, Published, StageAhead

SEEN, HEARD, MADE, JUDGED = "seen.v1", "heard.v1", "made.v1", "judged.v1"
SLICES, LIMIT = 6, 2
Meet = Callable[[], object]


class Broken(Exception):
    """The stage is broken."""


class Passing:
    """Passes records on under its own name; `meets` is called at each poll."""

    def __init__(self, name: str, meets: Meet = lambda: None) -> None:
        self._name, self._meets = name, meets

    def infer(self, batch: Sequence[Record]) -> Sequence[object]:
        self._meets()
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> Passing:
        return self

    def on(self, record: Record, inferred: object) -> list[Record]:
        return [make.sound(event_start(record) / SECOND, source=f"{record.source}/{self._name}")]

    def floor(self, site: str) -> int:
        return FOREVER


def node(name: str, topic: str, out: str, meets: Meet = lambda: None) -> Node:
    return Node(name=name, topic=topic, out=out, stage=Passing(name, meets), limit=LIMIT)


def slice_of(number: int) -> list[Published]:
    """Three records of each topic: more than one poll takes."""
    out = Outgoing()
    for topic, source in ((SEEN, "desk"), (HEARD, "room")):
        for k in range(3):
            record = make.sound(3 * number + k, source=source)
            out.publish(topic, f"office/{source}", codec.encode(record), f"trace {number} {k}")
    return out.taken()


def run(open_: Callable[[Node, MemoryBus], Runner | StageAhead], meets: Meet) -> list[bytes]:
    """What the judging stage makes of what two stages make of all slices."""
    bus, slices = MemoryBus(), [slice_of(number) for number in range(SLICES)]
    with ExitStack() as opened:
        chain = [
            opened.enter_context(closing(open_(node("sees", SEEN, MADE, meets), bus))),
            opened.enter_context(closing(open_(node("hears", HEARD, MADE, meets), bus))),
            opened.enter_context(closing(node("judges", MADE, JUDGED).runner(bus))),
        ]
        for stage in chain:
            for entries in slices if isinstance(stage, StageAhead) else ():
                stage.give(entries)

        def pump() -> bool:
            for entry in slices[:1]:
                for each in entry:
                    bus.publish(*each)
                bus.flush()
            return bool(slices and slices.pop(0))

        assert drain(chain, pump) == SLICES * (6 + 6)
    return bus.values(JUDGED)


def ahead(one: Node, bus: MemoryBus) -> StageAhead:
    return StageAhead(one, bus)


def in_turn(one: Node, bus: MemoryBus) -> Runner:
    return one.runner(bus)


def test_what_comes_out_is_the_same_and_in_the_same_order() -> None:
    found = run(ahead, lambda: None)
    assert found == run(in_turn, lambda: None)
    assert len(found) == 6 * SLICES


def test_two_stages_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    assert len(run(ahead, both.wait)) == 6 * SLICES


def test_stages_that_share_a_lock_work_one_after_the_other() -> None:
    inside = threading.Semaphore(1)

    def alone() -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        inside.release()

    lock = threading.Lock()
    assert len(run(lambda one, bus: StageAhead(one, bus, lock), alone)) == 6 * SLICES


def test_an_error_comes_where_the_stage_would_have_raised_it() -> None:
    polls = 0

    def breaks() -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            raise Broken

    bus = MemoryBus()
    with closing(StageAhead(node("sees", SEEN, MADE, breaks), bus)) as stage:
        for number in range(2):
            stage.give(slice_of(number))
        for entry in slice_of(0):
            bus.publish(*entry)
        bus.flush()
        assert [stage.step() for _ in range(3)] == [2, 1, 0]
        for entry in slice_of(1):
            bus.publish(*entry)
        bus.flush()
        with pytest.raises(Broken):
            stage.step()
    assert len(bus.values(MADE)) == 3


def test_what_is_closed_does_no_more() -> None:
    begun, go_on, polls = threading.Event(), threading.Event(), []

    def waits() -> None:
        polls.append(1)
        begun.set()
        assert go_on.wait(20)

    stage = StageAhead(node("sees", SEEN, MADE, waits), MemoryBus())
    for number in range(SLICES):
        stage.give(slice_of(number))
    assert begun.wait(20)
    closing_ = threading.Thread(target=stage.close)
    closing_.start()
    time.sleep(0.2)  # now it is closed, but for the poll that has begun
    go_on.set()
    closing_.join(20)
    assert not closing_.is_alive()
    assert len(polls) == 1
