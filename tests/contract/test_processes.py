"""The supervisor of the live tests, tried on simple commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.live.processes import KILLED, Processes
from tests.live.servers import eventually

PYTHON = (sys.executable, "-u", "-c")
LOOP = """
import json, signal, sys, threading
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
print(json.dumps({"message": "ready"}))
print("{cut")
stop.wait()
print(json.dumps({"message": "status", "counts": {"life": sys.argv[1:]}}))
"""
DEAF = """
import signal, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"message": "ready"}')
threading.Event().wait()
"""


def test_a_process_is_killed_and_started_again_with_one_log(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        one = processes.start("one", *PYTHON, LOOP, "first")
        eventually(lambda: one.times("ready") == 1, within=30)
        one.kill()
        assert (one.alive, one.code, one.kills) == (False, KILLED, 1)
        one.start()
        eventually(lambda: one.times("ready") == 2, within=30)
        assert one.stop(30) == 0
        assert one.status()["counts"] == {"life": ["first"]}
        processes.start("one", *PYTHON, LOOP, "second")
        eventually(lambda: one.times("ready") == 3, within=30)
        assert processes.stop(["one"]) == {"one": 0}
        assert one.status()["counts"] == {"life": ["second"]}
        assert processes.kills() == {"one": 1}


def test_an_end_of_its_own_is_no_kill(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        short = processes.start("short", *PYTHON, "raise SystemExit(3)")
        eventually(lambda: processes.ended() == [short], within=30)
        short.kill()
        assert (short.code, short.kills) == (3, 0)


def test_what_does_not_stop_fails_and_is_gone(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        deaf = processes.start("deaf", *PYTHON, DEAF)
        eventually(lambda: deaf.times("ready") == 1, within=30)
        with pytest.raises(AssertionError, match="did not stop"):
            deaf.stop(0.2)
        assert not deaf.alive


def test_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        pid = processes.start("one", *PYTHON, LOOP).pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
