"""What a daemon recorded live is replayed: the same bytes from observations, the same last
revisions from frames; with a kill -9 and a camera that is away for a while.

A longer run: FUSEWATCH_REPLAY_SECONDS=600 pytest -s tests/live/test_replay_live.py
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.latency import film
from pipeline import codec, topics
from pipeline.bus.log_search import appended
from pipeline.types import FOREVER, Roster, SiteConfig
from tests.graph.conftest import last
from tests.live.daemon import daemon, said
from tests.live.servers import eventually, free_port, rtsp_server, virtual_microphone
from workers.cli import main

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("weights")]

SECONDS = int(os.environ.get("FUSEWATCH_REPLAY_SECONDS", "60"))  # s of the recording
AWAY = 9.0  # s without the camera
TIMES = 10  # replays that must be identical
CONFIG = """
version: 1
sites:
  office:
    cameras:
      desk:
        source: "{camera}"
        detect: {{fps: 5}}
        zones: {{floor: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}}}
    microphones:
      room: {{source: "device:pulse"}}
    rules:
      - {{rule: zone, zone: floor, label: intrusion, severity: high}}
      - {{rule: sound, labels: {{gunshot: 0.5, explosion: 0.5}}, severity: critical}}
    incidents: {{close_after: 2, lost_after: 5}}
storage: {{frames: 3600}}
recording: {{keep: "5 GB", around: always}}
api: {{listen: "127.0.0.1:0"}}
"""


@contextlib.contextmanager
def recorded(folder: Path, media: Path) -> Iterator[Path]:
    """A state folder of a daemon that has watched; the config beside it. Gives the state."""
    clip = film(media / "video/office_a.mp4", folder / "film.mp4", 1 + SECONDS // 12)
    port, config, state = free_port(), folder / "office.yaml", folder / "state"
    config.write_text(CONFIG.format(camera=f"rtsp://127.0.0.1:{port}/live"))
    shot = media / "audio/cc0_events/sounds_rifle_fire_01.ogg"
    over = threading.Event()
    with virtual_microphone(folder) as play:

        def shoot() -> None:
            while not over.wait(13):
                play(shot)

        shooter = threading.Thread(target=shoot)
        shooter.start()
        try:
            with rtsp_server(clip, port=port):
                killed = daemon(config, state)
                process = killed.__enter__()
                eventually(lambda: live(state), within=90)
                time.sleep(SECONDS / 3)
                process.kill()
                with pytest.raises(AssertionError):  # it has not ended well
                    killed.__exit__(None, None, None)
                running = daemon(config, state)
                running.__enter__()
                eventually(lambda: live(state), within=90)
                time.sleep(SECONDS / 3)
            time.sleep(AWAY)
            with rtsp_server(clip, port=port):
                eventually(lambda: live(state), within=90)
                time.sleep(SECONDS / 3)
                over.set()
                shooter.join()
                eventually(lambda: closed(state), within=60, every=0.1)
                running.__exit__(None, None, None)
            yield state
        finally:
            over.set()


def live(state: Path) -> bool:
    start = "office/desk is "
    lines = [line["message"] for line in said(state) if "message" in line]
    told = [line.removeprefix(start) for line in lines if line.startswith(start)]
    return bool(told) and told[-1].startswith("live")


def sent(state: Path) -> list[bytes]:
    """The lines of the alerts, each once."""
    file = state / "alerts.jsonl"
    return list(dict.fromkeys(file.read_bytes().splitlines())) if file.exists() else []


def closed(state: Path) -> bool:
    """Whether every incident is closed, once the camera is gone for good."""
    events = [json.loads(line)["data"] for line in sent(state)]
    states = {event["alert_id"]: event["state"] for event in events}
    return bool(states) and set(states.values()) == {"closed"}


def stored(state: Path, topic: str) -> list[Any]:
    entries = appended(state / "log", topic, 0, FOREVER)
    return [codec.decode(entry.value) for _, entry in entries]


def configs(state: Path) -> list[SiteConfig]:
    return stored(state, topics.CONFIGS)


def rosters(state: Path) -> set[str]:
    """What the rosters say that judges; those of the heartbeat monitor, too."""
    return {r.config for r in stored(state, topics.OBSERVATIONS) if isinstance(r, Roster)}


def replayed(state: Path, *options: str) -> tuple[dict[str, Any], list[bytes]]:
    """What the command says of the log by --json, and the lines that it wrote."""
    return command(state, "--since", "1h", "--state", str(state), *options)


def command(state: Path, *words: str) -> tuple[dict[str, Any], list[bytes]]:
    config, out = state.parent / "office.yaml", state.parent / "again.jsonl"
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["replay", str(config), "--out", str(out), "--json", *words]) == 0
    said = json.loads(text.getvalue())
    return said[0] if isinstance(said, list) else said, out.read_bytes().splitlines()


def test_a_recorded_watch_is_replayed(tmp_path: Path, media: Path) -> None:
    with recorded(tmp_path, media) as state:
        told = sent(state)
        row, lines = replayed(state)
        assert (row["differs"], row["unsure"], row["config"]) == ([], [], [])
        assert sorted(lines) == sorted(told)
        for _ in range(TIMES - 1):
            assert replayed(state)[1] == lines
        labels = {label for line in told for label in json.loads(line)["data"]["labels"]}
        assert {"intrusion", "gunshot", "source-lost"} <= labels
        assert rosters(state) == {config.hash for config in configs(state)}
        folder = str(state / "recordings")
        row, same = command(state, folder)
        assert (row["kind"], row["differs"], sorted(same)) == ("recording", [], sorted(told))
        then, same = replayed(state, "--config", "then")
        assert (then["differs"], same) == ([], lines)
        frames, again = replayed(state, "--from", "frames")
        assert replayed(state, "--from", "frames")[1] == again
        print(f"{len(told)} revisions; frames passed over live: {frames['passed_over']}")
        print(f"{row['factor']} and {frames['factor']} times real time")
        if frames["passed_over"] or frames["behind"]:
            pytest.skip("the machine was too slow to look at every frame live")
        assert frames["differs"] == []
        kept, _ = command(state, folder, "--from", "frames")
        assert kept["differs"] == []
        assert sum(gone["observed"] for gone in kept["missing"]) < 5  # where a recording begins
        events = [[json.loads(line) for line in each] for each in (told, again)]
        assert last(events[0]) == last(events[1])
