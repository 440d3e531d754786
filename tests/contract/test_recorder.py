"""The recorder: what a log holds gets into files, and what does not is counted and named."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import codec, topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.bus.log_tail import LogTail, end, in_use
from pipeline.config.schema import Config, Recording, Site
from pipeline.errors import ConfigError, OutsideError
from pipeline.ports import Entry
from pipeline.types import SECOND, Alert, Progress, Record, event_start, ns
from tests.make import alert, progress
from tests.recorded import BEGIN, entries, entry, frame, of_topic, second_of, write
from tests.small_disk import fill, small_disk
from workers.cli import main
from workers.recorder import continuous
from workers.recorder.around_incidents import AroundIncidents, strip
from workers.recorder.begin import RECORDED
from workers.recorder.continuous import ContinuousRecorder, local_recorder
from workers.recorder.kept_files import KeptFiles
from workers.recorder.recorder import ELSEWHERE, Recorder
from workers.recorder.tails import LocalTail
from workers.recordings.file_index import read_index
from workers.recordings.folder_writer import FolderWriter, file_name
from workers.recordings.metadata import About
from workers.recordings.recording import open_recording

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
version: 1
sites:
  office:
    cameras: {desk: {source: "rtsp://127.0.0.1:1/none"}}
    microphones: {room: {source: "device:default"}}
"""
OFFICE = Config(version=1, sites={"office": Site()})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def log(state: Path) -> Iterator[LocalLog]:
    opened = LocalLog(state / "log", clock=time.time_ns)
    yield opened
    opened.close()


def publish(log: LocalLog, made: list[tuple[str, Entry]]) -> None:
    for topic, one in made:
        log.publish(topic, one.key, one.value, one.trace)
    log.flush()


def recorder(state: Path, out: Path, **more: object) -> Recorder:
    tails = {topic: LocalTail(state / "log", topic, 0) for topic in RECORDED}
    return Recorder(FolderWriter(out, About(log="test")), tails, **more)  # type: ignore[arg-type]


def drained(one: Recorder) -> None:
    while one.step():
        pass
    one.finish()


# -- following a log


def test_a_tail_gives_each_entry_once_and_holds_nothing(state: Path, log: LocalLog) -> None:
    made = entries(6)
    tail = LogTail(state / "log", topics.FRAMES)
    assert tail.poll(10) == []
    publish(log, made)
    found: list[Entry] = []
    while some := tail.poll(5):
        found += some
    assert found == of_topic(made, topics.FRAMES)
    assert log.groups(topics.FRAMES) == []
    assert end(state / "log", topics.FRAMES) == len(found)
    tail.close()


def test_a_log_that_was_made_anew_is_told(state: Path) -> None:
    first = LocalLog(state / "log", clock=time.time_ns)
    publish(first, entries(2))
    tail = LogTail(state / "log", topics.FRAMES)
    tail.poll(100)
    first.close()
    (state / "log" / "frames.v1.db").rename(state / "old.db")
    second = LocalLog(state / "log", clock=time.time_ns)
    publish(second, entries(1))
    with pytest.raises(OutsideError, match="was made anew"):
        tail.poll(100)
    tail.close()
    second.close()


def test_whether_a_process_uses_a_log_is_seen(state: Path) -> None:
    assert not in_use(state / "log")
    opened = LocalLog(state / "log", clock=time.time_ns)
    assert in_use(state / "log")
    opened.close()
    assert not in_use(state / "log")


# -- recording


def test_what_the_log_holds_is_recorded(state: Path, log: LocalLog, tmp_path: Path) -> None:
    made = entries(20)
    publish(log, made)
    drained(recorder(state, tmp_path / "out"))
    recording = open_recording(tmp_path / "out")
    for topic in (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS):
        assert list(recording.appended(topic)) == of_topic(made, topic)


def test_what_retention_deletes_unread_is_counted_and_named(state: Path, tmp_path: Path) -> None:
    small = {topics.FRAMES: Retention(max_bytes=1 << 20)}
    log = LocalLog(state / "log", clock=time.time_ns, retention=small)
    one = recorder(state, tmp_path / "out")
    publish(log, entries(5))
    one.step()
    for first in range(5, 125, 10):
        publish(log, entries(10, first))
    drained(one)
    log.close()
    assert one.lost > 0
    recording = open_recording(tmp_path / "out")
    found = list(recording.appended(topics.FRAMES))
    assert len(found) == 250 - one.lost
    assert [str(loss) for loss in recording.losses if "retention deleted them" in str(loss)]


def test_of_another_site_only_the_times_are_recorded(
    state: Path, log: LocalLog, tmp_path: Path
) -> None:
    made = entries(5)
    other = [
        (topics.FRAMES, entry(frame(BEGIN, 1, site="home"), 0, topics.FRAMES)),
        *(
            (topics.OBSERVATIONS, entry(progress(BEGIN + n, site="home"), n, topics.OBSERVATIONS))
            for n in range(3)
        ),
    ]
    publish(log, other)
    publish(log, made)
    drained(recorder(state, tmp_path / "out", sites=["office"]))
    recording = open_recording(tmp_path / "out")
    assert [one.key for one in recording.appended(topics.FRAMES)] == ["office/desk"] * 10
    seen = list(recording.appended(topics.OBSERVATIONS))
    assert [one.offset for one in seen] == list(range(len(seen)))
    for ours, was in zip(seen, [*other[1:], *of_pairs(made)], strict=True):
        record, before = codec.decode(ours.value), codec.decode(was[1].value)
        assert event_start(record) == event_start(before)
        if before.site == "home":
            assert record == Progress(site="home", source=ELSEWHERE, upto=event_start(before))
        else:
            assert ours.value == was[1].value


def of_pairs(made: list[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
    return [(topic, one) for topic, one in made if topic == topics.OBSERVATIONS]


def test_a_full_disk_loses_nothing_that_the_log_still_has(
    state: Path, log: LocalLog, tmp_path: Path
) -> None:
    with small_disk(tmp_path, 4) as disk:
        publish(log, entries(10))
        one = recorder(state, disk / "out")
        while one.step():
            pass
        one.writer.flush()
        filler = disk / "filler"
        fill(filler)
        publish(log, entries(100, 10))
        with pytest.raises(OSError, match="No space left"):
            drained(one)
        one.rewind()
        filler.unlink()
        drained(one)
        recording = open_recording(disk / "out")
        made = entries(110)
        for topic in (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS):
            assert list(recording.appended(topic)) == of_topic(made, topic)


@pytest.mark.slow
def test_twenty_kills_leave_files_that_lack_the_last_chunk_at_most(tmp_path: Path) -> None:
    dice = random.Random(3)
    command = [sys.executable, "-m", "tests.recording_process"]
    for number in range(20):
        out = tmp_path / str(number)
        with subprocess.Popen(
            [*command, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(dice.uniform(0.02, 0.4))
            process.send_signal(signal.SIGKILL)
            written = [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
        seconds = max(written, default=0) + 1
        recording = open_recording(out)
        for topic in (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS):
            found = [one.value for one in recording.appended(topic)]
            made = [
                codec.encode(r) for s in range(seconds + 2) for t, r in second_of(s) if t == topic
            ]
            least = sum(1 for s in range(seconds) for t, _ in second_of(s) if t == topic)
            assert len(found) >= least
            assert found == made[: len(found)]
        assert len(recording.losses) <= 1, recording.losses


# -- the command


def run(config: Path, state: Path, out: Path, *more: str) -> int:
    return main(["record", str(config), "--state", str(state), "--out", str(out), *more])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fusewatch.yaml"
    path.write_text(CONFIG)
    return path


def test_the_past_is_recorded_with_its_run_up(
    config: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = entries(40)
    log = LocalLog(state / "log", clock=time.time_ns)
    publish(log, made)
    log.close()
    since = "2026-01-01T00:00:20Z"
    assert run(config, state, tmp_path / "out", "--since", since, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    recording = open_recording(tmp_path / "out")
    assert recording.about.since == ns(BEGIN + 20)
    assert list(recording.appended(topics.OBSERVATIONS)) == of_topic(made, topics.OBSERVATIONS)
    frames = list(recording.appended(topics.FRAMES))
    assert frames == of_topic(made, topics.FRAMES)[-len(frames) :]
    assert len(frames) == 40
    assert told["entries"]["frames.v1"] == 40
    assert told["lost"] == 0


def test_an_end_is_respected_and_the_alerts_of_an_open_incident_are_there(
    config: Path, state: Path, tmp_path: Path
) -> None:
    log = LocalLog(state / "log", clock=time.time_ns)
    publish(log, entries(40))
    open_ = [alert(start=ns(BEGIN + 15), revision=number) for number in range(2)]
    for one in open_:
        log.publish(topics.ALERTS, "office", codec.encode(one))
    log.flush()
    log.close()
    since = ("--since", "2026-01-01T00:00:20Z", "--for", "10s")
    assert run(config, state, tmp_path / "out", *since) == 0
    recording = open_recording(tmp_path / "out")
    frames = [codec.decode(one.value) for one in recording.appended(topics.FRAMES)]
    assert frames[0].start == ns(BEGIN + 20)
    assert frames[-1].start == ns(BEGIN + 29.5)
    assert len(list(recording.appended(topics.ALERTS))) == 2


def test_a_running_daemon_is_followed(
    config: Path, state: Path, log: LocalLog, tmp_path: Path
) -> None:
    now = int(time.time())
    stop = threading.Event()

    def live() -> None:
        second = now - BEGIN
        while not stop.is_set():
            for topic, record in second_of(second):
                log.publish(topic, topics.key_of(topic, record), codec.encode(record))
            fusion = progress(BEGIN + second, source="fusion")
            log.publish(topics.ANOMALIES, "office", codec.encode(fusion))
            log.flush()
            second += 1
            stop.wait(0.1)  # ten times faster than time

    thread = threading.Thread(target=live)
    thread.start()
    try:
        assert run(config, state, tmp_path / "out", "--for", "3s") == 0
    finally:
        stop.set()
        thread.join()
    recording = open_recording(tmp_path / "out")
    frames = [codec.decode(one.value) for one in recording.appended(topics.FRAMES)]
    assert frames
    assert max(one.start for one in frames) < (recording.about.since or 0) + 3 * SECOND
    assert list(recording.appended(topics.OBSERVATIONS))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ((), "no daemon uses"),
        (("--site", "elsewhere", "--since", "5m"), "the config has no such site; it has office"),
        (("--for", "soon", "--since", "5m"), "a span like 30s"),
        (("--since", "2099-01-01T00:00:00Z"), "is in the future"),
    ],
)
def test_wrong_use_says_what_to_do(
    config: Path,
    state: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    why: str,
) -> None:
    (state / "log").mkdir(parents=True)
    assert run(config, state, tmp_path / "out", *more) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_told(
    config: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(config, state, tmp_path / "file" / "out", "--since", "5m") == 3
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_a_folder_with_recordings_is_refused(
    config: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "out", entries(1))
    assert run(config, state, tmp_path / "out", "--since", "5m") == 2
    assert "must be a folder without recordings" in capsys.readouterr().err


# -- the continuous recording


def continuous_one(state: Path, **settings: str) -> ContinuousRecorder:
    class Stored:
        def appended(self, topic: str, start: int = 0) -> Iterator[Entry]:
            return iter(())

    recording = Recording(**{"around": "always", **settings})
    return local_recorder(OFFICE, recording, state, Stored(), lambda *_: None)  # type: ignore[arg-type]


def finished(one: ContinuousRecorder) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    one.loop(stop)
    timer.join()


@pytest.mark.parametrize("around", ["always", "incidents"])
def test_a_restart_goes_on_where_the_last_file_ends(
    state: Path, log: LocalLog, around: str
) -> None:
    made = entries(30)
    one = continuous_one(state, around=around)
    publish(log, made[:100])
    finished(one)
    publish(log, made[100:])
    finished(continuous_one(state, around=around))
    recording = open_recording(state / continuous.FOLDER)
    assert len(recording.files) == 2
    for topic in (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS):
        assert list(recording.appended(topic)) == of_topic(made, topic)


def test_a_log_that_was_made_anew_begins_another_recording(state: Path) -> None:
    for first in (0, 50):
        log = LocalLog(state / "log", clock=time.time_ns)
        one = continuous_one(state)
        publish(log, entries(10, first))
        finished(one)
        log.close()
        for file in (state / "log").iterdir():
            file.unlink()
    files = sorted((state / continuous.FOLDER).glob("*.mcap"))
    assert len(files) == 2
    with pytest.raises(ConfigError, match="are not of one recording"):
        open_recording(files)
    assert len(list(open_recording(files[1]).appended(topics.FRAMES))) == 20


def test_only_its_own_files_give_way_and_the_oldest_first(tmp_path: Path) -> None:
    for part in range(4):
        write(tmp_path, entries(5, 5 * part))
    others = {
        "notes.mcap": b"\x89MCAP0\r\n",
        file_name(
            1_700_000_000_000_000
        ): b"\x89MCAP0\r\n\x01\x0c\0\0\0\0\0\0\0\x04\0\0\0ros2\0\0\0\0",
        "20200101T000000.000000Z.mcap": b"a text",
        "letter.txt": b"dear",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    link = tmp_path / "20200101T000001.000000Z.mcap"
    link.symlink_to(tmp_path / "letter.txt")
    kept = KeptFiles(tmp_path, 0)
    files = kept.paths()
    assert len(files) == 4
    kept = KeptFiles(tmp_path, files[2].stat().st_size + files[3].stat().st_size)
    kept.trim(None)
    assert kept.paths() == files[2:]
    KeptFiles(tmp_path, 0).trim(files[3])
    assert kept.paths() == files[3:]
    for name, content in others.items():
        assert (tmp_path / name).read_bytes() == content
    assert link.is_symlink()


def test_a_nearly_full_disk_takes_the_oldest_files(tmp_path: Path) -> None:
    with small_disk(tmp_path, 32) as disk:
        folder = disk / "out"
        for part in range(4):
            write(folder, entries(30, 30 * part))
        kept = KeptFiles(folder, 1 << 40)
        before = kept.paths()
        assert kept.make_room(None)
        assert kept.paths() == before
        free = os.statvfs(disk).f_bavail * 4096
        (disk / "other").write_bytes(bytes(free - (4 << 20) + 300_000))
        assert kept.make_room(None)
        assert kept.paths() == before[-len(kept.paths()) :] != before
        fill(disk / "other")
        assert not kept.make_room(None)
        assert kept.paths() == []


def test_a_full_disk_makes_it_wait_and_not_end(state: Path, log: LocalLog, tmp_path: Path) -> None:
    with small_disk(tmp_path, 32) as disk:
        one = continuous_one(state, path=str(disk / "out"))
        fill(disk / "filler")
        publish(log, entries(10))
        stop = threading.Event()
        thread = threading.Thread(target=one.loop, args=(stop,))
        thread.start()
        time.sleep(1)
        assert thread.is_alive()
        (disk / "filler").unlink()
        publish(log, entries(10, 10))

        def all_there() -> bool:
            return len(list((disk / "out").glob("*.mcap"))) > 0

        until = time.monotonic() + 60
        while not all_there() and time.monotonic() < until:
            time.sleep(0.1)
        stop.set()
        thread.join(30)
        recording = open_recording(disk / "out")
        made = entries(20)
        for topic in (topics.FRAMES, topics.AUDIO, topics.OBSERVATIONS):
            assert list(recording.appended(topic)) == of_topic(made, topic)


# -- around incidents


def closed(start: float, end: float) -> Alert:
    return alert(start=ns(BEGIN + start), end=ns(BEGIN + end), state="closed")


def incidents(tmp_path: Path, made: dict[int, list[Record]], minutes: int) -> Path:
    """A file for each minute; `made` are alerts by the minute in which they were told."""
    now, told = [0.0], 0
    folder = tmp_path / "ring"
    writer = FolderWriter(folder, About(log="test"), monotonic=lambda: now[0], most_seconds=60)
    for topic, one in entries(60 * minutes):
        second = codec.span(one.value)
        if second is not None:
            now[0] = second[0] / 1e9 - BEGIN
        writer.tick()
        for record in made.pop(int(now[0] // 60), []):
            writer.add(topics.ALERTS, entry(record, told, topics.ALERTS))
            told += 1
        writer.add(topic, one)
    writer.close()
    return folder


def test_pictures_are_kept_around_incidents_alone(tmp_path: Path) -> None:
    folder = incidents(tmp_path, {5: [closed(290, 310)]}, minutes=12)
    kept = KeptFiles(folder, 1 << 40)
    around = AroundIncidents(OFFICE, kept, clock=lambda: time.time() + 3600)
    observed = list(open_recording(folder).appended(topics.OBSERVATIONS))
    around.decide(kept.paths()[-1])
    files = kept.paths()
    assert len(files) == 12
    shown = [topics.FRAMES in open_recording(file).topics for file in files]
    # 230 s to 370 s lie in the minutes 3 to 6; the last ones are not decided yet
    assert shown[:10] == [False, False, False, True, True, True, True, False, False, False]
    assert shown[11]
    assert list(open_recording(folder).appended(topics.OBSERVATIONS)) == observed
    assert not (folder / ".part").exists()


@pytest.mark.slow
def test_observations_go_when_no_incident_can_need_them(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path / "ring", 1 << 40)
    around = AroundIncidents(OFFICE, kept, clock=lambda: time.time() + 3600)
    folder = incidents(tmp_path, {30: [closed(1790, 1800)]}, minutes=50)
    for topic in (topics.ALERTS, topics.OBSERVATIONS):
        for one in open_recording(folder).appended(topic):
            around.saw(topic, one)
    before = kept.paths()
    around.decide(None)
    around.decide(None)
    left = [before.index(path) for path in kept.paths()]
    assert left[-1] == 49
    assert 29 in left
    assert 14 in left  # the run-up of the incident
    assert 5 not in left


def test_a_stripped_file_says_what_the_whole_one_said(tmp_path: Path) -> None:
    (file,) = write(tmp_path, entries(20))
    before = open_recording(file)
    size, about = file.stat().st_size, before.about
    seen = list(before.appended(topics.OBSERVATIONS))
    strip(file)
    after = open_recording(file)
    assert list(after.appended(topics.OBSERVATIONS)) == seen
    assert list(after.topics) == [topics.OBSERVATIONS]
    assert (after.about.log, after.about.since) == (about.log, about.since)
    assert file.stat().st_size < size / 3
    assert read_index(file).finished
