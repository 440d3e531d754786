"""The composited scenes with truth: every truth is found in time, and nothing is invented.

A truth is found if a revision that holds its label overlaps it and came, by event time, at most 3 s
after it began; a second interval under the same open incident counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.fields import SOUNDS
from pipeline.types import SECOND, Alert, Presence
from tests.golden import stored

IN_TIME = 3 * SECOND

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights")]


def played(path: Path) -> tuple[Alert, ...]:
    return stored.played(path.stem, path).alerts


def truths(path: Path) -> Iterator[tuple[int, int, str]]:
    scene: dict[str, Any] = yaml.safe_load(path.read_text())
    begin = scene["start"]
    assert isinstance(begin, datetime)
    zero = round(begin.timestamp()) * SECOND
    for truth in scene["truth"]:
        yield (
            zero + round(truth["start"] * SECOND),
            zero + round(truth["end"] * SECOND),
            truth["label"],
        )


def overlaps(alert: Alert, start: int, end: int) -> bool:
    return alert.start < end and (alert.end is None or alert.end > start)


@pytest.mark.parametrize("name", stored.SCENES)
def test_every_truth_is_found_within_three_seconds(scenes: Path, name: str) -> None:
    path = scenes / f"{name}.yaml"
    missed = [
        (label, start)
        for start, end, label in truths(path)
        if not any(
            label in alert.labels
            and overlaps(alert, start, end)
            and alert.time <= start + IN_TIME
            and not closed_before(played(path), alert, start)
            for alert in played(path)
        )
    ]
    assert missed == []


def closed_before(alerts: tuple[Alert, ...], alert: Alert, start: int) -> bool:
    """Whether the incident of this revision ended before the truth began."""
    last = [a for a in alerts if a.id == alert.id][-1]
    return last.end is not None and last.end <= start


@pytest.mark.parametrize("name", stored.SCENES)
def test_no_sound_is_told_that_was_not_there(scenes: Path, name: str) -> None:
    path = scenes / f"{name}.yaml"
    invented = [
        (label, alert.revision)
        for alert in played(path)
        for label in alert.labels
        if label in SOUNDS
        and not any(
            label == true and overlaps(alert, start, end) for start, end, true in truths(path)
        )
    ]
    assert invented == []


@pytest.mark.parametrize("name", ["retail-quiet", "plaza-quiet"])
def test_a_quiet_scene_is_quiet(scenes: Path, name: str) -> None:
    assert played(scenes / f"{name}.yaml") == ()


def test_both_screams_are_heard_while_the_camera_is_lost_and_the_loss_is_told(
    scenes: Path,
) -> None:
    path = scenes / "office-camera-lost.yaml"
    alerts = played(path)
    heard = [a for a in alerts if "scream" in a.labels]
    assert heard[0].presence["desk"] == Presence.LOST
    assert heard[0].presence["room"] == Presence.PRESENT
    assert [r for r in heard[-1].reasons if r[10:].startswith("scream heard")] == [
        "22:00:16Z scream heard (microphone room)",
        "22:00:33Z scream heard (microphone room)",
    ]
