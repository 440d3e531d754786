"""Metrics of a fusion head: by window, by event, and for calibration.

A window stands for its newest hop, as in `workers/stages/site_state.py`: hours are counted and
events are drawn in hops. An event covers all that its windows overlap, so a late detection is not a
false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score, roc_auc_score

from models.fusion.labels import LABELS
from models.training.dataset import TRUTH_COLLAR
from pipeline.types import SECOND

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]

MAX_EVENT_PAUSE = 2 * SECOND  # ns; a gap of at most this length is part of an event
HOUR = 3600 * SECOND
NOTHING = "nothing"


@dataclass(frozen=True)
class Truth:
    """A true event in `[start_ns, end_ns)` of a scene."""

    start_ns: int
    end_ns: int
    label: str


Truths = Mapping[str, Sequence[Truth]]  # by scene


@dataclass(frozen=True)
class Scored:
    """One head's results on the windows of many scenes, in any order; `n` windows.

    Raises ValueError if array shapes do not match, a score is not in `[0, 1]` (NaN included), or
    two windows of a scene have the same end.
    """

    scene: Sequence[str]  # [n]
    start_ns: Ints  # [n]
    end_ns: Ints  # [n]
    score: Floats  # [n], calibrated P(anomaly)
    classes: Floats  # [n, labels], P(label | anomaly)
    anomaly: Ints  # [n]: 1, 0, or -1 for a window near a truth's boundary, not counted
    label: Ints  # [n]: index in LABELS, -1 for none
    kind: Sequence[str]  # [n], of scene

    def __post_init__(self) -> None:
        n = len(self.scene)
        sizes = {
            name: (n, len(LABELS)) if name == "classes" else (n,)
            for name in ("start_ns", "end_ns", "score", "classes", "anomaly", "label", "kind")
        }
        wrong = [f"{k} {np.shape(getattr(self, k))}" for k in sizes if self._shape(k) != sizes[k]]
        if wrong:
            msg = f"{n} windows of {len(LABELS)} labels, but {', '.join(wrong)}"
            raise ValueError(msg)
        if not np.all((self.score >= 0) & (self.score <= 1)):
            msg = "a score is no number in [0, 1]"
            raise ValueError(msg)
        if not np.isfinite(self.classes).all():
            msg = "a class probability is no finite number"
            raise ValueError(msg)
        ends = Counter(zip(self.scene, np.asarray(self.end_ns).tolist(), strict=True))
        if len(ends) < n:
            msg = f"two windows of a scene end at once: {ends.most_common(1)[0][0]}"
            raise ValueError(msg)

    def _shape(self, name: str) -> tuple[int, ...]:
        return np.shape(getattr(self, name))


@dataclass(frozen=True)
class DetectedEvent:
    """Windows of one scene that form one event: `[start_ns, end_ns)` covers their newest hops."""

    scene: str
    start_ns: int
    end_ns: int
    label: str  # of the window with the highest score
    score: float  # the highest
    windows: tuple[int, ...]  # their places in Scored, in order of time


@dataclass(frozen=True)
class Detection:
    """A truth, when the first overlapping window detected it, and the highest score of any such."""

    scene: str
    truth: Truth
    seconds: float  # after the truth's start; NaN: missed
    score: float  # 0 where no window overlaps it


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over `[0, 1]`, without the empty ones; `ece` over all of them."""

    score: Floats  # [bins], mean
    share: Floats  # [bins], of windows that are positive
    count: Ints  # [bins]
    ece: float


@dataclass(frozen=True)
class Metrics:
    """One line of figures; NaN where there was nothing to measure."""

    ap: float
    auc: float
    f1: float  # macro over the labels that occur
    event_recall: float
    false_alarms_per_hour: float
    detect_median_s: float  # of what was detected
    detect_p95_s: float
    ece: float
    windows: int  # that count
    positives: int


@dataclass(frozen=True)
class TableRow:
    """The metrics of a head for a set of modalities and a condition."""

    name: str  # attention | concat | rules ...
    modalities: str  # of the letters V, A and T
    condition: str  # clean | dark | blur | noise | dropped | shifted ...
    metrics: Metrics


def measure(scored: Scored, truths: Truths, threshold: float) -> Metrics:
    """Returns all metrics; AP and AUC are NaN if all windows are of one class (a quiet hour)."""
    both = len(np.unique(scored.anomaly[scored.anomaly >= 0])) == 2
    median, p95 = time_to_detect(scored, truths, threshold)
    return Metrics(
        ap=frame_ap(scored) if both else float("nan"),
        auc=frame_auc(scored) if both else float("nan"),
        f1=class_f1(scored, threshold)[1],
        event_recall=event_recall(scored, truths, threshold),
        false_alarms_per_hour=false_alarms_per_hour(scored, truths, threshold),
        detect_median_s=median,
        detect_p95_s=p95,
        ece=reliability(scored).ece,
        windows=int((scored.anomaly >= 0).sum()),
        positives=int((scored.anomaly == 1).sum()),
    )


def average_precision(anomaly: Ints, score: Floats) -> float:
    """Returns the AP of scores of any scale; `anomaly` must contain both 0 and 1."""
    return float(average_precision_score(anomaly, score))


def frame_ap(scored: Scored) -> float:
    """Returns average precision over the counted windows; ValueError if all are of one class."""
    return float(average_precision_score(*_both(scored)))


def frame_auc(scored: Scored) -> float:
    """Returns the area under the ROC curve over the counted windows; ValueError as `frame_ap`."""
    return float(roc_auc_score(*_both(scored)))


def _both(scored: Scored) -> tuple[Ints, Floats]:
    """Returns truth and score of the counted windows; ValueError unless both classes occur."""
    counts = scored.anomaly >= 0
    truth = scored.anomaly[counts]
    if len(np.unique(truth)) < 2:
        msg = (
            f"{len(truth)} windows that count, {int(truth.sum())} of them positive: "
            "precision and recall need windows of either class"
        )
        raise ValueError(msg)
    return truth, scored.score[counts]


def predicted_labels(scored: Scored, threshold: float) -> Ints:
    """Returns each window's label `[n]`: the most likely one at or above the threshold, else -1."""
    return np.where(scored.score >= threshold, scored.classes.argmax(axis=1), -1)


def class_f1(scored: Scored, threshold: float) -> tuple[dict[str, float], float]:
    """Returns the F1 of each label in the counted windows, and their mean; NaN if none occurs."""
    counts = scored.anomaly >= 0
    truth, answer = scored.label[counts], predicted_labels(scored, threshold)[counts]
    present = np.unique(truth[truth >= 0])
    if not len(present):
        return {}, float("nan")
    each = f1_score(truth, answer, labels=present, average=None, zero_division=0)
    named = {LABELS[i]: float(f1) for i, f1 in zip(present, each, strict=True)}
    return named, float(np.mean(each))


def confusion(scored: Scored, threshold: float) -> Ints:
    """Counts windows by truth (row) and result (column), `[labels + 1, labels + 1]`.

    The last row and column stand for nothing.
    """
    counts = scored.anomaly >= 0
    names = [*range(len(LABELS)), -1]
    answer = predicted_labels(scored, threshold)[counts]
    return confusion_matrix(scored.label[counts], answer, labels=names)


def hop(scored: Scored) -> int:
    """Returns the shortest step between windows of a scene, ns; a window's length without steps."""
    if not len(scored.scene):
        return 0
    order, number = in_order(scored)
    steps = np.diff(scored.end_ns[order])[np.diff(number) == 0]
    return int(steps.min() if len(steps) else (scored.end_ns - scored.start_ns).min())


def events(scored: Scored, threshold: float, close: int = MAX_EVENT_PAUSE) -> list[DetectedEvent]:
    """Returns events by scene and time: windows at or above the threshold, joined over gaps
    <= `close`."""
    hot, firsts = grouped_events(scored, in_order(scored), hop(scored), threshold, close)
    groups = np.split(hot, firsts[1:]) if len(hot) else []
    return [_event(scored, group, hop(scored)) for group in groups]


def _event(scored: Scored, group: Ints, step: int) -> DetectedEvent:
    best = group[int(scored.score[group].argmax())]
    return DetectedEvent(
        scene=scored.scene[group[0]],
        start_ns=int(scored.end_ns[group[0]]) - step,
        end_ns=int(scored.end_ns[group[-1]]),
        label=LABELS[int(scored.classes[best].argmax())],
        score=float(scored.score[best]),
        windows=tuple(group.tolist()),
    )


def in_order(scored: Scored) -> tuple[Ints, Ints]:
    """Returns indices sorted by scene and time, and the scene number of each."""
    number = np.unique(np.asarray(scored.scene, dtype=object), return_inverse=True)[1]
    order = np.lexsort((scored.end_ns, number))
    return order, number[order]


def grouped_events(
    scored: Scored,
    ordered: tuple[Ints, Ints],
    step: int,
    threshold: float,
    close: int = MAX_EVENT_PAUSE,
) -> tuple[Ints, Ints]:
    """Returns sorted indices of windows at or above the threshold, and where events start."""
    order, number = ordered
    high = scored.score[order] >= threshold
    hot, number = order[high], number[high]
    ends = scored.end_ns[hot]
    parted = (np.diff(number) != 0) | (np.diff(ends) - step > close)
    return hot, np.flatnonzero(np.concatenate([np.ones(min(1, len(hot)), bool), parted]))


def near_truths(scored: Scored, truths: Truths) -> Bools:
    """Returns whether each window overlaps, or nearly overlaps, a truth of its scene, `[n]`."""
    near = np.zeros(len(scored.scene), bool)
    for scene, places in windows_of(scored).items():
        for truth in truths.get(scene, ()):
            near[places] |= _overlap(scored, places, truth, TRUTH_COLLAR)
    return near


def windows_of(scored: Scored) -> dict[str, Ints]:
    """Returns the indices of each scene's windows, in order of time."""
    order, number = in_order(scored)
    groups = np.split(order, np.flatnonzero(np.diff(number)) + 1) if len(order) else []
    return {scored.scene[group[0]]: group for group in groups}


def _overlap(scored: Scored, places: Ints, truth: Truth, collar: int = 0) -> Bools:
    """Returns which windows at `places` overlap; a truth of length 0 is an instant."""
    start, end = truth.start_ns - collar, max(truth.end_ns, truth.start_ns + 1) + collar
    return (scored.start_ns[places] < end) & (scored.end_ns[places] > start)


def false_events(scored: Scored, truths: Truths, threshold: float) -> list[DetectedEvent]:
    """Returns the events without any window within the collar of a truth."""
    near = near_truths(scored, truths)
    return [event for event in events(scored, threshold) if not near[list(event.windows)].any()]


def false_alarms_per_hour(scored: Scored, truths: Truths, threshold: float) -> float:
    """Returns false events per hour of windows, each counted with its hop; NaN without windows.

    A head that always alarms has one event per scene, and it is not false if the scene has a truth.
    Average precision detects such a head; this metric does not.
    """
    step = hop(scored)
    counted = grouped_events(scored, in_order(scored), step, threshold)
    return alarm_rate(counted, near_truths(scored, truths), step)


def alarm_rate(counted: tuple[Ints, Ints], near: Bools, step: int) -> float:
    """Returns false events per hour for grouped windows; NaN without windows."""
    if not len(near):
        return float("nan")
    hot, firsts = counted
    false = len(firsts) - int(np.logical_or.reduceat(near[hot], firsts).sum()) if len(hot) else 0
    return false * HOUR / (len(near) * step)


def detections(scored: Scored, truths: Truths, threshold: float) -> list[Detection]:
    """Returns the detection of each truth of the scenes in `scored`, by scene, in given order."""
    return [
        _detection(scored, scene, places, truth, threshold)
        for scene, places in windows_of(scored).items()
        for truth in truths.get(scene, ())
    ]


def _detection(
    scored: Scored, scene: str, places: Ints, truth: Truth, threshold: float
) -> Detection:
    over = places[_overlap(scored, places, truth)]
    hot = over[scored.score[over] >= threshold]
    after = (int(scored.end_ns[hot[0]]) - truth.start_ns) / SECOND if len(hot) else float("nan")
    return Detection(scene, truth, after, float(scored.score[over].max(initial=0)))


def event_recall(scored: Scored, truths: Truths, threshold: float) -> float:
    """Returns the share of truths with an overlapping window at or above the threshold.

    NaN without truths.
    """
    found = [not np.isnan(each.seconds) for each in detections(scored, truths, threshold)]
    return float(np.mean(found)) if found else float("nan")


def time_to_detect(scored: Scored, truths: Truths, threshold: float) -> tuple[float, float]:
    """Returns median and 95 % quantile of the time to detect, in seconds; NaN without detections.

    The time is that from a truth's start to the end of the first window at or above the threshold.
    """
    all_ = np.array([each.seconds for each in detections(scored, truths, threshold)])
    found = all_[~np.isnan(all_)]
    if not len(found):
        return float("nan"), float("nan")
    return float(np.median(found)), float(np.quantile(found, 0.95))


def reliability(scored: Scored, bins: int = 10) -> Reliability:
    """Returns how often a score is right, and the expected calibration error; NaN without windows.

    Guo et al., On Calibration of Modern Neural Networks, 2017, for two classes: the probability is
    that of an anomaly, not that of the more likely class.
    """
    counts = scored.anomaly >= 0
    score, truth = scored.score[counts].astype(np.float64), scored.anomaly[counts]
    place = np.minimum((score * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    mean = np.bincount(place, score, bins)[full] / count[full]
    share = np.bincount(place, truth, bins)[full] / count[full]
    gap = float((count[full] * np.abs(mean - share)).sum() / count.sum()) if full.any() else np.nan
    return Reliability(mean, share, count[full], gap)


def temperature(logits: Floats, y: Ints) -> float:
    """Returns the T in 0.05 to 20 that divides logits so that `y` is likeliest (Guo et al., 2017).

    Takes log odds `[n]` with y of 0 and 1, or logits `[n, classes]` with y of class numbers.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim == 1:
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    right = logits[np.arange(len(y)), y]

    def loss(log_t: float) -> float:
        t = np.exp(log_t)
        return float(np.mean(logsumexp(logits / t, axis=1) - right / t))

    best = minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded")
    return float(np.exp(best.x))
