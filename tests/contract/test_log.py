"""What only the local log promises: it is kept, bounded, locked, and honest about damage."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from pipeline import codec
from pipeline.bus.log import LocalLog, LogReader, Retention
from pipeline.bus.log_search import between
from pipeline.errors import DiskFull, OutsideError
from pipeline.ports import Assigned, Entry
from pipeline.types import Record, ns
from tests import make

MIB = 1 << 20
Opener = Callable[..., LocalLog]


class Clock:
    """A wall clock that a test sets; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> int:
        return ns(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    logs: list[LocalLog] = []

    def opened(**retention: Retention) -> LocalLog:
        while logs:
            logs.pop().close()
        logs.append(LocalLog(tmp_path, clock=clock, retention=retention))
        return logs[-1]

    yield opened
    while logs:
        logs.pop().close()


def put(log: LocalLog, *values: bytes, topic: str = "t", key: str = "k") -> None:
    for value in values:
        log.publish(topic, key, value)
    log.flush()


def entries(reader: LogReader, limit: int = 100_000) -> list[Entry]:
    return [event for event in reader.poll(limit) if isinstance(event, Entry)]


def until_waiting(log: LocalLog, thread: Thread) -> None:
    """Returns when `thread` waits for an entry of topic `t`."""
    while not log._table("t").arrived._waiters:  # type: ignore[attr-defined]
        assert thread.is_alive()


def test_everything_is_there_after_closing_and_opening(opened: Opener) -> None:
    log = opened()
    put(log, b"a", b"b")
    reader = log.reader("t", "g")
    entries(reader)
    reader.commit(0, 1, b"note")
    log = opened()
    assert log.end("t") == 2
    assert log.groups("t") == ["g"]
    assert log.reader("t", "g").poll(9) == [Assigned(0, 1, b"note"), Entry(0, 1, "k", b"b")]


KILLED = """
import sys
from pathlib import Path
from pipeline.bus.log import LocalLog

log = LocalLog(Path(sys.argv[1]), clock=lambda: 0)
reader = log.reader("t", "g")
i = log.end("t")
while True:
    for _ in range(int(sys.argv[2])):
        log.publish("t", f"k{i % 3}", b"%d " % i + b"x" * (i * 7919 % 9000))
        i += 1
    log.flush()
    reader.commit(0, i, b"%d" % i)
    print(i, flush=True)
"""


def test_nothing_acknowledged_is_lost_by_kill_9_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged = 0
    for life in range(12):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(chance.randint(1, 40))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(1, 60)):
                acknowledged = int(child.stdout.readline())
            for _ in range(chance.randint(0, 20_000)):
                pass  # so that the blow does not always fall right after a line
            child.kill()
            last = child.stdout.read().split("\n")[:-1]
            acknowledged = int(last[-1]) if last else acknowledged
        log = LocalLog(tmp_path, clock=lambda: 0)
        assert log.end("t") >= acknowledged, f"in life {life}"
        committed = log.reader("t", "g").poll(1)[0]
        assert isinstance(committed, Assigned)
        assert acknowledged <= committed.offset <= log.end("t")
        assert committed.note == b"%d" % committed.offset
        read = entries(log.reader("t", "all"))
        assert [entry.offset for entry in read] == list(range(log.end("t")))
        assert [int(entry.value.split()[0]) for entry in read] == list(range(log.end("t")))
        log.forget("t", "all")
        log.close()


def test_many_threads_publish_and_each_keeps_its_order(opened: Opener) -> None:
    log = opened()

    def work(me: int) -> None:
        for i in range(60):
            log.publish("t", f"k{me}", b"%d %d" % (me, i))
            if i % 4 == 3:
                log.flush()

    threads = [Thread(target=work, args=(me,)) for me in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = entries(log.reader("t", "g"))
    assert [entry.offset for entry in read] == list(range(360))
    for me in range(6):
        ours = [entry.value for entry in read if entry.key == f"k{me}"]
        assert ours == [b"%d %d" % (me, i) for i in range(60)]


def test_a_waiting_reader_is_woken_by_what_another_thread_flushes(opened: Opener) -> None:
    log = opened()
    reader = log.reader("t", "g")
    reader.poll(1)
    got: list[object] = []
    thread = Thread(target=lambda: got.extend(reader.poll(10, wait=300.0)), daemon=True)
    thread.start()
    until_waiting(log, thread)
    put(log, b"a")
    thread.join(timeout=30)
    assert got == [Entry(0, 0, "k", b"a")]


def test_closing_wakes_a_waiting_reader(opened: Opener) -> None:
    log = opened()
    reader = log.reader("t", "g")
    reader.poll(1)
    got: list[object] = [None]
    thread = Thread(target=lambda: got.__setitem__(0, reader.poll(10, wait=300.0)), daemon=True)
    thread.start()
    until_waiting(log, thread)
    opened()
    thread.join(timeout=30)
    assert got == [[]]


@pytest.mark.parametrize("size", [100, 1000, 3000, 5000, 60_000, 150_000])
def test_a_topic_stays_below_its_cap_on_disk_with_its_wal(opened: Opener, size: int) -> None:
    log = opened(t=Retention(max_bytes=4 * MIB))
    reader = log.reader("t", "g")
    largest = 0
    many = max(3, 60_000 // size)
    for _ in range(12 * MIB // size // many):
        put(log, *(bytes(size) for _ in range(many)))
        reader.commit(0, log.end("t"), b"n" * 1000)
        largest = max(largest, log.size())
    assert largest <= 4 * MIB
    held = sum(len(entry.value) for entry in entries(log.reader("t", "new")))
    assert held > 1 * MIB  # and it is not kept by throwing everything away


def test_one_great_flush_stays_below_the_cap_too(opened: Opener) -> None:
    log = opened(t=Retention(max_bytes=8 * MIB))
    put(log, *(bytes([i]) * 100_000 for i in range(200)))
    assert log.size() <= 8 * MIB
    assert log.end("t") == 200


def test_what_is_too_old_goes_and_its_space_is_returned(opened: Opener, clock: Clock) -> None:
    log = opened(t=Retention(max_age=60))
    put(log, *(bytes(100_000) for _ in range(300)))
    assert log.size() > 25 * MIB
    clock.now += 50
    put(log, b"young")
    log.trim()
    assert log._table("t").oldest == 0
    clock.now += 11
    log.trim()
    assert [entry.value for entry in entries(log.reader("t", "g"))] == [b"young"]
    assert log.size() < 3 * MIB


def test_a_lowered_cap_returns_the_space(opened: Opener) -> None:
    put(opened(), *(bytes(100_000) for _ in range(300)))
    log = opened(t=Retention(max_bytes=2 * MIB))
    log.trim()
    put(log, b"a")
    assert log.size() <= 2 * MIB


def test_offsets_are_never_used_twice_though_all_entries_are_gone(
    opened: Opener, clock: Clock
) -> None:
    log = opened(t=Retention(max_age=60))
    put(log, b"a", b"b", b"c")
    clock.now += 100
    log.trim()
    log = opened(t=Retention(max_age=60))
    assert log.end("t") == 3
    put(log, b"d")
    assert entries(log.reader("t", "g")) == [Entry(0, 3, "k", b"d")]


def test_a_reader_left_behind_goes_on_at_the_oldest_and_counts(
    opened: Opener, clock: Clock
) -> None:
    log = opened(t=Retention(max_age=60))
    reader = log.reader("t", "g")
    put(log, b"a", b"b", b"c")
    assert len(entries(reader, 1)) == 1
    clock.now += 100
    put(log, b"d")
    assert [entry.value for entry in entries(reader)] == [b"d"]
    assert reader.lost == 2
    clock.now += 100
    put(log, b"e")
    clock.now += 100
    log.trim()
    assert entries(reader) == []
    assert reader.lost == 3
    reader.commit(0, 5, b"")
    assert log.end("t") == 5


def test_a_new_group_has_lost_nothing(opened: Opener, clock: Clock) -> None:
    log = opened(t=Retention(max_age=60))
    put(log, b"a")
    clock.now += 100
    put(log, b"b")
    reader = log.reader("t", "g")
    assert reader.poll(9) == [Assigned(0, 1, b""), Entry(0, 1, "k", b"b")]
    assert reader.lost == 0


def test_a_held_topic_keeps_what_a_group_has_not_committed(opened: Opener, clock: Clock) -> None:
    hold = Retention(max_age=60, max_bytes=MIB, hold=True)
    log = opened(t=hold)
    one, two = log.reader("t", "one"), log.reader("t", "two")
    put(log, *(b"%d" % i + bytes(20_000) for i in range(100)))
    one.commit(0, 100, b"")
    two.commit(0, 30, b"")
    clock.now += 100
    log = opened(t=hold)
    log.trim()
    assert [e.offset for e in entries(log.reader("t", "two"))] == list(range(30, 100))
    log.forget("t", "two")
    log.trim()
    assert log._table("t").oldest == log.end("t") == 100


def test_the_last_of_a_key_is_found(opened: Opener) -> None:
    log = opened()
    assert log.last("t", "a") is None
    for i in range(10):
        put(log, b"%d" % i, key="ab"[i % 2])
    assert (log.last("t", "a"), log.last("t", "b"), log.last("t", "c")) == (b"8", b"9", None)


def test_a_folder_is_used_by_one_process_at_a_time(opened: Opener, tmp_path: Path) -> None:
    opened()
    with pytest.raises(OutsideError, match=r"in use by another Fusewatch process \(pid \d+\)"):
        LocalLog(tmp_path, clock=lambda: 0)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    make = "import sys, pathlib, pipeline.bus.log as l; "
    make += "log = l.LocalLog(pathlib.Path(sys.argv[1]), clock=int); print(1, flush=True); input()"
    command = [sys.executable, "-c", make, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(OutsideError, match=f"pid {child.pid}"):
            LocalLog(tmp_path, clock=lambda: 0)
        child.kill()
    LocalLog(tmp_path, clock=lambda: 0).close()


def test_a_damaged_file_is_told_by_name_and_left_alone(tmp_path: Path) -> None:
    damaged = tmp_path / "frames.v1.db"
    damaged.write_bytes(b"this is no database at all " * 500)
    before = damaged.read_bytes()
    with pytest.raises(OutsideError, match=r"frames\.v1\.db is damaged.*move the file away"):
        LocalLog(tmp_path, clock=lambda: 0)
    assert damaged.read_bytes() == before
    damaged.unlink()
    LocalLog(tmp_path, clock=lambda: 0).close()


def test_damage_inside_a_file_is_told_when_it_is_met(opened: Opener, tmp_path: Path) -> None:
    put(opened(), *(bytes([i]) * 3000 for i in range(200)))
    opened(t=Retention()).close()
    file = tmp_path / "t.db"
    whole = bytearray(file.read_bytes())
    whole[8 * 4096 :] = b"\xff" * (len(whole) - 8 * 4096)
    file.write_bytes(whole)
    log = LocalLog.__new__(LocalLog)
    with pytest.raises(OutsideError, match="is damaged"):  # noqa: PT012
        log = LocalLog(tmp_path, clock=lambda: 0)
        entries(log.reader("t", "g"))


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "t.db")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(OutsideError, match="not a log of this Fusewatch"):
        LocalLog(tmp_path, clock=lambda: 0)


def test_what_a_full_disk_did_not_take_can_be_discarded(opened: Opener) -> None:
    log = opened(t=Retention(urgent=True))
    put(log, b"a")
    writer = log._table("t")._file
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        put(log, bytes(50_000))
    log.discard()
    writer.execute("PRAGMA max_page_count = 1000000")
    put(log, b"b")
    assert [entry.value for entry in entries(log.reader("t", "g"))] == [b"a", b"b"]


def test_a_full_disk_that_does_not_take_the_pid_keeps_nobody_from_starting(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")
    log = LocalLog(tmp_path, clock=lambda: 0)
    with pytest.raises(OutsideError, match="in use"):
        LocalLog(tmp_path, clock=lambda: 0)
    log.close()


def test_a_full_disk_says_what_to_do_and_loses_nothing(opened: Opener) -> None:
    log = opened(t=Retention(urgent=True))
    put(log, b"a")
    writer = log._table("t")._file
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutsideError, match=r"no space left for .*t\.db: free some"):
        put(log, *(bytes(3000) for _ in range(20)))
    assert [entry.value for entry in entries(log.reader("t", "g"))] == [b"a"]
    writer.execute("PRAGMA max_page_count = 1000000")
    log.flush()
    assert log.end("t") == 21


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutsideError, match="cannot write in"):
        LocalLog(tmp_path / "file" / "log", clock=lambda: 0)


def test_a_topic_cannot_name_a_file_elsewhere(opened: Opener) -> None:
    with pytest.raises(ValueError, match="no name of a topic"):
        opened().publish("../elsewhere", "k", b"")


def test_a_durable_topic_syncs_each_flush(opened: Opener) -> None:
    log = opened(alerts=Retention(durable=True))
    for topic, synchronous in (("alerts", 2), ("frames", 1)):
        put(log, b"a", topic=topic)
        assert log._table(topic)._file.pragma("synchronous") == synchronous


def test_a_log_of_the_first_version_gets_its_traces(opened: Opener, tmp_path: Path) -> None:
    log = opened()
    put(log, b"old")
    with sqlite3.connect(tmp_path / "t.db") as db:
        db.executescript("ALTER TABLE entries DROP COLUMN trace; PRAGMA user_version = 1;")
    db.close()
    again = opened()
    again.publish("t", "k", b"new", "a trace")
    again.flush()
    assert [(e.value, e.trace) for e in again.reader("t", "g").poll(9) if isinstance(e, Entry)] == [
        (b"old", ""),
        (b"new", "a trace"),
    ]


def test_what_lies_between_two_times_has_roster_before_and_promises_after(
    tmp_path: Path,
) -> None:
    records = [make.frame(1), make.progress(2), make.frame(5), make.frame(2.5), make.progress(9)]
    records.insert(0, make.roster("desk"))
    with closing(LocalLog(tmp_path, clock=lambda: 0)) as log:
        for record in records:
            log.publish("frames.v1", "office/desk", codec.encode(record))
        log.flush()

        def told(start: float, end: float) -> list[Record]:
            entries = between(tmp_path, "frames.v1", ns(start), ns(end))
            return [codec.decode(entry.value) for entry in entries]

        assert told(0, 2) == records[:3]
        assert told(0, 3) == records  # 2.5 came late, after 5
        assert told(0, 9) == records
        assert told(4, 9) == records[2:]  # what has no start belongs to what it precedes, too
        assert told(6, 9) == []
