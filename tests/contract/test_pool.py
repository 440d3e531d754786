"""Processes that share work end with the one that began them, however it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.live.servers import eventually
from workers.runtime.process_pool import pool

WORK = """
import sys
from tests.contract.test_pool import hold
from workers.runtime.process_pool import pool

if __name__ == "__main__":
    with pool(print, count=2) as workers:
        list(workers.map(hold, [sys.argv[1]] * 2))
"""


def hold(folder: str) -> None:
    """Leave a file named like this process, and work for a minute."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_workers_of_a_killed_parent_end(tmp_path: Path) -> None:
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(WORK)
    folder.mkdir()
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)], env={**os.environ, "PYTHONPATH": str(root)}
    ) as parent:
        eventually(lambda: len(list(folder.iterdir())) == 2, within=60)
        pids = [int(path.name) for path in folder.iterdir()]
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        eventually(lambda: not any(alive(pid) for pid in pids), within=20)


def test_each_process_is_made_ready_before_its_first_task() -> None:
    with pool(os.putenv, "FUSEWATCH_TEST_READY", "1", count=1) as workers:
        (said,) = workers.map(subprocess.getoutput, ["echo $FUSEWATCH_TEST_READY"])
    assert said == "1"
