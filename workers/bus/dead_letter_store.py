"""Reads and retries the dead letters of a config's bus: of the brokers, or of a daemon's log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline import topics
from pipeline.bus import log_search
from pipeline.config.schema import Config, KafkaBus
from pipeline.errors import OutsideError
from pipeline.ports import Bus, Sink
from pipeline.types import ns
from workers.bus import dead_letters
from workers.bus.connect import kafka_bus
from workers.bus.dead_letters import REPEATS_NOTE, Found, Retrier, Stored
from workers.bus.time_option import moment
from workers.config.secrets import Secrets
from workers.delivery.subscribers import remote
from workers.runtime.state_folder import local_log

MAX_CLOCK_AHEAD = ns(3600)  # a broker's clock may be this far ahead of ours


@contextmanager
def stored_letters(
    settings: Config, path: Path, state: Path | None, since: str, site: str | None
) -> Iterator[Iterator[Found]]:
    """Opens the entries of `dead.v1`; `path` is the config's file.

    A log can be read while its daemon runs. Raises OutsideError when brokers or log cannot be read.
    """
    if isinstance(settings.bus, KafkaBus):
        with closing(kafka_bus(settings.bus, Secrets(base=path.parent))) as bus:
            yield dead_letters.read(bus.appended(topics.DEAD, *_span(since)), site=site)
    else:
        folder = _folder(settings, state) / "log"
        yield dead_letters.read(log_search.appended(folder, topics.DEAD, *_span(since)), site=site)


def retry(
    settings: Config,
    path: Path,
    state: Path | None,
    *,
    ids: Sequence[str],
    since: str = "",
    site: str | None = None,
    as_json: bool = False,
) -> Iterator[tuple[bool, str]]:
    """Sends the letters with these ids again, or all of the site and time.

    Yields for each whether it was sent, and a line about it. No daemon may run on the log: raises
    OutsideError when another process has it.
    """
    secrets = Secrets(base=path.parent)

    def sinks() -> Mapping[str, Sink]:
        return {who.name: who.sink for who in remote(settings, secrets, _folder(settings, state))}

    with _writing(settings, path, state, secrets, since) as (bus, stored):
        found = dead_letters.read(stored, site=site)
        retrier = Retrier(bus, sinks)
        for each in dead_letters.select_letters(found, ids) if ids else found:
            went, what = retrier.retry(each)
            what = secrets.redact(dead_letters.shown(what))
            row = {"id": each.id, "sent": went, "outcome": what}
            yield (
                went,
                json.dumps(row) if as_json else f"{each.id}: {'' if went else 'not sent: '}{what}",
            )
        if retrier.sent and not as_json:
            yield True, REPEATS_NOTE


@contextmanager
def _writing(
    settings: Config, path: Path, state: Path | None, secrets: Secrets, since: str
) -> Iterator[tuple[Bus, Iterator[Stored]]]:
    if isinstance(settings.bus, KafkaBus):
        with closing(kafka_bus(settings.bus, secrets)) as kafka:
            yield kafka, kafka.appended(topics.DEAD, *_span(since))
    else:
        folder = _folder(settings, state)
        if not (folder / "log").is_dir():
            msg = f"{folder} holds no log of a daemon; give its state folder: --state DIR"
            raise OutsideError(msg)
        with closing(local_log(settings, folder)) as local:
            yield local, log_search.appended(folder / "log", topics.DEAD, *_span(since))


def _folder(settings: Config, state: Path | None) -> Path:
    return (state or Path(settings.state)).expanduser()


def _span(since: str) -> tuple[int, int]:
    now = time.time_ns()
    return (moment(since, "--since", now) if since else 0), now + MAX_CLOCK_AHEAD
