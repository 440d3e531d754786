"""Reads the truth of a scene file: what an observer calls an incident. Replay never reads it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import msgspec

from models.fusion.labels import LABELS
from models.training.dataset import Span
from pipeline.config.problem import Problem
from pipeline.types import SECOND
from workers.config.loader import convert, fault
from workers.replay.scene_file import Scene, read_scene


class _Truth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: float
    end: float
    label: str


class _TruthFile(msgspec.Struct, frozen=True, kw_only=True):
    truth: tuple[_Truth, ...] | None = None


def truth(scene: Scene) -> list[Span]:
    """Returns the truth of a scene, ns; raises ConfigError with file and line for bad spans.

    A scene without `truth` cannot be evaluated; one with `truth: []` has no event.
    """
    path: Path = scene.path
    data, lines = read_scene(path)
    given = {"truth": data["truth"]} if isinstance(data, dict) and "truth" in data else {}
    read, found = convert(given, _TruthFile)
    if read is None:
        raise fault(path, lines, found)
    if read.truth is None:
        found.append(Problem((), "has no `truth`: for a quiet scene write `truth: []`"))
        raise fault(path, lines, found)
    length = scene.duration / SECOND
    for i, one in enumerate(read.truth):
        if not 0 <= one.start < one.end <= length:
            what = f"must have 0 <= start < end <= {length:g}, the scene's length in seconds"
            found.append(Problem(("truth", i), what))
        if one.label not in LABELS:
            near = get_close_matches(one.label, LABELS, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            what = f"{one.label!r} is none of {', '.join(LABELS)}{hint}"
            found.append(Problem(("truth", i, "label"), what))
    if found:
        raise fault(path, lines, found)
    return [
        (scene.start + round(one.start * SECOND), scene.start + round(one.end * SECOND), one.label)
        for one in read.truth
    ]
