"""The gate in every way of running: a person who stands still behind a closed gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.graph.conftest import Runner, last

LOITERING = "      - {rule: loitering, zone: floor, seconds: 6, severity: high}\n    fusion"


def written(config: Path, gate: str) -> Path:
    """A copy of the config with this gate and a rule for those who stay."""
    text = config.read_text()
    text = text.replace('"device:0"', f'"device:0"\n        detect: {{gate: "{gate}", audit: 0.2}}')
    folder = config.parent / gate
    folder.mkdir()
    copy = folder / "office.yaml"
    copy.write_text(text.replace("    fusion", LOITERING))
    return copy


def told(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """When each rule was first told."""
    first: dict[str, str] = {}
    for event in events:
        for rule in event["data"]["rules"]:
            first.setdefault(rule, event["time"])
    return set(first.items())


def test_the_gate_changes_no_incident(
    runner: Runner, config: Path, scene: Callable[..., Path]
) -> None:
    path = scene(person=(3, 14))
    looked, gated = (runner(written(config, gate), path) for gate in ("off", "auto"))
    assert last(gated) == last(looked)
    assert told(gated) == told(looked)
    assert {rule.partition("-")[0] for _, *rest in last(gated) for rule in rest[4:]} >= {"zone"}
