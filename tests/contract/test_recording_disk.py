"""A full disk: `record` ends with clear words, and the continuous recording waits."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.config.schema import Config, Recording, Site
from pipeline.ports import Entry
from pipeline.types import FrameChunk
from tests.contract.test_recorded_inputs import config, of_sites
from tests.live.servers import eventually
from tests.recorded import Recorded, entries, of_topic
from tests.small_disk import fill, small_disk
from workers.cli import main
from workers.recorder import continuous, record_command
from workers.recorder.around_incidents import AroundIncidents
from workers.recorder.begin import RECORDED
from workers.recorder.continuous import ContinuousRecorder, local_recorder
from workers.recorder.recorder import Recorder
from workers.recorder.tails import LocalTail
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About
from workers.recordings.recording import open_recording

ROOT = Path(__file__).resolve().parents[2]
SINCE = ("--since", "2026-01-01T00:00:00Z")
SEEN = (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS)


def logged(state: Path, made: list[Recorded], **retention: Retention) -> LocalLog:
    log = LocalLog(state / "log", clock=time.time_ns, retention=retention)
    for topic, one in made:
        log.publish(topic, one.key, one.value, one.trace)
    log.flush()
    return log


def is_begin_of(folder: Path, made: list[Recorded]) -> int:
    """The files are readable, and have the first records of each topic; returns how many."""
    recording = open_recording(folder)
    count = 0
    for topic in SEEN:
        found = [one.value for one in recording.appended(topic)]
        assert found == [one.value for one in of_topic(made, topic)][: len(found)]
        count += len(found)
    assert recording.losses == []
    return count


def large(seconds: int) -> list[Recorded]:
    """What the office recorded, with pictures that do not get smaller: 20 kB for each second."""
    dice, made = random.Random(5), []
    for topic, one in of_sites("office", seconds=seconds):
        record = codec.decode(one.value)
        if isinstance(record, FrameChunk):
            record = msgspec.structs.replace(record, data=dice.randbytes(10_000))
        made.append((topic, msgspec.structs.replace(one, value=codec.encode(record))))
    return made


# -- `record`


def test_a_full_disk_ends_record_with_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = large(200)
    logged(tmp_path / "state", made).close()
    path = config(tmp_path, tmp_path / "state", office="UTC")
    with small_disk(tmp_path, 2) as disk:
        assert main(["record", str(path), "--out", str(disk / "out"), *SINCE, "--json"]) == 3
        said = capsys.readouterr()
        assert "out: cannot be written any more (No space left on device)" in said.err
        assert "is not recorded" in said.err
        told = json.loads(said.out)
        found = is_begin_of(disk / "out", made)
        assert 0 < sum(told["entries"].get(topic, 0) for topic in SEEN) == found < len(made)
    again = tmp_path / "again"
    assert main(["record", str(path), "--out", str(again), *SINCE]) == 0, "the log has all of it"
    assert is_begin_of(again, made) == len([1 for topic, _ in made if topic in SEEN])


def test_a_limit_on_the_size_of_files_ends_record(tmp_path: Path) -> None:
    made = large(200)
    logged(tmp_path / "state", made).close()
    path, out = config(tmp_path, tmp_path / "state", office="UTC"), tmp_path / "out"
    words = [sys.executable, "-m", "workers.cli", "record", str(path), "--out", str(out), *SINCE]
    ended = subprocess.run(
        words,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "out: cannot be written any more (File too large)" in ended.stderr
    assert "1 file" in ended.stdout
    assert 0 < is_begin_of(out, made) < len(made)


def test_record_leaves_the_room_that_the_log_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk of 48 MB, 6 stay free: twice a sixteenth."""
    monkeypatch.setattr(record_command, "ROOM_BYTES", 1 << 18)
    made = large(400)
    with small_disk(tmp_path, 48) as disk:
        log = logged(disk / "state", made)
        (disk / "other").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - (9 << 20)))
        path = config(tmp_path, disk / "state", office="UTC")
        assert main(["record", str(path), "--out", str(disk / "out"), *SINCE]) == 3
        said = capsys.readouterr()
        assert "MB stay free for the log of the daemon on it: record to another disk" in said.err
        assert "1 file" in said.out
        assert os.statvfs(disk).f_bavail * 4096 > 3 << 20
        recording = open_recording(disk / "out")
        assert recording.unfinished == []
        assert 0 < is_begin_of(disk / "out", made) < len(made)
        fill(disk / "other")
        assert main(["record", str(path), "--out", str(disk / "two"), *SINCE]) == 3
        assert not (disk / "two").exists()
        log.close()


def stepped(one: Recorder) -> None:
    while one.step():
        one.writer.flush()


def test_what_is_lost_is_counted_once_however_often_it_is_tried(tmp_path: Path) -> None:
    state = tmp_path / "state"
    log = logged(state, entries(200), **{topics.FRAMES: Retention(max_bytes=1 << 20)})
    log.trim()
    gone = log.oldest(topics.FRAMES)
    assert gone > 0
    tails = {topic: LocalTail(state / "log", topic, 0) for topic in RECORDED}
    with small_disk(tmp_path, 8) as disk:
        one = Recorder(FolderWriter(disk / "out", About(log="test")), tails)
        fill(disk / "filler")
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                stepped(one)
            one.rewind()
            assert (one.lost, sum(one.entries.values())) == (0, 0)
            assert not (disk / "out").exists() or list((disk / "out").iterdir()) == []
        (disk / "filler").unlink()
        stepped(one)
        one.finish()
        assert one.lost == gone
        assert one.entries[topics.FRAMES] == log.end(topics.FRAMES) - gone
    log.close()


# -- the continuous recording


def recorder(state: Path, gauges: dict[str, list[float]], **settings: str) -> ContinuousRecorder:
    class Stored:
        def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
            return iter(())

    def gauge(name: str, value: float) -> None:
        gauges.setdefault(name, []).append(value)

    office = Config(version=1, sites={"office": Site()})
    recording = Recording(**{"around": "always", **settings})  # type: ignore[arg-type]
    return local_recorder(office, recording, state, Stored(), gauge)  # type: ignore[arg-type]


def test_it_waits_without_writing_and_says_for_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(continuous, "RETRY_AFTER", 0.3)
    log = logged(tmp_path / "state", [])
    gauges: dict[str, list[float]] = {}
    with small_disk(tmp_path, 32) as disk:
        out = disk / "out"
        one = recorder(tmp_path / "state", gauges, path=str(out))
        free = os.statvfs(disk).f_bavail * 4096
        (disk / "filler").write_bytes(bytes(free - (3 << 20)))  # of the 4 MB that stay free
        stop = threading.Event()
        thread = threading.Thread(target=one.loop, args=(stop,))
        thread.start()
        made = entries(20)
        for topic, each in made:
            log.publish(topic, each.key, each.value)
        log.flush()
        eventually(lambda: len(gauges.get("recording.waits", ())) > 3, within=30)
        assert thread.is_alive()
        assert not out.exists() or list(out.iterdir()) == []
        assert gauges["recording.waits"][-1] >= 1
        assert f"recording waits, and goes on when it can: {out}: the disk is nearly" in caplog.text
        (disk / "filler").unlink()
        eventually(lambda: gauges["recording.waits"][-1] == 0, within=30)
        assert "recording goes on after" in caplog.text
        stop.set()
        thread.join(30)
        assert is_begin_of(out, made) == len([1 for topic, _ in made if topic in SEEN])
    log.close()


def test_a_disk_without_a_byte_leaves_no_empty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here nothing keeps room free: the disk ends in the middle of a file."""
    monkeypatch.setattr(continuous, "RETRY_AFTER", 0.1)
    monkeypatch.setattr(continuous.KeptFiles, "make_room", lambda *_: True)
    made = entries(60)
    log = logged(tmp_path / "state", [])
    gauges: dict[str, list[float]] = {}
    with small_disk(tmp_path, 2) as disk:
        out = disk / "out"
        one = recorder(tmp_path / "state", gauges, path=str(out))
        fill(disk / "filler")
        for topic, each in made:
            log.publish(topic, each.key, each.value)
        log.flush()
        stop = threading.Event()
        thread = threading.Thread(target=one.loop, args=(stop,))
        thread.start()
        eventually(lambda: len(gauges.get("recording.waits", ())) > 5, within=30)
        assert not out.exists() or list(out.iterdir()) == []
        (disk / "filler").unlink()
        eventually(lambda: gauges["recording.waits"][-1] == 0, within=30)
        stop.set()
        thread.join(30)
        assert is_begin_of(out, made) == len([1 for topic, _ in made if topic in SEEN])
    log.close()


def test_files_that_cannot_be_rewritten_do_not_keep_the_disk_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To strip a file of its pictures needs room; to delete the oldest one gives it."""

    def decide(self: object, current: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AroundIncidents, "decide", decide)
    log = logged(tmp_path / "state", entries(10))
    gauges: dict[str, list[float]] = {}
    one = recorder(tmp_path / "state", gauges, around="incidents")
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    one.loop(stop)
    assert "pictures without an incident are kept for now: [Errno 28]" in caplog.text
    assert "recording.waits" not in gauges
    assert gauges["recording.bytes"]
    log.close()
