"""Judges the incidents of a span again as they were judged, and compares both."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pipeline import topics
from pipeline.config.schema import Config
from pipeline.judge.refusal import CollectorOf
from workers.bus.history import History
from workers.bus.site_configs import in_force, judging, read_configs
from workers.replay import comparison
from workers.replay.comparison import Comparison
from workers.replay.observation_replay import Rejudged, Rejudging, span
from workers.replay.sent_alerts import LONGEST, run_up, sent_incidents
from workers.stages.encoders import Encoders
from workers.stages.site_plan import load_heads
from workers.stages.site_state import Head


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What was judged again, and how it compares with what was sent."""

    judged: Rejudged
    compared: Comparison


def judge_again(
    settings: Config,
    encoders: Encoders,
    stored: History,
    since: int,
    until: int,
    *,
    heads: Mapping[str, Head] | None = None,
    refusals: CollectorOf | None = None,
) -> Again:
    """Judges the incidents that overlap `[since, until)` (ns), from their first observation on.

    With the rules, heads and code of then, the revisions are those that were sent, byte for byte.
    With `refusals`, the result has the anomalies, too.
    """
    heads = load_heads(settings) if heads is None else heads
    then = list(read_configs(entry.value for entry in stored.appended(topics.CONFIGS)))
    recorded = any(
        config.recorded for site in settings.sites for config in in_force(then, site, since, until)
    )
    now = judging(settings, heads, until, recorded=recorded)
    # An incident and the one before it last at most so long.
    entries = stored.appended(topics.ALERTS, max(0, since - 2 * LONGEST))
    sent = sent_incidents(settings, entries, since, until)
    run_ups = {
        name: run_up(site, sent[name], since, until) for name, site in settings.sites.items()
    }
    judge = Rejudging(
        settings,
        encoders,
        since,
        until,
        heads=heads,
        floors={name: run.floor for name, run in run_ups.items()},
        recorded=recorded,
        anomalies=refusals is not None,
        refusals=refusals,
    )
    begin, _ = span(settings, min(run.floor for run in run_ups.values()), until)
    _, end = span(settings, since, until)
    judge.feed(stored.between(topics.OBSERVATIONS, begin, end))
    judge.feed_until_done(stored.between(topics.OBSERVATIONS, end, end + LONGEST))
    judged = judge.result()
    wanted = [incident for run in run_ups.values() for incident in run.wanted]
    outside = comparison.outside(wanted)
    replayed = [incident for incident in wanted if incident.id not in outside]
    begins = {incident.site: incident.start for incident in reversed(wanted)}
    changes, unknown = comparison.config_changes(then, now, begins, since, until)
    compared = Comparison(
        sent_incidents=len(replayed),
        sent_revisions=sum(len(incident.revisions) for incident in replayed),
        differs=comparison.compared(
            replayed, [alert for alert in judged.alerts if alert.id not in outside]
        ),
        not_replayed=outside,
        unsure=comparison.unsure(
            settings,
            run_ups,
            judge.begins,
            judge.partitions,
            stored.oldest(topics.OBSERVATIONS),
        ),
        config=changes,
        config_unknown=unknown,
    )
    return Again(judged=judged, compared=compared)
