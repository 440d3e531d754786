"""SIGHUP to the daemon as a process: it lives on, and says what became of its heads."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from tests.live.daemon import SECRET, daemon, office, said
from tests.live.servers import eventually
from workers.delivery.receiver import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights")]


def lines(state: Path, begin: str) -> list[str]:
    return [line["message"] for line in said(state) if line["message"].startswith(begin)]


def test_a_running_daemon_reads_its_heads_again(tmp_path: Path, media: Path) -> None:
    state = tmp_path / "state"
    with Receiver(SECRET) as receiver:
        config = office(
            tmp_path,
            camera=str(media / "video/office_a.mp4"),
            microphone=str(media / "speech/jfk.flac"),
            url=receiver.url,
        )
        good = config.read_text()
        wrong = good.replace("    rules:\n", '    fusion: {head: "/nowhere/head"}\n    rules:\n')
        with daemon(config, state) as process:
            eventually(partial(lines, state, "ready"), within=60)
            process.send_signal(signal.SIGHUP)
            (now,) = eventually(partial(lines, state, "reload: heads are now"), within=20)  # type: ignore[misc]
            assert now.startswith("reload: heads are now office: ")
            config.write_text(wrong)
            process.send_signal(signal.SIGHUP)
            kept = partial(lines, state, "reload: sites.office.fusion.head")
            (error,) = eventually(kept, within=20)  # type: ignore[misc]
            assert error.endswith("; the heads that are loaded stay")
            config.write_text(good)
            process.send_signal(signal.SIGHUP)
            eventually(
                lambda: len(lines(state, "reload: heads are now")) == 2,
                within=20,
            )
            assert process.poll() is None
        assert lines(state, "status")  # it ended as it should, with its last counts
