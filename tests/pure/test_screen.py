"""The terminal view as lines: they fit every terminal, whatever names and reasons are like."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.types import SECOND
from workers.runtime import screen
from workers.runtime.screen import AlertRow, Row, Screen

WELL = ("live", "25.0/s", "5.0/s", "0.2 s", "present")
AT = 1_767_650_443 * SECOND  # 2026-01-05T22:00:43Z


def row(source: str = "desk", site: str = "office", *, wrong: str = "") -> Row:
    return Row(site=site, source=source, cells=WELL, wrong=wrong, troubled=bool(wrong))


def alert(*causes: str) -> AlertRow:
    return AlertRow(
        time="22:14:03 CET",
        severity="high",
        what="intrusion",
        causes=causes or ("person in floor",),
    )


def shown(made: Screen, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain for line in screen.lines(made, width, height)]


def test_a_source_is_one_line_under_its_columns() -> None:
    head, titles, line, *_ = shown(Screen(head="fusewatch", rows=[row()]))
    assert head == "fusewatch"
    assert titles == "SOURCE       STATE       CAPTURED   LOOKED AT  BEHIND    PRESENCE"
    assert line == "office/desk  live        25.0/s     5.0/s      0.2 s     present"


def test_what_is_wrong_takes_the_place_of_the_columns() -> None:
    lines = shown(Screen(head="", rows=[row(wrong="lost since 22:10:11 CET (4 min): no route")]))
    assert lines[2] == "office/desk  lost since 22:10:11 CET (4 min): no route"


def test_a_narrow_terminal_keeps_the_state_and_leaves_columns_out() -> None:
    lines = shown(Screen(head="fusewatch", rows=[row()], alerts=[alert()]), width=40)
    assert lines[1:3] == ["SOURCE       STATE", "office/desk  live"]
    assert lines[-1] == "22:14:03 CET  intrusion: person in flo…"


def test_of_more_sources_than_lines_the_troubled_come_first() -> None:
    rows = [row(f"cam-{n}") for n in range(30)] + [row("gate", wrong="lost")]
    lines = shown(Screen(head="", rows=rows, alerts=[alert()] * 8))
    assert len(lines) == 23
    assert lines[2].startswith("office/gate    lost")
    assert "and 19 more, all well" in lines
    assert len([line for line in lines if line.startswith("22:14:03")]) == 6


def test_troubled_sources_that_have_no_line_are_counted() -> None:
    lines = shown(Screen(head="", rows=[row(f"cam-{n}", wrong="lost") for n in range(99)]))
    assert any(line.startswith("and ") and "of them in trouble" in line for line in lines)


def test_a_name_that_is_too_long_keeps_a_part_of_both() -> None:
    name = screen.fit_name("warehouse-in-the-north-of-the-city", "loading-ramp", 25)
    assert name == "warehouse-i…/loading-ramp"


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Europe/Berlin", "23:00:43 CET"),
        ("Asia/Kolkata", "03:30:43 IST"),
        ("America/Sao_Paulo", "19:00:43 UTC-03"),
    ],
)
def test_a_time_names_its_zone(zone: str, text: str) -> None:
    assert screen.moment(AT, ZoneInfo(zone)) == text


def test_a_time_of_another_day_has_its_date() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert screen.moment(AT, berlin, today=AT + 86_400 * SECOND) == "05 Jan 23:00:43 CET"
    assert screen.moment(AT, berlin, date=True) == "2026-01-05 23:00:43 CET"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0 s"), (59, "59 s"), (60, "1 min"), (7500, "2 h 5 min"), (93_600, "1 day 2 h")],
)
def test_a_span_is_said_in_words(seconds: float, text: str) -> None:
    assert screen.lasting(seconds) == text


TEXTS = st.text(st.characters(), max_size=60) | st.text(
    "a狮👩\u200d🚒🇩🇪é\u0301\ufe0f❤\x1b[31m\x9b\u202e\nﷺ한ᄀ가", max_size=200
)


@given(
    st.lists(st.builds(row, TEXTS, TEXTS, wrong=st.just("") | TEXTS), max_size=40),
    st.lists(st.builds(alert, TEXTS), max_size=9),
    st.lists(TEXTS, max_size=3),
    TEXTS,
    st.integers(1, 250),
    st.integers(1, 60),
)
def test_no_line_is_wider_and_no_view_higher_than_the_terminal(
    rows: list[Row], alerts: list[AlertRow], notes: list[str], head: str, width: int, height: int
) -> None:
    made = shown(Screen(head=head, rows=rows, alerts=alerts, notes=notes), width, height)
    assert 1 <= len(made) <= max(1, height - 1)
    for line in made:
        terminal = pyte.Screen(width, 2)
        pyte.Stream(terminal).feed(line)
        assert terminal.cursor.y == 0, "the terminal has wrapped it"
