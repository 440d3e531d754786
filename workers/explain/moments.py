"""Reads the time of `--at`, and finds the incident of `--incident`."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

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


def at_time(text: str, of: Explained) -> int:
    """Returns the ns of `--at`: a time of day at the site, `+12.5` s after the begin, a span before
    now, or RFC 3339. Raises ConfigError if nothing of that time is explained."""
    words = text.strip()
    if found := _AFTER.fullmatch(words):
        at = of.start + ns(float(found[1]))
    elif found := _DAY_TIME.fullmatch(words):
        at = _of_day(int(found[1]), int(found[2]), float(found[3] or 0), of)
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


def _of_day(hour: int, minute: int, second: float, of: Explained) -> int:
    """The first such time of day, on the clock of the site, from the begin on."""
    _checked(hour, minute, second)
    begin = datetime.fromtimestamp(of.start // SECOND, of.zone)
    day = begin.replace(hour=hour, minute=minute, second=int(second), microsecond=0)
    part = ns(second - int(second))
    at = round(day.timestamp()) * SECOND + part
    if at < of.start - SECOND:
        at = round((day + timedelta(days=1)).timestamp()) * SECOND + part
    return max(at, of.start) if at // SECOND == of.start // SECOND else at


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
