"""Judges stored observations again by the present rules: why an alert did or did not come.

Reads `observations.v1` from the local log (even while the daemon runs) or from Kafka, and sends it
through fusion and alerting on a bus in memory. No encoder runs again, nothing is delivered, and no
live data changes.
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
from workers.replay.scene_replay import new_records
from workers.runtime.status import Status
from workers.stages.encoders import Encoders
from workers.stages.site_state import Head

PUBLISHED_AT_ONCE = 500  # entries published before the stages run, so that memory stays bounded


class Rejudged(msgspec.Struct, frozen=True, kw_only=True):
    """The alert revisions in order, all anomalies of fusion, and the number of entries read."""

    alerts: Sequence[Alert]
    anomalies: Sequence[Anomaly]
    entries: int


def span(config: Config, since: int, until: int) -> tuple[int, int]:
    """Returns the append times, ns, of all entries that matter for `[since, until)`.

    The states need one horizon before it. Entries that a slow worker or an outage delayed come
    after it.
    """
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
    """Returns the revisions of incidents that overlap `[since, until)` (ns), and their anomalies.

    `entries` are those of observations.v1 in log order. An incident that is open at their end has
    no closing revision.
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
        alerts.extend(new_records(reader, Alert))
        anomalies.extend(new_records(below, Anomaly))

    for entry in entries:
        count += 1
        batch.append(entry)
        if len(batch) == PUBLISHED_AT_ONCE:
            run()
    run()
    return Rejudged(alerts=_overlapping(alerts, since, until), anomalies=anomalies, entries=count)


def _overlapping(alerts: Sequence[Alert], since: int, until: int) -> list[Alert]:
    """Returns the revisions of each incident whose last known span overlaps `[since, until)`."""
    last = {alert.id: alert for alert in alerts}
    wanted = {
        id_
        for id_, alert in last.items()
        if alert.start < until and (alert.end is None or alert.end > since)
    }
    return [alert for alert in alerts if alert.id in wanted]
