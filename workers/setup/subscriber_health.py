"""Tells which subscribers fail or are disabled, by what their deliveries have committed.

A delivery commits each change of its state to the local log. So the answer is the same while the
daemon runs, after a restart, and when it is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import structs

from pipeline import topics
from pipeline.bus.log_commits import commits
from pipeline.config.schema import Config, LocalBus
from pipeline.errors import OutsideError
from pipeline.types import content_id, ns, rfc3339
from workers.capture.running_daemons import RunningDaemon
from workers.delivery.outbox import CircuitBreaker, fingerprint, unpack

GROUP = "delivery-"
GONE = (
    "has answered 410 Gone, so its alerts go to the dead letters; give it another url, or remove "
    "the webhook (fusewatch dead list shows its alerts)"
)


def breakers(config: Config) -> Mapping[str, CircuitBreaker]:
    """Returns subscriber -> its circuit breaker, as last committed in the state folder's log.

    It is empty where nothing was delivered yet, and over Kafka. Raises OutsideError for a log or
    a note that cannot be read.
    """
    if not isinstance(config.bus, LocalBus):
        return {}
    folder = Path(config.state).expanduser() / "log"
    found = {}
    for group, (offset, note) in commits(folder, topics.ALERTS).items():
        if group.startswith(GROUP):
            try:
                found[group.removeprefix(GROUP)] = unpack(offset, note)[1]
            except OutsideError as error:
                msg = f"{folder}: {group}: {error}"
                raise OutsideError(msg) from error
    return found


def files(config: Config) -> frozenset[str]:
    """Returns the names of the subscribers that are JSON lines files or the pictures of alerts."""
    given = (f"jsonl-{content_id(one.path)[:8]}" for one in config.jsonl)
    return frozenset(("jsonl", "evidence", *given))


def trouble(breaker: CircuitBreaker, address: str = "") -> str:
    """Returns what is wrong with a subscriber, or nothing; `address` is its present one."""
    if address and breaker.disabled == fingerprint(address):
        return GONE
    if breaker.failures:
        times = f"{breaker.failures} times in a row" if breaker.failures > 1 else "once"
        until = rfc3339(ns(int(breaker.until)))[:19]
        return f"failed {times}; it is tried again at {until}Z"
    return ""


def with_state(
    config: Config, path: Path, state: Path | None, daemons: Iterable[RunningDaemon]
) -> Config:
    """Returns the config with the state folder that is used.

    It is the given one, that of the daemon which runs with the config at `path`, or the config's.
    """
    for daemon in () if state is not None else daemons:
        same_config = daemon.config and Path(daemon.config) == path.absolute()
        if same_config or daemon.url == f"http://{config.api.listen}":
            state = Path(daemon.state)
    return config if state is None else structs.replace(config, state=str(state))
