"""Reads the times of the options `--since` and `--until`: a span before now, or a moment."""

from __future__ import annotations

import re
from datetime import datetime

from pipeline.errors import ConfigError
from pipeline.types import SECOND, ns

LATEST_TIME = 4_102_444_800  # s since 1970: the year 2100
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(rf"([0-9]{{1,9}}) ?({'|'.join(_UNITS)})")


def moment(text: str, option: str, now: int) -> int:
    """Returns the ns UTC of `30s`, `10m`, `2h`, `3d` before `now`, or of an RFC 3339 time.

    `now` is ns UTC. Raises ConfigError, which names the option.
    """
    span = _SPAN.fullmatch(text.strip())
    ago = int(span[1]) * _UNITS[span[2]] * SECOND if span else 0
    time = now - ago if span else _calendar(text.strip(), option)
    if not 0 <= time < ns(LATEST_TIME):
        msg = f"{option} {_shown(text)}: before 1970 or after 2100 nothing was observed"
        raise ConfigError(msg)
    return time


def length(text: str, option: str) -> int:
    """Returns the ns of `30s`, `10m`, `2h`, `3d`; raises ConfigError, which names the option."""
    span = _SPAN.fullmatch(text.strip())
    if span is None or int(span[1]) == 0:
        msg = f"{option} {_shown(text)}: a span like 30s, 10m or 2h, please"
        raise ConfigError(msg)
    return int(span[1]) * _UNITS[span[2]] * SECOND


def _calendar(text: str, option: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        zone = "" if found is None else ", with its zone (Z is UTC)"
        msg = (
            f"{option} {_shown(text)}: a span like 10m, 2h or 3d, "
            f"or a time like 2026-01-05T22:00:00Z, please{zone}"
        )
        raise ConfigError(msg)
    return ns(found.timestamp())


def _shown(text: str) -> str:
    return ascii(text[:40])
