"""Schedules on a site's own clock, over midnight and over both changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schedule import DAYS, Schedule
from pipeline.types import SECOND

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
KATHMANDU = ZoneInfo("Asia/Kathmandu")  # UTC+5:45


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    """Ns of a wall-clock time; `fold=1` is its second coming when the clock goes back."""
    local = datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)
    return int(local.astimezone(UTC).timestamp()) * SECOND


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def holds(schedule: str, time: str, zone: ZoneInfo = BERLIN) -> bool:
    return Schedule.parse(schedule).contains(at(time, zone), zone)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_schedule_is_always(text: str) -> None:
    assert Schedule.parse(text) == Schedule()
    assert Schedule.parse(text).contains(utc("2026-01-01T00:00"), BERLIN)


def test_a_span_is_half_open() -> None:
    assert not holds("08:00-17:00", "2026-01-05T07:59:59")
    assert holds("08:00-17:00", "2026-01-05T08:00:00")
    assert holds("08:00-17:00", "2026-01-05T16:59:59")
    assert not holds("08:00-17:00", "2026-01-05T17:00:00")


def test_the_last_nanosecond_of_a_span_is_in_it() -> None:
    schedule = Schedule.parse("08:00-17:00")
    assert schedule.contains(at("2026-01-05T17:00:00") - 1, BERLIN)
    assert not schedule.contains(at("2026-01-05T08:00:00") - 1, BERLIN)


def test_a_span_over_midnight_holds_on_both_sides_of_it() -> None:
    hours = [h for h in range(24) if holds("22:00-06:00", f"2026-01-05T{h:02}:30")]
    assert hours == [0, 1, 2, 3, 4, 5, 22, 23]


def test_a_span_over_midnight_belongs_to_the_day_it_began() -> None:
    friday_night = "fri 22:00-06:00"  # 2026-01-02 is a Friday
    assert not holds(friday_night, "2026-01-02T05:00")
    assert holds(friday_night, "2026-01-02T22:00")
    assert holds(friday_night, "2026-01-03T05:59")
    assert not holds(friday_night, "2026-01-03T06:00")
    assert not holds(friday_night, "2026-01-03T22:00")


def test_sunday_night_ends_on_monday_morning() -> None:
    assert holds("sun 22:00-06:00", "2026-01-05T05:00")
    assert not holds("mon 22:00-06:00", "2026-01-05T05:00")


def test_until_midnight_ends_there() -> None:
    assert holds("fri 22:00-24:00", "2026-01-02T23:59")
    assert not holds("fri 22:00-24:00", "2026-01-03T00:00")
    assert holds("fri 22:00-00:00", "2026-01-02T23:59")
    assert not holds("fri 22:00-00:00", "2026-01-03T00:00")


def test_several_spans_are_a_union() -> None:
    text = "mon-fri 22:00-06:00, sat-sun 00:00-24:00"
    assert holds(text, "2026-01-02T23:00")  # Friday night
    assert not holds(text, "2026-01-02T12:00")
    assert holds(text, "2026-01-03T12:00")  # Saturday
    assert holds(text, "2026-01-04T23:59")
    assert not holds(text, "2026-01-05T00:00")  # Sunday was until midnight


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("12:00-13:00", "mon tue wed thu fri sat sun"),
        ("wed 12:00-13:00", "wed"),
        ("mon-fri 12:00-13:00", "mon tue wed thu fri"),
        ("sat-mon 12:00-13:00", "mon sat sun"),
        ("mon wed sat-sun 12:00-13:00", "mon wed sat sun"),
        ("MON - Wed 12:00 - 13:00", "mon tue wed"),
        ("sun-sun 12:00-13:00", "sun"),
    ],
)
def test_days_are_names_and_ranges(text: str, days: str) -> None:
    monday = datetime(2026, 1, 5, 12, 30)  # noqa: DTZ001 - a wall clock without a zone
    held = [
        name for n, name in enumerate(DAYS) if holds(text, (monday + timedelta(days=n)).isoformat())
    ]
    assert held == days.split()


def test_the_clock_is_the_sites_own() -> None:
    schedule = Schedule.parse("22:00-06:00")
    noon = utc("2026-01-05T12:00")
    assert not schedule.contains(noon, BERLIN)
    assert not schedule.contains(noon, NEW_YORK)
    assert schedule.contains(utc("2026-01-05T16:15"), KATHMANDU)  # 22:00 there
    assert not schedule.contains(utc("2026-01-05T16:14"), KATHMANDU)
    assert schedule.contains(utc("2026-01-05T03:00"), NEW_YORK)  # the evening before


def test_the_day_is_the_sites_own_too() -> None:
    sunday = Schedule.parse("sun 00:00-24:00")
    assert sunday.contains(utc("2026-01-05T03:00"), NEW_YORK)
    assert not sunday.contains(utc("2026-01-05T03:00"), BERLIN)


def test_the_night_on_which_the_clock_goes_forward_is_an_hour_shorter() -> None:
    """Europe/Berlin, 2026-03-29: 02:00 is 03:00 at once (01:00 UTC)."""
    night = Schedule.parse("22:00-06:00")
    begin, end = utc("2026-03-28T21:00"), utc("2026-03-29T04:00")
    assert not night.contains(begin - 1, BERLIN)
    assert night.contains(begin, BERLIN)
    assert night.contains(utc("2026-03-29T01:00"), BERLIN)
    assert night.contains(end - 1, BERLIN)
    assert not night.contains(end, BERLIN)


def test_an_hour_that_is_left_out_never_comes() -> None:
    gap = Schedule.parse("02:00-03:00")
    seconds = range(utc("2026-03-29T00:00"), utc("2026-03-29T03:00"), 60 * SECOND)
    assert not any(gap.contains(second, BERLIN) for second in seconds)
    partly = Schedule.parse("02:30-03:30")
    held = [second for second in seconds if partly.contains(second, BERLIN)]
    assert (held[0], len(held)) == (utc("2026-03-29T01:00"), 30)


def test_the_night_on_which_the_clock_goes_back_is_an_hour_longer() -> None:
    """Europe/Berlin, 2026-10-25: 03:00 is 02:00 once more (01:00 UTC)."""
    night = Schedule.parse("22:00-06:00")
    begin, end = utc("2026-10-24T20:00"), utc("2026-10-25T05:00")
    assert not night.contains(begin - 1, BERLIN)
    assert night.contains(begin, BERLIN)
    assert night.contains(end - 1, BERLIN)
    assert not night.contains(end, BERLIN)


def test_an_hour_that_comes_twice_counts_both_times() -> None:
    twice = Schedule.parse("sun 02:15-02:45")
    assert twice.contains(at("2026-10-25T02:30", fold=0), BERLIN)
    assert twice.contains(at("2026-10-25T02:30", fold=1), BERLIN)
    seconds = range(utc("2026-10-24T22:00"), utc("2026-10-25T04:00"), 60 * SECOND)
    assert sum(twice.contains(second, BERLIN) for second in seconds) == 60


@given(st.integers(0, 2**32), st.integers(0, 1439), st.integers(0, 1439))
def test_a_span_and_its_complement_share_no_time(second: int, begin: int, end: int) -> None:
    if begin == end:
        return
    first, last = (f"{m // 60:02}:{m % 60:02}" for m in (begin, end))
    inside = Schedule.parse(f"{first}-{last}").contains(second * SECOND, BERLIN)
    assert inside != Schedule.parse(f"{last}-{first}").contains(second * SECOND, BERLIN)


@given(st.integers(0, 2**32))
def test_all_days_together_are_every_day(second: int) -> None:
    spans = ", ".join(f"{day} 22:00-06:00" for day in DAYS)
    time = second * SECOND
    every = Schedule.parse("22:00-06:00")
    assert Schedule.parse(spans).contains(time, BERLIN) == every.contains(time, BERLIN)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("always", "'always' is not like"),
        ("22:00", "is not like"),
        ("22-06", "is not like"),
        ("22:00-06:00,", "'' is not like"),
        ("22:00-06:00 mon", "is not like"),
        ("22:00-06:00:00", "is not like"),
        ("25:00-06:00", "25:00"),
        ("22:60-06:00", "22:60"),
        ("22:00-24:01", "24:01"),
        ("22:00-22:00", "00:00-24:00"),
        ("24:00-06:00", "00:00-24:00"),
        ("monday 22:00-06:00", "did you mean 'mon'?"),
        ("mon- 22:00-06:00", "'mon-' is not a day"),
        ("-fri 22:00-06:00", "'-fri' is not a day"),
        ("mon-fri-sun 22:00-06:00", "is not a day"),
        ("mon, 22:00-06:00", "'mon' is not like"),
        ("1mon 22:00-06:00", "'1mon' is not a day"),
        ("122:00-06:00", "the hour 122 in '122:00-06:00' is not 00 to 24"),
        ("22:00-006:00", "the hour 006 in '22:00-006:00' is not 00 to 24"),
        ("22:0-06:00", "22:0 in '22:0-06:00' is not a time of day"),
        ("mon, tue 22:00-06:00", "days have spaces between them"),
    ],
)
def test_a_wrong_schedule_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Schedule.parse(text)
