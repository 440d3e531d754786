"""`fusewatch observations`: shows what was seen, heard and said."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from pipeline import codec, topics
from pipeline.config.schema import Config
from pipeline.errors import DecodeError
from pipeline.ports import Entry
from pipeline.types import FOREVER, SECOND, event_start
from workers.config import loader
from workers.replay.inputs import Given, Input, StoredInput, resolve
from workers.replay.observation_replay import span
from workers.stored.left_out import Unusable
from workers.stored.selection import Selection
from workers.tuning.observation_lines import KINDS, Observed, Reading, Writing
from workers.tuning.observing import observe, wanted_encoders, warn_of_losses

log = logging.getLogger("fusewatch")

CLOCKS_APART = 60 * SECOND  # ns; of a camera's machine and the brokers


def observations_command(
    path: Path,
    given: Given,
    *,
    kinds: Collection[str],
    empty: bool,
    utc: bool,
    as_json: bool,
) -> bool:
    """Prints what was observed, in the order of the log.

    `kinds` are words of `KINDS`, none for all. `empty`: also what nothing was found in. Returns
    whether all inputs could be used. Raises ConfigError and OutsideError.
    """
    settings = loader.load(path)
    unusable = Unusable()
    found = resolve(settings, path, given, unusable=unusable)
    encoders = wanted_encoders(found)
    writing = Writing(settings, sys.stdout.write, utc=utc, as_json=as_json)
    wanted = set(kinds or KINDS)

    shown = 0

    def show(observed: Observed) -> None:
        nonlocal shown
        if observed.kind in wanted and (empty or not observed.empty):
            writing.write(observed)
            shown += 1

    used = 0
    for one in found:
        take = _taking(one, show)
        with unusable.trying(one.path, alone=len(found) == 1):
            if isinstance(one, StoredInput):
                _read(settings, one, take)
            else:
                observe(settings, one, encoders.for_scenes(settings), take)
            used += 1
    unusable.check(used)
    if not shown:
        log.info("nothing of what is asked for was observed")
    return not unusable.left_out


def _read(settings: Config, one: StoredInput, take: Callable[[Entry], None]) -> None:
    chosen = one.selected
    with one.opened() as stored:
        if chosen.since is None:
            entries = stored.appended(topics.OBSERVATIONS)
        else:
            # Brokers search by the time at which a worker, maybe a slow one, has published it.
            _, end = span(settings, chosen.since, chosen.until or FOREVER)
            entries = stored.between(topics.OBSERVATIONS, chosen.since - CLOCKS_APART, end)
        for entry in entries:
            take(entry)
        warn_of_losses(one.path, stored)


def _taking(one: Input, show: Callable[[Observed], None]) -> Callable[[Entry], None]:
    reading, chosen = Reading(), one.selected

    def take(entry: Entry) -> None:
        try:
            record = codec.decode(entry.value)
        except DecodeError:
            return  # `fusewatch dead list` tells of it
        if not chosen.judges(record.site) or not _in_span(chosen, event_start(record)):
            return
        if (kept := chosen.kept(record)) is not None:
            for observed in reading.read(kept):
                show(observed)

    return take


def _in_span(chosen: Selection, time: int) -> bool:
    return (chosen.since or 0) <= time < (chosen.until or FOREVER)
