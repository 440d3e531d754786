"""Measures the cost of a capture worker's spool: 25 cameras, 5 frames a second, 150 kB a frame.

    python -m benchmarks.spool [FOLDER]

Three runs of 10 s at that rate print the share of a core (user and system time of the process) that
capture spends on its spool: while the brokers take all at once, while they are away, and while they
are away with the spool at its cap. The brokers are a stub, so the cost of Kafka is not included.
Then it measures how fast the records of an outage of 60 s are read back. The spool syncs to the
disk as in production (WAL, NORMAL).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from pipeline import topics
from pipeline.errors import OutsideError
from pipeline.types import SECOND, FrameChunk
from workers.bus.spool import Spool
from workers.bus.spool_forwarder import BATCH_BYTES, BATCH_RECORDS, Forwarder
from workers.runtime.status import Status

CAMERAS, FPS, SIZE = 25, 5, 150_000
SECONDS = 10


class Stub:
    """A stub of brokers that acknowledge all at once, or are away."""

    def __init__(self, away: bool) -> None:
        self.away = away

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        pass

    def settled(self, wait: float) -> bool:
        if self.away:
            msg = "away"
            raise OutsideError(msg)
        return True

    def discard(self) -> None:
        pass


def frame(camera: int, seq: int, data: bytes) -> FrameChunk:
    """A frame of one camera."""
    start = seq * SECOND // FPS
    return FrameChunk(
        site="office",
        source=f"c{camera}",
        start=start,
        end=start + SECOND // FPS,
        seq=seq,
        width=640,
        height=360,
        data=data,
    )


def pace(spool: Spool, away: bool) -> tuple[float, float]:
    """Runs `SECONDS` at full rate; returns the share of a core and the longest `put`, ms."""
    stop, data = threading.Event(), os.urandom(SIZE)
    forwarder = Forwarder(spool, Stub(away), Status())
    thread = threading.Thread(target=forwarder.loop, args=(stop,))
    before, began, longest = time.process_time(), time.perf_counter(), 0.0
    thread.start()
    for k in range(SECONDS * FPS * CAMERAS):
        time.sleep(max(0.0, began + k / FPS / CAMERAS - time.perf_counter()))
        at = time.perf_counter()
        spool.put(topics.FRAMES, [frame(k % CAMERAS, k // CAMERAS, data)])
        longest = max(longest, time.perf_counter() - at)
    spent = time.process_time() - before
    took = time.perf_counter() - began
    stop.set()
    thread.join()
    return spent / took, longest * 1000


def read_back(spool: Spool) -> tuple[float, float]:
    """Fills the spool with 60 s of frames; returns its MB, and the MB a second read back."""
    data = os.urandom(SIZE)
    for k in range(60 * FPS * CAMERAS):
        spool.put(topics.FRAMES, [frame(k % CAMERAS, k // CAMERAS, data)])
    size, began = spool.size / 1e6, time.perf_counter()
    while taken := spool.take(BATCH_RECORDS, BATCH_BYTES):
        spool.done(taken)
    return size, size / (time.perf_counter() - began)


def main() -> None:
    """Runs all measurements in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the files are written; default: /tmp")
    base = Path(tempfile.mkdtemp(dir=parser.parse_args().folder))
    print(
        f"{CAMERAS} cameras x {FPS}/s x {SIZE / 1000:g} kB = {CAMERAS * FPS * SIZE / 1e6:.1f} MB/s"
    )
    try:
        for name, away, cap in (
            ("brokers take all", False, 2_000_000_000),
            ("brokers away", True, 2_000_000_000),
            ("brokers away, at its cap", True, 100_000_000),
        ):
            spool = Spool(base / "spool.db", cap=cap)
            share, longest = pace(spool, away)
            spool.close()
            for file in base.iterdir():
                file.unlink()
            print(f"  {name:26} {share:6.1%} of a core; longest put {longest:.0f} ms")
        spool = Spool(base / "spool.db", cap=4_000_000_000)
        size, speed = read_back(spool)
        spool.close()
        print(f"  an outage of 60 s, {size:.0f} MB, is read back at {speed:.0f} MB/s")
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
