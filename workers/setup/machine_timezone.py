"""The time zone that this machine is set to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def machine_timezone(env: Mapping[str, str] = os.environ, etc: Path = Path("/etc")) -> str:
    """Returns the name of the machine's zone, like Europe/Berlin; UTC if it has no name."""
    return next((name for name in _candidates(env, etc) if is_timezone(name)), "UTC")


def is_timezone(name: str) -> bool:
    """Returns whether the time zone database has `name`."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _candidates(env: Mapping[str, str], etc: Path) -> Iterator[str]:
    """Yields what may be the name, in the order in which the C library and Debian look."""
    if given := env.get("TZ", "").removeprefix(":"):
        yield given.partition("zoneinfo/")[2] or given
    try:
        yield str((etc / "localtime").resolve()).partition("zoneinfo/")[2]
        yield (etc / "timezone").read_text(errors="replace").strip()
    except OSError:
        return
