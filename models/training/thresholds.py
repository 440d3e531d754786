"""Thresholds for a false-alarm rate: counted on validation scenes, or predicted from the tail."""

from __future__ import annotations

import math

import numpy as np

from models.training.metrics import (
    HOUR,
    Scored,
    Truths,
    alarm_rate,
    grouped_events,
    hop,
    in_order,
    near_truths,
    windows_of,
)

STEPS = (*range(500, 9900, 10), *range(9900, 10_000))  # 1/10,000: the candidate thresholds
LOWEST, HIGHEST = STEPS[0] / 10_000, STEPS[-1] / 10_000
TAIL = 10  # the tail is one in this many of the quiet scenes


def threshold_for(scored: Scored, truths: Truths, per_hour: float) -> float:
    """Returns the lowest threshold from which on none makes more than `per_hour` false alarms.

    Candidates are 0.05 to 0.99 in steps of 0.001, and up to 0.9999 in steps of 0.0001; it is 0.9999
    if even that makes more. Taking simply the lowest threshold with few false alarms would be
    wrong: at a very low threshold all windows join into one event, which is not a false alarm.
    Raises ValueError without windows.
    """
    if not len(scored.scene):
        msg = "no windows to choose a threshold by"
        raise ValueError(msg)
    near, ordered, step = near_truths(scored, truths), in_order(scored), hop(scored)
    chosen = HIGHEST
    for each in reversed(STEPS):
        if alarm_rate(grouped_events(scored, ordered, step, each / 10_000), near, step) > per_hour:
            break
        chosen = each / 10_000
    return chosen


def predicted_threshold(scored: Scored, truths: Truths, per_hour: float) -> float:
    """Returns the threshold that makes `per_hour` false alarms if scores continue as their tail.

    Counting covers only the few normal scenes at hand; later ones will be worse. Above a high level
    the excess of log odds is modelled as exponential (peaks over threshold: Pickands 1975; Siffer
    et al., Anomaly Detection in Streams with Extreme Value Theory, 2017). The tail is the highest
    tenth of the scenes' highest windows far from any truth. Returns LOWEST, which has no effect, if
    there are fewer than 20 such scenes.
    """
    near, step = near_truths(scored, truths), hop(scored)
    quiet = [places[~near[places]] for places in windows_of(scored).values()]
    quiet = [places for places in quiet if len(places)]
    if len(quiet) < 2 * TAIL:
        return LOWEST
    peaks = np.array([scored.score[places].max() for places in quiet])
    held = np.clip(peaks, 1 - HIGHEST, HIGHEST)
    odds = np.sort(np.log(held / (1 - held)))[::-1]
    tail = len(odds) // TAIL
    spread = float((odds[:tail] - odds[tail]).mean())
    hours = sum(map(len, quiet)) * step / HOUR
    level = float(odds[tail]) + spread * max(0.0, math.log(tail / (hours * max(per_hour, 1e-9))))
    wanted = 10_000 / (1 + math.exp(-level))
    return next((each / 10_000 for each in STEPS if each >= wanted), HIGHEST)
