"""What the whole system finds and invents, by kind; a change must not make that worse.

    python -m benchmarks.quality [MEDIA] [--write]

The default of MEDIA is `media` in the folder that FUSEWATCH_SHARED names. Composed scenes of clips
of the held-out split are replayed with the shipped head and all behaviours on; the clips of
MEDIA/behaviour and the videos of MEDIA/video are judged by the rule of behaviours. A truth is told
if an alert with its label overlaps it or begins within 3 s of it. An alert that no truth explains
is false; its kind is its label. What a video shows the whole time is no false alert (`SHOWN` in
`benchmarks/clips.py`).

`tests/golden/quality.json` is the card of these figures. `tests/golden/test_quality_card.py`
compares them with those of today; `--write` writes the card anew. On the machine that wrote the
card nothing may be worse; on another processor the models give slightly other numbers, and a kind
may have one more miss or false alert, and a set three in all.

These figures are no estimate for unknown places: the head of fights has seen the clips of fights.
`benchmarks.behaviour`, `benchmarks.fusion` and `make head` estimate that.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.behaviour import begin_of, told
from benchmarks.clips import SHIPPED, beyond_shown, models, observed, with_behaviours
from pipeline.config.model_needs import needed_encoders
from pipeline.types import SECOND, Alert
from tests.golden.stored import processor
from workers.config import loader
from workers.replay.scene_file import load_scene
from workers.replay.scene_replay import ReplayOptions, replay
from workers.runtime.process_pool import pool
from workers.stages.encoders import load_encoders
from workers.training.compose import compose
from workers.training.feature_extraction import memoized
from workers.training.ground_truth import truth
from workers.training.video_cache import VideoCache

CARD = Path(__file__).parents[1] / "tests/golden/quality.json"
COMMAND = "python -m benchmarks.quality --write"
SCENES, SEED, LENGTH = 24, 23, 20.0  # s
SLACK = 3 * SECOND  # ns; so long after a truth an alert may still be about it
ON = {"fall": SHIPPED, "lying": SHIPPED, "fight": SHIPPED}
ELSEWHERE, ELSEWHERE_IN_ALL = 1, 3  # worse figures that another processor may have

Counts = dict[str, tuple[int, int]]  # kind -> how many, and of how many


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a set of scenes and clips; `told` and `false` by set, then by kind."""

    command: str = COMMAND
    processor: str  # of the machine that wrote it, by `tests/golden/stored.py`
    scenes: str  # the hash of the composed scenes
    told: Mapping[str, Counts]
    false: Mapping[str, Counts]


class Seen(msgspec.Struct, frozen=True):
    """What one scene or clip adds: (set, kind, whether it was told), and (set, kind) of what was
    invented."""

    truths: tuple[tuple[str, str, bool], ...]
    invented: tuple[tuple[str, str], ...]
    of: str  # the set


def measure(media: Path) -> Card:
    """Returns the figures of today, by one process a core."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scenes"
        compose(media, out, scenes=SCENES, seed=SEED, duration=LENGTH, splits=(0, 0, 1))
        jobs: list[tuple[str, Path]] = [("scene", f) for f in sorted((out / "test").glob("*.yaml"))]
        jobs += _clips(media)
        made = hashlib.sha256((out / "scenes.jsonl").read_bytes()).hexdigest()
        with pool(_ready, str(out / "config.yaml")) as workers:
            seen = list(workers.map(_seen, jobs))
    return card(seen, processor=processor().strip(), scenes=made)


def card(seen: Sequence[Seen], *, processor: str, scenes: str) -> Card:
    """Sums up what scenes and clips gave."""
    sizes = Counter(one.of for one in seen)
    all_, hits, invented = Counter[Any](), Counter[Any](), Counter[Any]()
    for one in seen:
        all_.update((of, kind) for of, kind, _ in one.truths)
        hits.update((of, kind) for of, kind, hit in one.truths if hit)
        invented.update(one.invented)
    told: dict[str, Counts] = {}
    false: dict[str, Counts] = {of: {} for of in sorted(sizes)}
    for of, kind in sorted(all_):
        told.setdefault(of, {})[kind] = (hits[of, kind], all_[of, kind])
    for of, kind in sorted(invented):
        false[of][kind] = (invented[of, kind], sizes[of])
    return Card(processor=processor, scenes=scenes, told=told, false=false)


def worse(then: Card, now: Card) -> Iterator[str]:
    """Yields in a sentence each figure that is worse than the card allows."""
    if now.scenes != then.scenes:
        yield f"the composed scenes are others than those of the card: {COMMAND}"
        return
    same = now.processor == then.processor
    each, in_all = (0, 0) if same else (ELSEWHERE, ELSEWHERE_IN_ALL)
    where = "this processor" if same else "another processor than that of the card"
    ways = ((then.told, now.told, -1, "told"), (then.false, now.false, 1, "false alerts"))
    for before, after, bad, what in ways:
        for of in sorted({*before, *after}):
            lost = 0
            old, new = before.get(of, {}), after.get(of, {})
            for kind in sorted({*old, *new}):
                was, count = old.get(kind, (0, 0))
                is_, _ = new.get(kind, (0, 0))
                fall = bad * (is_ - was)
                lost += max(fall, 0)
                if fall > each:
                    yield (
                        f"{of}, {kind}: {what} {is_}, and {was} of {count} in the card (on {where}"
                        f" it may be {each} worse); if that is meant: {COMMAND}"
                    )
            if lost > in_all:
                yield (
                    f"{of}, all kinds: {what}: worse by {lost} (on {where} {in_all} are allowed);"
                    f" if that is meant: {COMMAND}"
                )


def _clips(media: Path) -> Iterator[tuple[str, Path]]:
    fights = media / "behaviour/fights"
    for line in csv.DictReader((fights / "sources.csv").read_text().splitlines()):
        yield "fight" if line["fight"] == "1" else "no fight", fights / line["clip"]
    for clip in sorted((media / "behaviour/falls").glob("*/*/*.mp4")):
        yield "fall" if begin_of(clip) is not None else "daily life", clip
    for video in sorted((media / "video").glob("*.mp4")):
        yield "ordinary", video


_ours: list[Any] = []  # of this process


def _ready(config: str) -> None:
    settings = with_behaviours(loader.load(Path(config)))
    encoders = load_encoders(settings.models, recorded=True, needed=needed_encoders(settings))
    _ours[:] = settings, memoized(encoders), models(), VideoCache()


def _seen(job: tuple[str, Path]) -> Seen:
    kind, path = job
    settings, encoders, sight, films = _ours
    if kind == "scene":
        scene = load_scene(path)
        done = replay(settings, scene, encoders, study=ReplayOptions(film=films))
        return of_scene(truth(scene), done.alerts)
    labels = {each.finding.label for each in told(observed(path, sight), ON)}
    if kind in ("fall", "fight"):
        # who falls lies afterwards, and who fights may fall
        return Seen((("clips", kind, kind in labels),), (), f"clips: {kind}")
    of = f"clips: {kind}"
    return Seen((), tuple((of, label) for label in sorted(labels)), of)


def of_scene(truths: Sequence[tuple[int, int, str]], alerts: Sequence[Alert]) -> Seen:
    """What a scene adds, by the last revision of each of its alerts."""
    last = {alert.id: alert for alert in alerts}.values()

    def about(alert: Alert, start: int, end: int) -> bool:
        return alert.start < end + SLACK and (alert.end is None or alert.end > start - SECOND)

    found = tuple(
        ("scenes", label, any(label in a.labels and about(a, start, end) for a in last))
        for start, end, label in truths
    )
    false = [
        beyond_shown(a.site, (a.label, *a.labels))[:1]
        for a in last
        if not any(about(a, start, end) for start, end, _ in truths)
    ]
    return Seen(found, tuple(("scenes", label) for labels in false for label in labels), "scenes")


def main() -> int:
    """Prints the figures; 1 if some are worse than those of the card."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = os.environ.get("FUSEWATCH_SHARED")
    ask.add_argument("media", type=Path, nargs="?", default=shared and Path(shared) / "media")
    ask.add_argument("--write", action="store_true", help=f"write {CARD.name} anew")
    asked = ask.parse_args()
    if asked.media is None:
        ask.error("name the folder MEDIA, or set FUSEWATCH_SHARED")
    began = time.monotonic()
    now = measure(asked.media)
    for what, figures in (("told", now.told), ("false alerts", now.false)):
        for of, counts in figures.items():
            some = ", ".join(f"{kind} {n} of {count}" for kind, (n, count) in counts.items())
            print(f"{of}: {what}: {some or 'none'}")
    print(f"{time.monotonic() - began:.0f} s")
    if asked.write:
        CARD.write_bytes(msgspec.json.format(msgspec.json.encode(now), indent=1) + b"\n")
        print(f"{CARD} written")
        return 0
    found = list(worse(read(), now))
    print("\n".join(found) or "no figure is worse than that of the card")
    return bool(found)


def read() -> Card:
    """The card of figures."""
    return msgspec.json.decode(CARD.read_bytes(), type=Card)


if __name__ == "__main__":
    sys.exit(main())
