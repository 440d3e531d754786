"""A command that is ended by Ctrl-C or SIGTERM ends cleanly: no traceback, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.bus.log import LocalLog
from tests.contract.test_recorded_inputs import config, of_sites
from tests.live.servers import eventually
from tests.recorded import write
from workers.recordings.recording import open_recording

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@contextmanager
def command(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Runs a command whose temporary files come into `folder`."""
    folder.mkdir(exist_ok=True)
    env = os.environ | {
        "TMPDIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "workers.cli", *map(str, words)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Sends a signal; returns the exit code and stderr."""
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", SIGNALS)
def test_a_sweep_leaves_no_files_and_no_processes(tmp_path: Path, number: int) -> None:
    write(tmp_path / "rec", of_sites("office", seconds=120))
    path, tmp = config(tmp_path, office="UTC"), tmp_path / "tmp"
    values = ",".join(str(n / 500) for n in range(1, 250))
    setting = f"sites.office.rules.zone-floor.min_score={values}"
    with command(tmp, "sweep", path, tmp_path / "rec", "--set", setting) as process:
        eventually(lambda: list(tmp.glob("fusewatch-sweep-*/0")), within=60)
        eventually(lambda: len(children(process.pid)) >= 2, within=60)
        time.sleep(0.5)
        began = children(process.pid)
        code, said = ended(process, number)
    # where the signal comes amid the making of a process, Python says that a semaphore was left
    tracker = ("resource_tracker", "warnings.warn(")
    ours = [line for line in said.splitlines() if not any(word in line for word in tracker)]
    assert (code, ours) == (SIGNALS[number], [])
    assert list(tmp.iterdir()) == []
    eventually(lambda: all(map(is_gone, began)), within=20)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", ["replay", "explain", "observations"])
def test_a_command_that_reads_ends_at_once(tmp_path: Path, name: str, number: int) -> None:
    write(tmp_path / "rec", of_sites("office", seconds=300))
    path, out = config(tmp_path, office="UTC"), tmp_path / "out"
    out.mkdir()
    words: tuple[object, ...] = (name, path, tmp_path / "rec")
    if name == "replay":
        words = (*words, "--out", out / "alerts.jsonl", "--speed", "1")
    elif name == "explain":
        words = (*words, "--page", out / "why.html")
    with command(tmp_path / "tmp", *words) as process:
        if name == "observations":
            assert process.stdout is not None
            process.stdout.readline()  # the rest waits for a reader
        else:
            time.sleep(2.0)
        code, said = ended(process, number)
    assert (code, said) == (SIGNALS[number], "")
    assert list(out.iterdir()) == list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_is_finished_and_readable(tmp_path: Path, number: int) -> None:
    state, out = tmp_path / "state", tmp_path / "out"
    log = LocalLog(state / "log", clock=time.time_ns)
    stop = threading.Event()
    made = list(of_sites("office", seconds=600))

    def live() -> None:
        for topic, one in made:
            if stop.wait(0.002):
                return
            log.publish(topic, one.key, one.value)
            log.flush()

    thread = threading.Thread(target=live)
    thread.start()
    path = config(tmp_path, state, office="UTC")
    since = ("--since", "2026-01-01T00:00:00Z")
    try:
        with command(tmp_path / "tmp", "record", path, "--out", out, *since) as process:
            eventually(lambda: sum(f.stat().st_size for f in out.glob("*.mcap")) > 1000, within=60)
            code, said = ended(process, number)
    finally:
        stop.set()
        thread.join()
        log.close()
    assert (code, said) == (0, "")
    recording = open_recording(out)
    assert recording.unfinished == []
    assert recording.verify() == []
    found = [one.value for one in recording.appended(topics.OBSERVATIONS)]
    wanted = [one.value for topic, one in made if topic == topics.OBSERVATIONS]
    assert found == wanted[: len(found)] != []


def test_a_recording_that_has_not_begun_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "state" / "log").mkdir(parents=True)
    out = tmp_path / "out"
    path = config(tmp_path, tmp_path / "state", office="UTC")
    for delay in (0.1, 0.4, 0.8):
        with command(tmp_path / "tmp", "record", path, "--out", out, "--since", "5m") as process:
            time.sleep(delay)
            code, said = ended(process, signal.SIGTERM)
        assert "Traceback" not in said
        assert code in (0, 143, -signal.SIGTERM)  # the last: before Python knew of us
        assert not list(out.glob("*")) if out.exists() else True
        if out.exists():
            out.rmdir()
