"""Real pictures and shots: each shot is told in time, also in an incident that is open already.

Pedestrians are in view all the time, and a gun is fired three times.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.types import SECOND, Alert
from tests.golden import stored
from workers.config import loader
from workers.replay.scene_replay import replay

SHOTS = (10, 50, 90)  # s
START = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z
IN_TIME = 5 * SECOND
CONFIG = """
version: 1
sites:
  plaza:
    cameras:
      pole:
        source: "rtsp://10.0.0.7/h264"
        zones: {square: {coordinates: "0,0, 1,0, 1,1, 0,1"}}
    microphones: {room: {source: "device:default"}}
    rules:
      - {rule: zone, zone: square, label: presence, severity: medium}
      - {rule: sound, labels: {gunshot: 0.5}, severity: critical}
    fusion: rules
    incidents: {group: GROUP}
"""
SCENE = """
site: plaza
start: 2026-01-01T00:00:00Z
duration: 100
cameras: {{pole: {{file: {media}/video/vtest_first25s.mp4, fps: 5, loop: true}}}}
microphones:
  room: [{shots}]
"""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights")]


@pytest.fixture(scope="module", params=["site", "source"])
def alerts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scenes: Path
) -> tuple[Alert, ...]:
    folder, media = tmp_path_factory.mktemp("shots"), scenes.parent / "media"
    shot = media / "audio/sesa_train/gunshot_011.flac"
    shots = ", ".join(f"{{file: {shot}, at: {at}}}" for at in SHOTS)
    scene, config = folder / "scene.yaml", folder / "site.yaml"
    scene.write_text(SCENE.format(media=media, shots=shots))
    config.write_text(CONFIG.replace("GROUP", request.param))
    return replay(loader.load(config), scene, stored.encoders()).alerts


def test_each_shot_is_told_within_five_seconds(alerts: tuple[Alert, ...]) -> None:
    zero = min(a.start for a in alerts) // (100 * SECOND) * (100 * SECOND)
    for shot in SHOTS:
        told = [
            a for a in alerts if zero + shot * SECOND <= a.time <= zero + shot * SECOND + IN_TIME
        ]
        assert any("gunshot heard" in reason for a in told for reason in a.reasons_new), shot


def test_the_second_and_third_shot_are_told_as_again_where_people_keep_it_open(
    alerts: tuple[Alert, ...],
) -> None:
    grouped = {a.group for a in alerts}
    again = [a for a in alerts if "again" in a.changed]
    if grouped == {""}:
        assert len({a.id for a in alerts}) == 1
        assert [a.changed for a in again] == [("again",), ("again",)]
    else:  # a microphone of its own has an incident for each shot
        assert grouped == {"", "pole", "room"}  # what both sources say is of the whole site
        assert len({a.id for a in alerts if a.group == "room"}) == 3
    (first, *_) = alerts
    assert not any("again" in a.changed for a in alerts if a.labels == ("presence",))
    assert first.revision == 0


def test_a_camera_names_its_own_pictures_and_no_revision_is_invisible(
    alerts: tuple[Alert, ...],
) -> None:
    before: dict[str, Alert] = {}
    for alert in alerts:
        assert alert.reasons
        assert alert.changed
        assert all(name.endswith("_pole.jpg") for name in alert.evidence)
        if (old := before.get(alert.id)) is not None:
            assert alert.revision == old.revision + 1
            assert (alert.labels, alert.rules, alert.severity, alert.presence, alert.state) != (
                (old.labels, old.rules, old.severity, old.presence, old.state)
            ) or alert.reasons_new
        before[alert.id] = alert
