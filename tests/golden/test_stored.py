"""The seven scenes give the alerts that were stored, to the byte.

Fusion and alerting judge the stored observations on any machine. Where weights and media are, the
whole graph plays the scenes, and its observations are the stored ones, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden import stored
from tests.graph.conftest import last


def events(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.splitlines()]


@pytest.mark.parametrize("name", stored.SCENES)
def test_stored_observations_give_the_stored_alerts(name: str) -> None:
    assert stored.judged(name) == stored.alerts_of(name)


@pytest.mark.slow
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", stored.SCENES)
def test_a_scene_gives_the_stored_observations_and_alerts(scenes: Path, name: str) -> None:
    """To the byte on the kind of processor that wrote them; int8 models round by the processor,
    so elsewhere the same records with other scores, and the same incidents."""
    played, before = stored.played(scenes / f"{name}.yaml"), stored.read(name)
    assert last(events(played.file)) == last(events(stored.alerts_of(name)))
    assert [key for key, *_ in played.stored.entries] == [key for key, *_ in before.entries]
    if stored.processor() == stored.PROCESSOR.read_text():
        assert played.stored.entries == before.entries
        assert played.file == stored.alerts_of(name)
