"""The daemon on a real RTSP camera and a virtual microphone: alerts, an outage, a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import SECRET, daemon, office, said
from tests.live.servers import eventually, free_port, rtsp_server, virtual_microphone
from workers.capture.report_client import read_token, send_report
from workers.delivery.receiver import Receiver

pytest.importorskip("pyaudio", reason="extra `microphone` is not installed")
pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("weights")]


def told(receiver: Receiver, label: str) -> list[dict[str, Any]]:
    return [e for e in list(receiver.events.values()) if label in e["data"]["labels"]]


def blind(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that say that the camera was lost."""
    return [event for event in events if event["data"]["presence"]["desk"] == "lost"]


def states(folder: Path, source: str) -> list[str]:
    """What the log said of a source, in order: live, lost, ..."""
    start = f"office/{source} is "
    return [
        line["message"].removeprefix(start).split(":")[0]
        for line in said(folder)
        if line["message"].startswith(start)
    ]


def test_a_person_and_a_gunshot_are_told_and_a_lost_camera_comes_back(
    tmp_path: Path, media: Path
) -> None:
    video, shot = media / "video/office_a.mp4", media / "audio/sesa_train/gunshot_011.flac"
    port, state = free_port(), tmp_path / "state"
    with virtual_microphone(tmp_path) as play, Receiver(SECRET) as receiver:
        with rtsp_server(video, port=port) as camera:
            config = office(tmp_path, camera=camera, microphone="device:pulse", url=receiver.url)
            running = daemon(config, state)
            running.__enter__()
            eventually(lambda: told(receiver, "intrusion"), within=60)
            play(shot)
            eventually(lambda: told(receiver, "gunshot"), within=15)
        # The server is dead now: the camera is lost, the site says so, and somebody is told.
        (lost, *_) = eventually(lambda: told(receiver, "source-lost"), within=40)  # type: ignore[misc]
        assert lost["data"]["rules"] == ["system"]
        assert lost["data"]["presence"]["desk"] == "lost"
        assert states(state, "desk")[-1] == "lost"
        play(shot)
        # The microphone must still raise the alarm, and the alert says what it did without.
        eventually(lambda: blind(told(receiver, "gunshot")), within=15)
        with rtsp_server(video, port=port):
            eventually(lambda: states(state, "desk")[-1] == "live", within=60)
            seen = len(told(receiver, "intrusion"))
            eventually(lambda: len(told(receiver, "intrusion")) > seen, within=60)
            running.__exit__(None, None, None)
        assert all(post.event is not None for post in receiver.posts), "a signature was wrong"


def test_a_report_reaches_the_running_daemon(tmp_path: Path, media: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    with Receiver(SECRET) as receiver:
        config = office(
            tmp_path,
            camera=str(media / "video/office_a.mp4"),
            microphone=str(media / "speech/jfk.flac"),
            url=receiver.url,
        )
        text = config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}")
        rule = "- {rule: keyword, words: {en: [ladder]}, on: [report], label: climbing}"
        config.write_text(text.replace("- {rule: zone,", f"{rule}\n      - {{rule: zone,"))
        with daemon(config, state):
            eventually(lambda: any(line["message"] == "ready" for line in said(state)), within=60)
            send_report(
                f"http://127.0.0.1:{port}",
                read_token(state),
                "office",
                "somebody climbs the wall with a ladder",
                "guard-1",
            )
            (alert, *_) = eventually(lambda: told(receiver, "climbing"), within=20)  # type: ignore[misc]
        assert alert["data"]["transcript"] == ["somebody climbs the wall with a ladder"]
