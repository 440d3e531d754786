"""The daemon as a process of its own, and configs for it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="


def office(folder: Path, *, camera: str, microphone: str, url: str, close_after: float = 2) -> Path:
    """A closed office with a camera, a microphone and a subscriber."""
    path = folder / "office.yaml"
    path.write_text(f"""
version: 1
sites:
  office:
    cameras:
      desk:
        source: "{camera}"
        zones: {{floor: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}}}
    microphones:
      room: {{source: "{microphone}"}}
    rules:
      - {{rule: zone, zone: floor, label: intrusion, severity: high}}
      - {{rule: sound, labels: {{gunshot: 0.5, explosion: 0.5}}, severity: critical}}
    incidents: {{close_after: {close_after}, lost_after: 5}}
api: {{listen: "127.0.0.1:0"}}
webhooks:
  - {{url: "{url}", secret: "{SECRET}", name: subscriber}}
""")
    return path


@contextlib.contextmanager
def daemon(
    config: Path, state: Path, python: str = sys.executable
) -> Iterator[subprocess.Popen[str]]:
    """`fusewatch run`; its log is in `state/said`. It is stopped with SIGTERM and must end well."""
    state.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "workers.cli", "run", str(config), "--state", str(state)]
    with (state / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, stderr=said, text=True)
    try:
        yield process
        process.terminate()
        assert process.wait(30) == 0, (state / "said").read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def said(state: Path) -> list[dict[str, Any]]:
    """The lines of the daemon's log so far; each is JSON, whoever wrote it."""
    return [json.loads(line) for line in (state / "said").read_text().split("\n")[:-1]]
