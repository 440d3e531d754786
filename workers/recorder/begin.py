"""Where a recording begins: with a run-up, so that a replay reaches the state of then.

The run-up has the observations that fusion and alerting still know of at the begin, and the alerts
of the incidents that are open then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline import codec, topics
from pipeline.bus import log_search, log_tail
from pipeline.config.schema import Config
from pipeline.errors import DecodeError
from pipeline.types import FOREVER, event_start
from workers.bus.history import History
from workers.replay.observation_replay import span
from workers.replay.sent_alerts import LONGEST, run_up, sent_incidents

RUN_UP = (topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS)  # recorded from the run-up on
RECORDED = (*topics.CHUNKS, *RUN_UP, topics.LATE, topics.DEAD, topics.CONFIGS)


def run_up_begin(settings: Config, stored: History, since: int) -> int:
    """Returns the event time at which the run-up of a recording from `since` (ns) on begins."""
    entries = stored.appended(topics.ALERTS, max(0, since - 2 * LONGEST))
    sent = sent_incidents(settings, entries, since, FOREVER)
    floors = [
        run_up(site, sent[name], since, FOREVER).floor for name, site in settings.sites.items()
    ]
    begin, _ = span(settings, min(floors, default=since), since)
    return begin


def local_offsets(settings: Config, log: Path, stored: History, since: int) -> Mapping[str, int]:
    """Returns the first offset of each topic of the local log in `log` that is recorded."""
    begin = run_up_begin(settings, stored, since)
    found = {}
    for topic in RECORDED:
        if topic == topics.ALERTS:
            found[topic] = _first_alert(log, stored, begin)
        elif topic != topics.CONFIGS:
            found[topic] = first_offset(log, topic, begin if topic in RUN_UP else since)
    return found | {topics.CONFIGS: 0}


def _first_alert(log: Path, stored: History, start: int) -> int:
    """The same for alerts: those of an open incident have no end, and so no span in the log."""
    for entry in stored.appended(topics.ALERTS):
        try:
            alert = codec.decode(entry.value)
        except DecodeError:
            continue
        if event_start(alert) >= start:
            return entry.offset
    return log_tail.end(log, topics.ALERTS)


def first_offset(log: Path, topic: str, start: int) -> int:
    """Returns the offset of the first entry from `start` (ns) on; without one, the end offset."""
    last = log_tail.end(log, topic)
    first = next(log_search.between(log, topic, start, FOREVER), None) if last else None
    return last if first is None else first.offset
