"""A daemon whose model hangs ends itself and is started again; one that is slow, or whose
receivers are down, goes on. Each daemon is a process of its own, with fake models."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.graph.conftest import drain, last
from tests.live.daemon import SECRET
from tests.live.processes import Process
from tests.live.servers import eventually
from workers.delivery.receiver import Receiver

pytestmark = pytest.mark.slow

STALL = 3  # s; looks are 5 s apart, so the second look at a place that stays is one too many
LOOKS = 5.0
ENDED = 2 * LOOKS + 15 + 3 + 15  # s: two looks, threads that do not end, the last alerts, and slack


@pytest.fixture
def played(scene: Callable[..., Path]) -> Path:
    """Somebody walks in, a shot, a cry for help."""
    return scene(person=(3, 6), loud=(8, 9), spoken=(12, 14))


@pytest.fixture
def expected(config: Path, played: Path) -> set[tuple[Any, ...]]:
    """What comes of the scene when nothing disturbs it."""
    found = last(drain(config, played))
    assert found
    config.write_text(config.read_text() + f"bus: {{kind: local, stall: {STALL}}}\n")
    return found


@pytest.fixture
def start(config: Path, played: Path, tmp_path: Path) -> Any:
    """`start("hangs")`: a daemon with such models; none is left at the end."""
    process = Process("daemon", tmp_path / "daemon.log", {})

    def started(how: str) -> Process:
        command = (sys.executable, "-m", "tests.live.faked_daemon", how)
        process.start(*command, config, tmp_path / "state", played)
        return process

    yield started
    process.end()


def alerts(folder: Path) -> list[dict[str, Any]]:
    """What the daemon told so far."""
    path = folder / "state/alerts.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def in_order(receiver: Receiver) -> list[dict[str, Any]]:
    """What it got, by revision: what was tried again came later than what followed it."""
    return sorted(receiver.events.values(), key=lambda event: event["data"]["revision"])


def is_system(event: dict[str, Any]) -> bool:
    return bool(event["data"]["rules"] == ["system"])


def test_a_model_that_hangs_ends_the_daemon_and_the_next_one_tells_every_alert(
    tmp_path: Path, expected: set[tuple[Any, ...]], start: Callable[[str], Process]
) -> None:
    hung = start("hangs")
    eventually(lambda: hung.code is not None, within=30 + ENDED)
    assert hung.code == 3, hung.tail()
    assert "vision has stalled" in hung.tail()
    assert "entries of frames.v1 wait" in hung.tail()
    assert "faked_daemon.py" in hung.log.read_text(), "where it hangs"
    assert "self.never.wait()" in hung.log.read_text()
    (told,) = [event for event in alerts(tmp_path) if is_system(event)]
    assert told["data"]["labels"] == ["stage-failed"]
    assert "vision has stalled" in told["data"]["reasons"][0]
    again = start("well")
    eventually(lambda: again.code is not None, within=60)
    assert again.code == 0, again.tail()
    assert last([event for event in alerts(tmp_path) if not is_system(event)]) == expected


def test_a_slow_model_that_answers_now_and_then_is_not_ended(
    tmp_path: Path, expected: set[tuple[Any, ...]], start: Callable[[str], Process]
) -> None:
    slow = start("slow")  # a turn takes longer than the patience
    eventually(lambda: slow.code is not None, within=90)
    assert slow.code == 0, slow.tail()
    assert last(alerts(tmp_path)) == expected


def test_receivers_that_are_down_or_do_not_answer_end_no_daemon(
    config: Path,
    tmp_path: Path,
    expected: set[tuple[Any, ...]],
    start: Callable[[str], Process],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens there
        ports = [held.getsockname()[1] for held in (silent, bound)]
        names = ("silent", "down")
        hooks = "".join(
            f'  - {{url: "http://127.0.0.1:{port}/alerts", secret: "{SECRET}", name: {name},'
            f" timeout: {2 * STALL}}}\n"
            for name, port in zip(names, ports, strict=True)
        )
        config.write_text(f"{config.read_text()}webhooks:\n{hooks}")
        waits = start("well")
        eventually(lambda: last(alerts(tmp_path)) == expected, within=30)
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(4 * LOOKS)
    down, silent_ = (Receiver(SECRET, port=port) for port in reversed(ports))
    with down, silent_:
        eventually(lambda: waits.code is not None, within=60)
        assert waits.code == 0, waits.tail()
        assert [last(in_order(hook)) for hook in (down, silent_)] == [expected, expected]
