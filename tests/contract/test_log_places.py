"""A commit to the local log does not wait for a thread that writes, and comes too soon never."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from pipeline.bus.log import LocalLog, Retention
from pipeline.bus.log_commits import commits
from pipeline.bus.log_table import Table
from pipeline.bus.sqlite_file import SqliteFile
from pipeline.ports import Assigned, Entry


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    log = LocalLog(tmp_path, clock=lambda: 0)
    yield log
    log.close()


def put(log: LocalLog, *values: bytes, topic: str = "t") -> None:
    for value in values:
        log.publish(topic, "k", value)
    log.flush()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program has the file locked against writers, as a backup does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def moving_the_wal(monkeypatch: pytest.MonkeyPatch, log: LocalLog) -> Iterator[Thread]:
    """A thread that appends, and moves the WAL on a disk that takes long for it."""
    begun, goes_on = Event(), Event()

    def slow(file: SqliteFile, most: int) -> None:
        begun.set()
        assert goes_on.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteFile, "bound_wal", slow)
        thread = Thread(target=put, args=(log, b"written"))
        thread.start()
        assert begun.wait(30)
        yield thread
        patch.undo()
        goes_on.set()
        thread.join(30)


def test_poll_and_commit_go_on_while_another_thread_moves_the_wal(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(log, b"a", b"b")
    reader = log.reader("t", "g")
    with moving_the_wal(monkeypatch, log):
        reader.poll(1)
        reader.commit(0, 1, b"one")
        (read,) = reader.poll(1)
        assert isinstance(read, Entry)
        assert read.value == b"b"
        reader.commit(0, 2, b"two")
        assert commits(tmp_path, "t") == {"g": (0, b"")}, "late, but never too soon"
        assert log.committed("t", "g") == (2, b"two"), "so nothing waits for this group"
    assert commits(tmp_path, "t") == {"g": (2, b"two")}, "the thread that wrote has stored it"
    assert log.read_below("t") == 2


def test_the_commit_of_a_durable_topic_waits_until_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path, clock=lambda: 0, retention={"t": Retention(durable=True)})
    put(log, b"a")
    reader = log.reader("t", "g")
    stored = []

    def commit() -> None:
        reader.commit(0, 1, b"n")
        stored.append(commits(tmp_path, "t"))

    thread = Thread(target=commit)
    with moving_the_wal(monkeypatch, log):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(30)
    assert stored == [{"g": (1, b"n")}]
    log.close()


def test_a_commit_goes_on_while_an_append_waits_for_another_program(
    log: LocalLog, tmp_path: Path
) -> None:
    put(log, b"a")
    reader = log.reader("t", "g")
    appending = Thread(target=put, args=(log, b"b"))
    with locked(tmp_path / "t.db"):
        appending.start()
        while log._table("t")._writing.acquire(blocking=False):
            log._table("t")._writing.release()
        reader.commit(0, 1, b"n")
        assert appending.is_alive()
    appending.join(30)
    assert commits(tmp_path, "t") == {"g": (1, b"n")}


def test_places_of_many_groups_are_stored_together(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(log, b"a", b"b")
    readers = {name: log.reader("t", name) for name in ("one", "two", "three")}
    with moving_the_wal(monkeypatch, log):
        for name, reader in readers.items():
            reader.commit(0, 1, name.encode())
        readers["two"].commit(0, 0, b"back")
    places = {"one": (1, b"one"), "two": (0, b"back"), "three": (1, b"three")}
    assert commits(tmp_path, "t") == places


def test_a_reader_that_is_opened_again_goes_on_at_a_late_commit(
    log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(log, b"a", b"b")
    reader = log.reader("t", "g")
    with moving_the_wal(monkeypatch, log):
        reader.commit(0, 1, b"n")
        reader.close()
    assert log.reader("t", "g").poll(1)[0] == Assigned(0, 1, b"n")


def test_a_group_that_is_forgotten_has_no_late_commit(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(log, b"a")
    reader = log.reader("t", "g")
    with moving_the_wal(monkeypatch, log) as thread:
        reader.commit(0, 1, b"n")
        reader.close()
        forgetting = Thread(target=log.forget, args=("t", "g"))
        forgetting.start()
    thread.join(30)
    forgetting.join(30)
    assert commits(tmp_path, "t") == {}
    assert log.groups("t") == []


def test_a_late_commit_is_stored_when_the_log_is_closed(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, clock=lambda: 0)
    put(log, b"a", b"b")
    reader = log.reader("t", "g")
    busy, done = Event(), Event()

    def write() -> None:
        with log._table("t")._writing:
            busy.set()
            assert done.wait(30)

    thread = Thread(target=write)
    thread.start()
    assert busy.wait(30)
    reader.commit(0, 2, b"n")
    done.set()
    thread.join(30)
    assert commits(tmp_path, "t") == {"g": (0, b"")}
    log.close()
    assert commits(tmp_path, "t") == {"g": (2, b"n")}


def test_what_a_failed_write_could_not_store_the_next_one_stores(
    log: LocalLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program locks the file while an urgent append is told of it, and a commit is late."""
    put(log, b"a", b"b")
    reader = log.reader("t", "g")
    table = log._table("t")
    with locked(tmp_path / "t.db"):
        table._places.note("g", 2, b"n")
        with table._writer():
            pass  # a writer that could not store it
        assert table._places.waiting
        assert table.committed == {"g": 0}, "retention keeps what the file says"
    put(log, b"c")
    assert commits(tmp_path, "t") == {"g": (2, b"n")}
    reader.close()


def test_retention_never_deletes_what_a_stored_place_still_needs(tmp_path: Path) -> None:
    keep = Retention(max_bytes=1 << 20, hold=True)
    log = LocalLog(tmp_path, clock=lambda: 0, retention={"t": keep})
    table: Table = log._table("t")
    reader = log.reader("t", "g")
    put(log, *(bytes(100_000) for _ in range(20)))
    with table._writing:
        commit = Thread(target=reader.commit, args=(0, 20, b"n"))
        commit.start()
        commit.join(30)
        table.append([("k", bytes(100_000), "")])
        assert table.oldest == 0, "the place was not stored when it was written"
        assert commits(tmp_path, "t") == {"g": (20, b"n")}
    put(log, bytes(100_000))
    assert table.oldest > 0, "what no stored place needs goes"
    log.close()


@pytest.mark.parametrize("seed", range(5))
def test_no_place_waits_when_nobody_writes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    log = LocalLog(tmp_path, clock=lambda: 0, retention={"t": Retention(max_bytes=1 << 20)})
    put(log, *[b"x"] * 50)
    sizes = [chance.randint(1, 60_000) for _ in range(60)]
    last: dict[str, int] = {}

    def append() -> None:
        for size in sizes:
            put(log, bytes(size))

    def read(group: str, stop: int) -> None:
        reader = log.reader("t", group)
        for offset in range(stop):
            reader.commit(0, offset, b"%d" % offset)
        last[group] = stop - 1
        reader.close()

    threads = [Thread(target=append) for _ in range(3)]
    threads += [Thread(target=read, args=(f"g{n}", chance.randint(1, 80))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert commits(tmp_path, "t") == {g: (at, b"%d" % at) for g, at in last.items()}
    log.close()


KILLED = """
import sys
from pathlib import Path
from threading import Thread
from pipeline.bus.log import LocalLog, Retention

keep = Retention(max_bytes=1 << 20, hold=True)
log = LocalLog(Path(sys.argv[1]), clock=lambda: 0, retention={"in": keep, "out": keep})

def append(me):
    i = 0
    while True:
        log.publish("in", f"k{me}", bytes(i * 7919 % 30000))
        log.flush()
        i += 1

reader = log.reader("in", "copy")
for me in range(4):
    Thread(target=append, args=(me,), daemon=True).start()
while True:
    copied = [event for event in reader.poll(64, 1.0) if hasattr(event, "value")]
    for entry in copied:
        log.publish("out", "k", b"%d" % entry.offset)
    log.flush()
    if copied:
        place = copied[-1].offset + 1
        reader.commit(0, place, b"%d" % place)
        print(place, flush=True)
"""


def test_no_place_is_stored_too_soon_at_a_kill_9_while_others_write(tmp_path: Path) -> None:
    """Whatever lies before a stored place was answered; whatever lies after it is there."""
    chance = random.Random(5)
    seen = last = 0
    for life in range(8):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(1, 40)):
                assert child.stdout.readline()
            for _ in range(chance.randint(0, 200_000)):
                pass  # so that the blow does not always fall right after a line
            child.kill()
        log = LocalLog(tmp_path, clock=lambda: 0)
        reader = log.reader("in", "copy")
        begin, *read = reader.poll(100_000)
        assert isinstance(begin, Assigned)
        assert last <= begin.offset <= log.end("in"), f"in life {life}"
        assert begin.note == (b"%d" % begin.offset if begin.offset else b"")
        assert reader.lost == 0
        assert [entry.offset for entry in read if isinstance(entry, Entry)] == list(
            range(begin.offset, log.end("in"))
        )[: len(read)]
        answered = log.reader("out", "check")
        while found := [one for one in answered.poll(1000) if isinstance(one, Entry)]:
            seen = max(seen, *(int(one.value) + 1 for one in found))
            answered.commit(0, found[-1].offset + 1, b"")
        assert begin.offset <= seen, "what lies before the place was answered"
        last = begin.offset
        log.close()
