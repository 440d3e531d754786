"""The local log moves its WALs into its files while other threads append."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from pipeline.bus.log import LocalLog, Retention
from pipeline.bus.sqlite_file import SqliteFile
from pipeline.ports import Assigned

MIB = 1 << 20


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    log = LocalLog(tmp_path, clock=lambda: 0, retention={"t": Retention(max_bytes=64 * MIB)})
    yield log
    log.close()


def put(log: LocalLog, *values: bytes) -> None:
    for value in values:
        log.publish("t", "k", value)
    log.flush()


def wal(folder: Path) -> int:
    return (folder / "t.db-wal").stat().st_size


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Event, Event]]:
    """Makes the first copy of a WAL wait; gives `begun` and `goes_on`."""

    def slow() -> tuple[Event, Event]:
        begun, goes_on, copy = Event(), Event(), SqliteFile.copy_wal

        def waits(file: SqliteFile, connection: sqlite3.Connection) -> None:
            begun.set()
            assert goes_on.wait(30)
            copy(file, connection)

        monkeypatch.setattr(SqliteFile, "copy_wal", waits)
        return begun, goes_on

    return slow


def test_appends_and_commits_go_on_while_the_wal_is_copied(
    log: LocalLog, tmp_path: Path, copying: Callable[[], tuple[Event, Event]]
) -> None:
    put(log, *(bytes([i]) * 100_000 for i in range(30)))
    reader = log.reader("t", "g")
    assert wal(tmp_path) > 2 * MIB
    begun, goes_on = copying()
    thread = Thread(target=log.settle)
    thread.start()
    assert begun.wait(30)
    put(log, b"meanwhile")
    reader.commit(0, 5, b"note")
    assert log.committed("t", "g") == (5, b"note")
    goes_on.set()
    thread.join(30)
    assert wal(tmp_path) == 0, "what came meanwhile was copied too"
    assert log.last("t", "k") == b"meanwhile"


@pytest.mark.parametrize("then", ["append", "settle", "close", "join"])
def test_a_commit_does_not_wait_for_a_thread_that_writes(tmp_path: Path, then: str) -> None:
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
    reader.commit(0, 2, b"note")
    assert log.committed("t", "g") == (0, b"")
    done.set()
    thread.join(30)
    if then == "append":
        put(log, b"c")
    elif then == "settle":
        log.settle()
    elif then == "close":
        log.close()
        log = LocalLog(tmp_path, clock=lambda: 0)
    else:
        reader.close()
        assert log.reader("t", "g").poll(1)[0] == Assigned(0, 2, b"note")
    assert log.committed("t", "g") == (2, b"note")
    log.close()


def test_a_short_wal_is_left_alone_and_a_trim_empties_it(log: LocalLog, tmp_path: Path) -> None:
    put(log, bytes(MIB))
    log.settle()
    assert wal(tmp_path) > MIB
    log.trim()
    assert wal(tmp_path) == 0


def test_a_log_closes_while_its_wal_is_copied(
    tmp_path: Path, copying: Callable[[], tuple[Event, Event]]
) -> None:
    log = LocalLog(tmp_path, clock=lambda: 0)
    put(log, *(bytes(100_000) for _ in range(30)))
    begun, goes_on = copying()
    settling, closing = Thread(target=log.settle), Thread(target=log.close)
    settling.start()
    assert begun.wait(30)
    closing.start()
    goes_on.set()
    settling.join(30)
    closing.join(30)
    assert not settling.is_alive()
    assert not closing.is_alive()


def test_a_topic_stays_below_its_cap_with_its_wal_while_it_settles(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, clock=lambda: 0, retention={"t": Retention(max_bytes=4 * MIB)})
    stop = Event()

    def settle() -> None:
        while not stop.is_set():
            log.settle()

    thread = Thread(target=settle)
    thread.start()
    largest = 0
    for _ in range(300):
        put(log, bytes(40_000))
        largest = max(largest, log.size())
    stop.set()
    thread.join(30)
    assert largest <= 4 * MIB
    log.close()


KILLED = """
import sys
from pathlib import Path
from threading import Thread
from pipeline.bus.log import LocalLog, Retention

log = LocalLog(Path(sys.argv[1]), clock=lambda: 0, retention={"t": Retention(max_bytes=2 << 20)})
reader = log.reader("t", "g")

def settle():
    while True:
        log.settle()

Thread(target=settle, daemon=True).start()
i = log.end("t")
while True:
    log.publish("t", "k", b"%d " % i + b"x" * (i * 7919 % 90000))
    i += 1
    log.flush()
    reader.commit(0, i, b"%d" % i)
    print(i, flush=True)
"""


def test_nothing_acknowledged_is_lost_by_kill_9_while_the_log_settles(tmp_path: Path) -> None:
    chance, acknowledged = random.Random(11), 0
    for _ in range(6):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(20, 120)):
                acknowledged = int(child.stdout.readline())
            child.kill()
        log = LocalLog(tmp_path, clock=lambda: 0, retention={"t": Retention(max_bytes=2 * MIB)})
        offset, note = log.committed("t", "g")
        assert acknowledged <= log.end("t")
        assert offset <= log.end("t"), "a commit may come later than what follows it, never sooner"
        assert note == (b"%d" % offset if offset else b"")
        last = log.last("t", "k")
        assert last is not None
        assert last.split()[0] == b"%d" % (log.end("t") - 1)
        log.close()
