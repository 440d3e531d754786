"""Measures records a second through the pure core: `align` alone, then in a `Host` with the codec.

    python benchmarks/core.py [--seconds 120] [--rounds 5]

The input is one partition with ten sites of three sources (a camera at 5 frames/s, a microphone's
sound and speech). Prints one JSON line a measurement: records a second of wall time, median and
best of the rounds, and of CPU time, which other load on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipeline import codec
from pipeline.host import Host
from pipeline.judge.align import Aligner
from pipeline.ports import Assigned
from pipeline.types import (
    SECOND,
    Box,
    Detections,
    Progress,
    Record,
    Roster,
    Sound,
    Utterance,
    Window,
    ns,
)

SITES = tuple(f"site-{number}" for number in range(10))
SIZE, HOP = 4 * SECOND, SECOND
BEGIN = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z


def log(seconds: int, fps: int = 5) -> list[Record]:
    """The records of ten sites in `seconds` of event time, in the order of one partition."""
    records: list[Record] = []
    for second in range(seconds):
        for site in SITES:
            now = BEGIN + second * SECOND
            if second % 10 == 0:
                names = ("desk", "room", "room/speech")
                records.append(Roster(site=site, source="desk", sources=names, start=now))
            for frame in range(fps):
                records += _frame(site, now + frame * SECOND // fps, SECOND // fps)
            records += _hearing(site, now, talks=second % 5 == 0)
    return records


def _frame(site: str, start: int, length: int) -> list[Record]:
    box = Box(label="person", score=0.9, x1=0.1, y1=0.2, x2=0.3, y2=0.8)
    seen = Detections(site=site, source="desk", start=start, end=start + length, boxes=(box, box))
    return [seen, Progress(site=site, source="desk", upto=start + 1)]


def _hearing(site: str, start: int, *, talks: bool) -> list[Record]:
    end = start + SECOND
    said: list[Record] = [
        Sound(site=site, source="room", start=start, end=end, labels={"gunshot": 0.01}),
        Progress(site=site, source="room", upto=end),
    ]
    if talks:
        words = {"text": "good morning", "language": "en", "confidence": 0.9}
        whole = {"start": start, "end": start + ns(0.8)}
        said.append(Utterance(site=site, source="room/speech", **whole, **words))
    return [*said, Progress(site=site, source="room/speech", upto=end)]


class Windows:
    """A stage that only aligns, to measure the cost of the host and of windows alone."""

    def __init__(self) -> None:
        self.aligners: dict[str, Aligner] = {}
        self.closed = 0

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> Windows:
        for site in SITES:
            self.aligners[site] = Aligner(site, SIZE, HOP, floor=floors.get(site, 0))
        return self

    def on(self, record: Record, inferred: Any) -> Sequence[Record]:
        for out in self.aligners[record.site].push(record):
            self.closed += isinstance(out, Window)
        return ()

    def floor(self, site: str) -> int:
        return self.aligners[site].floor


def through_align(records: list[Record]) -> int:
    """Pushes records into ten aligners; returns how many windows closed."""
    stage = Windows()
    stage.open({})
    for record in records:
        stage.on(record, None)
    return stage.closed


def through_host(values: list[bytes]) -> int:
    """Runs bytes through codec, host and aligners, with a commit every 64 records (`run.step`)."""
    stage = Windows()
    host = Host(stage, Assigned(0, 0, b""))
    for offset, value in enumerate(values):
        host.feed(offset, codec.decode(value), None)
        if offset % 64 == 63:
            _ = host.safe, host.note
    return stage.closed


def measure(
    name: str, work: Callable[[list[Any]], int], items: list[Any], rounds: int, seconds: int
) -> None:
    """Runs one round to warm up, then `rounds` rounds; prints their median and best."""
    closed = work(items)
    # The camera's last Progress is a frame before the end, so the last window is still open.
    assert closed == len(SITES) * (seconds - 1), (closed, seconds)
    took, busy = [], []
    for _ in range(rounds):
        began, idle = time.perf_counter(), time.process_time()
        work(items)
        took.append(time.perf_counter() - began)
        busy.append(time.process_time() - idle)
    result = {
        "benchmark": name,
        "records_per_second": round(len(items) / statistics.median(took)),
        "best": round(len(items) / min(took)),
        "records_per_cpu_second": round(len(items) / statistics.median(busy)),
        "records": len(items),
        "windows": closed,
        "rounds": rounds,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


def main(arguments: Sequence[str]) -> None:
    """Runs both measurements; the module docstring describes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="event time of the log")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    records = log(asked.seconds)
    values = [codec.encode(record) for record in records]
    measure("align", through_align, records, asked.rounds, asked.seconds)
    measure("align+host+codec", through_host, values, asked.rounds, asked.seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
