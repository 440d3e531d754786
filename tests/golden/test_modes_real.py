"""A real scene with real models, armed and disarmed in the middle: the same bytes every time."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from pipeline.config.rule_kinds import ZoneRule
from pipeline.config.schema import Config
from pipeline.config.site_modes import Modes
from pipeline.types import SECOND, Alert
from tests.golden import stored
from workers.delivery.jsonl import write_all
from workers.replay.scene_replay import replay

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights")]

MODES = """
modes:
  - {at: 10, mode: armed, until: 14, by: ann}
  - {at: 25, mode: armed, by: ben}
  - {at: 30, mode: disarmed, by: ben}
  - {at: 36, mode: auto, by: ben}
"""


def disarmed() -> Config:
    """The office, whose zone holds while it is armed, and that is armed only by hand."""
    config = stored.site_of("office-break-in")
    (name, site), *_ = config.sites.items()
    rules = tuple(
        msgspec.structs.replace(rule, modes=("armed",)) if isinstance(rule, ZoneRule) else rule
        for rule in site.rules
    )
    fusion = msgspec.structs.replace(site.fusion, modes=("armed",))
    site = msgspec.structs.replace(
        site, rules=rules, fusion=fusion, modes=Modes(default="disarmed")
    )
    return msgspec.structs.replace(config, sites={name: site})


def intrusions(alerts: tuple[Alert, ...], begin: int) -> list[tuple[float, float]]:
    """The spans, in seconds of the scene, in which alerts found a person in the zone."""
    last = {alert.id: alert for alert in alerts}
    found = (f for alert in last.values() for f in alert.findings if f.zone == "floor")
    return sorted(((f.start - begin) / SECOND, (f.end - begin) / SECOND) for f in found)


def test_a_scene_that_is_armed_and_disarmed_gives_the_same_bytes(
    scenes: Path, tmp_path: Path
) -> None:
    text = (scenes / "office-break-in.yaml").read_text()
    path = tmp_path / "scene.yaml"
    path.write_text(re.sub(r"\.\./media", str(scenes.parent / "media"), text) + MODES)
    config, files = disarmed(), []
    for i in range(2):
        alerts = replay(config, path, stored.encoders()).alerts
        files.append(tmp_path / f"{i}.jsonl")
        write_all(files[-1], alerts)
    assert files[0].read_bytes() == files[1].read_bytes()
    begin = min(alert.start for alert in alerts) // (60 * SECOND) * 60 * SECOND
    (first, second) = intrusions(alerts, begin)
    assert 10 <= first[0] < 11
    assert 13 < first[1] <= 14.2
    assert 25 <= second[0] < 26
    assert 29 < second[1] <= 30.2
    assert {mode for alert in alerts for mode in alert.modes} == {"armed", "disarmed"}
