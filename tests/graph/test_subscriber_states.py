"""The state of a subscriber: what is logged of it, what a note keeps, and how it is enabled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.bus.log import LocalLog
from pipeline.bus.memory import MemoryBus
from pipeline.errors import OutsideError, Rejected
from pipeline.types import ns
from tests.graph.test_delivery import Kill, Place, World, dies, gone, until_still
from tests.make import alert
from workers.delivery.breaker import MAX_BREAKER_DELAY
from workers.delivery.delivery import Delivery, DeliveryEnvironment, Subscriber
from workers.delivery.delivery import dead_letter_publisher as letters
from workers.delivery.enable_mark import EnableMark
from workers.delivery.jsonl import Jsonl
from workers.delivery.outbox import RETRY_DELAYS
from workers.delivery.state_log import DISABLED_AGAIN_EVERY, line, sentence
from workers.runtime.status import SubscriberState

Logged = pytest.LogCaptureFixture


def told(caplog: Logged) -> list[tuple[str, str]]:
    """Level and message of what was logged since the last call."""
    found = [
        (each.levelname, each.getMessage())
        for each in caplog.records
        if each.name == "fusewatch.delivery"
    ]
    caplog.clear()
    return found


def failing(world: World, delivery: Delivery) -> None:
    """Tries it three times."""
    until_still(delivery)
    for _ in range(2):
        world.clock.now += 6
        until_still(delivery)


# What is logged


def test_each_change_of_state_is_logged_once_with_reason_attempts_and_next_try(
    caplog: Logged,
) -> None:
    world, place = World(), Place(dies("503 from the receiver"))
    world.alerts(2)
    delivery = world.delivery(place)
    until_still(delivery)
    state = delivery.state
    assert (state.state, state.attempts) == ("taking", 1), "one failure is no outage"
    assert (state.reason, state.waiting) == ("503 from the receiver", 2)
    assert told(caplog) == []
    failing(world, delivery)
    assert delivery.state == SubscriberState(
        state="failing",
        reason="503 from the receiver",
        attempts=3,
        since="1970-01-12T13:46:40Z",
        next_try="1970-01-12T13:46:57Z",
        waiting=2,
    )
    assert told(caplog) == [
        (
            "WARNING",
            "siem fails: 503 from the receiver; 3 attempts in a row failed since "
            "1970-01-12T13:46:40Z; it is tried again at 1970-01-12T13:46:57Z; 2 alerts wait for it",
        )
    ]
    for _ in range(20):
        world.clock.now += MAX_BREAKER_DELAY * 1.2
        until_still(delivery)
    assert told(caplog) == []
    place.answer = lambda alert: None
    world.clock.now += 3600
    until_still(delivery)
    assert delivery.state == SubscriberState()
    (well,) = told(caplog)
    assert well == ("WARNING", "siem takes alerts again, after 4332 s; 0 alerts still to be sent")


def test_what_fails_for_days_is_given_up_and_says_so(caplog: Logged) -> None:
    world, place = World(), Place(dies())
    world.alerts(1)
    delivery = world.delivery(place)
    for _ in range(len(RETRY_DELAYS) + 1):
        until_still(delivery)
        world.clock.now += 1.3 * 86400
    state = delivery.state
    assert (state.state, state.dead, state.waiting) == ("giving up", 1, 0)
    fails, given_up = told(caplog)
    assert fails[1].startswith("siem fails: down; ")
    assert given_up[0] == "ERROR"
    assert given_up[1].startswith("siem is given up: down; 13 attempts in a row failed since 1970")
    assert "; 1 alert became a dead letter, as " in given_up[1]
    world.publish(alert(id="ff"))
    place.answer = lambda alert: None
    until_still(delivery)
    assert delivery.state == SubscriberState()
    assert [level for level, _ in told(caplog)] == ["WARNING"]


def test_410_is_an_error_now_at_each_start_and_each_hour(caplog: Logged) -> None:
    world = World()
    world.alerts(3)
    delivery = world.delivery(Place(gone))
    until_still(delivery)
    message = (
        "siem is disabled since 1970-01-12T13:46:40Z: 410 Gone; its alerts become dead letters "
        "(3 so far); to send to it again: fusewatch webhooks enable CONFIG siem"
    )
    assert told(caplog) == [("ERROR", message)]
    for _ in range(2):
        world.clock.now += DISABLED_AGAIN_EVERY - 1
        delivery.step()
        assert told(caplog) == []
        world.clock.now += 1
        delivery.step()
        assert told(caplog) == [("ERROR", message)]
    delivery.close()
    place = Place()
    again = world.delivery(place)
    until_still(again)
    assert told(caplog) == [("ERROR", message)]
    world.publish(alert(id="ff"))
    until_still(again)
    assert (place.tried, again.state.dead) == ([], 4)
    assert again.state.reason == "410 Gone"


def test_a_restart_says_again_what_fails_with_its_reason(caplog: Logged) -> None:
    world = World()
    world.alerts(2)
    delivery = world.delivery(Place(dies("no answer")))
    failing(world, delivery)
    before = delivery.state
    delivery.close()
    told(caplog)
    again = world.delivery(Place(dies("no answer")))
    again.step()
    assert again.state.reason == before.reason == "no answer"
    assert again.state.since == before.since
    (fails,) = told(caplog)
    assert fails[1].startswith("siem fails: no answer; 3 attempts in a row failed since ")


def test_an_alert_that_dies_alone_is_told(caplog: Logged) -> None:
    def refuses(one: object) -> None:
        msg = "not a finite number"
        raise Rejected(msg)

    world = World()
    world.alerts(3)
    delivery = world.delivery(Place(refuses))
    with caplog.at_level(logging.WARNING, "fusewatch"):
        until_still(delivery)
    (only,) = [each.getMessage() for each in caplog.records]
    assert only == (
        "siem did not take an alert, which became a dead letter: 0000000000000000_0: not a finite "
        "number; fusewatch dead list CONFIG shows all"
    )
    assert delivery.state == SubscriberState()


def test_a_reason_that_is_no_utf_8_is_shown_all_the_same() -> None:
    world = World()
    world.alerts(1)
    delivery = world.delivery(Place(dies("a\udcffb")))
    until_still(delivery)
    assert delivery.state.reason == "a?b"


def test_a_file_has_the_same_states_and_lines_as_a_webhook(tmp_path: Path, caplog: Logged) -> None:
    world, folder = World(), tmp_path / "alerts.jsonl"
    folder.mkdir()  # in the place of the file
    sink = Jsonl(folder)
    told(caplog)
    ids = world.alerts(2)
    delivery = world.delivery(sink, name="jsonl", address="", flush=sink.flush)
    failing(world, delivery)
    assert delivery.state.state == "failing"
    (fails,) = told(caplog)
    assert fails[1].startswith(f"jsonl fails: {folder}: is a folder; 3 attempts in a row failed ")
    folder.rmdir()
    world.clock.now += MAX_BREAKER_DELAY * 1.2
    until_still(delivery)
    assert delivery.state == SubscriberState()
    assert [each[1].partition(",")[0] for each in told(caplog)] == ["jsonl takes alerts again"]
    assert folder.read_text().count("\n") == len(ids)
    sink.close()


# How it is enabled


class Marked:
    """A subscriber with an enable mark, on a bus that survives a kill."""

    def __init__(self, folder: Path) -> None:
        self.world = World(MemoryBus(3, keep=True))
        self.mark = EnableMark(folder, "siem")

    def delivery(self, place: Place, before_commit: Callable[[], None] = lambda: None) -> Delivery:
        world = self.world
        who = Subscriber(name="siem", sink=place, address="https://a/", enabled=self.mark)
        reader = world.bus.reader(topics.ALERTS, who.group)
        commit = reader.commit

        def committed(partition: int, offset: int, note: bytes) -> None:
            before_commit()
            commit(partition, offset, note)

        reader.commit = committed
        outside = DeliveryEnvironment(clock=world.clock, random=lambda: 0.5)
        return Delivery(who, reader, letters(world.bus), outside)

    def some(self, name: str) -> list[str]:
        """Alerts in every partition."""
        made = [alert(site=site, id=f"{name}-{site}") for site in ("office", "lobby", "dock")]
        self.world.publish(*made)
        return [f"{one.id}_0" for one in made]

    def disabled(self) -> None:
        """410 in every partition's note."""
        self.some("early")
        delivery = self.delivery(Place(gone))
        until_still(delivery)
        assert delivery.state.state == "disabled"
        delivery.close()


@pytest.mark.parametrize("runs", [True, False], ids=["while it runs", "while it does not"])
def test_a_mark_enables_it_and_the_alerts_that_come_go_out(
    tmp_path: Path, caplog: Logged, runs: bool
) -> None:
    marked = Marked(tmp_path)
    marked.disabled()
    place = Place()
    delivery = marked.delivery(place)
    if runs:
        until_still(delivery)
        told(caplog)
    marked.mark.write(ns(1))
    ids = marked.some("late")
    until_still(delivery)
    assert sorted(place.taken) == sorted(ids)
    assert delivery.state == SubscriberState()
    if runs:
        assert told(caplog) == [
            (
                "WARNING",
                "siem is enabled again: the alerts that come are sent to it; 3 alerts became dead "
                "letters meanwhile",
            )
        ]
    delivery.close()
    later = marked.delivery(place)
    more = marked.some("later")
    until_still(later)
    assert sorted(place.taken) == sorted(ids + more)


def test_a_kill_between_mark_and_commit_loses_neither_mark_nor_alert(tmp_path: Path) -> None:
    marked = Marked(tmp_path)
    marked.disabled()
    marked.mark.write(ns(1))
    ids = marked.some("late")

    def kill() -> None:
        raise Kill

    place = Place()
    for _ in range(3):
        delivery = marked.delivery(place, kill)
        with pytest.raises(Kill):
            until_still(delivery)
        delivery.close()
    until_still(marked.delivery(place))
    assert set(place.taken) == set(ids)


def test_a_receiver_that_answers_410_again_is_disabled_again_until_the_next_mark(
    tmp_path: Path, caplog: Logged
) -> None:
    marked = Marked(tmp_path)
    marked.disabled()
    marked.mark.write(ns(1))
    place = Place(gone)
    delivery = marked.delivery(place)
    marked.some("late")
    until_still(delivery)
    assert len(place.tried) == 1
    assert delivery.state.state == "disabled"
    delivery.close()
    told(caplog)
    again = marked.delivery(Place(gone))
    until_still(again)
    assert [level for level, _ in told(caplog)] == ["ERROR"]
    marked.mark.write(ns(2))
    until_still(again)
    assert again.state == SubscriberState()


def test_a_mark_lets_one_that_fails_be_tried_at_once(tmp_path: Path) -> None:
    marked, place = Marked(tmp_path), Place(dies(after=86_000.0))
    ids = marked.some("one")
    delivery = marked.delivery(place)
    until_still(delivery)
    place.answer = lambda alert: None
    until_still(delivery)
    assert place.taken == []
    marked.mark.write(ns(1))
    until_still(delivery)
    assert sorted(place.taken) == sorted(ids)


def test_a_mark_is_private_whole_and_another_one_each_time(tmp_path: Path) -> None:
    mark = EnableMark(tmp_path / "state", "siem")
    assert mark() == ""
    mark.write(ns(1))
    first = mark()
    mark.write(ns(2))
    assert (first, mark()) == (
        "1970-01-01T00:00:01.000000000Z",
        "1970-01-01T00:00:02.000000000Z",
    )
    (file,) = (tmp_path / "state" / "enabled").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("siem", 0o600)


def test_a_mark_that_cannot_be_read_or_written_is_told(tmp_path: Path, caplog: Logged) -> None:
    mark = EnableMark(tmp_path, "siem")
    mark.write(ns(1))
    before = mark()
    (tmp_path / "enabled" / "siem").unlink()
    (tmp_path / "enabled" / "siem").mkdir()
    assert mark() == before
    assert "enabled/siem cannot be read: " in caplog.text
    with pytest.raises(OutsideError, match="enabled/siem: cannot be written: "):
        mark.write(ns(2))
    assert [each.name for each in (tmp_path / "enabled").iterdir()] == ["siem"]


# Over the local log


def test_the_state_of_a_stopped_delivery_is_in_its_log(tmp_path: Path) -> None:
    from pipeline.config.schema import Config, Site, Webhook
    from workers.config.secrets import Secrets
    from workers.setup import subscriber_health

    log = LocalLog(tmp_path / "log", clock=lambda: 0)
    world = World(log)
    world.alerts(2)
    delivery = world.delivery(Place(dies("503")))
    failing(world, delivery)
    state = delivery.state
    delivery.close()
    log.close()
    hook = Webhook(url="https://a/", secret="", name="siem")
    config = Config(version=1, sites={"office": Site()}, state=str(tmp_path), webhooks=(hook,))
    notes = subscriber_health.notes(config, Secrets({}))
    read = subscriber_health.state(config, "siem", notes, "https://a/")
    assert (read.state, read.reason, read.attempts) == ("failing", "503", 3)
    assert (read.since, read.waiting) == (state.since, 2)
    assert read.next_try[:17] == state.next_try[:17]


@pytest.mark.parametrize(
    ("state", "words", "short"),
    [
        (SubscriberState(), "", ""),
        (SubscriberState(reason="503", attempts=1), "", ""),
        (
            SubscriberState(state="failing", reason="503", attempts=3, waiting=1),
            "siem fails: 503; 3 attempts in a row failed; 1 alert waits for it",
            "siem fails, 1 wait: 503",
        ),
        (
            SubscriberState(
                state="giving up", reason="503", attempts=4, since="A", next_try="B", dead=2
            ),
            "siem is given up: 503; 4 attempts in a row failed since A; 2 alerts became dead "
            "letters, as they waited for the longest time; it is tried again at B",
            "siem is given up, 2 alerts became dead letters, next try <B> (attempt 5): 503",
        ),
        (
            SubscriberState(state="disabled", reason="410 Gone", attempts=1, since="A", dead=1),
            "siem is disabled since A: 410 Gone; its alerts become dead letters (1 so far); to "
            "send to it again: fusewatch webhooks enable CONFIG siem",
            "siem is disabled, 1 alert became a dead letter; fusewatch webhooks enable CONFIG siem",
        ),
    ],
)
def test_a_state_is_a_sentence_and_for_the_view_a_line(
    state: SubscriberState, words: str, short: str
) -> None:
    assert sentence("siem", state) == words
    assert line("siem", state, lambda moment: f"<{moment}>") == short


def test_a_retry_that_concerns_one_alert_changes_no_state() -> None:
    world = World()
    world.alerts(1)
    delivery = world.delivery(Place(dies("422", alone=True)))
    failing(world, delivery)
    assert (delivery.state.state, delivery.state.reason) == ("taking", "")
    assert (delivery.state.waiting, bool(delivery.state.next_try)) == (1, True)
