"""Judges stored observations by many configs, in a process on each core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import msgspec

from pipeline.config.model_needs import TEXT
from pipeline.config.rule_kinds import PhraseRule
from pipeline.config.schema import Config, Models
from pipeline.errors import OutsideError
from pipeline.stages import JUDGES
from workers.replay.observation_replay import Rejudging
from workers.runtime.process_pool import pool
from workers.stages.encoders import Encoders, load_encoders
from workers.stages.site_plan import load_head
from workers.stages.site_state import RULES_HEAD, Head
from workers.tuning.outcomes import Found, found_in
from workers.tuning.stored_entries import entries


class Observations(msgspec.Struct, frozen=True, kw_only=True):
    """A file of observations, and the span of which incidents count, ns.

    `recorded`: a scene was observed, in which no source is lost by its silence.
    """

    file: str
    since: int
    until: int
    recorded: bool
    sites: tuple[str, ...] = ()  # that are judged; none: all


class Job(msgspec.Struct, frozen=True):
    """Observations to judge by a config."""

    observations: Observations
    config: Config


def judge_all(
    jobs: Sequence[Job], told: Callable[[int, int], None], *, processes: int = 0
) -> Iterator[list[Found]]:
    """Yields the incidents of each job, in order; `told` gets the numbers of done and of all.

    Raises OutsideError when a process was killed.
    """
    models = jobs[0].config.models if jobs else Models()
    phrases = any(
        isinstance(rule, PhraseRule)
        for job in jobs
        for site in job.config.sites.values()
        for rule in site.rules
    )
    needed = (TEXT,) if phrases else ()
    with pool(_ready, models, needed, count=processes) as workers:
        try:
            for done, found in enumerate(workers.map(_work, jobs), 1):
                told(done, len(jobs))
                yield found
        except BrokenProcessPool as error:
            msg = "a process that judges observations was killed: is there memory for one a core?"
            raise OutsideError(msg) from error


_ours: list[Encoders] = []  # of this worker process


def _ready(models: Models, needed: Collection[str]) -> None:
    encoders = load_encoders(models, recorded=True, stages=JUDGES, needed=needed)
    text = encoders.text
    known: dict[str, object] = {}

    def remembered(batch: Sequence[str]) -> list[object]:
        """The phrases of all configs are mostly the same."""
        new = [phrase for phrase in dict.fromkeys(batch) if phrase not in known]
        known.update(zip(new, text(new), strict=True) if new else ())
        return [known[phrase] for phrase in batch]

    _ours.append(msgspec.structs.replace(encoders, text=remembered))


@functools.cache
def _head(name: str) -> Head:
    return load_head(name)


def _work(job: Job) -> list[Found]:
    return judge(job, _ours[0])


def judge(job: Job, encoders: Encoders) -> list[Found]:
    """Returns the incidents of a job; raises WeightsError for a head that cannot be used."""
    heads = {
        name: _head(site.fusion.head)
        for name, site in job.config.sites.items()
        if site.fusion.head != RULES_HEAD
    }
    of = job.observations
    judging = Rejudging(job.config, encoders, of.since, of.until, heads=heads, recorded=of.recorded)
    judging.feed(entries(Path(of.file)))
    alerts = judging.result().alerts
    return found_in(alert for alert in alerts if not of.sites or alert.site in of.sites)
