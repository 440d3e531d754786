"""Judges stored observations by many configs, in a process on each core."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import msgspec

from models.fusion import features
from models.fusion.features import Tokens
from models.fusion.head import RULES_HEAD, Head
from models.fusion.learned_head import LearnedHead
from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery
from pipeline.config.model_needs import TEXT
from pipeline.config.rule_kinds import PhraseRule
from pipeline.config.schema import Config, Models
from pipeline.errors import OutsideError
from pipeline.stages import JUDGES
from workers.replay.observation_replay import Rejudging
from workers.runtime.process_pool import pool
from workers.stages.encoders import Encoders, load_encoders
from workers.stages.site_plan import load_head
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


class RememberingHead:
    """A learned head that judges each window once: most settings leave most windows as they are.

    Its verdicts are those of `head`, which depend on the features of the window alone.
    """

    def __init__(self, head: LearnedHead) -> None:
        self._head = head
        self._scores: dict[bytes, float] = {}
        self._verdicts: dict[bytes, Verdict] = {}
        self._asked: tuple[HeadQuery, Tokens, bytes] | None = None  # a score, then its verdict

    @property
    def version(self) -> str:
        """Name, version and hash of the head."""
        return self._head.version

    @property
    def threshold(self) -> float:
        """The head's own threshold."""
        return self._head.threshold

    def score(self, question: HeadQuery) -> float:
        """Returns the score of the verdict on a window."""
        window, key = self._features(question)
        if key not in self._scores:
            self._scores[key] = self._head.probabilities(window)[0]
        return self._scores[key]

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        return [self._judged(question) for question in batch]

    def _judged(self, question: HeadQuery) -> Verdict:
        window, key = self._features(question)
        if key not in self._verdicts:
            self._verdicts[key] = self._head.judge(window)
        return self._verdicts[key]

    def _features(self, question: HeadQuery) -> tuple[Tokens, bytes]:
        if self._asked is not None and self._asked[0] is question:
            return self._asked[1], self._asked[2]
        window = features.tokens(question)
        digest = hashlib.blake2b(repr(sorted(window.states.items())).encode(), digest_size=16)
        for name, vector in sorted(window.vectors.items()):
            digest.update(name.encode())
            digest.update(vector.tobytes())
        self._asked = question, window, digest.digest()
        return window, self._asked[2]


@functools.cache
def _head(name: str) -> Head:
    head = load_head(name)
    return RememberingHead(head) if isinstance(head, LearnedHead) else head


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
