"""Fits `SoundHead` to labelled clips: `python -m models.training.sound_fit MEDIA --weights DIR`.

`models/training/sound_clips.py` labels the clips by their names, makes tones that are no alarms
(`models/training/tones.py`), augments both and runs YAMNet on them. A softmax regression separates
the labels and "nothing". Held-out recordings (5 folds) give each label its operating point and the
slope around it; then all clips fit the coefficients that are written.
All randomness is seeded: with OPENBLAS_NUM_THREADS=1 the same clips give the same bytes.

There are more coefficients than clips, and only two clips of glass and five screams. So the fit
starts from the meaning of YAMNet's classes (MEANT_CLASSES): a Gaussian prior whose mean gives each
label its own classes. The prior is wide on the classes that MEANT_CLASSES lists for any label or
for usual false alarms, and narrow on all others. It is narrower still for the two labels with few
clips, which therefore rely mostly on YAMNet's own knowledge. Ridge as a Gaussian prior: Hoerl and
Kennard, 1970; slopes: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.hearing.sound import SHIPPED_HEAD, YAMNET_FILE, Yamnet, margins
from models.hearing.yamnet_features import CLASSES, Floats
from models.training.sound_clips import (
    CLIP_LABELS,
    RARE_LABELS,
    TONE,
    Bools,
    Ints,
    ListenedClip,
    SoundClip,
    clips,
    listen,
    tones,
)
from pipeline.config.fields import SOUNDS

FOLDS, SEED = 5, 5
# Weight in the fit of each of the CLIP_LABELS, and of the tones.
SHARE = np.array([5.3, 1.3, 1.6, 1, 0.8, 1.2, 0.3])
MEANT_CLASSES = {
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
TONE_CLASSES = (  # of harmless tones; "nothing" and siren learn from them freely
    *("Beep, bleep", "Reversing beeps", "Sine wave", "Chirp tone", "Dial tone", "Busy signal"),
    *("Buzzer", "Smoke detector, smoke alarm", "Alarm clock", "Telephone dialing, DTMF", "Ding"),
    *("Ding-dong", "Chime", "Telephone bell ringing", "Microwave oven"),
)
EXPECTED_SLOPE = 0.4  # log odds of a label per log odds of one of its own classes
RIDGE, MEANT_RIDGE = 0.03, 0.003  # on all classes, and on those in MEANT_CLASSES
RARE_RIDGE, RARE_MEANT_RIDGE = 1.0, 0.03  # the same for RARE_LABELS and their own classes
FALSE_SHARE = 0.04  # share of benign takes (a third: thunder, fireworks) that may raise an alarm
SLOPES = np.geomspace(0.1, 4, 80)
MIN_LEAD = 0.7  # least margin of a label over all others together, in log odds


def softmax(logits: Floats) -> Floats:
    """Returns the softmax of each row."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


class Prior(NamedTuple):
    """The prior of the coefficients: `mean` and ridge `penalty`, `[521, 6]` each."""

    mean: Floats
    penalty: Floats


def prior(classes: Sequence[str]) -> Prior:
    """Returns the prior that follows from MEANT_CLASSES, for the names of YAMNet's classes."""
    rows = {kind: [classes.index(name) for name in names] for kind, names in MEANT_CLASSES.items()}
    mean = np.zeros((CLASSES, len(CLIP_LABELS)), np.float32)
    penalty = np.full((CLASSES, len(CLIP_LABELS)), RIDGE, np.float32)
    penalty[[row for some in rows.values() for row in some]] = MEANT_RIDGE
    beeps = [classes.index(name) for name in TONE_CLASSES]
    free = [CLIP_LABELS.index(label) for label in ("nothing", "siren")]
    penalty[np.ix_(beeps, free)] = MEANT_RIDGE
    for label in SOUNDS:
        mean[rows[label], CLIP_LABELS.index(label)] = EXPECTED_SLOPE
    for label in RARE_LABELS:
        penalty[:, CLIP_LABELS.index(label)] = RARE_RIDGE
        penalty[rows[label], CLIP_LABELS.index(label)] = RARE_MEANT_RIDGE
    return Prior(mean, penalty)


def regress(x: Floats, label: Ints, weight: Floats, known: Prior) -> tuple[Floats, Floats]:
    """Softmax regression with 200 steps of Adam: returns coefficients `[521, 6]` and bias `[6]`."""
    mean, spread = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / spread
    expected = known.mean * spread[:, None]
    aim = np.eye(len(CLIP_LABELS), dtype=np.float32)[label]
    weight = (weight / weight.sum()).astype(np.float32)[:, None]
    held = np.vstack([expected, np.zeros(len(CLIP_LABELS), np.float32)])  # the last row is the bias
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


def fit(heard: ListenedClip, kind: Ints, use: Bools, known: Prior) -> tuple[Floats, Floats]:
    """Returns coefficients from the seconds `use`; clips count equally, kinds by their SHARE."""
    mine = kind[heard.clip]
    use = use & np.where(np.isin(mine, (0, TONE)), ~heard.quiet, heard.active)
    times = np.bincount(heard.clip[use], minlength=len(kind))
    share = SHARE / np.maximum(np.bincount(kind, minlength=len(SHARE)), 1)
    weight = share[mine[use]] / times[heard.clip[use]]
    return regress(heard.features[use], mine[use] % TONE, weight, known)  # a tone is "nothing"


def folds(kind: Ints) -> Ints:
    """Returns the fold of each clip; each kind is spread evenly over the folds."""
    chance = np.random.default_rng(SEED)
    fold = np.zeros(len(kind), np.int64)
    for each in range(len(SHARE)):
        mine = chance.permutation(np.flatnonzero(kind == each))
        fold[mine] = np.arange(len(mine)) % FOLDS
    return fold


def held_out(heard: ListenedClip, kind: Ints, known: Prior) -> Floats:
    """Returns the margins `[n, 5]` of every second, from coefficients not fitted on its clip.

    `heard` may lack whole folds, for operating points that are independent of those folds too.
    """
    fold = folds(kind)[heard.clip]
    margin = np.zeros((len(fold), len(SOUNDS)), np.float32)
    for number in np.unique(fold):
        weights, bias = fit(heard, kind, fold != number, known)
        out = fold == number
        margin[out] = margins(heard.features[out] @ weights + bias)
    margin[heard.quiet] = -50
    return margin


def calibrate(heard: ListenedClip, kind: Ints, margin: Floats) -> tuple[Floats, Floats]:
    """Returns slope and middle of each label, `[5]`, from held-out margins of recorded clips.

    The middle lets FALSE_SHARE of the benign takes through, and is above zero, so that two labels
    never reach 0.5 together. The slope is Platt's: the most likely one around these middles. All
    labels share it, since two clips are too few to fit one.
    """
    of, best = highest(heard, kind, margin)
    of, best = of[of != TONE], best[of != TONE]
    middle = np.maximum(np.quantile(best[of == 0], 1 - FALSE_SHARE, axis=0), MIN_LEAD)
    aim = np.arange(1, 1 + len(SOUNDS))
    sign = np.where(of[:, None] == aim, 1.0, -1.0)
    even = np.where(sign > 0, 1 / (sign > 0).sum(0), 1 / (sign < 0).sum(0))
    loss = [(even * np.logaddexp(0, -sign * (best - middle) * each)).sum() for each in SLOPES]
    slope = np.full(len(SOUNDS), SLOPES[int(np.argmin(loss))])
    return slope.astype(np.float32), middle.astype(np.float32)


def highest(heard: ListenedClip, kind: Ints, margin: Floats) -> tuple[Ints, Floats]:
    """Returns the kind of each take `[n]`, and its highest margins over all seconds `[n, 5]`."""
    numbers, take = np.unique(heard.clip * 1000 + heard.take, return_inverse=True)
    best = np.full((len(numbers), len(SOUNDS)), -50, np.float32)
    np.maximum.at(best, take, margin)
    return kind[numbers // 1000], best


def auc(score: Floats, positive: Bools) -> float:
    """Returns the share of pairs in which the positive one scores higher."""
    rank = np.argsort(np.argsort(score)) + 1
    n = int(positive.sum())
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def part(heard: ListenedClip, some: Bools) -> ListenedClip:
    """Returns the seconds selected by `some`."""
    return ListenedClip(*(getattr(heard, name)[some] for name in heard.__dataclass_fields__))


def report(heard: ListenedClip, kind: Ints, margin: Floats, middle: Floats) -> Iterator[str]:
    """Yields a table of alarms by held-out margins, for takes alone and with disturbances."""
    recorded = kind[heard.clip] != TONE
    for title, which in (("alone", heard.take == 0), ("disturbed", heard.take > 0)):
        some = which & recorded
        seconds = part(heard, some)
        of, best = highest(seconds, kind, margin[some])
        raised = best > middle
        yield f"{title}: takes, AUC, and the share that raised {', '.join(SOUNDS)}; any wrong one"
        for row, name in enumerate(CLIP_LABELS):
            mine = of == row
            wrong = raised[mine].copy()
            if row:
                wrong[:, row - 1] = False
            area = auc(best[:, row - 1], mine) if row else auc(-best.max(1), mine)
            shares = " ".join(f"{share:6.3f}" for share in raised[mine].mean(0))
            yield f"  {name:10} {mine.sum():5} {area:6.3f}  {shares}  {wrong.any(1).mean():6.3f}"
        benign = (margin[some] > middle)[kind[seconds.clip] == 0]
        hours = len(benign) / 3600
        starts = (benign & ~np.roll(benign, 1, axis=0)).sum(0)
        rates = ", ".join(f"{name} {n / hours:.1f}" for name, n in zip(SOUNDS, starts, strict=True))
        yield f"  false alarms an hour of these benign clips ({hours:.2f} h): {rates}"


def tones_report(
    heard: ListenedClip, known: Sequence[SoundClip], margin: Floats, middle: Floats, meant: Prior
) -> Iterator[str]:
    """Yields the share of takes of made tones that raise any label, by family.

    First by heads that met no clip of the family, then by heads that met others of the family.
    """
    kind = np.array([clip.kind for clip in known])
    family = np.array([clip.family for clip in known])
    yield "tones: takes that raise a label: family not met; family met, clip not met"
    totals = []
    for name in dict.fromkeys(family[kind == TONE]):
        out = family[heard.clip] == name
        weights, bias = fit(heard, kind, ~out, meant)
        mine = part(heard, out)
        unmet = margins(mine.features @ weights + bias)
        unmet[mine.quiet] = -50
        pair = [(highest(mine, kind, m)[1] > middle).any(1) for m in (unmet, margin[out])]
        totals.append([share.mean() for share in pair])
        yield f"  {name:18} {len(pair[0]):4} {totals[-1][0]:6.3f} {totals[-1][1]:6.3f}"
    mean = np.mean(totals, axis=0)
    yield f"  {'all families':18}      {mean[0]:6.3f} {mean[1]:6.3f}"


def _say(text: str) -> None:
    sys.stdout.write(text if text.startswith("\r") else text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs YAMNet, held-out evaluation, calibration and fit, and writes the head."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="the folder with yamnet/")
    parser.add_argument("--out", type=Path, default=SHIPPED_HEAD)
    parser.add_argument("--takes", type=int, nargs=2, default=(6, 30), help="common, rare")
    asked = parser.parse_args()
    folder = asked.weights / "yamnet"
    with (folder / "yamnet_class_map.csv").open() as rows:
        classes = [row["display_name"] for row in csv.DictReader(rows)]
    labelled = [*clips(asked.media), *tones()]
    kind = np.array([clip.kind for clip in labelled])
    heard = listen(Yamnet(folder / YAMNET_FILE), labelled, *asked.takes, say=_say)
    known = prior(classes)
    margin = held_out(heard, kind, known)
    slope, middle = calibrate(heard, kind, margin)
    for line in report(heard, kind, margin, middle):
        _say(line)
    for line in tones_report(heard, labelled, margin, middle, known):
        _say(line)
    weights, bias = fit(heard, kind, np.ones(len(heard.clip), bool), known)
    np.savez(asked.out, weights=weights, bias=bias, slope=slope, middle=middle)
    _say(f"{asked.out}: {asked.out.stat().st_size} bytes, slope {slope}, middle {middle}")


if __name__ == "__main__":
    main()
