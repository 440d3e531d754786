"""Delivery at its edges: the least outage, several partitions, one refused alert."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from pipeline import codec
from pipeline.config.schema import Webhook as Settings
from pipeline.errors import Rejected, Retry
from pipeline.ports import Assigned, Entry, Revoked
from pipeline.types import SEVERITIES, Alert, DeadLetter
from tests.make import alert
from workers.delivery.breaker import MAX_BREAKER_DELAY, OUTAGE_FAILURES
from workers.delivery.cloudevent import event_id
from workers.delivery.delivery import (
    ALERTS_A_STEP,
    Delivery,
    DeliveryEnvironment,
    Filter,
    Subscriber,
)
from workers.delivery.outbox import (
    MAX_PENDING,
    RETRY_DELAYS,
    CircuitBreaker,
    fingerprint,
    pack,
    unpack,
)
from workers.delivery.receiver import Receiver, Reply
from workers.delivery.webhook import Webhook

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
        self.waits: list[float] = []
        self.limits: list[int] = []
        self.commits: dict[int, tuple[int, bytes]] = {}
        self.lost = 0

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        self.waits.append(wait)
        self.limits.append(limit)
        return self.polls.pop(0) if self.polls else []

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        self.commits[partition] = (offset, note)

    def behind(self, partition: int) -> int:
        return sum(map(len, self.polls))

    def close(self) -> None:
        """Nothing is open."""


class Bench:
    """A delivery by a script, with a clock that a test moves."""

    def __init__(self, sink: object, *polls: Sequence[Assigned | Entry | Revoked]) -> None:
        self.now = START
        self.letters: list[DeadLetter] = []
        self.reader = Script(*polls)
        who = Subscriber(name="siem", sink=sink, address=ADDRESS)  # type: ignore[arg-type]
        outside = DeliveryEnvironment(clock=lambda: self.now, random=lambda: 0.5)
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
    note = pack(0, 2, CircuitBreaker(failures, START), {0: (1, START), 1: (1, later)})
    place = Place()
    return Bench(place, [Assigned(0, 0, note), *entries(2)]), place


def test_from_the_least_outage_on_what_waits_is_sent_at_once() -> None:
    bench, place = restored(3)
    bench.still()
    assert place.taken == ["00_0", "01_0"]


def test_a_success_after_fewer_failures_is_no_end_of_an_outage() -> None:
    bench, place = restored(2)
    bench.still()
    assert place.taken == ["00_0"]
    assert bench.delivery.pending == 1


# -- several partitions


def two_partitions(
    order: Iterable[int], doors: Sequence[CircuitBreaker], place: Place | None = None
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
    bench = two_partitions(
        order, [CircuitBreaker(2, START + 300), CircuitBreaker(7, START + 10)], place
    )
    bench.still()
    state = bench.delivery.state
    assert (state.attempts, state.reason) == (7, "the reason was not noted")
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
    bench = two_partitions(
        order, [CircuitBreaker(0, 0.0, fingerprint(ADDRESS)), CircuitBreaker(3, START + 10)]
    )
    bench.still()
    assert bench.delivery.state.state == "disabled"
    assert len(bench.letters) == 2


@ORDERS
def test_the_most_closed_door_is_in_every_partitions_note(order: tuple[int, int]) -> None:
    bench = two_partitions(order, [CircuitBreaker(2, START + 300), CircuitBreaker(7, START + 10)])
    bench.delivery.step()
    doors = {unpack(safe, note)[1] for safe, note in bench.reader.commits.values()}
    assert len(bench.reader.commits) == 2
    assert doors == {CircuitBreaker(7, START + 300)}


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
    assert not bench.delivery.state.reason


def test_the_schedule_counts_where_it_is_longer_than_retry_after() -> None:
    place = Place(down("422", after=0.1, alone=True))
    bench = Bench(place, [Assigned(0, 0, b""), *entries(1)])
    bench.still()
    bench.now += RETRY_DELAYS[0] - 0.01
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


# -- how a subscriber is


def test_health_has_the_last_reason_until_the_receiver_takes_something() -> None:
    place = Place(down("503 from the receiver"))
    bench = Bench(place, [Assigned(0, 0, b""), *entries(1)])
    bench.still()
    state = bench.delivery.state
    assert (state.reason, state.attempts, state.waiting) == ("503 from the receiver", 1, 1)
    place.answer = down("no answer")
    bench.now += 1
    bench.still()
    assert bench.delivery.state.reason == "no answer"
    place.answer = lambda one: None
    bench.now += 10
    bench.still()
    state = bench.delivery.state
    assert (state.reason, state.attempts, state.waiting) == ("", 0, 0)


def test_a_receiver_that_is_gone_says_so_in_its_health() -> None:
    def gone(one: Alert) -> None:
        raise Rejected("410 Gone", disable=True)  # noqa: EM101

    bench = Bench(Place(gone), [Assigned(0, 0, b""), *entries(2)])
    bench.still()
    state = bench.delivery.state
    assert (state.reason, state.attempts, state.state) == ("410 Gone", 1, "disabled")


def test_what_a_restart_has_not_read_again_yet_is_pending() -> None:
    note = pack(0, 3, CircuitBreaker(), {0: (1, START), 2: (1, START)})
    bench = Bench(Place(), [Assigned(0, 0, note)])
    bench.delivery.step()
    assert bench.delivery.pending == 2
    assert bench.delivery.places == {0: 0}


def test_places_and_what_is_reached_are_of_all_partitions() -> None:
    polled = [Assigned(0, 5, b""), Assigned(3, 7, b"")]
    bench = Bench(Place(), polled)
    bench.delivery.step()
    assert bench.delivery.places == {0: 5, 3: 7}
    assert bench.delivery.reached == 12


def test_what_retention_deleted_unread_is_the_readers_word() -> None:
    bench = Bench(Place())
    assert bench.delivery.lost == 0
    bench.reader.lost = 7
    assert bench.delivery.lost == 7


def test_it_is_the_buss_turn_while_a_letter_or_a_commit_is_written_and_not_while_sending() -> None:
    turns: dict[str, list[bool]] = {"send": [], "dead": [], "commit": []}

    def refused(one: Alert) -> None:
        turns["send"].append(bench.delivery.settling)
        raise Rejected("no")  # noqa: EM101

    bench = Bench(Place(refused), [Assigned(0, 0, b""), *entries(1)])
    commit = bench.reader.commit

    def buried(letter: DeadLetter) -> None:
        turns["dead"].append(bench.delivery.settling)

    bench.delivery._dead = buried

    def committed(partition: int, offset: int, note: bytes) -> None:
        turns["commit"].append(bench.delivery.settling)
        commit(partition, offset, note)

    bench.reader.commit = committed  # type: ignore[method-assign]
    bench.still()
    assert turns == {"send": [False], "dead": [True], "commit": [True]}
    assert not bench.delivery.settling


# -- a turn


def test_a_turn_waits_for_news_no_longer_than_until_the_next_attempt() -> None:
    bench = Bench(Place(down(alone=True)), [Assigned(0, 0, b"")], entries(1))
    bench.delivery.step(9.0)
    bench.delivery.step(9.0)
    bench.delivery.step(9.0)
    bench.delivery.step(0.1)
    assert bench.reader.waits == [9.0, 9.0, RETRY_DELAYS[0], 0.1]
    bench.now += 10
    bench.delivery.step(9.0)
    assert bench.reader.waits[-1] == 0.0


def test_a_turn_waits_for_the_first_of_several_alerts_and_by_itself_for_nothing() -> None:
    note = pack(0, 2, CircuitBreaker(), {0: (1, START + 30), 1: (1, START + 20)})
    bench = Bench(Place(), [Assigned(0, 0, note), *entries(2)])
    bench.delivery.step()
    bench.delivery.step(60.0)
    assert bench.reader.waits == [0.0, 20.0]


def test_a_turn_waits_for_a_door_that_opens_later_than_an_alert_is_due() -> None:
    note = pack(0, 1, CircuitBreaker(2, START + 20), {0: (1, START + 5)})
    bench = Bench(Place(), [Assigned(0, 0, note), *entries(1)])
    bench.delivery.step(60.0)
    bench.delivery.step(60.0)
    assert bench.reader.waits == [60.0, 20.0]


def test_a_turn_begins_no_attempt_when_a_second_has_passed() -> None:
    def slow(one: Alert) -> None:
        bench.now += 0.5

    place = Place(slow)
    bench = Bench(place, [Assigned(0, 0, b""), *entries(9)])
    bench.delivery.step()
    assert place.taken == ["00_0", "01_0"]


def test_a_turn_makes_one_attempt_at_least_and_a_batch_at_most() -> None:
    def slow(one: Alert) -> None:
        bench.now += 100

    place = Place(slow)
    bench = Bench(place, [Assigned(0, 0, b""), *entries(ALERTS_A_STEP + 8)])
    bench.delivery.step()
    assert place.taken == ["00_0"]
    place.answer = lambda one: None
    bench.delivery.step()
    assert len(place.taken) == 1 + ALERTS_A_STEP


def test_what_was_tried_least_goes_first_then_what_is_oldest() -> None:
    note = pack(0, 3, CircuitBreaker(), {0: (3, START), 1: (1, START), 2: (1, START)})
    polled = [Assigned(0, 0, note), *entries(3), Assigned(1, 0, b""), *entries(2, 1)]
    place = Place()
    bench = Bench(place, polled)
    bench.still()
    assert place.taken == ["10_0", "11_0", "01_0", "02_0", "00_0"]


def test_a_partition_that_is_revoked_takes_its_alerts_with_it() -> None:
    place = Place()
    polled = [Assigned(0, 0, b""), Assigned(1, 0, b""), *entries(1), *entries(1, 1), Revoked(1)]
    bench = Bench(place, polled)
    bench.still()
    assert place.taken == ["00_0"]
    assert bench.delivery.places == {0: 1}


def test_only_what_changed_is_committed_and_what_the_sink_took_is_made_durable_first() -> None:
    bench = Bench(Place(), [Assigned(0, 0, b""), Assigned(1, 0, b""), *entries(1)])
    deeds: list[str] = []
    sent = bench.delivery._subscriber
    durable = Subscriber(name="siem", sink=sent.sink, flush=lambda: deeds.append("flush"))
    bench.delivery._subscriber = durable
    commit = bench.reader.commit

    def committed(partition: int, offset: int, note: bytes) -> None:
        deeds.append(f"commit {partition}")
        commit(partition, offset, note)

    bench.reader.commit = committed  # type: ignore[method-assign]
    bench.still()
    assert deeds == ["flush", "commit 0", "commit 1"]  # the first note of each partition
    bench.reader.polls = [[entries(2)[1]]]
    bench.still()
    assert deeds[3:] == ["flush", "commit 0"]


def test_what_is_only_read_costs_no_commit_and_is_read_again_after_a_restart() -> None:
    place = Place(down())
    bench = Bench(place, [Assigned(0, 0, b""), *entries(1)])
    bench.still()
    before = dict(bench.reader.commits)
    bench.reader.polls = [[each] for each in entries(4)[1:]]
    bench.still()
    assert bench.delivery.pending == 4
    assert bench.reader.commits == before
    offset, note = before[0]
    place.answer = lambda one: None
    again = Bench(place, [Assigned(0, offset, note), *entries(4)])
    again.now += 60
    again.still()
    assert sorted(place.taken) == ["00_0", "01_0", "02_0", "03_0"]


def test_an_alert_that_was_sent_beside_one_that_waits_is_committed() -> None:
    def answer(one: Alert) -> None:
        if event_id(one) == "00_0":
            down("422", alone=True)(one)

    place = Place(answer)
    bench = Bench(place, [Assigned(0, 0, b""), *entries(1)])
    bench.still()
    bench.reader.polls = [[entries(2)[1]]]
    bench.still()
    offset, note = bench.reader.commits[0]
    reached, _, items = unpack(offset, note)
    assert (offset, reached, list(items)) == (0, 2, [0])


@pytest.mark.parametrize(
    ("waiting", "asked"), [(0, ALERTS_A_STEP), (MAX_PENDING - 2, 2), (MAX_PENDING - 1, 1)]
)
def test_a_turn_reads_a_batch_at_most_and_no_more_than_may_wait(waiting: int, asked: int) -> None:
    note = pack(0, waiting, CircuitBreaker(), {n: (1, START + 50) for n in range(waiting)})
    bench = Bench(Place(), [Assigned(0, 0, note), *entries(waiting)])
    bench.delivery.step()
    bench.delivery.step()
    assert bench.reader.limits == [ALERTS_A_STEP, asked]


def test_a_turn_reads_nothing_when_as_many_wait_as_may() -> None:
    note = pack(0, MAX_PENDING, CircuitBreaker(), {n: (1, START + 50) for n in range(MAX_PENDING)})
    bench = Bench(Place(), [Assigned(0, 0, note), *entries(MAX_PENDING)])
    bench.delivery.step()
    bench.delivery.step()
    assert bench.reader.limits == [ALERTS_A_STEP]


def test_a_door_stays_closed_for_thirty_seconds_at_most() -> None:
    place = Place(down())
    note = pack(0, 1, CircuitBreaker(9, START), {0: (9, START)})
    bench = Bench(place, [Assigned(0, 0, note), *entries(1)])
    bench.still()
    place.answer = lambda one: None
    bench.reader.polls = [[Entry(0, 1, "office", codec.encode(alert(id="ff")))]]
    bench.now += 29.99
    bench.still()
    assert place.taken == []
    bench.now += 0.01
    bench.still()
    assert "ff_0" in place.taken


@pytest.mark.parametrize(("attempts", "dead"), [(5, 0), (6, 1)])
def test_a_refused_alert_has_six_attempts_beyond_the_first(attempts: int, dead: int) -> None:
    note = pack(0, 1, CircuitBreaker(), {0: (attempts, START)})
    bench = Bench(Place(down("422", alone=True)), [Assigned(0, 0, note), *entries(1)])
    bench.still()
    assert len(bench.letters) == dead


def test_an_alert_that_was_refused_by_itself_is_not_sent_at_once_after_an_outage() -> None:
    def trouble(one: Alert) -> None:
        if event_id(one) == "00_0":
            down("422", after=900.0, alone=True)(one)
        down("503")(one)

    place = Place(trouble)
    bench = Bench(place, [Assigned(0, 0, b""), *entries(2)])
    while bench.delivery.state.attempts < OUTAGE_FAILURES:
        bench.still()
        bench.now += 10
    place.answer = lambda one: None
    bench.now += MAX_BREAKER_DELAY
    bench.still()
    assert place.taken == ["01_0"]


# -- who wants what


@pytest.mark.parametrize(
    ("least", "wanted"), [("low", 4), ("medium", 3), ("high", 2), ("critical", 1)]
)
def test_a_filter_takes_its_severity_and_graver_ones(least: str, wanted: int) -> None:
    alerts = [alert(severity=each) for each in SEVERITIES]
    assert sum(Filter(min_severity=least).wants(one) for one in alerts) == wanted


def test_a_subscriber_wants_all_sites_unless_it_names_some() -> None:
    assert Filter().wants(alert(site="dock"))
    assert Filter(sites=("dock", "yard")).wants(alert(site="yard"))
    assert not Filter(sites=("dock", "yard")).wants(alert(site="roof"))
