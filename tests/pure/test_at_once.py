"""Stages that read none of each other's output work at the same time, and nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import pytest

from pipeline import codec
from pipeline.bus.memory import MemoryBus
from pipeline.run import Runner, drain
from pipeline.types import FOREVER, SECOND, Record, event_start
from tests import make
from workers.stored.at_once import AtOnce

SEEN, HEARD, MADE, JUDGED = "seen.v1", "heard.v1", "made.v1", "judged.v1"


class Broken(Exception):
    """The stage is broken."""


class Passing:
    """Passes records on under its own name as their source; `meets` is called for each poll."""

    def __init__(self, name: str, meets: Callable[[], object] = lambda: None) -> None:
        self._name, self._meets = name, meets

    def infer(self, batch: Sequence[Record]) -> Sequence[object]:
        self._meets()
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> Passing:
        return self

    def on(self, record: Record, inferred: object) -> list[Record]:
        at = event_start(record) / SECOND
        return [make.sound(at, source=f"{record.source}/{self._name}")]

    def floor(self, site: str) -> int:
        return FOREVER


def run(
    do: AtOnce | None, meets: Callable[[], object] = lambda: None, polls: int = 3
) -> list[bytes]:
    """What the judging stage makes of what two stages have made, in several turns."""
    bus, left = MemoryBus(), list(range(polls))

    def pump() -> bool:
        if not left:
            return False
        turn = left.pop(0)
        for topic, source in ((SEEN, "desk"), (HEARD, "room")):
            for start in (turn, turn + 10):
                bus.publish(topic, "office", codec.encode(make.sound(start, source=source)))
        bus.flush()
        return True

    chain = [
        Runner(Passing("sees", meets), bus, topic=SEEN, group="sees", out=MADE),
        Runner(Passing("hears", meets), bus, topic=HEARD, group="hears", out=MADE),
        Runner(Passing("judges"), bus, topic=MADE, group="judges", out=JUDGED),
    ]
    assert drain(chain, pump, do) == 8 * polls
    return bus.values(JUDGED)


def test_what_comes_out_is_the_same_and_in_the_same_order() -> None:
    with closing(AtOnce()) as at_once:
        assert run(at_once) == run(None)


def test_stages_that_read_none_of_each_others_output_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)
    with closing(AtOnce()) as at_once:
        assert len(run(at_once, both.wait)) == 12


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_error_is_raised_when_all_have_ended(broken: int) -> None:
    ended = []

    def work(number: int) -> None:
        if number == broken:
            raise Broken
        ended.append(number)

    with closing(AtOnce()) as at_once:
        with pytest.raises(Broken):
            at_once([partial(work, number) for number in range(3)])
        assert sorted(ended) == sorted({0, 1, 2} - {broken})
        at_once([])  # it can be used again
