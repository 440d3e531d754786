"""Reads stored observations between two times, from the local log or from Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pipeline import topics
from pipeline.bus.log_search import between
from pipeline.config import schema
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.ports import Entry
from pipeline.types import ns
from workers.bus.connect import kafka_bus
from workers.config.secrets import Secrets

LATEST_TIME = 4_102_444_800  # s since 1970: the year 2100


def moments(since: str, until: str | None) -> tuple[int, int]:
    """The span of `--since` and `--until` (default: now), ns; raises ConfigError."""
    start = _moment(since, "--since")
    end = time.time_ns() if until is None else _moment(until, "--until")
    if start >= end:
        msg = f"--since {since} is not before --until {until or 'now'}"
        raise ConfigError(msg)
    return start, end


@contextmanager
def observed(
    settings: Config, path: Path, state: Path | None, start: int, end: int
) -> Iterator[Iterator[Entry]]:
    """Opens the entries of `observations.v1` that the config's bus still has in `[start, end)`."""
    if isinstance(settings.bus, schema.KafkaBus):
        bus = kafka_bus(settings.bus, Secrets(base=path.parent))
        try:
            yield bus.between(topics.OBSERVATIONS, start, end)
        finally:
            bus.close()
    else:
        folder = (state or Path(settings.state)).expanduser() / "log"
        yield between(folder, topics.OBSERVATIONS, start, end)


def _moment(text: str, option: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        msg = f"{option} {text[:40]!r}: a time like 2026-01-05T22:00:00Z, please"
        raise ConfigError(msg)
    since = moment.timestamp()
    if not 0 <= since < LATEST_TIME:
        msg = f"{option} {text[:40]!r}: before 1970 or after 2100 nothing was observed"
        raise ConfigError(msg)
    return ns(since)
