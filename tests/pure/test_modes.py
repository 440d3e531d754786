"""The mode of a site at each time: by schedule, by hand, and what a record can do to it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import rule_kinds, schema
from pipeline.config.site_modes import Modes
from pipeline.judge.modes import ModePlan, SiteModes
from pipeline.sources import first_free
from pipeline.types import BEFORE_ALL, SECOND, Mode, event_start, needed_until, ns
from tests.make import mode

MONDAY = 1_767_571_200  # 2026-01-05 00:00:00 UTC, s
SITE = schema.Site(
    timezone="Europe/Berlin",
    modes=Modes(
        default="disarmed",
        schedule={"home": "mon 20:00-22:00", "armed": "mon-fri 18:00-08:00"},
        names=("away",),
    ),
    rules=(
        rule_kinds.SoundRule(labels={"gunshot": 0.5}),
        rule_kinds.KeywordRule(words={"en": ("help",)}, name="help"),
    ),
)
PLAN = ModePlan.of(SITE)
NONE = frozenset[str]()


def modes(*given: Mode) -> SiteModes:
    made = SiteModes(PLAN)
    assert [made.push(each) for each in given] == [""] * len(given)
    return made


def at_hour(hour: float) -> int:
    """Monday, in UTC; Berlin is an hour ahead."""
    return ns(MONDAY + 3600 * hour)


@pytest.mark.parametrize(
    ("hour", "name"),
    [(6, "disarmed"), (12, "disarmed"), (17, "armed"), (19, "home"), (21, "armed"), (30, "armed")],
)
def test_the_schedule_is_a_function_of_event_time_and_the_first_that_holds_counts(hour, name):
    assert modes().at(at_hour(hour)) == name


def test_the_span_of_a_schedule_is_found_to_the_minute():
    assert PLAN.scheduled_span(at_hour(19.5)) == (at_hour(19), at_hour(21))
    assert PLAN.scheduled_span(at_hour(12)) == (at_hour(7 - 2 * 24), at_hour(17))


def test_a_site_without_settings_is_armed():
    plain = ModePlan.of(schema.Site())
    assert SiteModes(plain).at(ns(5)) == "armed"
    assert plain.scheduled_span(ns(5)) == (None, None)


def test_a_mode_by_hand_outranks_the_schedule_until_its_end():
    begin, end = MONDAY + 19.5 * 3600, MONDAY + 21.5 * 3600
    known = modes(mode("away", begin, until=end))
    assert known.at(ns(begin) - 1) == "home"
    assert known.at(ns(begin)) == "away"
    assert known.at(ns(end) - 1) == "away"
    assert known.at(ns(end)) == "armed"


def test_the_next_one_ends_it_and_auto_goes_back_to_the_schedule():
    known = modes(mode("away", 100), mode("home", 200), mode("auto", 300))
    assert [known.at(ns(at)) for at in (99, 100, 199, 200, 299, 300)] == [
        "armed",
        *("away", "away", "home", "home"),
        "armed",
    ]


def test_what_is_said_again_changes_nothing():
    known = modes(mode("armed", 100), mode("armed", 100, said=110), mode("armed", 100, said=120))
    assert known.at(ns(105)) == "armed"
    assert known.by_hand(ns(500)).said == ns(100)


def test_records_that_come_again_do_not_bring_back_an_old_mode():
    first, second = mode("armed", 100), mode("home", 200)
    known = modes(first, second, first, second)
    assert known.at(ns(250)) == "home"
    known.push(first, promised=ns(240))
    assert known.at(ns(250)) == "home"


def test_of_two_said_at_once_the_one_that_began_later_counts():
    known = modes(mode("armed", 100, said=200), mode("home", 200))
    assert known.at(ns(200)) == "home"
    known.push(mode("armed", 100, said=200))
    assert known.at(ns(200)) == "home"


def test_a_source_that_goes_back_to_what_it_had_kept_is_believed():
    """Its process ended between the record and the file: the old mode is said again."""
    known = modes(mode("armed", 100), mode("home", 200))
    known.push(mode("armed", 100, said=210), promised=ns(205))
    assert [known.at(ns(at)) for at in (150, 202, 204, 205, 300)] == [
        "armed",
        *("home", "home", "armed", "armed"),
    ]


def test_a_late_statement_changes_nothing_that_was_judged():
    known = SiteModes(PLAN)
    known.push(mode("away", 100, said=400), promised=ns(400))
    assert known.at(ns(399)) == "armed"
    assert known.at(ns(400)) == "away"


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (mode("amred", 1), "no such mode"),
        (mode("snoozed", 1), "no such mode"),
        (mode("armed", 5, until=5), "ends before it begins"),
        (mode("armed", 5, until=4), "ends before it begins"),
        (mode("snoozed", 1, rule="zone-floor"), "no rule of this name"),
        (mode("armed", 1, rule="sound"), "takes the mode `snoozed`"),
    ],
)
def test_an_odd_record_is_refused_and_breaks_nothing(odd, why):
    known = modes(mode("home", 1))
    assert why in known.push(odd)
    assert known.at(ns(9)) == "home"
    assert not known.snoozes(ns(9))


def test_a_snooze_is_of_one_rule_or_of_all_and_ends():
    known = modes(
        mode("snoozed", 10, until=20, rule="sound"), mode("snoozed", 30, until=40, rule="*")
    )
    seen = {
        at: (known.watches("sound", NONE, ns(at)), known.watches("help", NONE, ns(at)))
        for at in (9, 10, 19, 20, 30, 40)
    }
    assert seen == {
        9: (True, True),
        10: (False, True),
        19: (False, True),
        20: (True, True),
        30: (False, False),
        40: (True, True),
    }


def test_the_end_of_all_snoozes_ends_those_of_single_rules_too():
    known = modes(
        mode("snoozed", 10, rule="sound"),
        mode("snoozed", 11, rule="learned"),
        mode("auto", 20, rule="*"),
    )
    assert not known.watches("learned", NONE, ns(19))
    assert known.watches("learned", NONE, ns(20))
    assert known.watches("sound", NONE, ns(20))


def test_a_rule_holds_in_its_modes():
    known = modes(mode("home", 10))
    assert known.watches("sound", frozenset({"home", "away"}), ns(10))
    assert not known.watches("sound", frozenset({"armed"}), ns(10))


def test_its_times_are_those_of_the_statement():
    again = mode("armed", 100, said=130)
    assert event_start(again) == ns(130)
    assert first_free(again) == ns(130)
    assert needed_until(again) == ns(160)


STATEMENTS = st.lists(
    st.tuples(
        st.sampled_from(("armed", "home", "away", "auto")),
        st.integers(1, 30),  # s after the one before
        st.none() | st.integers(1, 60),  # lasts, s
    ),
    max_size=8,
)


def said(steps: list[tuple[str, int, int | None]], upto: int) -> list[Mode | int]:
    """What a source publishes: statements, each said again every 10 s, and promises (ns)."""
    out: list[Mode | int] = []
    begun, at = [], 0
    for name, after, lasts in steps:
        at += after
        begun.append(mode(name, at, until=None if lasts is None else at + lasts))
    for second in range(upto):
        held = [each for each in begun if each.start < ns(second)]
        if second % 10 == 0 and held:
            last = held[-1]
            if last.mode != "auto" and (last.until is None or last.until > ns(second)):
                out.append(msgspec.structs.replace(last, said=ns(second)))
        out += [each for each in begun if each.start == ns(second)]
        out.append(ns(second))
    return out


def played(records: list[Mode | int], floor: int = BEFORE_ALL) -> SiteModes:
    known, promised = SiteModes(PLAN), BEFORE_ALL
    for record in records:
        if isinstance(record, Mode):
            if needed_until(record) > floor:
                known.push(record, promised)
        elif record > floor:
            promised = max(promised, record)
    return known


@given(STATEMENTS, st.integers(0, 250))
def test_a_restart_from_any_floor_knows_what_held_since(steps, floor):
    records = said(steps, 260)
    whole, again = played(records), played(records, ns(floor))
    forgot = played(records)
    forgot.forget(ns(floor))
    for second in range(floor, 260):
        for time in (ns(second), ns(second) + SECOND // 2):
            assert again.at(time) == whole.at(time)
            assert forgot.at(time) == whole.at(time)


@given(STATEMENTS, st.randoms())
def test_records_that_come_twice_say_nothing_new(steps, chance):
    records = said(steps, 260)
    twice: list[Mode | int] = []
    for i, record in enumerate(records):
        twice.append(record)
        if chance.random() < 0.1:
            twice += records[max(0, i - 5) : i + 1]
    once, more = played(records), played(twice)
    assert [more.at(ns(s)) for s in range(260)] == [once.at(ns(s)) for s in range(260)]
