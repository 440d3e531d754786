"""Fits `SoundHead` to labelled clips: `python -m models.training.sound_fit MEDIA --weights DIR`.

`models/training/sound_clips.py` labels the clips by their names, augments them and runs YAMNet on
them; a softmax regression separates the labels and "nothing". Held-out clips (5 folds) give each
label its operating point and the slope around it; then all clips fit the coefficients that are
written. All randomness is seeded: with OPENBLAS_NUM_THREADS=1 the same clips give the same bytes.

There are more coefficients than clips, and only two clips of glass and five screams. So the fit
starts from the meaning of YAMNet's classes (MEANT): a Gaussian prior whose mean gives each label
its own classes. The prior is wide on the classes that MEANT lists for any label or for usual false
alarms, and narrow on all others. It is narrower still for the two labels with few clips, which
therefore rely mostly on YAMNet's own knowledge. Ridge as a Gaussian prior: Hoerl and Kennard, 1970;
slopes: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.hearing.sound import FILE, LABELS, SHIPPED, Yamnet, margins
from models.hearing.yamnet_features import CLASSES, Floats
from models.training.sound_clips import KINDS, RARE, Bools, Ints, ListenedClip, clips, listen

FOLDS, SEED = 5, 5
SHARE = np.array([5, 1.3, 1.5, 1, 0.8, 1])  # weight of each of the KINDS in the fit
MEANT = {
    "gunshot": ("Gunshot, gunfire", "Machine gun", "Fusillade", "Cap gun"),
    "explosion": ("Explosion", "Boom", "Artillery fire", "Eruption"),
    "glass": ("Glass", "Shatter", "Breaking", "Chink, clink", "Smash, crash"),
    "scream": ("Screaming", "Shout", "Yell", "Children shouting", "Wail, moan", "Bellow"),
    "siren": (
        *("Siren", "Police car (siren)", "Ambulance (siren)", "Civil defense siren"),
        "Fire engine, fire truck (siren)",
    ),
    "nothing": (
        *("Thunder", "Thunderstorm", "Fireworks", "Firecracker", "Bell", "Church bell", "Rain"),
        *("Vehicle horn, car horn, honking", "Train horn", "Typing", "Door", "Knock", "Slam"),
        *("Dog", "Bark", "Bird", "Music", "Singing", "Whistling", "Speech", "Laughter"),
        *("Applause", "Clapping", "Cheering", "Snoring"),
    ),
}
EXPECTED = 0.4  # log odds of a label per log odds of one of its own classes
RIDGE, MEANT_RIDGE = 0.03, 0.003  # on all classes, and on those in MEANT
RARE_RIDGE, RARE_MEANT_RIDGE = 1.0, 0.03  # the same for RARE labels and their own classes
FALSE_SHARE = 0.04  # share of benign takes (a third: thunder, fireworks) that may raise an alarm
SLOPES = np.geomspace(0.1, 4, 80)
LEAST = 0.7  # least margin of a label over all others together, in log odds


def softmax(logits: Floats) -> Floats:
    """Returns the softmax of each row."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


class Prior(NamedTuple):
    """The prior of the coefficients: `mean` and ridge `penalty`, `[521, 6]` each."""

    mean: Floats
    penalty: Floats


def prior(classes: Sequence[str]) -> Prior:
    """Returns the prior that follows from MEANT, for the names of YAMNet's classes."""
    rows = {kind: [classes.index(name) for name in names] for kind, names in MEANT.items()}
    mean = np.zeros((CLASSES, len(KINDS)), np.float32)
    penalty = np.full((CLASSES, len(KINDS)), RIDGE, np.float32)
    penalty[[row for some in rows.values() for row in some]] = MEANT_RIDGE
    for label in LABELS:
        mean[rows[label], KINDS.index(label)] = EXPECTED
    for label in RARE:
        penalty[:, KINDS.index(label)] = RARE_RIDGE
        penalty[rows[label], KINDS.index(label)] = RARE_MEANT_RIDGE
    return Prior(mean, penalty)


def regress(x: Floats, label: Ints, weight: Floats, known: Prior) -> tuple[Floats, Floats]:
    """Softmax regression with 200 steps of Adam: returns coefficients `[521, 6]` and bias `[6]`."""
    mean, spread = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / spread
    expected = known.mean * spread[:, None]
    aim = np.eye(len(KINDS), dtype=np.float32)[label]
    weight = (weight / weight.sum()).astype(np.float32)[:, None]
    held = np.vstack([expected, np.zeros(len(KINDS), np.float32)])  # the last row is the bias
    first, second = np.zeros_like(held), np.zeros_like(held)
    steps = 200
    for step in range(1, steps + 1):
        wrong = (softmax(x @ held[:-1] + held[-1]) - aim) * weight
        slope = np.vstack([x.T @ wrong + known.penalty * (held[:-1] - expected), wrong.sum(0)])
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        rate = 0.025 * (1 + np.cos(np.pi * step / steps))
        held -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    weights = held[:-1] / spread[:, None]
    return weights, held[-1] - mean @ weights


def fit(heard: ListenedClip, label: Ints, use: Bools, known: Prior) -> tuple[Floats, Floats]:
    """Returns coefficients from the seconds `use`; clips count equally, labels by their SHARE."""
    mine = label[heard.clip]
    use = use & np.where(mine == 0, ~heard.quiet, heard.active)
    times = np.bincount(heard.clip[use], minlength=len(label))
    share = SHARE / np.bincount(label, minlength=len(KINDS))
    weight = share[mine[use]] / times[heard.clip[use]]
    return regress(heard.features[use], mine[use], weight, known)


def folds(label: Ints) -> Ints:
    """Returns the fold of each clip; each label is spread evenly over the folds."""
    chance = np.random.default_rng(SEED)
    fold = np.zeros(len(label), np.int64)
    for kind in range(len(KINDS)):
        mine = chance.permutation(np.flatnonzero(label == kind))
        fold[mine] = np.arange(len(mine)) % FOLDS
    return fold


def held_out(heard: ListenedClip, label: Ints, known: Prior) -> Floats:
    """Returns the margins `[n, 5]` of every second, from coefficients not fitted on its clip.

    `heard` may lack whole folds, for operating points that are independent of those folds too.
    """
    fold = folds(label)[heard.clip]
    margin = np.zeros((len(fold), len(LABELS)), np.float32)
    for number in np.unique(fold):
        weights, bias = fit(heard, label, fold != number, known)
        out = fold == number
        margin[out] = margins(heard.features[out] @ weights + bias)
    margin[heard.quiet] = -50
    return margin


def calibrate(heard: ListenedClip, label: Ints, margin: Floats) -> tuple[Floats, Floats]:
    """Returns slope and middle of each label, `[5]`, from held-out margins.

    The middle lets FALSE_SHARE of the benign takes through, and is above zero, so that two labels
    never reach 0.5 together. The slope is Platt's: the most likely one around these middles. All
    labels share it, since two clips are too few to fit one.
    """
    kind, best = highest(heard, label, margin)
    middle = np.maximum(np.quantile(best[kind == 0], 1 - FALSE_SHARE, axis=0), LEAST)
    aim = np.arange(1, 1 + len(LABELS))
    sign = np.where(kind[:, None] == aim, 1.0, -1.0)
    even = np.where(sign > 0, 1 / (sign > 0).sum(0), 1 / (sign < 0).sum(0))
    loss = [(even * np.logaddexp(0, -sign * (best - middle) * each)).sum() for each in SLOPES]
    slope = np.full(len(LABELS), SLOPES[int(np.argmin(loss))])
    return slope.astype(np.float32), middle.astype(np.float32)


def highest(heard: ListenedClip, label: Ints, margin: Floats) -> tuple[Ints, Floats]:
    """Returns the kind of each take `[n]`, and its highest margins over all seconds `[n, 5]`."""
    numbers, take = np.unique(heard.clip * 1000 + heard.take, return_inverse=True)
    best = np.full((len(numbers), len(LABELS)), -50, np.float32)
    np.maximum.at(best, take, margin)
    return label[numbers // 1000], best


def auc(score: Floats, positive: Bools) -> float:
    """Returns the share of pairs in which the positive one scores higher."""
    rank = np.argsort(np.argsort(score)) + 1
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def part(heard: ListenedClip, some: Bools) -> ListenedClip:
    """Returns the seconds selected by `some`."""
    return ListenedClip(*(getattr(heard, name)[some] for name in heard.__dataclass_fields__))


def report(heard: ListenedClip, label: Ints, margin: Floats, middle: Floats) -> Iterator[str]:
    """Yields a table of alarms by held-out margins, for takes alone and with disturbances."""
    for title, some in (("alone", heard.take == 0), ("disturbed", heard.take > 0)):
        seconds = part(heard, some)
        kind, best = highest(seconds, label, margin[some])
        raised = best > middle
        yield f"{title}: takes, AUC, and the share that raised {', '.join(LABELS)}; any wrong one"
        for row, name in enumerate(KINDS):
            mine = kind == row
            wrong = raised[mine].copy()
            if row:
                wrong[:, row - 1] = False
            area = auc(best[:, row - 1], mine) if row else auc(-best.max(1), mine)
            shares = " ".join(f"{share:6.3f}" for share in raised[mine].mean(0))
            yield f"  {name:10} {mine.sum():5} {area:6.3f}  {shares}  {wrong.any(1).mean():6.3f}"
        benign = (margin[some] > middle)[label[seconds.clip] == 0]
        hours = len(benign) / 3600
        starts = (benign & ~np.roll(benign, 1, axis=0)).sum(0)
        rates = ", ".join(f"{name} {n / hours:.1f}" for name, n in zip(LABELS, starts, strict=True))
        yield f"  false alarms an hour of these benign clips ({hours:.2f} h): {rates}"


def _say(text: str) -> None:
    sys.stdout.write(text if text.startswith("\r") else text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs YAMNet, held-out evaluation, calibration and fit, and writes the head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="the folder with yamnet/")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--takes", type=int, nargs=2, default=(6, 30), help="common, rare")
    asked = parser.parse_args()
    folder = asked.weights / "yamnet"
    with (folder / "yamnet_class_map.csv").open() as rows:
        classes = [row["display_name"] for row in csv.DictReader(rows)]
    labelled = clips(asked.media)
    label = np.array([clip.label for clip in labelled])
    heard = listen(Yamnet(folder / FILE), labelled, *asked.takes, say=_say)
    known = prior(classes)
    margin = held_out(heard, label, known)
    slope, middle = calibrate(heard, label, margin)
    for line in report(heard, label, margin, middle):
        _say(line)
    weights, bias = fit(heard, label, np.ones(len(heard.clip), bool), known)
    np.savez(asked.out, weights=weights, bias=bias, slope=slope, middle=middle)
    _say(f"{asked.out}: {asked.out.stat().st_size} bytes, slope {slope}, middle {middle}")


if __name__ == "__main__":
    main()
