"""The table of stages: each stage is one row, and all other code derives stage names from it.

    frames.v1 --vision--+
    audio.v1 ---sound---+--> observations.v1 --fusion--> anomalies.v1 --alert--> alerts.v1
    audio.v1 ---speech--+                                                          |
    reports.v1 --text---+                                      delivery, jsonl, evidence

`workers/graph.py` builds the stages. This module imports nothing slow, because the help of the
command line uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipeline.topics import ALERTS, ANOMALIES, AUDIO, CHUNKS, FRAMES, OBSERVATIONS, REPORTS


class StageRow(NamedTuple):
    """One stage; `name` is also its consumer group.

    `worker` is the process that runs it over Kafka. `faust`: the stage is correct without a note,
    so Faust may run it. `speaks`: it declares the sources of a vanished capture process lost.
    """

    name: str
    reads: str
    writes: str
    encoders: tuple[str, ...]
    worker: str
    faust: bool = False
    speaks: bool = False


TABLE = (  # in the order that records flow; fusion encodes the phrases of rules
    StageRow(
        "vision",
        FRAMES,
        OBSERVATIONS,
        ("detector", "detector_high", "pose"),
        "vision",
        faust=True,
        speaks=True,
    ),
    StageRow(
        "sound", AUDIO, OBSERVATIONS, ("sound", "sound_head"), "hearing", faust=True, speaks=True
    ),
    StageRow("speech", AUDIO, OBSERVATIONS, ("voice", "speech", "text"), "hearing", faust=True),
    StageRow("text", REPORTS, OBSERVATIONS, ("text",), "text", faust=True, speaks=True),
    StageRow("fusion", OBSERVATIONS, ANOMALIES, ("text",), "fusion"),
    StageRow("alert", ANOMALIES, ALERTS, (), "alert"),
)


def _names(rows: Iterable[StageRow]) -> tuple[str, ...]:
    return tuple(row.name for row in rows)


ALL_STAGES = _names(TABLE)
JUDGES = _names(row for row in TABLE if row.reads not in CHUNKS)
CAPTURE, DELIVERY = "capture", "delivery"  # workers without a stage
RECORD = "record"  # a worker that needs no other one, and none needs
WORKERS: Mapping[str, tuple[str, ...]] = {  # worker -> the stages that it runs
    CAPTURE: (),
    **{row.worker: _names(r for r in TABLE if r.worker == row.worker) for row in TABLE},
    DELIVERY: (),
}
BY_FAUST = tuple(dict.fromkeys(row.worker for row in TABLE if row.faust))
SPEAKS = {row.reads: row.name for row in TABLE if row.speaks}  # topic -> stage


def readers(topic: str) -> tuple[str, ...]:
    """The stages that read a topic."""
    return _names(row for row in TABLE if row.reads == topic)
