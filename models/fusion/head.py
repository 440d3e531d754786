"""What the fusion stage asks of a learned head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery

RULES_HEAD = "rules"  # the name of fusion without a learned head, in alerts too


class Head(Protocol):
    """A learned head: a Model from queries to verdicts, with its version and threshold.

    Every alert carries `version`. A window with a score of `threshold` or more is an anomaly.
    `score` is that of the verdict alone, without its reasons, which take longer.
    """

    @property
    def version(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    def score(self, question: HeadQuery) -> float: ...
    def __call__(self, batch: Sequence[HeadQuery]) -> Sequence[Verdict]: ...


def version_of(head: Head | None) -> str:
    """The version that alerts carry; `rules` without a head."""
    return RULES_HEAD if head is None else head.version
