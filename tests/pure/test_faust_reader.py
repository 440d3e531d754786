"""What a Faust app feeds comes out in order, bounded, and is acked by prefixes; no broker here."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from pipeline.ports import Assigned, Entry, Revoked
from workers.bus.faust_reader import FaustEvent, FaustReader


class Acks:
    """The app of a reader: it takes note of what is asked of it."""

    def __init__(self) -> None:
        self.acked: list[FaustEvent] = []
        self.flows = 0
        self.stopped = False

    def ack(self, events: Sequence[FaustEvent]) -> None:
        self.acked += events

    def flow(self) -> None:
        self.flows += 1

    def behind(self, partition: int, offset: int) -> int:
        return 10 - offset

    def stop(self) -> None:
        self.stopped = True


class Named:
    def __init__(self, partition: int, offset: int) -> None:
        self.place = partition, offset

    def ack(self) -> None:
        pytest.fail("acks are the app's, on its loop")


@pytest.fixture
def app() -> Acks:
    return Acks()


@pytest.fixture
def reader(app: Acks) -> FaustReader:
    return FaustReader(app, bound=100)


def feed(reader: FaustReader, partition: int, *offsets: int, size: int = 10) -> None:
    for offset in offsets:
        entry = Entry(partition, offset, "office/desk", b"x" * size)
        reader.put(entry, Named(partition, offset))


def places(events: Sequence[object]) -> list[tuple[int, int]]:
    return [(event.partition, event.offset) for event in events if isinstance(event, Entry)]


def acked(app: Acks) -> list[tuple[int, int]]:
    return [event.place for event in app.acked if isinstance(event, Named)]


def test_a_partition_is_assigned_before_its_first_entry(reader: FaustReader) -> None:
    reader.assigned(1, 5)
    feed(reader, 1, 5, 6)
    first, *entries = reader.poll(10)
    assert first == Assigned(1, 5, b"")
    assert places(entries) == [(1, 5), (1, 6)]


def test_a_poll_goes_over_all_partitions_and_stops_at_its_limit(reader: FaustReader) -> None:
    for partition in (0, 1):
        reader.assigned(partition, 0)
    for offset in range(3):
        feed(reader, 0, offset)
        feed(reader, 1, offset)
    assert places(reader.poll(4)) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert places(reader.poll(4)) == [(0, 2), (1, 2)]


def test_a_commit_acks_what_lies_below_it_and_nothing_else(app: Acks, reader: FaustReader) -> None:
    reader.assigned(0, 0)
    reader.assigned(1, 0)
    feed(reader, 0, 0, 1, 2)
    feed(reader, 1, 0)
    reader.poll(10)
    reader.commit(0, 2, b"a note")
    assert acked(app) == [(0, 0), (0, 1)]
    reader.commit(0, 2, b"another")
    assert acked(app) == [(0, 0), (0, 1)]
    reader.commit(0, 3, b"")
    assert acked(app) == [(0, 0), (0, 1), (0, 2)]


def test_what_was_not_given_is_not_acked(app: Acks, reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0, 1)
    reader.poll(1)
    reader.commit(0, 2, b"")
    assert acked(app) == [(0, 0)]


def test_a_full_reader_is_held_until_half_of_it_is_gone(app: Acks, reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, *range(10))
    assert not reader.held
    feed(reader, 0, 10)
    assert (reader.held, app.flows) == (True, 1)
    reader.poll(5)
    assert reader.held
    reader.poll(1)
    assert (reader.held, app.flows) == (False, 2)


def test_the_bound_is_over_all_partitions(reader: FaustReader) -> None:
    for partition in range(20):
        reader.assigned(partition, 0)
        feed(reader, partition, 0)
    assert reader.held


def test_what_waits_of_a_revoked_partition_is_dropped(app: Acks, reader: FaustReader) -> None:
    for partition in (0, 1):
        reader.assigned(partition, 0)
        feed(reader, partition, 0, 1, size=60)
    reader.poll(1)
    assert reader.held
    reader.revoked({0})
    events = reader.poll(10)
    assert Revoked(0) in events
    assert places(events) == [(1, 0), (1, 1)]
    assert not reader.held
    feed(reader, 0, 2)  # what the app still had of it
    assert not places(reader.poll(10))
    reader.commit(0, 1, b"")  # of the step that was at work
    assert not acked(app)


def test_a_partition_that_comes_and_goes_between_two_polls_is_not_told(reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0)
    reader.revoked({0})
    assert not reader.poll(10)


def test_a_partition_that_comes_back_begins_where_it_was_committed(reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0, 1, 2)
    reader.poll(10)
    reader.revoked({0})
    reader.assigned(0, 1)
    feed(reader, 0, 1, 2)
    first, second, *entries = reader.poll(10)
    assert (first, second) == (Revoked(0), Assigned(0, 1, b""))
    assert places(entries) == [(0, 1), (0, 2)]


def test_a_record_that_comes_twice_is_given_once(reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0, 1, 1, 0, 2)
    assert places(reader.poll(10)) == [(0, 0), (0, 1), (0, 2)]


def test_records_that_retention_took_are_counted(reader: FaustReader) -> None:
    reader.assigned(0, 3)
    feed(reader, 0, 10, 11)
    assert places(reader.poll(10)) == [(0, 10), (0, 11)]
    assert reader.lost == 7


def test_a_rebalance_waits_for_the_step_at_work_and_gives_nothing_more(reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0, 1)
    reader.poll(1)
    assert not reader.still()
    assert not reader.poll(10)
    assert reader.still()
    reader.revoked({0})
    assert reader.poll(10) == [Revoked(0)]


def test_a_poll_is_woken_by_what_comes(reader: FaustReader) -> None:
    reader.assigned(0, 0)
    reader.poll(10)
    feeder = threading.Thread(target=feed, args=(reader, 0, 0))
    feeder.start()
    assert places(reader.poll(10, 30.0)) == [(0, 0)]
    feeder.join()


def test_what_the_app_died_of_is_raised_whatever_waits(reader: FaustReader) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0)
    reader.failed(ZeroDivisionError("first"))
    reader.failed(ValueError("second"))
    with pytest.raises(ZeroDivisionError, match="first"):
        reader.poll(10)


def test_a_closed_reader_has_stopped_its_app_and_commits_nothing(
    app: Acks, reader: FaustReader
) -> None:
    reader.assigned(0, 0)
    feed(reader, 0, 0)
    reader.poll(10)
    reader.close()
    reader.close()
    assert app.stopped
    with pytest.raises(RuntimeError, match="closed"):
        reader.commit(0, 1, b"")
    with pytest.raises(RuntimeError, match="closed"):
        reader.poll(1)
    assert not app.acked


def test_behind_counts_from_what_was_given(reader: FaustReader) -> None:
    assert reader.behind(0) == 1, "nobody knows yet"
    reader.assigned(0, 4)
    feed(reader, 0, 4, 5)
    reader.poll(1)
    assert reader.behind(0) == 5
