"""Reads and retries the dead letters of a config's bus: of the brokers, or of a daemon's log.

While a daemon runs on the log, it alone may write to it. `retry` then asks it over its local
endpoint, and `DaemonRetries` is its answer. Webhooks are sent to from here in any case: a receiver
that hangs holds up no thread of the daemon.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline import topics
from pipeline.bus import log_search
from pipeline.config.schema import Config, KafkaBus
from pipeline.errors import ConfigError, LogInUse, OutsideError
from pipeline.ports import Bus
from pipeline.types import ns
from workers.bus import dead_letters
from workers.bus.connect import kafka_bus
from workers.bus.dead_letters import REPEATS_NOTE, Found, Retrier, Stored
from workers.bus.time_option import moment
from workers.capture.report_client import read_token, send_dead_letter
from workers.capture.running_daemons import running
from workers.config.secrets import Secrets
from workers.delivery.delivery import Subscriber
from workers.delivery.subscribers import local, remote
from workers.runtime.state_folder import local_log

MAX_CLOCK_AHEAD = ns(3600)  # a broker's clock may be this far ahead of ours


@contextmanager
def stored_letters(
    settings: Config,
    path: Path,
    state: Path | None,
    since: str,
    site: str | None,
    subscriber: str | None = None,
) -> Iterator[Iterator[Found]]:
    """Opens the entries of `dead.v1`; `path` is the config's file.

    A log can be read while its daemon runs. Raises OutsideError when brokers or log cannot be read.
    """
    if isinstance(settings.bus, KafkaBus):
        with closing(kafka_bus(settings.bus, Secrets(base=path.parent))) as bus:
            stored = bus.appended(topics.DEAD, *_span(since))
            yield dead_letters.read(stored, site=site, subscriber=subscriber)
    else:
        stored = log_search.appended(_folder(settings, state) / "log", topics.DEAD, *_span(since))
        yield dead_letters.read(stored, site=site, subscriber=subscriber)


def retry(
    settings: Config,
    path: Path,
    state: Path | None,
    *,
    ids: Sequence[str],
    since: str = "",
    site: str | None = None,
    subscriber: str | None = None,
    as_json: bool = False,
) -> Iterator[tuple[bool, str]]:
    """Sends the letters with these ids again, or all of the site, subscriber and time.

    Yields for each whether it was sent, and a line about it. Raises OutsideError when another
    process has the log and no daemon answers.
    """
    secrets = Secrets(base=path.parent)
    with _retrier(settings, path, state, secrets) as retrier:
        with stored_letters(settings, path, state, since, site, subscriber) as found:
            for each in dead_letters.select_letters(found, ids) if ids else found:
                went, what = retrier.retry(each)
                what = secrets.redact(dead_letters.shown(what))
                row = {"id": each.id, "sent": went, "outcome": what}
                line = f"{each.id}: {'' if went else 'not sent: '}{what}"
                yield went, json.dumps(row) if as_json else line
        if retrier.sent and not as_json:
            yield True, REPEATS_NOTE


@contextmanager
def _retrier(
    settings: Config, path: Path, state: Path | None, secrets: Secrets
) -> Iterator[Retrier]:
    folder = _folder(settings, state)
    if isinstance(settings.bus, KafkaBus):
        with closing(kafka_bus(settings.bus, secrets)) as kafka:
            yield Retrier(kafka, lambda: _all(settings, secrets, folder, kafka))
        return
    if not (folder / "log").is_dir():
        msg = f"{folder} holds no log of a daemon; give its state folder: --state DIR"
        raise OutsideError(msg)
    try:
        log = local_log(settings, folder)
    except LogInUse as in_use:
        daemon = _Daemon(settings, folder, secrets, in_use)
        yield Retrier(None, lambda: remote(settings, secrets, folder), daemon)
        return
    with closing(log):
        yield Retrier(log, lambda: _all(settings, secrets, folder, log))


def _all(settings: Config, secrets: Secrets, folder: Path, bus: Bus) -> list[Subscriber]:
    """The webhooks, and the files if `folder` is where a delivery keeps them."""
    files = local(settings, folder, bus) if (folder / "alerts.jsonl").exists() else []
    return [*remote(settings, secrets, folder), *files]


class _Daemon:
    """Asks the daemon that runs on the log in `folder`; raises OutsideError if none answers."""

    def __init__(self, settings: Config, folder: Path, secrets: Secrets, in_use: LogInUse) -> None:
        self._settings, self._folder, self._secrets = settings, folder, secrets
        self._in_use = in_use
        self._target: tuple[str, str] | None = None

    def __call__(self, id_: str) -> tuple[bool, str]:
        try:
            if self._target is None:
                self._target = self._found()
            return send_dead_letter(*self._target, id_)
        except OutsideError as error:
            msg = f"{self._in_use}, and that one did not send it again: {error}"
            raise OutsideError(msg) from error

    def _found(self) -> tuple[str, str]:
        """The daemon's address and token."""
        here = os.path.realpath(self._folder)
        same = [one.url for one in running() if os.path.realpath(one.state) == here]
        given = self._settings.api.token
        if given:
            token = self._secrets.lookup(given, "api.token").reveal()
        else:
            token = read_token(self._folder)
            self._secrets.remember(token)
        return same[0] if same else f"http://{self._settings.api.listen}", token


class DaemonRetries:
    """Sends dead letters of the daemon's own log again, when `fusewatch dead retry` asks for it.

    It serves what needs the log or the state folder: records of topics, and alerts of files.
    """

    def __init__(self, settings: Config, folder: Path, bus: Bus) -> None:
        self._log = folder / "log"
        self._lock = threading.Lock()  # files are written by one thread at a time
        self._retrier = Retrier(bus, lambda: local(settings, folder, bus))

    def __call__(self, id_: str) -> tuple[bool, str]:
        """Sends one again; returns whether it was sent, and the outcome. Raises ConfigError."""
        partition, offset = dead_letters.parsed_id(id_)
        stored: Stored | None = log_search.at(self._log, topics.DEAD, offset)
        if partition or stored is None:
            msg = f"no dead letter {id_}; `dead list` shows what there is"
            raise ConfigError(msg)
        with self._lock:
            return self._retrier.retry(dead_letters.found_in(*stored))


def _folder(settings: Config, state: Path | None) -> Path:
    return (state or Path(settings.state)).expanduser()


def _span(since: str) -> tuple[int, int]:
    now = time.time_ns()
    return (moment(since, "--since", now) if since else 0), now + MAX_CLOCK_AHEAD
