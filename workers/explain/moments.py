"""Reads the time of `--at`, and finds the incident of `--incident`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pipeline.errors import ConfigError
from pipeline.types import SECOND, Alert, ns, rfc3339
from workers.bus.time_option import moment
from workers.explain.explained import Explained

_DAY_TIME = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d{1,9})?))?")
_AFTER = re.compile(r"\+(\d{1,6}(?:\.\d{1,9})?)s?")


def check_time(text: str) -> None:
    """Raises ConfigError for an `--at` that is no time, before anything is played."""
    words = text.strip()
    if found := _DAY_TIME.fullmatch(words):
        _checked(int(found[1]), int(found[2]), float(found[3] or 0))
    elif not _AFTER.fullmatch(words):
        try:
            moment(words, "--at", time.time_ns())
        except ConfigError as error:
            msg = f"{error}; or 23:00:07 at the site, or +7 for seconds after the begin"
            raise ConfigError(msg) from None


def check_clocks(text: str, start: int, zones: Mapping[str, str]) -> None:
    """Raises ConfigError for a time of day that is another moment at each of several sites.

    `start` (ns) is the begin of what is explained, `zones` are the time zones by site.
    """
    found = _DAY_TIME.fullmatch(text.strip())
    if found is None:
        return
    clock = int(found[1]), int(found[2]), float(found[3] or 0)
    moments = {name: _of_day(clock, start, ZoneInfo(zone)) for name, zone in zones.items()}
    if len(set(moments.values())) > 1:
        said = ", ".join(f"{rfc3339(at)[:19]}Z at {name}" for name, at in moments.items())
        msg = (
            f"--at {text.strip()}: is another moment at each site: {said}; name one site by "
            "--site, or a time with its zone"
        )
        raise ConfigError(msg)


def at_time(text: str, of: Explained) -> int:
    """Returns the ns of `--at`: a time of day at the site, `+12.5` s after the begin, a span before
    now, or RFC 3339. Raises ConfigError if nothing of that time is explained."""
    words = text.strip()
    if found := _AFTER.fullmatch(words):
        at = of.start + ns(float(found[1]))
    elif found := _DAY_TIME.fullmatch(words):
        clock = int(found[1]), int(found[2]), float(found[3] or 0)
        at = _of_day(clock, of.start, of.zone)
    else:
        at = moment(words, "--at", time.time_ns())
    if not of.start <= at < of.end:
        begin, end = (f"{rfc3339(each)[:19]}Z" for each in (of.start, of.end))
        msg = f"--at {text[:40]!a}: {of.name} begins at {begin} and ends at {end}"
        raise ConfigError(msg)
    return at


def _checked(hour: int, minute: int, second: float) -> None:
    if hour > 23 or minute > 59 or second >= 60:
        msg = f"--at {hour}:{minute:02}: is no time of day"
        raise ConfigError(msg)


def _of_day(clock: tuple[int, int, float], start: int, zone: ZoneInfo) -> int:
    """The first such hour, minute and second on the clock of a zone from `start` (ns) on."""
    hour, minute, second = clock
    _checked(hour, minute, second)
    begin = datetime.fromtimestamp(start // SECOND, zone)
    day = begin.replace(hour=hour, minute=minute, second=int(second), microsecond=0)
    part = ns(second - int(second))
    at = round(day.timestamp()) * SECOND + part
    if at < start - SECOND:
        at = round((day + timedelta(days=1)).timestamp()) * SECOND + part
    return max(at, start) if at // SECOND == start // SECOND else at


def incident_of(text: str, of: Sequence[Explained]) -> tuple[Explained, list[Alert]]:
    """Returns the revisions of the incident whose id is or begins with `text`; raises
    ConfigError."""
    found = {id_: one for one in of for id_ in one.last if id_.startswith(text)} if text else {}
    if len(found) == 1:
        (id_, one), *_ = found.items()
        return one, [alert for alert in one.alerts if alert.id == id_]
    known = sorted(id_ for one in of for id_ in one.last)
    what = "several incidents begin so" if found else "there is no such incident"
    there = f"there is {', '.join(known[:10])}" if known else "nothing was told"
    msg = f"--incident {text[:40]!a}: {what}; {there}"
    raise ConfigError(msg)
