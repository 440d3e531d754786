"""Tells in which state subscribers are, by what their deliveries have committed.

A delivery commits each change of its state, with its reason, to the log or to the brokers. So the
answer is the same while the daemon runs, after a restart, and when it is stopped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from msgspec import structs

from pipeline import topics
from pipeline.bus.log_commits import commits
from pipeline.config.checks import webhook_names
from pipeline.config.schema import Config, LocalBus
from pipeline.errors import OutsideError
from pipeline.types import content_id
from workers.bus.connect import kafka_bus
from workers.capture.running_daemons import RunningDaemon
from workers.config.secrets import Secrets
from workers.delivery.breaker import SharedBreaker, state_of
from workers.delivery.enable_mark import EnableMark
from workers.delivery.outbox import unpack
from workers.runtime.status import SubscriberState

GROUP = "delivery-"
Notes = Mapping[str, list[tuple[int, bytes]]]  # subscriber -> (offset, note) of each partition


def notes(config: Config, secrets: Secrets) -> Notes:
    """Returns what the delivery of each subscriber has committed; none where it never ran.

    Raises OutsideError for a log that cannot be read, and for brokers that are away.
    """
    if isinstance(config.bus, LocalBus):
        folder = Path(config.state).expanduser() / "log"
        return {
            group.removeprefix(GROUP): [place]
            for group, place in commits(folder, topics.ALERTS).items()
            if group.startswith(GROUP)
        }
    with closing(kafka_bus(config.bus, secrets)) as bus:
        return {
            name: list(bus.committed(topics.ALERTS, f"{GROUP}{name}").values())
            for name in (*webhook_names(config), *files(config))
        }


def state(config: Config, name: str, places: Notes, address: str = "") -> SubscriberState:
    """Returns the state of a subscriber; `address` is its present one. Raises OutsideError."""
    breaker = SharedBreaker(address, enable_mark(config, name), lambda: 0.0)
    waiting, nexts = 0, []
    for offset, note in places.get(name, ()):
        try:
            _, noted, items = unpack(offset, note)
        except OutsideError as error:
            msg = f"{config.state}: subscriber {name}: {error}"
            raise OutsideError(msg) from error
        breaker.restore(noted)
        waiting += len(items)
        nexts += [later for attempts, later in items.values() if attempts]
    return state_of(
        breaker.value,
        disabled=breaker.disabled,
        waiting=waiting,
        next_try=max(min(nexts), breaker.value.until) if nexts else breaker.value.until,
    )


def settled(name: str, places: Notes) -> bool:
    """Whether no note of the subscriber says that an address of it is disabled."""
    return not any(unpack(*place)[1].disabled for place in places.get(name, ()))


def enable_mark(config: Config, name: str) -> EnableMark:
    """Returns the enable mark of a subscriber in the config's state folder."""
    return EnableMark(Path(config.state).expanduser(), name)


def files(config: Config) -> frozenset[str]:
    """Returns the names of the subscribers that are JSON lines files or the pictures of alerts."""
    given = (f"jsonl-{content_id(one.path)[:8]}" for one in config.jsonl)
    return frozenset(("jsonl", "evidence", *given))


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


def runs(config: Config, daemons: Iterable[RunningDaemon]) -> bool:
    """Whether a daemon runs with the state folder of the config."""
    folder = os.path.realpath(Path(config.state).expanduser())
    return any(os.path.realpath(daemon.state) == folder for daemon in daemons)
