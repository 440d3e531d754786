"""Fusion without training: a transparent noisy-or over calibrated evidence per modality.

It judges every window, beside a learned head or alone (`fusion: {head: rules}`); a learned head can
add alarms but cannot remove any.

The strongest evidence of each modality counts as one independent cause with probability p. The
score is `1 - prod(1 - w * p)` (Pearl, Probabilistic Reasoning in Intelligent Systems, 1988, section
4.3.2); the label is that of the strongest evidence. The weights express the trust in each modality.
A missing modality contributes nothing, so a dead microphone does not lower a score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from models.fusion.query import HeadQuery
from pipeline.judge.rules import RuleFinding

TRUST: Mapping[str, float] = {"vision": 0.9, "sound": 0.95, "speech": 0.8, "report": 0.9}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A head's result: calibrated probability, its label, and each modality's share of it."""

    score: float
    label: str
    contributions: Mapping[str, float]
    findings: tuple[RuleFinding, ...] = ()  # the decisive ones; a learned head gives none
    why: tuple[str, ...] = ()  # what carried it, in words, the gravest first; a learned head's only


class NoisyOr:
    """A Model that maps queries to verdicts."""

    def __init__(self, trust: Mapping[str, float] = TRUST) -> None:
        self._trust = trust

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        """Returns one verdict per query; a window without evidence scores 0 and has no label."""
        return [self._judge(question) for question in batch]

    def _judge(self, question: HeadQuery) -> Verdict:
        best: dict[str, RuleFinding] = {}
        for finding in question.findings:
            known = best.get(finding.modality)
            if known is None or _rank(finding) > _rank(known):
                best[finding.modality] = finding
        doubts = {
            modality: -math.log1p(-min(0.999, self._trust.get(modality, 0.8) * finding.score))
            for modality, finding in sorted(best.items())
        }
        total = sum(doubts.values())
        strongest = max(best.values(), key=_rank, default=None)
        return Verdict(
            score=round(-math.expm1(-total), 3),
            label=strongest.label if strongest else "",
            contributions={m: round(d / total, 3) for m, d in doubts.items()} if total else {},
            findings=tuple(best[m] for m in sorted(best)),
        )


def _rank(finding: RuleFinding) -> tuple[float, int, str, str]:
    return finding.score, -finding.start, finding.source, finding.label
