"""Compares the local log with bare SQLite and a bare file, and measures the cost of a host.

    python benchmarks/log.py [FOLDER] [--crowd]

All ways are measured in one run, three times in turn, and the best of each is printed, so that
other load on the machine affects all of them alike. "bare sqlite3" is a table (offset, key, value)
in WAL mode with synchronous=NORMAL, with `executemany` in transactions of the same size; "bare
file" is `write` and `flush` of the same batches, without fsync.

The last part is how long a stage waits for a poll and for a commit while the threads of 37 cameras
append their frames, first alone, then while another process writes to the same disk (fsync).
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from pipeline import codec
from pipeline.bus.log import LocalLog, Retention
from pipeline.bus.memory import MemoryBus
from pipeline.host import Host
from pipeline.ports import Assigned, Entry
from pipeline.run import Runner, drain
from pipeline.types import FOREVER, FrameChunk, Record, Sound

ROUNDS = 3


class Trivial:
    """A stage that keeps no state and returns every record."""

    def infer(self, batch: Sequence[Record]) -> list[None]:
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> Trivial:
        return self

    def on(self, record: Record, inferred: object) -> tuple[Record]:
        return (record,)

    def floor(self, site: str) -> int:
        return FOREVER


def frame(seq: int, size: int) -> bytes:
    """A record of about `size` bytes."""
    return codec.encode(
        FrameChunk(
            site="office",
            source="desk",
            start=seq * 200_000_000,
            end=(seq + 1) * 200_000_000,
            seq=seq,
            width=640,
            height=360,
            data=seq.to_bytes(4) + bytes(size - 140),
        )
    )


def open_log(folder: Path, max_bytes: int = 4 << 30) -> LocalLog:
    """Opens a local log with a cap of `max_bytes`."""
    retention = Retention(max_bytes=max_bytes)
    return LocalLog(folder, clock=time.time_ns, default=retention)


def publish(folder: Path, values: list[bytes], batch: int) -> None:
    """Publishes to our log, with a flush a batch; each flush is acknowledged."""
    log = open_log(folder)
    for some in _batches(values, batch):
        for value in some:
            log.publish("frames.v1", "office/desk", value)
        log.flush()
    log.close()


def publish_capped(folder: Path, values: list[bytes], batch: int) -> None:
    """The same with a cap of a quarter of the bytes, so that retention always deletes."""
    log = open_log(folder, max(4 << 20, sum(map(len, values)) // 4))
    for some in _batches(values, batch):
        for value in some:
            log.publish("frames.v1", "office/desk", value)
        log.flush()
    log.close()


def executemany(folder: Path, values: list[bytes], batch: int) -> None:
    """Inserts into bare SQLite, one transaction a batch."""
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE entries (offset INTEGER PRIMARY KEY, key TEXT, value BLOB)")
    for some in _batches(values, batch):
        database.execute("BEGIN")
        rows = (("office/desk", value) for value in some)
        database.executemany("INSERT INTO entries (key, value) VALUES (?, ?)", rows)
        database.execute("COMMIT")
    database.close()


def append(folder: Path, values: list[bytes], batch: int) -> None:
    """Appends to a bare file, one flush a batch."""
    with (folder / "bare").open("wb") as file:
        for some in _batches(values, batch):
            for value in some:
                file.write(len(value).to_bytes(4))
                file.write(value)
            file.flush()


def _batches(values: list[bytes], size: int) -> list[list[bytes]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def read(folder: Path, batch: int) -> int:
    """Reads all entries, with a commit a poll; returns the bytes read."""
    log = open_log(folder)
    reader = log.reader("frames.v1", "bench")
    total = 0
    while events := reader.poll(batch):
        entries = [event for event in events if isinstance(event, Entry)]
        total += sum(len(entry.value) for entry in entries)
        if entries:
            reader.commit(0, entries[-1].offset + 1, b"note")
    log.close()
    return total


def seconds(work: Callable[[], object]) -> float:
    """The wall clock time of `work`, s."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare(base: Path, size: int, count: int, batch: int) -> None:
    """Prints records/s and MB/s of each way, for `count` records of `size` bytes."""
    values = [frame(seq, size) for seq in range(count)]
    volume = sum(map(len, values)) / 1e6
    ways = {
        "bare file": append,
        "bare sqlite3": executemany,
        "local log": publish,
        "local log at its cap": publish_capped,
    }
    best = dict.fromkeys([*ways, "local log, reading"], float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            folder = Path(tempfile.mkdtemp(dir=base))
            best[name] = min(best[name], seconds(lambda: way(folder, values, batch)))  # noqa: B023
            if way is publish:
                name = "local log, reading"  # noqa: PLW2901
                best[name] = min(best[name], seconds(lambda: read(folder, batch)))  # noqa: B023
            shutil.rmtree(folder)
    print(f"{count} records of {size / 1000:g} kB, {batch} a flush ({volume:.0f} MB)")
    for name, took in best.items():
        ratio = best["bare sqlite3"] / took
        print(
            f"  {name:22} {count / took:10,.0f} records/s {volume / took:8,.1f} MB/s"
            f"   {ratio:5.2f} of bare sqlite3"
        )


def latency(base: Path, count: int = 300) -> None:
    """Prints the latency from a flush in one thread to the poll of a waiting thread."""
    folder = Path(tempfile.mkdtemp(dir=base))
    log = open_log(folder)
    reader = log.reader("t", "g")
    arrived: list[int] = []

    def wait() -> None:
        while len(arrived) < count:
            if any(isinstance(event, Entry) for event in reader.poll(1, wait=5.0)):
                arrived.append(time.perf_counter_ns())

    thread = Thread(target=wait)
    thread.start()
    took = []
    for i in range(count):
        begun = time.perf_counter_ns()
        log.publish("t", "k", bytes(1000))
        log.flush()
        while len(arrived) <= i:
            time.sleep(0.0001)
        took.append((arrived[i] - begun) / 1e6)
    thread.join()
    log.close()
    shutil.rmtree(folder)
    took.sort()
    print(
        f"publish to another thread's poll, 1 kB: p50 {took[count // 2]:.2f} ms, "
        f"p95 {took[count * 95 // 100]:.2f} ms"
    )


BUSY = """
import os, sys
with open(sys.argv[1], "wb") as file:
    while True:
        file.seek(0)
        file.write(os.urandom(64 << 20))
        os.fsync(file.fileno())
"""


def crowd(base: Path, cameras: int = 37, duration: float = 10.0) -> None:
    """Prints how long a stage waits for the log while the threads of cameras append."""
    folder = Path(tempfile.mkdtemp(dir=base))
    keep = Retention(max_bytes=256 << 20, gives_way=1)
    log = LocalLog(folder, clock=time.time_ns, default=keep, spare=256 << 20)
    reader = log.reader("frames.v1", "vision")
    values = [frame(seq, 30_000) for seq in range(8)]
    over = time.monotonic() + duration
    appended: list[float] = []

    def append(me: int) -> None:
        time.sleep(me / cameras / 5)
        while time.monotonic() < over:
            begun = time.perf_counter()
            log.publish("frames.v1", f"hall/{me}", values[me % len(values)])
            log.flush()
            appended.append(time.perf_counter() - begun)
            time.sleep(max(0.0, 0.2 - appended[-1]))

    threads = [Thread(target=append, args=(me,)) for me in range(cameras)]
    for thread in threads:
        thread.start()
    polled, committed = [], []
    while time.monotonic() < over:
        begun = time.perf_counter()
        entries = [event for event in reader.poll(64) if isinstance(event, Entry)]
        polled.append(time.perf_counter() - begun)
        time.sleep(0.1)  # the detector
        if entries:
            begun = time.perf_counter()
            reader.commit(0, entries[-1].offset + 1, b"note")
            committed.append(time.perf_counter() - begun)
    for thread in threads:
        thread.join()
    log.close()
    shutil.rmtree(folder)
    for name, took in (("poll", polled), ("commit", committed), ("append", appended)):
        took.sort()
        p50, p99, most = (1000 * took[int(part * (len(took) - 1))] for part in (0.5, 0.99, 1))
        print(
            f"  {name:8} {len(took):6} times: p50 {p50:.2f} ms, p99 {p99:.1f} ms, max {most:.1f} ms"
        )


def crowds(base: Path) -> None:
    """Measures `crowd` on the disk as it is, and while another process writes to it."""
    print("37 cameras append 5 frames/s of 30 kB each; a stage polls and commits")
    crowd(base)
    print("the same while another process writes to the disk")
    with subprocess.Popen([sys.executable, "-c", BUSY, str(base / "busy")]) as other:
        try:
            crowd(base)
        finally:
            other.kill()
            other.wait()
            (base / "busy").unlink()


def hosting(base: Path, count: int = 50_000, sites: int = 20) -> None:
    """Prints records/s through one host, and through a whole step over memory and the local log."""
    records = [
        Sound(site=f"site{k % sites}", source="room", start=k, end=k + 1) for k in range(count)
    ]
    values = [codec.encode(record) for record in records]

    def feed() -> None:
        host = Host(Trivial(), Assigned(0, 0, b""))
        for offset, record in enumerate(records):
            host.feed(offset, record, None)
            if offset % 64 == 63:
                assert host.safe == offset + 1
                assert host.note

    def through(bus: MemoryBus | LocalLog) -> float:
        for record, value in zip(records, values, strict=True):
            bus.publish("observations.v1", record.site, value)
        bus.flush()
        runner = Runner(
            Trivial(), bus, topic="observations.v1", group="g", out="anomalies.v1", limit=64
        )
        took = seconds(lambda: drain([runner]))
        runner.close()
        bus.close()
        return took

    codec_only = min(
        seconds(lambda: [codec.encode(codec.decode(value)) for value in values])
        for _ in range(ROUNDS)
    )
    host_only = min(seconds(feed) for _ in range(ROUNDS))
    memory = min(through(MemoryBus()) for _ in range(ROUNDS))
    folder = Path(tempfile.mkdtemp(dir=base))
    local = through(open_log(folder))
    shutil.rmtree(folder)
    print(f"{count} small records of {sites} sites, 64 a step")
    for name, took in (
        ("codec alone, both ways", codec_only),
        ("host, trivial stage", host_only),
        ("step over memory", memory),
        ("step over the local log", local),
    ):
        print(f"  {name:24} {count / took:10,.0f} records/s")


def main() -> None:
    """Runs all measurements in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the files are written; default: /tmp")
    parser.add_argument("--crowd", action="store_true", help="the last part alone")
    asked = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=asked.folder))
    try:
        if not asked.crowd:
            compare(base, size=1_000, count=20_000, batch=64)
            compare(base, size=150_000, count=400, batch=8)
            latency(base)
            hosting(base)
        crowds(base)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
