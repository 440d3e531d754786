"""Judges the incidents of a span again as they were judged, and compares both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from models.fusion.head import Head
from pipeline import topics
from pipeline.config.schema import Config
from pipeline.judge.refusal import CollectorOf
from workers.bus.history import History
from workers.bus.site_configs import in_force, judging, read_configs
from workers.replay import comparison
from workers.replay.comparison import Comparison, Unsure
from workers.replay.frame_replay import FrameJudging, FramesJudged
from workers.replay.observation_replay import Rejudged, Rejudging, span
from workers.replay.sent_alerts import LONGEST, RunUp, SentIncident, run_up, sent_incidents
from workers.stages.encoders import Encoders
from workers.stages.site_plan import load_heads
from workers.stored.pace import Heard, Pace
from workers.stored.selection import ALL, Selection

FRAMES, OBSERVATIONS = "frames", "observations"  # what is judged again
ORIGINS = (FRAMES, OBSERVATIONS)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a span is judged again.

    `origin`: `observations`, or `frames`, which runs the encoders again. `speed` is a multiple of
    real time (None: as fast as possible), `heard` is told the finished and the total event time.
    `refusals` gives the collector of what stood in the way of a site's alerts, from observations;
    the result has the anomalies then, too.
    """

    origin: str = OBSERVATIONS
    selected: Selection = ALL
    speed: float | None = None
    heard: Heard = lambda done, all_: None
    refusals: CollectorOf | None = None


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What was judged again, and how it compares with what was sent.

    `frames` tells of the chunks that were judged, if they were.
    """

    judged: Rejudged
    compared: Comparison
    frames: FramesJudged | None = None


class _Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent of the chosen sites, and from where on it is judged again."""

    run_ups: Mapping[str, RunUp]
    wanted: Sequence[SentIncident]
    outside: Sequence[str]  # ids of incidents that fusion did not judge

    @property
    def floors(self) -> dict[str, int]:
        return {name: run.floor for name, run in self.run_ups.items()}

    @property
    def replayed(self) -> list[SentIncident]:
        return [incident for incident in self.wanted if incident.id not in self.outside]


def judge_again(
    settings: Config,
    encoders: Encoders,
    stored: History,
    since: int,
    until: int,
    *,
    heads: Mapping[str, Head] | None = None,
    way: Way = Way(),  # noqa: B008, it is frozen
) -> Again:
    """Judges the incidents that overlap `[since, until)` (ns), from their first observation on.

    With the rules, heads and code of then, the revisions are those that were sent, byte for byte.
    From frames, the last revisions tell the same, unless live has passed over frames.
    """
    heads = load_heads(settings) if heads is None else heads
    chosen = way.selected
    then = list(read_configs(entry.value for entry in stored.appended(topics.CONFIGS)))
    recorded = any(
        config.recorded for site in settings.sites for config in in_force(then, site, since, until)
    )
    now = judging(settings, heads, until, recorded=recorded)
    sent = _sent(settings, stored, chosen, since, until)
    begin, _ = span(settings, min(sent.floors.values(), default=since), until)
    _, end = span(settings, since, until)
    changes, unknown = comparison.config_changes(
        [config for config in then if chosen.judges(config.site)],
        [config for config in now if chosen.judges(config.site)],
        {incident.site: incident.start for incident in reversed(sent.wanted)},
        since,
        until,
    )
    pace = Pace(since, until, way.speed, way.heard)
    frames: FramesJudged | None = None
    unsure: Sequence[Unsure] = ()
    if way.origin == FRAMES:
        run = FrameJudging(
            settings,
            encoders,
            since,
            until,
            heads=heads,
            floors=sent.floors,
            recorded=recorded,
            selected=chosen,
            pace=pace,
        )
        run.run(stored, begin, LONGEST)
        judged, frames = run.result(), run.told()
        compare = comparison.compared_last
    else:
        judge = Rejudging(
            settings,
            encoders,
            since,
            until,
            heads=heads,
            floors=sent.floors,
            recorded=recorded,
            selected=chosen,
            pace=pace,
            anomalies=way.refusals is not None,
            refusals=way.refusals,
        )
        judge.feed(stored.between(topics.OBSERVATIONS, begin, end))
        judge.feed_until_done(stored.between(topics.OBSERVATIONS, end, end + LONGEST))
        judged, compare = judge.result(), comparison.compared
        oldest = stored.oldest(topics.OBSERVATIONS)
        unsure = comparison.unsure(settings, sent.run_ups, judge.begins, judge.partitions, oldest)
    alerts = [alert for alert in judged.alerts if alert.id not in sent.outside]
    compared = Comparison(
        sent_incidents=len(sent.replayed),
        sent_revisions=sum(len(incident.revisions) for incident in sent.replayed),
        differs=compare(sent.replayed, alerts),
        last_only=way.origin == FRAMES,
        not_replayed=sent.outside,
        unsure=unsure,
        config=changes,
        config_unknown=unknown,
    )
    return Again(judged=judged, compared=compared, frames=frames)


def _sent(settings: Config, stored: History, chosen: Selection, since: int, until: int) -> _Sent:
    # An incident and the one before it last at most so long.
    entries = stored.appended(topics.ALERTS, max(0, since - 2 * LONGEST))
    sent = sent_incidents(settings, entries, since, until)
    run_ups = {
        name: run_up(site, sent[name], since, until)
        for name, site in settings.sites.items()
        if chosen.judges(name)
    }
    wanted = [incident for run in run_ups.values() for incident in run.wanted]
    return _Sent(run_ups=run_ups, wanted=wanted, outside=comparison.outside(wanted))
