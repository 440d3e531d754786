"""Delivery at its edges: the least outage, several partitions, one refused alert."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from pipeline import codec
from pipeline.config import Webhook as Settings
from pipeline.errors import Retry
from pipeline.ports import Assigned, Entry, Revoked
from pipeline.types import Alert, DeadLetter
from tests.make import alert
from workers.cloudevent import event_id
from workers.delivery import OUTAGE, Delivery, Outside, Subscriber, fingerprint
from workers.outbox import SCHEDULE, Door, pack, unpack
from workers.receiver import Receiver, Reply
from workers.webhook import Webhook

START = 1_000_000.0  # unix s
ADDRESS = "https://a/"
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


class Place:
    """A receiver as a Sink: `answer(alert)` raises what goes wrong."""

    def __init__(self, answer: Callable[[Alert], object] = lambda one: None) -> None:
        self.answer = answer
        self.tried: list[str] = []
        self.taken: list[str] = []

    def send(self, one: Alert, trace: str = "") -> None:
        self.tried.append(event_id(one))
        self.answer(one)
        self.taken.append(event_id(one))


class Script:
    """A reader that gives what it is told, a poll at a time, and keeps what is committed."""

    def __init__(self, *polls: Sequence[Assigned | Entry | Revoked]) -> None:
        self.polls = list(polls)
        self.commits: dict[int, tuple[int, bytes]] = {}

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        return self.polls.pop(0) if self.polls else []

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        self.commits[partition] = (offset, note)

    def close(self) -> None:
        """Nothing is open."""


class Bench:
    """A delivery by a script, with a clock that a test moves."""

    def __init__(self, sink: object, *polls: Sequence[Assigned | Entry | Revoked]) -> None:
        self.now = START
        self.letters: list[DeadLetter] = []
        self.reader = Script(*polls)
        who = Subscriber(name="siem", sink=sink, address=ADDRESS)  # type: ignore[arg-type]
        outside = Outside(clock=lambda: self.now, random=lambda: 0.5)
        self.delivery = Delivery(who, self.reader, self.letters.append, outside)

    def still(self) -> None:
        """Steps until nothing moves."""
        while self.delivery.step():
            pass


def entries(count: int, partition: int = 0) -> list[Entry]:
    made = [alert(id=f"{partition}{n}") for n in range(count)]
    return [Entry(partition, n, "office", codec.encode(one)) for n, one in enumerate(made)]


def down(reason: str = "down", **how: object) -> Callable[[Alert], object]:
    def answer(one: Alert) -> None:
        raise Retry(reason, **how)  # type: ignore[arg-type]

    return answer


# -- an outage


def restored(failures: int) -> tuple[Bench, Place]:
    """Two alerts wait, the second one for long, and the receiver has failed so often."""
    later = START + 5000
    note = pack(0, 2, Door(failures, START), {0: (1, START), 1: (1, later)})
    place = Place()
    return Bench(place, [Assigned(0, 0, note), *entries(2)]), place


def test_from_the_least_outage_on_what_waits_is_sent_at_once() -> None:
    bench, place = restored(OUTAGE)
    bench.still()
    assert place.taken == ["00_0", "01_0"]


def test_a_success_after_fewer_failures_is_no_end_of_an_outage() -> None:
    bench, place = restored(OUTAGE - 1)
    bench.still()
    assert place.taken == ["00_0"]
    assert bench.delivery.pending == 1


# -- several partitions


def two_partitions(
    order: Iterable[int], doors: Sequence[Door], place: Place | None = None
) -> Bench:
    """Both partitions come in one poll, in this order, each with the door of its own note."""
    polled: list[Assigned | Entry | Revoked] = []
    for partition in order:
        note = pack(0, 0, doors[partition], {})
        polled += [Assigned(partition, 0, note), *entries(1, partition)]
    return Bench(place or Place(), polled)


ORDERS = pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["longest-first", "longest-last"])


@ORDERS
def test_of_several_partitions_the_most_closed_door_counts(order: tuple[int, int]) -> None:
    place = Place()
    bench = two_partitions(order, [Door(2, START + 300), Door(7, START + 10)], place)
    bench.still()
    health = bench.delivery.health
    assert (health.failures, health.failing) == (7, "since before the restart")
    bench.now = START + 299
    bench.still()
    assert place.tried == []
    bench.now = START + 300
    bench.still()
    assert sorted(place.taken) == ["00_0", "10_0"]


@ORDERS
def test_an_address_that_is_gone_by_one_partitions_note_is_gone_for_all(
    order: tuple[int, int],
) -> None:
    bench = two_partitions(order, [Door(0, 0.0, fingerprint(ADDRESS)), Door(3, START + 10)])
    bench.still()
    assert bench.delivery.disabled
    assert len(bench.letters) == 2


@ORDERS
def test_the_most_closed_door_is_in_every_partitions_note(order: tuple[int, int]) -> None:
    bench = two_partitions(order, [Door(2, START + 300), Door(7, START + 10)])
    bench.delivery.step()
    doors = {unpack(safe, note)[1] for safe, note in bench.reader.commits.values()}
    assert len(bench.reader.commits) == 2
    assert doors == {Door(7, START + 300)}


# -- one refused alert


def test_retry_after_of_a_refusal_that_concerns_one_alert_is_waited_for() -> None:
    place = Place(down("422", after=900.0, alone=True))
    bench = Bench(place, [Assigned(0, 0, b""), *entries(1)])
    bench.still()
    bench.now += 899
    bench.still()
    assert place.tried == ["00_0"]
    bench.now += 1
    bench.still()
    assert place.tried == ["00_0"] * 2


def test_a_refusal_of_one_alert_closes_no_door_however_long_it_asks_to_wait() -> None:
    def answer(one: Alert) -> None:
        if event_id(one) == "00_0":
            down("422", after=900.0, alone=True)(one)

    place = Place(answer)
    bench = Bench(place, [Assigned(0, 0, b""), *entries(3)])
    bench.still()
    assert place.taken == ["01_0", "02_0"]
    assert not bench.delivery.health.failing


def test_the_schedule_counts_where_it_is_longer_than_retry_after() -> None:
    place = Place(down("422", after=0.1, alone=True))
    bench = Bench(place, [Assigned(0, 0, b""), *entries(1)])
    bench.still()
    bench.now += SCHEDULE[0] - 0.01
    bench.still()
    assert len(place.tried) == 1
    bench.now += 0.01
    bench.still()
    assert len(place.tried) == 2


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_a_webhook_hears_retry_after_of_a_refusal_of_one_alert(status: int) -> None:
    reply = Reply(status, {"Retry-After": "900"})
    with Receiver(SECRET, answer=lambda received: reply) as receiver:
        hook = Webhook(Settings(url=receiver.url, secret=SECRET))
        with pytest.raises(Retry) as refused:
            hook.send(alert())
    assert (refused.value.after, refused.value.alone) == (900, True)
