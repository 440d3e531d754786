"""Why a rule, a head or an incident told nothing; said in the place where it is decided.

Whoever judges takes a `Refuse` or a `Collector`, and calls it for each thing that stood in the way.
Live, a collector counts. That of `fusewatch explain` keeps the words. Without one, a judge pays for
a check and nothing else: an `Obstacle` is made when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from pipeline.types import Box

NEAR = 0.5  # of its threshold; a score from there on has nearly been enough
OFF = "off"  # the judge does not hold in the mode; `RuleGate` says which mode it is
INCIDENT = "incident"  # the rule of refusals about an incident as a whole

# Every reason, the weakest cause first. Of several things in the way of one rule, the one that is
# later here was reached by what came nearest to an alert.
REASONS: tuple[str, ...] = (
    "one-kind",  # fused evidence of one modality alone
    "not-fresh",  # fused or learned evidence that earlier windows had
    "fused-score",  # fused evidence below its threshold
    "head-score",  # learned head below its threshold
    "surer",  # the fused evidence was at least as sure as the learned head
    "object",  # a class of objects that the rule does not name
    "no-word",  # a text without a word of the rule
    "not-read",  # a kind of words that the rule does not read
    "gated",  # nobody looked or listened: nothing moved, or only the usual noise was heard
    "lost",  # the source was lost
    "unseen",  # the detector missed the object in this frame
    "still",  # stands still, and was told
    "min_height",  # too low for `detect.min_height`
    "min_score",  # too faint for `detect.min_score`
    "looks",  # in too few looks to be a track
    "place",  # at the place of an object that stood still before
    "rule-score",  # below the score of the rule
    "behaviour",  # a behaviour below its score
    "line",  # no crossing of the line
    "direction",  # a crossing in the other direction
    "zone",  # outside of the zone
    "count",  # too few for a crowd
    "seconds",  # for too short a time
    "score",  # a sound below its threshold
    "confidence",  # speech that was not understood with enough confidence
    "similarity",  # a text that is not close enough to a phrase
    "schedule",  # outside of the hours of the rule
    "mode",  # outside of the modes of the rule
    "snoozed",  # the rule is snoozed
    "joined",  # the open incident had told it already
    "max_duration",  # the incident was cut: it lasted for too long
    "close_after",  # the incident was cut: nothing was found for too long
)
RANK: Mapping[str, int] = {reason: place for place, reason in enumerate(REASONS)}


class Obstacle(msgspec.Struct, frozen=True):
    """What stood in the way, in words; `score` is what was compared with `threshold`.

    `label` is what it is about: a class of objects, a sound, an incident. `near` is false if more
    than this stood in the way; None: the score decides. `share` is how near it came, 0 to 1; None:
    the score by its threshold.
    """

    why: str
    score: float | None = None
    threshold: float | None = None
    label: str = ""
    near: bool | None = None
    share: float | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that stood in the way of a rule, a head or an incident at `start`, ns."""

    rule: str
    source: str
    start: int
    reason: str  # one of REASONS
    score: float | None
    threshold: float | None
    why: str
    label: str
    near: bool  # whether this alone seems to have stood in the way
    share: float  # how near it came, 0 to 1; 1 where no numbers were compared

    @property
    def weight(self) -> tuple[bool, int, float]:
        """A sort key: the first cause has the largest one."""
        return self.near, RANK[self.reason], self.share


Ask = Callable[[], Obstacle]
Refuse = Callable[[str, Ask], None]  # a reason, and what to ask for the words


class Collector(Protocol):
    """Takes what stood in the way; calls `ask` only if it wants the words."""

    def refuse(self, rule: str, source: str, start: int, reason: str, ask: Ask) -> None: ...


CollectorOf = Callable[[str], Collector | None]  # a site -> who takes its refusals


class Unused(msgspec.Struct, frozen=True):
    """What a camera's tracker made no track of; `box` None: what holds for the whole frame."""

    reason: str
    box: Box | None
    ask: Ask


def refusal_of(rule: str, source: str, start: int, reason: str, obstacle: Obstacle) -> Refusal:
    """Returns the refusal of an obstacle."""
    near, score, threshold = obstacle.near, obstacle.score, obstacle.threshold
    share = 1.0 if score is None or not threshold else score / threshold
    share = share if obstacle.share is None else obstacle.share
    if near is None:
        near = share >= NEAR
    return Refusal(
        rule=rule,
        source=source,
        start=start,
        reason=reason,
        score=score,
        threshold=threshold,
        why=obstacle.why,
        label=obstacle.label,
        near=near,
        share=min(1.0, max(0.0, share)),
    )
