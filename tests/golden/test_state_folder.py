"""A state folder of November 2026 is gone on with.

`state-2026-11.tar.xz` was written by commit 4aa3475 with the fake models: a daemon that was killed
in the middle of a scene while its webhook could not be reached, a capture worker's spool, and the
alerts that an undisturbed run of that commit told.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import codec
from pipeline.types import AudioChunk, FrameChunk, Record
from tests.graph.conftest import FAKES, last
from workers import daemon
from workers.bus.spool import Spool
from workers.config import loader
from workers.delivery.receiver import Receiver
from workers.replay.scene_records import load_scene, scene_records

STORED = Path(__file__).parent / "state-2026-11.tar.xz"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTw=="
SPOOLED = 60


pytestmark = pytest.mark.no_schema  # its alerts.jsonl has alerts of that commit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The stored folder; its log was written a moment ago, else retention would empty it."""
    with tarfile.open(STORED) as file:
        file.extractall(tmp_path, filter="data")
    stored = tmp_path / "state-2026-11"
    for file_ in (stored / "state" / "log").glob("*.db"):
        with sqlite3.connect(file_) as log:
            log.execute(
                "UPDATE entries SET appended = appended + ? - (SELECT max(appended) FROM entries)",
                (time.time_ns(),),
            )
        log.close()
    return stored


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_killed_daemon_goes_on_and_loses_nothing(folder: Path) -> None:
    config, told = folder / "office.yaml", folder / "state" / "alerts.jsonl"
    before, expected = told.read_text(), json.loads((folder / "expected.json").read_text())
    with Receiver(SECRET) as receiver:
        config.write_text(config.read_text().replace("http://127.0.0.1:1/", receiver.url))
        scene, state = folder / "scene.yaml", folder / "state"
        assert daemon.run(config, scene=scene, state=state, encoders=FAKES) == 0
        received = receiver.events
    assert before
    assert told.read_text().startswith(before)
    ids = [event["id"] for event in events(told)]
    assert len(set(ids)) == len(ids)
    assert last(events(told)) == last(expected)
    assert received.keys() == {event["id"] for event in events(told)}
    for event in events(told):  # a document of the older version has fewer fields
        assert event["data"].items() <= received[event["id"]]["data"].items()


def unmeasured(record: Record) -> Record:
    """The record of an older version, which measured neither motion nor noise."""
    if isinstance(record, FrameChunk):
        return msgspec.structs.replace(record, look="all", motion=b"", regions=())
    if isinstance(record, AudioChunk):
        return msgspec.structs.replace(record, listen="all", noise_db=None)
    return record


def test_a_spool_is_read_on(folder: Path) -> None:
    site = loader.load(folder / "office.yaml").sites["office"]
    records = list(scene_records(load_scene(folder / "scene.yaml"), site))[:SPOOLED]
    spool = Spool(folder / "state" / "spool.db", cap=20_000_000, dropped=lambda *_: None)
    try:
        assert spool.waiting == SPOOLED
        rows = spool.take(SPOOLED, 1 << 30)
        assert [(row.topic, codec.decode(row.value)) for row in rows] == [
            (topic, unmeasured(record)) for topic, record in records
        ]
    finally:
        spool.close()
