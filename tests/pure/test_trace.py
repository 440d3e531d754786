"""A trace leads from a capture to the webhook that it caused, and derives from content alone."""

from __future__ import annotations

import re

import pytest

from pipeline import codec, topics, trace
from pipeline.bus.memory import MemoryBus
from pipeline.limits import MAX_DEAD_BYTES
from pipeline.ports import Entry
from pipeline.run import Runner
from pipeline.types import DeadLetter
from tests import make

FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")


class Passing:
    """A stage that says what it hears."""

    def infer(self, batch):
        return [None] * len(batch)

    def open(self, floors):
        return self

    def on(self, record, inferred):
        return (record,)

    def floor(self, site):
        return 2**62


def test_a_trace_is_a_traceparent_and_the_same_every_time() -> None:
    one = trace.begin(make.frame(1.0))
    assert FORM.fullmatch(one)
    assert one == trace.begin(make.frame(1.0))
    others = [make.frame(1.2), make.frame(1.0, source="door"), make.progress(1.0)]
    assert len({one, *map(trace.begin, others)}) == 4


def test_a_hop_keeps_the_trace_and_has_a_span_of_its_own() -> None:
    one = trace.begin(make.frame(1.0))
    two, other = trace.child(one, "vision"), trace.child(one, "fusion")
    assert FORM.fullmatch(two)
    assert one[:36] == two[:36] == other[:36]
    assert len({one[36:52], two[36:52], other[36:52]}) == 3


@pytest.mark.parametrize(
    "parent",
    ["", "nonsense", f"00-{'0' * 32}-{'ab' * 8}-01", f"00-{'ab' * 16}-{'0' * 16}-01", "00-é"],
)
def test_what_is_no_traceparent_has_no_child(parent: str) -> None:
    assert trace.child(parent, "vision") == ""


def test_a_stage_hands_the_trace_on() -> None:
    bus = MemoryBus()
    runner = Runner(Passing(), bus, topic=topics.FRAMES, group="vision", out=topics.OBSERVATIONS)
    first = trace.begin(make.frame(1.0))
    bus.publish(topics.FRAMES, "office/desk", codec.encode(make.frame(1.0)), first)
    bus.flush()
    runner.step()
    (entry,) = [e for e in bus.reader(topics.OBSERVATIONS, "t").poll(9) if isinstance(e, Entry)]
    assert entry.trace == trace.child(first, "vision")


def test_a_record_that_is_too_large_is_dead_and_its_letter_is_cut() -> None:
    bus = MemoryBus()
    runner = Runner(
        Passing(), bus, topic=topics.FRAMES, group="g", out=topics.OBSERVATIONS, max_bytes=400_000
    )
    bus.publish(topics.FRAMES, "office/desk", b"x" * 400_001)
    bus.flush()
    runner.step()
    (value,) = bus.values(topics.DEAD)
    letter = codec.decode(value)
    assert isinstance(letter, DeadLetter)
    assert "400001 bytes" in letter.reason
    assert len(letter.value) == MAX_DEAD_BYTES
