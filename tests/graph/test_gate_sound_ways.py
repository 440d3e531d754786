"""The gate of the microphones in every way of running: a shot and a word after a long silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.graph.conftest import Runner, last


def written(config: Path, gate: str) -> Path:
    """A copy of the config with this gate of the microphone."""
    folder = config.parent / gate
    folder.mkdir()
    copy = folder / "office.yaml"
    text = config.read_text()
    open_room = 'room: {source: "device:default"'
    assert open_room in text
    copy.write_text(text.replace(open_room, f'{open_room}, hear: {{gate: "{gate}"}}'))
    return copy


def test_the_gate_changes_no_incident(
    runner: Runner, config: Path, scene: Callable[..., Path]
) -> None:
    path = scene(loud=(15.2, 16.1), spoken=(17.5, 18.5))
    heard, gated = (runner(written(config, gate), path) for gate in ("off", "auto"))
    assert last(gated) == last(heard)
    assert {"gunshot", "distress"} <= {word for incident in last(gated) for word in incident}
