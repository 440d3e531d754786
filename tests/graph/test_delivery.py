"""Delivery: at least once, in spite of dead receivers, poison, kills and wrong clocks."""

import itertools
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import codec, topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.errors import OutsideError, Rejected, Retry
from pipeline.types import Alert, DeadLetter
from tests.make import alert, progress
from workers.delivery.breaker import MAX_BREAKER_DELAY
from workers.delivery.cloudevent import event_id
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Filter,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.outbox import MAX_PENDING, RETRY_DELAYS, CircuitBreaker, Outbox, pack, unpack
from workers.delivery.webhook import Webhook

KAFKA_METADATA = 4096  # bytes


class Kill(BaseException):
    """The process ends here, without a word."""


class Clock:
    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


class Place:
    """A receiver as a Sink: `answer(alert)` raises what goes wrong; what is taken is kept."""

    def __init__(self, answer=lambda alert: None):
        self.answer = answer
        self.tried = []
        self.taken = []

    def send(self, alert, trace=""):
        self.tried.append(event_id(alert))
        self.answer(alert)
        self.taken.append(event_id(alert))


ALL = Filter()


class World:
    """A bus, a clock, and one subscriber after the other on it."""

    def __init__(self, bus=None, chance=0.5):
        self.bus = bus or MemoryBus(keep=True)
        self.clock = Clock()
        self.counts = Counter()
        self.chance = chance

    def publish(self, *records):
        for record in records:
            self.bus.publish(topics.ALERTS, record.site, codec.encode(record))
        self.bus.flush()

    def alerts(self, count, **given):
        made = [alert(id=f"{n:016x}", **given) for n in range(count)]
        self.publish(*made)
        return [event_id(one) for one in made]

    def delivery(self, place, *, name="siem", wants=ALL, address="https://a/", dead=None, **more):
        who = Subscriber(name=name, sink=place, wants=wants, address=address, **more)
        outside = DeliveryEnvironment(
            clock=self.clock,
            random=lambda: self.chance,
            count=lambda site, source, what: self.counts.update([what]),
        )
        reader = self.bus.reader(topics.ALERTS, who.group)
        return Delivery(who, reader, dead or dead_letter_publisher(self.bus), outside)

    def dead(self):
        return [codec.decode(value) for value in self.bus.values(topics.DEAD)]


def until_still(delivery):
    while delivery.step():
        pass


def sent_ids(letters):
    return [event_id(codec.decode(letter.value)) for letter in letters]


def dies(reason="down", **how):
    def answer(alert):
        raise Retry(reason, **how)

    return answer


def gone(alert):
    raise Rejected("410 Gone", disable=True)  # noqa: EM101


def only(ident, error):
    def answer(alert):
        if event_id(alert) == ident:
            raise error

    return answer


# What is delivered


def test_alerts_arrive_once_in_order():
    world, place = World(), Place()
    ids = world.alerts(100)
    delivery = world.delivery(place)
    until_still(delivery)
    assert place.taken == ids
    assert delivery.idle
    assert world.counts == {"delivered": 100}


def test_a_filter_passes_sites_and_severities():
    world, place = World(), Place()
    world.publish(
        alert(id="01", severity="low"),
        alert(id="02", severity="critical"),
        alert(id="03", severity="high"),
        alert(site="lobby", id="04", severity="critical"),
    )
    until_still(world.delivery(place, wants=Filter(sites=("office",), min_severity="high")))
    assert place.taken == ["02_0", "03_0"]
    assert world.counts == {"filtered": 2, "delivered": 2}


def test_two_subscribers_get_all_of_their_own():
    world, well, ill = World(), Place(), Place(dies())
    ids = world.alerts(5)
    until_still(world.delivery(ill, name="ill"))
    until_still(world.delivery(well, name="well"))
    assert well.taken == ids
    assert ill.taken == []


def test_what_is_no_alert_and_bytes_that_are_nothing_are_buried():
    world, place = World(), Place()
    world.publish(progress(5.0, source="fusion"))
    world.bus.publish(topics.ALERTS, "office", b"\xc1 garbage")
    world.bus.flush()
    ids = world.alerts(1)
    delivery = world.delivery(place)
    until_still(delivery)
    assert place.taken == ids
    assert delivery.idle
    other, letter = world.dead()
    assert (other.offset, other.reason) == (0, "Progress, and alerts.v1 holds none of those")
    assert (letter.topic, letter.offset, letter.value) == (topics.ALERTS, 1, b"\xc1 garbage")


def test_an_alert_too_large_for_dead_is_cut_there():
    def refuses(alert):
        raise Rejected(alert.label)

    world, place = World(), Place(refuses)
    world.publish(alert(transcript=("x" * 300_000,)))
    until_still(world.delivery(place))
    (letter,) = world.dead()
    assert len(letter.value) == 1 << 18
    assert letter.reason.startswith("intrusion [the first 262144 of 300")


def test_idle_is_said_only_when_all_is_read_and_done():
    world, place = World(), Place(dies())
    delivery = world.delivery(place)
    assert not delivery.idle
    delivery.step()
    assert delivery.idle
    world.alerts(1)
    delivery.step()
    assert not delivery.idle
    place.answer = lambda alert: None
    world.clock.now += 10
    until_still(delivery)
    assert delivery.idle


# What fails


def test_a_refused_alert_does_not_hold_up_the_others():
    world = World()
    ids = world.alerts(50)
    place = Place(only(ids[10], Retry("422", alone=True)))
    delivery = world.delivery(place)
    until_still(delivery)
    assert place.taken == ids[:10] + ids[11:]
    assert delivery.pending == 1
    assert not delivery.state.reason


def test_an_alert_that_makes_the_receiver_fail_does_not_hold_up_the_others():
    """It answers 500 to one alert: that looks like a dead receiver, until another is tried."""
    world = World()
    ids = world.alerts(50)
    place = Place(only(ids[0], Retry("500")))
    delivery = world.delivery(place)
    until_still(delivery)
    assert place.taken == []
    world.clock.now += MAX_BREAKER_DELAY * 1.2
    until_still(delivery)
    assert place.taken == ids[1:]


def test_a_dead_receiver_is_not_hammered():
    world, place = World(), Place(dies())
    world.alerts(200)
    delivery = world.delivery(place)
    for _ in range(3600):
        until_still(delivery)
        world.clock.now += 1
    assert 100 <= len(place.tried) <= 125, "once in 30 s, after a few quick ones"


def test_after_an_outage_everything_goes_at_once():
    world, place = World(), Place(dies())
    ids = world.alerts(20)
    delivery = world.delivery(place)
    for _ in range(6 * 360):
        until_still(delivery)
        world.clock.now += 10
    waits = [item.next - world.clock.now for item in delivery._boxes[0].pending.values()]
    assert min(waits) > 10 * MAX_BREAKER_DELAY
    ids += world.alerts(1, site="lobby")
    place.answer = lambda alert: None
    world.clock.now += MAX_BREAKER_DELAY * 1.2
    until_still(delivery)
    assert sorted(place.taken) == sorted(ids)
    assert delivery.idle
    assert world.dead() == []


def test_one_alert_follows_the_schedule_and_then_dies():
    world, place = World(), Place(dies("503"))
    (ident,) = world.alerts(1)
    delivery = world.delivery(place)
    times = []
    while not world.dead():
        until_still(delivery)
        if len(place.tried) > len(times):
            times.append(world.clock.now)
        world.clock.now += 0.25 if len(times) < 4 else 5.0
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert len(waits) == len(RETRY_DELAYS)
    for wait, planned in zip(waits, RETRY_DELAYS, strict=True):
        assert planned <= wait <= planned + 5.25
    (letter,) = world.dead()
    assert sent_ids([letter]) == [ident]
    assert letter.reason == "given up after 13 attempts: 503"
    assert letter.source == "delivery/siem"
    assert delivery.idle


def test_what_is_refused_by_itself_dies_after_half_an_hour():
    world, place = World(), Place(dies("422", alone=True))
    (ident,) = world.alerts(1)
    began = world.clock.now
    delivery = world.delivery(place)
    while not world.dead():
        until_still(delivery)
        world.clock.now += 5
    assert 30 * 60 < world.clock.now - began < 40 * 60
    assert sent_ids(world.dead()) == [ident]


def test_waits_are_spread_by_a_fifth():
    for chance, least, most in ((0.0, 0.4, 0.41), (0.999, 0.59, 0.6)):
        world, place = World(chance=chance), Place(dies())
        world.alerts(1)
        delivery = world.delivery(place)
        delivery.step()
        assert len(place.tried) == 1
        world.clock.now += least - 0.01
        delivery.step()
        assert len(place.tried) == 1
        world.clock.now += most - least + 0.01
        delivery.step()
        assert len(place.tried) == 2


def test_retry_after_is_waited_for():
    world, place = World(), Place(dies("429", after=900.0))
    world.alerts(20)
    delivery = world.delivery(place)
    until_still(delivery)
    world.clock.now += 899
    until_still(delivery)
    assert len(place.tried) == 1
    world.clock.now += 2
    until_still(delivery)
    assert len(place.tried) == 2


def test_410_disables_for_good_and_loses_nothing():
    world = World()
    ids = world.alerts(30)
    place = Place(only(ids[3], Rejected("410 Gone", disable=True)))
    delivery = world.delivery(place)
    until_still(delivery)
    assert place.taken == ids[:3]
    assert sent_ids(world.dead()) == ids[3:]
    assert delivery.idle
    assert delivery.state.state == "disabled"
    delivery.close()
    more = world.delivery(Place())
    world.publish(alert(id="ff"))
    until_still(more)
    assert more.state.state == "disabled"
    assert sent_ids(world.dead())[-1] == "ff_0"
    more.close()
    elsewhere = Place()
    moved = world.delivery(elsewhere, address="https://b/")
    world.publish(alert(id="fe"))
    until_still(moved)
    assert elsewhere.taken == ["fe_0"]


def test_an_alert_rejected_for_good_dies_alone():
    world = World()
    ids = world.alerts(3)
    place = Place(only(ids[1], Rejected("not a finite number")))
    until_still(world.delivery(place))
    assert place.taken == [ids[0], ids[2]]
    assert sent_ids(world.dead()) == [ids[1]]


def test_a_bug_in_a_sink_is_a_failure_of_its_subscriber_and_logged_once(caplog):
    world = World()
    ids = world.alerts(2)
    place = Place(only(ids[0], ZeroDivisionError("bug")))
    delivery = world.delivery(place)
    for _ in range(3):
        until_still(delivery)
        world.clock.now += MAX_BREAKER_DELAY * 1.2
    assert place.taken == [ids[1]]
    assert delivery.pending == 1
    assert "ZeroDivisionError" in delivery.state.reason
    (line,) = [r for r in caplog.records if r.exc_info]
    assert line.getMessage() == "siem: unexpected ZeroDivisionError in its sink"
    place.answer = lambda alert: None
    world.clock.now += 3600
    until_still(delivery)
    assert sorted(place.taken) == ids
    assert delivery.idle


@pytest.mark.parametrize("error", [OutsideError("disk"), ZeroDivisionError("bug")])
def test_what_could_not_be_made_durable_is_sent_again(error):
    world, place = World(), Place()
    ids = world.alerts(3)
    errors = [error, error]

    def flush():
        if errors:
            raise errors.pop()

    delivery = world.delivery(place, flush=flush)
    until_still(delivery)
    assert delivery.pending == 3
    assert world.bus.committed(topics.ALERTS, delivery.group, 0).offset == 0
    for _ in range(4):
        world.clock.now += MAX_BREAKER_DELAY * 1.2
        until_still(delivery)
    assert delivery.idle
    assert not delivery.state.reason
    assert set(place.taken) == set(ids)
    assert len(place.taken) == 9


def test_an_outage_is_one_warning_when_it_begins_and_one_when_it_ends(caplog):
    world, place = World(), Place(dies())
    world.alerts(2)
    delivery = world.delivery(place)
    for _ in range(20):
        until_still(delivery)
        world.clock.now += MAX_BREAKER_DELAY * 1.2
    place.answer = lambda alert: None
    world.clock.now += 3600
    until_still(delivery)
    begins, ends = [r.getMessage() for r in caplog.records if r.name == "fusewatch.delivery"]
    assert begins.startswith("siem fails: ")
    assert "2 alerts wait" in begins
    assert ends.startswith("siem takes alerts again, after ")


def test_while_too_many_wait_the_rest_stays_on_disk():
    world, place = World(), Place(dies())
    world.alerts(2 * MAX_PENDING)
    delivery = world.delivery(place)
    for _ in range(100):
        until_still(delivery)
        world.clock.now += 1
    assert delivery.pending == MAX_PENDING
    assert delivery.state.waiting == 2 * MAX_PENDING
    assert not delivery.idle
    place.answer = lambda alert: None
    world.clock.now += MAX_BREAKER_DELAY * 1.2
    until_still(delivery)
    assert len(set(place.taken)) == 2 * MAX_PENDING


def test_a_full_outbox_waits_by_its_pause():
    world, place = World(), Place(dies())
    world.alerts(MAX_PENDING + 10)
    delivery = world.delivery(place)
    waited = []
    who = Subscriber(name="siem", sink=place)
    delivery.close()
    reader = world.bus.reader(topics.ALERTS, who.group)
    outside = DeliveryEnvironment(clock=world.clock, random=lambda: 0.5, pause=waited.append)
    delivery = Delivery(who, reader, dead_letter_publisher(world.bus), outside)
    while delivery.pending < MAX_PENDING:
        delivery.step()
    delivery.step(0.25)
    assert len(waited) == 1
    assert 0 < waited[0] <= 0.25


# Clocks that lie


def test_a_clock_set_back_by_years_does_not_hold_an_alert_for_years():
    world, place = World(), Place(dies())
    world.alerts(1)
    delivery = world.delivery(place)
    until_still(delivery)
    world.clock.now -= 10 * 365 * 86400
    place.answer = lambda alert: None
    until_still(delivery)
    assert delivery.idle


def test_a_clock_set_forward_by_years_does_not_bury_what_was_tried_twice():
    world, place = World(), Place(dies())
    world.clock.now = 100.0  # no battery: 1970
    world.alerts(1)
    delivery = world.delivery(place)
    until_still(delivery)
    world.clock.now = 1_800_000_000.0
    until_still(delivery)
    assert world.dead() == []
    assert delivery.pending == 1


# Restarts


def test_a_restart_sends_nothing_again_that_was_committed():
    world = World()
    ids = world.alerts(40)
    place = Place(only(ids[0], Retry("422", alone=True)))
    delivery = world.delivery(place)
    until_still(delivery)
    delivery.close()
    again = Place()
    world.clock.now += 10
    delivery = world.delivery(again)
    until_still(delivery)
    assert again.taken == [ids[0]]
    assert delivery.idle


def test_what_one_step_delivered_is_committed_when_it_returns():
    world, place = World(), Place()
    world.alerts(10)
    delivery = world.delivery(place)
    delivery.step()
    delivery.close()
    until_still(world.delivery(place))
    assert len(place.tried) == 10


def test_attempts_and_waits_survive_restarts():
    world, place = World(), Place(dies())
    world.alerts(1)
    for _ in range(len(RETRY_DELAYS)):
        delivery = world.delivery(place)
        until_still(delivery)
        delivery.close()
        tried = len(place.tried)
        delivery = world.delivery(place)
        until_still(delivery)
        assert len(place.tried) == tried, "a restart does not knock earlier"
        delivery.close()
        world.clock.now += 1.3 * 86400
    until_still(world.delivery(place))
    assert len(place.tried) == len(RETRY_DELAYS) + 1
    assert len(world.dead()) == 1


def test_what_retention_deleted_is_not_waited_for():
    world, place = World(), Place(dies())
    world.alerts(3)
    delivery = world.delivery(place)
    until_still(delivery)
    delivery.close()
    part = world.bus.partitions(topics.ALERTS)[0]
    part.trim(below=3, keep_bytes=0)
    place.answer = lambda alert: None
    world.publish(alert(id="ff"))
    world.clock.now += 60
    delivery = world.delivery(place)
    until_still(delivery)
    assert place.taken == ["ff_0"]
    assert delivery.idle


class Mortal:
    """A reader whose process is killed before or after a commit, when `dice` says so."""

    def __init__(self, reader, dice):
        self._reader = reader
        self._dice = dice

    @property
    def lost(self):
        return self._reader.lost

    def behind(self, partition):
        return self._reader.behind(partition)

    def poll(self, limit, wait=0.0):
        return self._reader.poll(limit, wait)

    def commit(self, partition, offset, note):
        assert len(note) < KAFKA_METADATA
        self._dice()
        self._reader.commit(partition, offset, note)
        self._dice()

    def close(self):
        self._reader.close()


def run_through_kills(world, count, seed):
    """10,000 alerts to a receiver in trouble, in a process that is killed all the time.

    Returns (ids, taken, kills): nothing but the bus and what the receiver has survives a kill.
    """
    chance = random.Random(seed)
    taken = Counter()
    kills = 0

    def dice():
        if chance.random() < 0.01:
            raise Kill

    def answer(alert):
        dice()
        trouble = chance.random()
        if trouble < 0.02:
            msg = "503"
            raise Retry(msg)
        if trouble < 0.04:
            msg = "422"
            raise Retry(msg, alone=True)
        if trouble < 0.045:
            msg = "429"
            raise Retry(msg, after=3.0)
        if trouble < 0.05:
            msg = "no"
            raise Rejected(msg)
        taken[event_id(alert)] += 1
        dice()  # the receiver has it, and we do not know it

    def bury(letter):
        dice()
        dead_letter_publisher(world.bus)(letter)
        dice()

    world.chance = 0.5
    ids = world.alerts(count)
    who = Subscriber(name="siem", sink=Place(answer))
    outside = DeliveryEnvironment(clock=world.clock, random=chance.random)
    while True:
        reader = Mortal(world.bus.reader(topics.ALERTS, who.group), dice)
        delivery = Delivery(who, reader, bury, outside)
        try:
            while not delivery.idle:
                if not delivery.step():
                    world.clock.now += 1
        except Kill:
            kills += 1
            delivery.close()
            continue
        delivery.close()
        return ids, taken, kills


def test_ten_thousand_alerts_arrive_whatever_is_killed():
    world = World()
    ids, taken, kills = run_through_kills(world, 10_000, seed=7)
    dead = set(sent_ids(world.dead()))
    assert kills > 100
    assert set(taken) | dead == set(ids)
    assert len(dead) < 100
    assert sum(taken.values()) - len(taken) < 40 * kills, "a kill repeats no more than a step"


def test_a_thousand_alerts_over_the_local_log(tmp_path):
    log = LocalLog(tmp_path, clock=lambda: 0)
    world = World(log)
    ids, taken, kills = run_through_kills(world, 1000, seed=11)
    reader = log.reader(topics.DEAD, "test")
    dead = [codec.decode(e.value) for e in reader.poll(10_000) if hasattr(e, "value")]
    assert kills > 10
    assert set(taken) | set(sent_ids(dead)) == set(ids)
    log.close()


@pytest.mark.parametrize("partitions", [2, 5])
def test_several_partitions_are_one_subscriber(partitions):
    world = World(MemoryBus(partitions, keep=True))
    ids = []
    for site in ("office", "lobby", "dock", "yard", "roof"):
        made = [alert(site=site, id=f"{site}{n}") for n in range(60)]
        world.publish(*made)
        ids += [event_id(one) for one in made]
    place = Place(dies())
    for _ in range(4):
        delivery = world.delivery(place)
        until_still(delivery)
        delivery.close()
        world.clock.now += 100
    place.answer = lambda alert: None
    delivery = world.delivery(place)
    until_still(delivery)
    assert sorted(place.taken) == sorted(ids)
    assert delivery.idle


# The note


@given(
    safe=st.integers(0, 2**40),
    failures=st.integers(0, 255),
    until=st.integers(0, 2**32 - 1),
    disabled=st.just(b"") | st.binary(min_size=8, max_size=8).filter(any),
    items=st.dictionaries(
        st.integers(0, 2**20),
        st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1).map(float)),
        max_size=MAX_PENDING,
    ),
)
def test_a_note_comes_back_as_it_was(safe, failures, until, disabled, items):
    items = {safe + step: item for step, item in items.items()}
    door = CircuitBreaker(failures, float(until), disabled)
    note = pack(safe, safe + 2**20, door, items)
    assert unpack(safe, note) == (safe + 2**20, door, items)
    assert len(note) < KAFKA_METADATA
    assert note.isascii()


@given(st.binary(max_size=300))
@example(b"")
def test_a_note_that_is_not_ours_is_refused(note):
    with pytest.raises(OutsideError, match="note"):
        Outbox(0, b"1" + note)


def test_the_largest_note_fits_kafka():
    items = {n: (255, 2.0**32 - 1) for n in range(MAX_PENDING)}
    whole = CircuitBreaker(
        255, 2.0**32 - 1, b"x" * 8, since=2.0**32 - 1, dead=2**32 - 1, reason="x" * 999
    )
    assert len(pack(0, 2**60, whole, items)) == 3429 < KAFKA_METADATA


# With a real webhook


def test_a_webhook_on_the_log_is_signed_retried_and_counted(tmp_path):
    from pipeline.config.schema import Webhook as Settings
    from workers.delivery.receiver import Receiver, Reply

    secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
    replies = iter([500, 204, 503, *[204] * 100])
    world = World(LocalLog(tmp_path, clock=lambda: 0))
    with Receiver(secret, answer=lambda received: Reply(next(replies))) as receiver:
        sink = Webhook(Settings(url=receiver.url, secret=secret))
        ids = world.alerts(20)
        delivery = world.delivery(sink)
        while not delivery.idle:
            delivery.step()
            world.clock.now += 0.5
        delivery.close()
    assert sorted(receiver.events) == sorted(ids)
    assert Counter(p.headers["webhook-id"] for p in receiver.posts).total() == 22
    assert world.counts == {"retried": 2, "delivered": 20}
    world.bus.close()


def test_a_dead_letter_is_a_record_that_can_be_read_again():
    world = World()
    world.alerts(1)
    until_still(world.delivery(Place(only("0000000000000000_0", Rejected("no")))))
    (letter,) = world.dead()
    assert isinstance(letter, DeadLetter)
    assert msgspec.structs.replace(letter, value=b"", reason="") == DeadLetter(
        site="office",
        source="delivery/siem",
        topic=topics.ALERTS,
        partition=0,
        offset=0,
        reason="",
        value=b"",
    )
    assert isinstance(codec.decode(letter.value), Alert)
