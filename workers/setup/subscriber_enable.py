"""Enables a subscriber that answered 410 Gone (`fusewatch webhooks enable`).

It writes an enable mark into the state folder, and nothing else. A delivery reads the mark at its
start and at each step. So the command works while a daemon or a delivery worker runs and while none
does, and a kill at any moment leaves the old mark or the new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from pipeline.config.checks import webhook_names
from pipeline.config.problem import nearest
from pipeline.config.schema import Config, LocalBus
from pipeline.errors import ConfigError, OutsideError
from pipeline.types import ns
from workers.bus.dead_letter_store import stored_letters
from workers.capture.running_daemons import RunningDaemon
from workers.config.secrets import Secrets
from workers.delivery.breaker import GONE
from workers.setup import subscriber_health

TAKEN_UP_WITHIN = 5.0  # s that a running daemon gets to take the mark up
LOOK_EVERY = 0.1  # s


class Enabled(msgspec.Struct, frozen=True, kw_only=True):
    """What enabling a subscriber did.

    `was` is its state before. `takes_up` says when the mark counts. `dead_letters` are the alerts
    that a 410 made dead letters, `retry` is the command that sends them again.
    """

    name: str
    was: str
    takes_up: str
    dead_letters: int | None = 0  # None: they cannot be read now, as `problem` says
    retry: str = ""
    problem: str = ""

    def lines(self) -> Iterable[str]:
        """What a person reads."""
        if self.was == "disabled":
            yield f"{self.name} is enabled again; {self.takes_up}"
        elif self.was == "taking":
            yield f"{self.name} was not disabled: it takes alerts"
        else:
            yield f"{self.name} was not disabled, but {self.was}: it is tried at once"
        if self.dead_letters:
            count = self.dead_letters
            became = "alert became a dead letter" if count == 1 else "alerts became dead letters"
            yield f"{count} {became} because of 410 Gone; to send again: {self.retry}"
        if self.problem:
            yield f"dead letters cannot be counted: {self.problem}"


def enable(
    config: Config,
    path: Path,
    name: str,
    secrets: Secrets,
    daemons: Iterable[RunningDaemon],
    clock: Callable[[], float] = time.time,
) -> Enabled:
    """Enables the subscriber `name` of the config at `path`, whose state folder is `config.state`.

    Raises ConfigError for an unknown name, OutsideError for a folder that no delivery has used.
    """
    known = (*webhook_names(config), *sorted(subscriber_health.files(config)))
    if name not in known:
        msg = f"there is no subscriber {name!r}{nearest(name, known)}; there is {', '.join(known)}"
        raise ConfigError(msg)
    folder = Path(config.state).expanduser()
    _check_folder(config, folder)
    address = _address(config, name, secrets)
    before = subscriber_health.state(config, name, _notes(config, secrets), address)
    subscriber_health.enable_mark(config, name).write(ns(clock()))
    takes_up = _taken_up(config, name, secrets, daemons)
    since = before.since if before.state == "disabled" else ""
    try:
        with stored_letters(config, path, folder, since, None, name) as found:
            count = sum(bool(each.letter and GONE in each.letter.reason) for each in found)
    except OutsideError as error:
        return Enabled(
            name=name, was=before.state, takes_up=takes_up, dead_letters=None, problem=str(error)
        )
    words = ["fusewatch dead retry", str(path), f"--all --subscriber {name}"]
    words += [f"--since {since}"] if since else []
    words += [f"--state {folder}"]
    retry = " ".join(words) if count else ""
    return Enabled(name=name, was=before.state, takes_up=takes_up, dead_letters=count, retry=retry)


def disabled_webhooks(config: Config, secrets: Secrets) -> frozenset[str]:
    """Returns the names of the webhooks that have answered 410 Gone."""
    notes = _notes(config, secrets)
    return frozenset(
        name
        for name in webhook_names(config)
        if subscriber_health.state(config, name, notes, _address(config, name, secrets)).state
        == "disabled"
    )


def _check_folder(config: Config, folder: Path) -> None:
    """Raises OutsideError for a state folder that no delivery has used: no one would read it."""
    if isinstance(config.bus, LocalBus):
        if not (folder / "log").is_dir():
            msg = f"{folder} holds no log of a daemon; give its state folder: --state DIR"
            raise OutsideError(msg)
    elif not (folder / "alerts.jsonl").exists():
        msg = (
            f"{folder} is not the state folder of a delivery worker; run this on its machine, with "
            "the same --state DIR as the worker"
        )
        raise OutsideError(msg)


def _notes(config: Config, secrets: Secrets) -> subscriber_health.Notes:
    return subscriber_health.notes(config, secrets)


def _address(config: Config, name: str, secrets: Secrets) -> str:
    for i, (known, given) in enumerate(zip(webhook_names(config), config.webhooks, strict=True)):
        if known == name:
            return secrets.webhook(given, f"webhooks[{i}]").url
    return ""


def _taken_up(config: Config, name: str, secrets: Secrets, daemons: Iterable[RunningDaemon]) -> str:
    """Waits until a running daemon has taken the mark up, and says what it found."""
    if not isinstance(config.bus, LocalBus):
        return "a running delivery worker with this state folder sends it the alerts that come"
    if not subscriber_health.runs(config, daemons):
        return "no daemon runs now; the next one sends it the alerts that come"
    until = time.monotonic() + TAKEN_UP_WITHIN
    while time.monotonic() < until:
        notes = _notes(config, secrets)
        if subscriber_health.settled(name, notes):
            return "the running daemon sends it the alerts that come"
        time.sleep(LOOK_EVERY)
    return "the daemon takes it up when its present attempt is over"
