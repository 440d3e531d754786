"""A vision worker under Faust with a fake model, as a process of its own.

    python -m tests.live.faust_worker BROKER PREFIX [OPTIONS]

It says `ready` when it has partitions and `ended` when it was stopped in order.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import topics
from pipeline.bus.kafka.bus import KafkaBus
from pipeline.config import schema
from pipeline.errors import FusewatchError
from pipeline.ports import Stage
from pipeline.run import Runner
from pipeline.types import FOREVER, Detections, FrameChunk, Record, needed_until, ns
from tests.fakes import FakeDetector
from workers.bus.faust_app import FaustBus
from workers.runtime.supervisor import Supervisor
from workers.stages.vision import VisionStage

WAIT = 0.25  # s


CRAWL = 0.25  # s a frame


class Seen:
    """One Detections a frame, without looking; holds `lag` s of every site's frames."""

    def __init__(self, lag: float, slow: float, fail_at: int, crawls: Path | None = None) -> None:
        self._lag, self._slow, self._fail_at, self._crawls = lag, slow, fail_at, crawls

    def infer(self, batch: Sequence[Record]) -> Sequence[None]:
        for _ in batch:
            crawls = self._crawls is not None and self._crawls.exists()
            time.sleep(CRAWL if crawls else self._slow)
        if any(isinstance(one, FrameChunk) and one.seq == self._fail_at for one in batch):
            msg = "a detector with a defect"
            raise ValueError(msg)
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> _Seen:
        return _Seen(self._lag)


class _Seen:
    def __init__(self, lag: float) -> None:
        self._lag, self._last = lag, 0

    def on(self, record: Record, inferred: None) -> Sequence[Record]:
        self._last = max(self._last, needed_until(record))
        if not isinstance(record, FrameChunk):
            return [record]
        return [
            Detections(
                site=record.site,
                source=record.source,
                start=record.start,
                end=record.end,
                boxes=(),
            )
        ]

    def floor(self, site: str) -> int:
        return self._last - ns(self._lag) if self._lag else FOREVER


class Slow:
    """A fake detector that takes as long as a real one."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._fake = seconds, FakeDetector()

    def __call__(self, batch: Sequence[np.ndarray]) -> list[tuple[object, ...]]:
        time.sleep(self._seconds * len(batch))
        return list(self._fake(batch))


def main() -> int:
    given = _given()
    settings = schema.KafkaBus(brokers=(given.broker,), prefix=given.prefix)
    stage: Stage = Seen(given.lag, given.slow, given.fail_at, given.crawls)
    if given.pictures:
        stage = VisionStage(Slow(given.slow), policy="all")
    supervisor, bus = Supervisor(), KafkaBus(settings)

    def work() -> None:
        reader_bus = FaustBus(bus, settings, **({"bound": given.bound} if given.bound else {}))
        runner = Runner(
            stage,
            reader_bus,
            topic=topics.FRAMES,
            group="vision",
            out=topics.OBSERVATIONS,
            limit=given.limit,
        )
        ready = threading.Event()

        def turn() -> None:
            runner.step(WAIT)
            if runner.hosts and not ready.is_set():
                ready.set()
                print("ready", flush=True)

        supervisor.repeat("vision", turn, runner.close)
        supervisor.stop.wait()
        supervisor.join()

    try:
        code = supervisor.run(work, bus.close)
    except FusewatchError as error:
        print(error, file=sys.stderr, flush=True)
        return 3
    print("ended", flush=True)
    return code


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("broker")
    parser.add_argument("prefix")
    parser.add_argument("--lag", type=float, default=0.0, help="s of frames that are held")
    parser.add_argument("--slow", type=float, default=0.0, help="s a frame")
    parser.add_argument("--crawls", type=Path, help=f"{CRAWL} s a frame while this file is there")
    parser.add_argument("--fail-at", type=int, default=-1, help="seq of a frame")
    parser.add_argument("--bound", type=int, default=0, help="bytes that wait in the reader")
    parser.add_argument("--limit", type=int, default=64, help="entries a step")
    parser.add_argument("--pictures", action="store_true", help="decode them, as vision does")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
