"""How a stage is run, at its bounds: sizes, revoked partitions, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pipeline import codec, topics
from pipeline.errors import DecodeError
from pipeline.limits import MAX_DEAD_BYTES, MAX_RECORD_BYTES, most_bytes
from pipeline.ports import Assigned, Entry, Revoked
from pipeline.run import MAX_NAME, MAX_REASON, Runner, dead_letter, decoded
from pipeline.types import FOREVER, DeadLetter, Record
from tests import make

IN, OUT = topics.OBSERVATIONS, topics.ANOMALIES


class Passes:
    """A stage that passes everything on, and notes what `look` sees at each deed."""

    def __init__(self, look: Callable[[], object] = lambda: None) -> None:
        self.look = look
        self.seen: list[tuple[str, object]] = []
        self.fed: list[int] = []

    def infer(self, batch: Sequence[Record]) -> list[None]:
        self.seen.append(("infer", self.look()))
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> Passes:
        return self

    def on(self, record: Record, inferred: object) -> list[Record]:
        self.seen.append(("feed", self.look()))
        self.fed.append(getattr(record, "start", 0) // 10**9)
        return [record]

    def floor(self, site: str) -> int:
        return FOREVER


class Script:
    """A bus and its reader: gives one list of events a poll, keeps what is published."""

    def __init__(self, *polls: Sequence[Assigned | Entry | Revoked]) -> None:
        self.polls = list(polls)
        self.asked: list[tuple[int, float]] = []
        self.published: list[tuple[str, str, bytes]] = []
        self.flushes = 0
        self.commits: list[tuple[int, int]] = []
        self.look: Callable[[], object] = lambda: None
        self.seen: list[tuple[str, object]] = []

    def reader(self, topic: str, group: str) -> Script:
        return self

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        self.asked.append((limit, wait))
        return self.polls.pop(0) if self.polls else []

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        self.seen.append(("commit", self.look()))
        self.commits.append((partition, offset))

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        self.published.append((topic, key, value))

    def flush(self) -> None:
        self.seen.append(("flush", self.look()))
        self.flushes += 1

    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]:
        return ()

    def close(self) -> None:
        """Nothing is open."""


def entry(offset: int, partition: int = 0, at: float | None = None) -> Entry:
    """A second of sound; `at` is when, by default its offset."""
    record = make.sound(offset if at is None else at)
    return Entry(partition, offset, "office/room", codec.encode(record))


def runner(bus: Script, stage: Passes | None = None, **more: int) -> Runner:
    return Runner(stage or Passes(), bus, topic="any.v1", group="g", out=OUT, **more)


# -- a turn


def test_it_is_the_buss_turn_while_it_flushes_and_commits_and_not_while_the_stage_works() -> None:
    bus, stage = Script([Assigned(0, 0, b""), entry(0)]), Passes()
    ours = runner(bus, stage)
    bus.look = stage.look = lambda: ours.settling
    ours.step()
    assert stage.seen == [("infer", False), ("feed", False)]
    assert bus.seen == [("flush", True), ("commit", True)]
    assert ours.settling is False


def test_it_is_the_buss_turn_no_longer_when_that_has_failed() -> None:
    class Fails(Script):
        def flush(self) -> None:
            raise ConnectionError

    ours = runner(Fails([Assigned(0, 0, b""), entry(0)]))
    with pytest.raises(ConnectionError):
        ours.step()
    assert ours.settling is False


def test_a_turn_asks_for_what_it_was_told_and_waits_as_long() -> None:
    bus = Script()
    runner(bus, limit=7).step(2.5)
    runner(bus).step()
    assert bus.asked == [(7, 2.5), (64, 0.0)]


def test_entries_of_a_partition_that_is_revoked_in_the_same_poll_are_not_fed() -> None:
    events = [Assigned(0, 0, b""), Assigned(1, 0, b""), entry(0), entry(0, 1, 50), Revoked(1)]
    bus, stage = Script(events), Passes()
    ours = runner(bus, stage)
    assert ours.step() == 1
    assert stage.fed == [0]
    assert list(ours.hosts) == list(ours.committed) == [0]
    assert bus.commits == [(0, 1)]


def test_each_partition_is_committed_once_a_turn_and_only_where_something_moved() -> None:
    first = [Assigned(0, 0, b""), Assigned(1, 0, b""), entry(0), entry(1), entry(0, 1)]
    bus = Script(first, [entry(1, 1)])
    ours = runner(bus)
    ours.step()
    assert sorted(bus.commits) == [(0, 2), (1, 1)]
    ours.step()
    assert bus.commits[2:] == [(1, 2)]
    assert bus.flushes == 2


def test_what_stands_committed_already_is_not_committed_again() -> None:
    bus = Script([Assigned(0, 0, b""), entry(0)])
    ours = runner(bus)
    ours.step()
    ((_, note),) = ours.committed.values()
    again = Script([Assigned(0, 0, note), entry(0)])  # it is read again, and answered already
    runner(again).step()
    assert again.published == []
    assert again.commits == [(0, 1)]
    third = Script([Assigned(0, 1, note)], [])
    runner(third).step()
    assert third.commits == []


# -- sizes


def sized(size: int) -> Entry:
    """A report whose encoding has so many bytes."""
    empty = len(codec.encode(make.report(1, "")))
    text = "x" * (size - empty)
    text = text[: len(text) - (len(codec.encode(make.report(1, text))) - size)]
    value = codec.encode(make.report(1, text))
    assert len(value) == size
    return Entry(0, 0, "office/reports", value)


def test_a_record_of_just_the_most_bytes_is_read_and_one_more_is_not() -> None:
    assert decoded(sized(900), "any.v1", 900)
    with pytest.raises(DecodeError, match="901 bytes, and a record has 900 at most"):
        decoded(sized(901), "any.v1", 900)


def test_without_a_limit_a_record_may_have_64_mib() -> None:
    assert MAX_RECORD_BYTES == 64 * 2**20


def test_an_answer_of_just_the_most_bytes_is_published_and_one_more_is_a_dead_letter() -> None:
    for size, topic in ((900, OUT), (901, topics.DEAD)):
        bus = Script([Assigned(0, 0, b""), sized(size)])
        ours = runner(bus, max_bytes=901)
        ours.stage.look = lambda ours=ours: setattr(ours, "max_bytes", 900)  # type: ignore[attr-defined]
        ours.step()
        assert [where for where, *_ in bus.published] == [topic]


def test_what_a_bus_found_wrong_goes_to_dead_with_that_reason() -> None:
    bad = Entry(0, 0, "office/room", entry(0).value, fault="schema 9 is not known")
    bus = Script([Assigned(0, 0, b""), bad])
    runner(bus).step()
    ((topic, key, value),) = bus.published
    dead = codec.decode(value)
    assert isinstance(dead, DeadLetter)
    assert (topic, key) == (topics.DEAD, topics.key_of(topics.DEAD, dead))
    assert (dead.site, dead.source, dead.reason) == ("office", "room", "schema 9 is not known")


def test_a_letter_keeps_what_has_just_the_length_and_cuts_what_has_more() -> None:
    for more in (0, 1):
        made = dead_letter(
            site="s" * (MAX_NAME + more),
            source="r" * (MAX_NAME + more),
            topic="any.v1",
            entry=Entry(0, 0, "", bytes(MAX_DEAD_BYTES + more)),
            reason="w" * (MAX_REASON + more),
        )
        assert (made.site, made.source) == ("s" * MAX_NAME, "r" * MAX_NAME)
        cut = f" [the first {MAX_DEAD_BYTES} of {MAX_DEAD_BYTES + 1} bytes]" if more else ""
        assert made.reason == "w" * MAX_REASON + cut
        assert len(made.value) == MAX_DEAD_BYTES


@pytest.mark.parametrize("topic", [topics.LATE, topics.DEAD])
def test_what_holds_a_record_may_be_larger_than_one(topic: str) -> None:
    assert most_bytes(topic, 2**20) == 2**20 + 2**16
    assert most_bytes(topic, 1000) == MAX_DEAD_BYTES + 2**16
    assert most_bytes(IN, 1000) == 1000
