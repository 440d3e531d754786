"""Measures behaviours on real clips: falls, and false alerts on ordinary video.

    python -m benchmarks.behaviour [MEDIA] [--only falls|fights|ordinary] [--write]

MEDIA holds `behaviour/falls/SUBJECT/{fall,adl}/*.mp4` with the times of `fall.csv` (GMDCSA24) and
`video/*.mp4`; the default is `media` in the folder that FUSEWATCH_SHARED names. Every file is
played as a scene through the real vision stage at 5 frames a second.

Falls: the threshold for the clips of a subject is chosen on the clips of the other subjects: half
way between their least certain fall and their most certain daily life. Lying begins a second after
the time at which the fall begins by `fall.csv`. Beside it, the shipped operating point, 0.5.

Fights: `behaviour/fights/sources.csv` names the clips and their source videos. Nested folds: the
clips of a tenth of the source videos are judged by a head whose penalty and operating point were
chosen by folds over the other videos. Accuracy, and the area under the ROC curve (AUC), with 95 %
intervals by drawing source videos (bootstrap). `--write` trains the shipped head on all clips.

Ordinary video: what the behaviours tell at 0.5 in one pass of each distinct file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from benchmarks.clips import CAMERA, SHIPPED, models, observed, wilson
from benchmarks.fights import fights
from models.behaviour.fight_head import FightHead
from pipeline.behaviour.rule import BehaviourJudge
from pipeline.config.rule_kinds import BehaviourRule
from pipeline.config.schema import Detect
from pipeline.judge.rules import RuleFinding
from pipeline.types import SECOND, Detections, ns
from workers.stages.camera_tracks import CameraTracks
from workers.stages.encoders import Encoders

FALLS_IN = 1.0  # s; from the begin of a fall to lying
SOON = 2.0  # s; from lying to the alert


class Clip(NamedTuple):
    """A clip of one subject, as the vision stage sees it."""

    path: Path
    subject: str
    begins: float | None  # s; of the fall; None: daily life
    seen: Sequence[Detections]


class Told(NamedTuple):
    """What is told of a clip: when (s, from its begin), and with which score."""

    at: float
    finding: RuleFinding


def main() -> None:
    """Prints the figures."""
    ask = argparse.ArgumentParser()
    shared = os.environ.get("FUSEWATCH_SHARED")
    ask.add_argument("media", type=Path, nargs="?", default=shared and Path(shared) / "media")
    ask.add_argument("--only", choices=("falls", "fights", "ordinary"))
    ask.add_argument("--write", action="store_true", help="train and store the head of fights")
    asked = ask.parse_args()
    if asked.media is None:
        ask.error("name the folder MEDIA, or set FUSEWATCH_SHARED")
    encoders = models()
    if asked.only in (None, "falls"):
        falls(asked.media / "behaviour/falls", encoders)
    if asked.only in (None, "fights"):
        fights(asked.media / "behaviour/fights", encoders, write=asked.write)
    if asked.only in (None, "ordinary"):
        ordinary(asked.media / "video", encoders)


def told(seen: Sequence[Detections], labels: dict[str, float], seconds: float = 2) -> list[Told]:
    """What a rule with these thresholds tells."""
    tracks = CameraTracks({CAMERA: Detect()}, 120 * SECOND, 60 * SECOND, 0.25)
    rule = BehaviourRule(labels=labels, seconds=seconds)
    judge = BehaviourJudge(
        "behaviour",
        rule,
        None,
        camera=CAMERA,
        timezone=ZoneInfo("UTC"),
        horizon=120,
        fight=FightHead.shipped(),
    )
    found = []
    for record in seen:
        frame = tracks.see(record)
        if frame is not None:
            found += [Told((f.start - seen[0].start) / SECOND, f) for f in judge.see(frame)]
    return found


def certainty(clip: Clip) -> float:
    """The highest threshold, in steps of 0.01, at which a fall is told; 0: at none."""
    low, high = 0, 100
    while low < high:
        middle = (low + high + 1) // 2
        if told(clip.seen, {"fall": middle / 100}):
            low = middle
        else:
            high = middle - 1
    return low / 100


def falls(folder: Path, encoders: Encoders) -> None:
    """Prints how many falls are told, and how much of daily life is taken for one."""
    clips = [
        Clip(path, subject.name, begin_of(path), observed(path, encoders))
        for subject in sorted(folder.iterdir())
        if subject.is_dir()
        for path in sorted(subject.glob("*/*.mp4"))
    ]
    scores = {clip.path: certainty(clip) for clip in clips}
    right, wrong, soon = (
        dict.fromkeys(("fold", "shipped"), 0),
        dict.fromkeys(("fold", "shipped"), 0),
        0,
    )
    for clip in clips:
        others = [other for other in clips if other.subject != clip.subject]
        fallen = [scores[other.path] for other in others if other.begins is not None]
        daily = [scores[other.path] for other in others if other.begins is None]
        threshold = max(0.01, round((min(fallen) + max(daily, default=0.0)) / 2, 2))
        first = next(iter(told(clip.seen, {"fall": threshold})), None)
        shipped = next(iter(told(clip.seen, {"fall": SHIPPED})), None)
        for way, said in (("fold", first), ("shipped", shipped)):
            (right if clip.begins is not None else wrong)[way] += said is not None
        late = (first.at - clip.begins - FALLS_IN) if first and clip.begins is not None else None
        soon += late is not None and late <= SOON
        print(
            f"{clip.subject} {clip.path.parent.name}/{clip.path.stem}:"
            f" certainty {scores[clip.path]:.2f}, threshold {threshold:.2f},"
            f" {'told' if first else 'not told'}"
            + (f" {late:+.1f} s from lying ({first.finding.reason})" if late is not None else "")
        )
    count = sum(clip.begins is not None for clip in clips)
    for way, how in (
        ("fold", "thresholds of the other subjects"),
        ("shipped", "shipped threshold"),
    ):
        rest = len(clips) - count
        print(f"falls told, {how}: {right[way]} of {count} ({wilson(right[way], count)})")
        print(f"daily life told, {how}: {wrong[way]} of {rest} ({wilson(wrong[way], rest)})")
    print(f"told within {SOON:g} s of lying: {soon} of {count}")


def begin_of(path: Path) -> float | None:
    """When the person of a clip falls, by the list beside its folder; None: daily life."""
    if path.parent.name != "fall":
        return None
    listed = (path.parent.parent / "fall.csv").read_text().splitlines()
    row = next(line for line in listed if line.startswith(f"{path.name},"))
    found = re.search(r"Falling[^\[]*\[\s*([0-9.]+)", row)
    if found is None:
        msg = f"{path.parent.parent / 'fall.csv'}: the row of {path.name} has no time of a fall"
        raise ValueError(msg)
    return float(found[1])


def ordinary(folder: Path, encoders: Encoders) -> None:
    """Prints what is told in videos in which nothing of the kind happens."""
    minutes, alerts, tried, known = 0.0, 0, 0, set[str]()
    for path in sorted(folder.glob("*.mp4")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in known:
            continue
        known.add(digest)
        seen = observed(path, encoders)
        minutes += (seen[-1].end - seen[0].start) / ns(60)
        found = told(seen, {"fall": SHIPPED, "lying": SHIPPED})
        alerts += len(found)
        tried += len(told(seen, {"fight": SHIPPED}))
        print(f"{path.name}: {len(found)} told", *(f"{at:.1f} s {f.reason}" for at, f in found))
    print(f"ordinary video: {alerts} told in {minutes:.1f} minutes")
    print(f"fights told there, which is experimental: {tried}")


if __name__ == "__main__":
    main()
