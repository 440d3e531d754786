"""Reads what a bus has stored between two times: the local log, or Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline import topics
from pipeline.bus import log_search
from pipeline.config import schema
from pipeline.config.schema import Config
from pipeline.errors import ConfigError
from pipeline.ports import Entry
from pipeline.types import FOREVER
from workers.bus.connect import kafka_bus
from workers.bus.time_option import moment
from workers.config.secrets import Secrets

if TYPE_CHECKING:
    from pipeline.bus.kafka.bus import KafkaBus


class History(Protocol):
    """The stored entries of a bus; all methods raise OutsideError.

    `between` has the entries that start in `[start, end)` (event time, ns) and may have more.
    `appended` has all entries appended from `start` (ns) on, and may have more. `oldest` is the
    offset of the oldest stored entry of each partition.
    """

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]: ...
    def appended(self, topic: str, start: int = 0) -> Iterator[Entry]: ...
    def oldest(self, topic: str) -> Mapping[int, int]: ...


class _LogHistory:
    """The log of a daemon in `folder`; a daemon may use it meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        return log_search.between(self._folder, topic, start, end)

    def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
        found = log_search.appended(self._folder, topic, 0, FOREVER)  # a scene may be of any time
        return (entry for _, entry in found)

    def oldest(self, topic: str) -> Mapping[int, int]:
        found = log_search.oldest(self._folder, topic)
        return {} if found is None else {0: found}


class _KafkaHistory:
    """The topics on brokers, which are searched by append time; a missing topic is empty."""

    def __init__(self, bus: KafkaBus) -> None:
        self._bus = bus

    def between(self, topic: str, start: int, end: int) -> Iterator[Entry]:
        return self._bus.between(topic, start, end)

    def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
        if self._bus.exists(topic):
            yield from self._bus.between(topic, start, FOREVER)

    def oldest(self, topic: str) -> Mapping[int, int]:
        return self._bus.oldest(topic) if self._bus.exists(topic) else {}


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
def history(settings: Config, path: Path, state: Path | None) -> Iterator[History]:
    """Opens what the config's bus has stored; `path` is the config, `state` a state folder."""
    if isinstance(settings.bus, schema.KafkaBus):
        bus = kafka_bus(settings.bus, Secrets(base=path.parent))
        try:
            yield _KafkaHistory(bus)
        finally:
            bus.close()
    else:
        yield _LogHistory((state or Path(settings.state)).expanduser() / "log")


@contextmanager
def observed(
    settings: Config, path: Path, state: Path | None, start: int, end: int
) -> Iterator[Iterator[Entry]]:
    """Opens the entries of `observations.v1` that the config's bus still has in `[start, end)`."""
    with history(settings, path, state) as stored:
        yield stored.between(topics.OBSERVATIONS, start, end)
