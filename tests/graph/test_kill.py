"""A daemon that is killed with -9 again and again tells what an undisturbed one tells."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workers.delivery.receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="
KILLS = int(os.environ.get("FUSEWATCH_KILLS", "20"))

pytestmark = pytest.mark.slow


def config(folder: Path, url: str) -> Path:
    """The office example with a webhook."""
    text = (ROOT / "deploy/examples/office.yaml").read_text()
    path = folder / "office.yaml"
    path.write_text(f'{text}\nwebhooks:\n  - {{url: "{url}", secret: "{SECRET}"}}\n')
    return path


def start(path: Path, scene: Path, state: Path, speed: str = "max") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workers.cli", "run", path, "--scene", scene]
    command += ["--state", state, "--speed", speed]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def last_revisions(events: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """By (site, labels, severity, start, end, rules), as runs are compared."""
    last: dict[str, dict[str, Any]] = {}
    for event in events:
        data = event["data"]
        if data["revision"] >= last.get(data["alert_id"], {"revision": -1})["revision"]:
            last[data["alert_id"]] = data
    return {
        (
            d["site"],
            tuple(d["labels"]),
            d["severity"],
            d["start"],
            d["end"],
            tuple(d["rules"]),
        )
        for d in last.values()
    }


def contents(receiver: Receiver) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for post in receiver.posts:
        assert post.event is not None, "a request came whose signature is wrong"
        found.setdefault(post.event["id"], set()).add(post.body)
    return found


def test_twenty_kills_lose_nothing_and_change_nothing(
    tmp_path: Path, scenes: Path, weights: Path
) -> None:
    scene = scenes / "office-break-in.yaml"
    with Receiver(SECRET) as receiver:
        path = config(tmp_path, receiver.url)
        whole = start(path, scene, tmp_path / "whole")
        _, said = whole.communicate(timeout=300)
        assert whole.returncode == 0, said.decode()
        expected = last_revisions(list(receiver.events.values()))
        assert expected

    chance = random.Random(20261123)
    with Receiver(SECRET) as receiver:
        path = config(tmp_path, receiver.url)
        killed = 0
        for _ in range(KILLS):
            # At twice real time the scene outlasts the kills; some come before anything has begun.
            process = start(path, scene, tmp_path / "killed", speed="2")
            try:
                process.wait(chance.uniform(0.5, 5.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
            process.communicate(timeout=60)
        last = start(path, scene, tmp_path / "killed")
        _, said = last.communicate(timeout=300)
        assert last.returncode == 0, said.decode()
        told = list(receiver.events.values())
        bodies = contents(receiver)

    written = [
        json.loads(line) for line in (tmp_path / "killed/alerts.jsonl").read_text().splitlines()
    ]
    print(f"\n{killed} kills; {len(receiver.posts)} posts, {len(told)} ids, {len(written)} lines")
    assert killed > 0
    assert last_revisions(told) == expected
    assert [ident for ident, body in bodies.items() if len(body) > 1] == []
    assert {event["id"] for event in written} == set(bodies)
    assert len(written) == len(bodies), "a line was written twice"
