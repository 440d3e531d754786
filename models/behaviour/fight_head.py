"""The head of fights: a logistic regression over the rows of persons. numpy alone runs it.

It is experimental: `docs/explanations/behaviours.md` says how often it is right. `fight.json` is
the head that comes with Fusewatch; `python -m benchmarks.behaviour --write` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import msgspec
import numpy as np

from pipeline.behaviour.fights import FEATURES, Row
from pipeline.errors import WeightsError

SHIPPED = "fight.json"
PENALTIES = (30.0, 10.0, 3.0, 1.0)  # of the squared weights, of which training chooses
STEPS = 30  # of Newton's method; a few are enough


class FightHead(msgspec.Struct, frozen=True, kw_only=True):
    """Maps rows to scores, 0 to 1; 0.5 is the operating point."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    data: str  # what it was trained on
    figures: str  # how often it is right on clips of unknown videos

    @classmethod
    def shipped(cls) -> FightHead:
        """The head that comes with Fusewatch; raises WeightsError for one of other features."""
        head = msgspec.json.decode((files(__package__) / SHIPPED).read_bytes(), type=cls)
        if head.features != FEATURES:
            msg = f"{SHIPPED} is made for other features; train it anew"
            raise WeightsError(msg)
        return head

    def __call__(self, batch: Sequence[Row]) -> list[float]:
        """Returns the score of each row."""
        return [round(float(score), 3) for score in 1 / (1 + np.exp(-self.margin(batch)))]

    def margin(self, batch: Sequence[Row]) -> np.ndarray:
        """Returns the logarithm of the odds of each row."""
        rows = (squeezed(batch) - np.array(self.mean)) / np.array(self.scale)
        return rows @ np.array(self.weights) + self.bias


def squeezed(batch: Sequence[Row]) -> np.ndarray:
    """The rows with large values drawn together."""
    return np.log1p(3 * np.maximum(np.array(batch, float).reshape(-1, len(FEATURES)), 0))


def fitted(rows: np.ndarray, truth: np.ndarray, shares: np.ndarray, penalty: float) -> FightHead:
    """Returns the head that fits squeezed rows best: ridge logistic regression, Newton's method.

    `truth` is 0 or 1 and `shares` the weight of each row.
    """
    mean, scale = rows.mean(0), rows.std(0) + 1e-6
    inputs = np.column_stack([(rows - mean) / scale, np.ones(len(rows))])
    ridge = np.diag([penalty] * rows.shape[1] + [1e-6])
    weights = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        likely = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (shares * (likely - truth)) + ridge @ weights
        bend = (inputs * (shares * likely * (1 - likely))[:, None]).T @ inputs + ridge
        weights -= np.linalg.solve(bend, slope)
    return FightHead(
        features=FEATURES,
        mean=tuple(mean.round(6).tolist()),
        scale=tuple(scale.round(6).tolist()),
        weights=tuple(weights[:-1].round(6).tolist()),
        bias=round(float(weights[-1]), 6),
        data="",
        figures="",
    )
