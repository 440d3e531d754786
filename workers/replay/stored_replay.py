"""Replays one stored input: the log of a daemon, Kafka or a recording."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from pipeline.config.schema import Config
from pipeline.types import Alert, rfc3339
from workers.recordings.recording import Recording
from workers.replay.again import FRAMES, Way, judge_again
from workers.replay.comparison import Comparison
from workers.replay.frame_replay import FramesJudged
from workers.replay.inputs import StoredInput
from workers.stages.site_plan import load_heads
from workers.stored.rules_then import THEN, rules_then
from workers.stored.wanted_encoders import WantedEncoders


class StoredReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a stored input; `configs` says by site which config judged it.

    `entries` were read, `seconds` is the event time that they cover, `took` the wall clock.
    `losses` is what of a recording could not be read.
    """

    origin: str
    rules: str
    alerts: Sequence[Alert]
    entries: int
    compared: Comparison
    frames: FramesJudged | None
    configs: Mapping[str, str]
    losses: Sequence[str]
    seconds: float
    took: float

    @property
    def factor(self) -> float:
        """The speed as a multiple of real time."""
        return self.seconds / self.took


def replay_stored(
    settings: Config, one: StoredInput, encoders: WantedEncoders, way: Way, *, rules: str
) -> StoredReplay:
    """Judges a stored input again by the rules of `now` or `then`; raises as `judge_again`."""
    with one.opened() as stored:
        span = one.span(stored)
        since, until = span.since, span.until
        configs: dict[str, str] = {}
        if rules == THEN:
            then = rules_then(settings, stored, since, until, way.selected)
            settings, heads = then.settings, then.heads
            for config in then.configs:
                if way.selected.judges(config.site):
                    at = f"{rfc3339(config.start)[:19]}Z"
                    configs[config.site] = (
                        f"sites.{config.site} as of {at}, {config.hash[:12]}, head {config.head}"
                    )
        else:
            heads = load_heads(settings)
        loaded = (
            encoders.for_frames(settings)
            if way.origin == FRAMES
            else encoders.for_observations(settings)
        )
        began = time.monotonic()
        again = judge_again(settings, loaded, stored, since, until, heads=heads, way=way)
        took = time.monotonic() - began
        losses = [str(each) for each in stored.losses] if isinstance(stored, Recording) else []
    return StoredReplay(
        origin=way.origin,
        rules=rules,
        alerts=[alert for alert in again.judged.alerts if alert.time >= span.told_from],
        entries=again.judged.entries,
        compared=again.compared,
        frames=again.frames,
        configs=configs,
        losses=losses,
        seconds=round(again.judged.seconds, 3),
        took=took,
    )
