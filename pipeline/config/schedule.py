"""The hours of a rule: `"mon-fri 22:00-06:00, sat-sun 00:00-24:00"` in the site's time zone.

A span is wall-clock time, `[from, to)`. When the clock goes back, the repeated hour matches both
times; when it goes forward, the missing hour never matches. A span over midnight belongs to the day
on which it starts: `fri 22:00-06:00` ends on Saturday morning.
"""

from __future__ import annotations

import re
from datetime import datetime, tzinfo

import msgspec

from pipeline.types import SECOND

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_EVERY_DAY = frozenset(range(7))
_MIDNIGHT = 24 * 60
_TIMES = re.compile(r"(\d+):(\d+)\s*-\s*(\d+):(\d+)", re.ASCII)


class DailySpan(msgspec.Struct, frozen=True):
    """Minutes of the day, `[begin, end)`, on `days` (0 is Monday); over midnight if end < begin."""

    days: frozenset[int]
    begin: int
    end: int


class Schedule(msgspec.Struct, frozen=True):
    """The spans of a week in which a rule is active; no spans means always."""

    spans: tuple[DailySpan, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parses spans separated by commas, each `[DAYS] HH:MM-HH:MM`.

        DAYS are `mon`, `mon-fri`, `sat-mon` or several separated by spaces; none means every day.
        An empty text means always. Raises ValueError that names the wrong span and why.
        """
        if not text.strip():
            return cls()
        return cls(tuple(_span(part.strip()) for part in text.lower().split(",")))

    def contains(self, time: int, zone: tzinfo) -> bool:
        """Returns whether the schedule is active at `time`, ns UTC, on the clock of `zone`."""
        if not self.spans:
            return True
        local = datetime.fromtimestamp(time // SECOND, zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        yesterday = (today - 1) % 7
        for span in self.spans:
            if span.begin < span.end:
                if today in span.days and span.begin <= minute < span.end:
                    return True
            elif (today in span.days and minute >= span.begin) or (
                yesterday in span.days and minute < span.end
            ):
                return True
        return False


def _span(text: str) -> DailySpan:
    times = _TIMES.search(text)
    if times is None or text[times.end() :].strip():
        msg = f'{text!r} is not like "22:00-06:00" or "mon-fri 22:00-06:00"'
        if all(word.partition("-")[0] in DAYS for word in text.split()):
            msg += "; days have spaces between them and stand before the time"
        raise ValueError(msg)
    begin = _minute(text, times[1], times[2])
    end = _minute(text, times[3], times[4])
    if begin in (end, _MIDNIGHT):
        msg = f"{text!r} holds no time; the whole day is 00:00-24:00"
        raise ValueError(msg)
    return DailySpan(_days(text[: times.start()].strip()), begin, end)


def _minute(text: str, hour: str, minute: str) -> int:
    if len(hour) > 2 or int(hour) > 24:
        msg = f"the hour {hour} in {text!r} is not 00 to 24"
        raise ValueError(msg)
    total = int(hour) * 60 + int(minute[:2])
    if len(minute) != 2 or int(minute) > 59 or total > _MIDNIGHT:
        msg = f"{hour}:{minute} in {text!r} is not a time of day, 00:00 to 24:00"
        raise ValueError(msg)
    return total


def _short(day: str, word: str) -> bool:
    return len(word) > 1 and day.startswith(word)


def _days(text: str) -> frozenset[int]:
    if not text:
        return _EVERY_DAY
    days: set[int] = set()
    for word in re.sub(r"\s*-\s*", "-", text).split():
        first, _, last = word.partition("-")
        if first not in DAYS or (last or first) not in DAYS or word.endswith("-"):
            near = [day[:3] for day in _LONG for part in (first, last) if _short(day, part)]
            hint = f"; did you mean {'-'.join(near)!r}?" if near else ""
            msg = f"{word!r} is not a day: they are {', '.join(DAYS)}, or a range like mon-fri"
            raise ValueError(msg + hint)
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days.update((begin + step) % 7 for step in range((end - begin) % 7 + 1))
    return frozenset(days)
