"""What was observed, judged again: why an alert did or did not come, by the rules of today.

Reads `observations.v1` back, from the local log (also while the daemon runs) or from Kafka, and
sends it through fusion and alerting on a bus in memory. Nothing is looked at or listened to again,
nothing is delivered, and nothing that is live is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pipeline import topics
from pipeline.bus.memory import MemoryBus
from pipeline.config.schema import Config
from pipeline.ports import Entry
from pipeline.run import drain
from pipeline.stages import JUDGES
from pipeline.types import Alert, Anomaly, ns
from workers import graph
from workers.replay.scene_replay import told
from workers.runtime.status import Status
from workers.stages.encoders import Encoders
from workers.stages.site_state import Head

PUBLISHED_AT_ONCE = 500  # entries published before the stages run, so that memory stays bounded


class Rejudged(msgspec.Struct, frozen=True, kw_only=True):
    """What was told, as each incident went on; all that fusion found; how many entries said so."""

    alerts: Sequence[Alert]
    anomalies: Sequence[Anomaly]
    entries: int


def span(config: Config, since: int, until: int) -> tuple[int, int]:
    """When what bears on `[since, until)` was appended, ns: the states need one horizon before it,
    and what a slow worker or an outage held back comes after it."""
    windows = [site.windows for site in config.sites.values()]
    before = max(ns(of.horizon + of.size) for of in windows)
    return since - before, until + max(ns(of.patience) for of in windows)


def rejudge(
    config: Config,
    encoders: Encoders,
    entries: Iterable[Entry],
    since: int,
    until: int,
    *,
    heads: Mapping[str, Head] | None = None,
) -> Rejudged:
    """The revisions of incidents that overlap `[since, until)` (ns), and what they are made of.

    `entries` are of observations.v1 in the order of the log. An incident that is open at the end of
    what is given has no closing revision.
    """
    bus = MemoryBus()
    nodes = graph.nodes(config, encoders, Status(), recorded=False, stages=JUDGES, judges=heads)
    runners = [node.runner(bus) for node in nodes]
    reader, below = (bus.reader(of, "rejudge") for of in (topics.ALERTS, topics.ANOMALIES))
    alerts: list[Alert] = []
    anomalies: list[Anomaly] = []
    batch: list[Entry] = []
    count = 0

    def run() -> None:
        for entry in batch:
            bus.publish(topics.OBSERVATIONS, entry.key, entry.value, entry.trace)
        bus.flush()
        batch.clear()
        drain(runners)
        alerts.extend(told(reader, Alert))
        anomalies.extend(told(below, Anomaly))

    for entry in entries:
        count += 1
        batch.append(entry)
        if len(batch) == PUBLISHED_AT_ONCE:
            run()
    run()
    return Rejudged(alerts=_overlapping(alerts, since, until), anomalies=anomalies, entries=count)


def _overlapping(alerts: Sequence[Alert], since: int, until: int) -> list[Alert]:
    """The revisions of each incident whose last known span overlaps `[since, until)`."""
    last = {alert.id: alert for alert in alerts}
    wanted = {
        id_
        for id_, alert in last.items()
        if alert.start < until and (alert.end is None or alert.end > since)
    }
    return [alert for alert in alerts if alert.id in wanted]
