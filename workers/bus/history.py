"""Reads stored observations between two times, from the local log or from Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import topics
from pipeline.bus.log_search import between
from pipeline.config import schema
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.ports import Entry
from workers.bus.connect import kafka_bus
from workers.bus.time_option import moment
from workers.config.secrets import Secrets


def moments(since: str, until: str | None) -> tuple[int, int]:
    """The span of `--since` and `--until` (default: now), ns; raises ConfigError."""
    now = time.time_ns()
    start = moment(since, "--since", now)
    end = now if until is None else moment(until, "--until", now)
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
