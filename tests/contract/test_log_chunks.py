"""Chunks in the local log: how many wait, and whose were deleted before a stage read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.bus.log import LocalLog, Retention
from pipeline.topics import AUDIO, FRAMES
from pipeline.types import Record, ns
from tests import make
from workers.bus.publish import publish_all
from workers.runtime.lag import count_earlier, count_missed
from workers.runtime.status import Status


class Box:
    """A log in `folder` that can be opened again, its clock, and the status that it tells."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.status = folder, 1000.0, Status()
        self.log = self.opened()

    def opened(self) -> LocalLog:
        return LocalLog(
            self.folder,
            clock=lambda: ns(self.now),
            default=Retention(max_age=60),
            missed=partial(count_missed, self.status),
        )

    def counts(self, source: str) -> dict[str, int]:
        return self.status.snapshot().counts.get("office", {}).get(source, {})


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.log.close()


FRAME: Callable[[int, str], Record] = lambda k, source: make.frame(k, source=source)  # noqa: E731


def test_what_retention_deletes_before_it_was_read_is_counted_for_its_source(box: Box) -> None:
    reader = box.log.reader(FRAMES, "vision")
    publish_all(box.log, FRAMES, [FRAME(0, "desk"), FRAME(1, "desk")])
    assert len(reader.poll(99)) == 3
    publish_all(
        box.log, FRAMES, [FRAME(2, "desk"), FRAME(2, "door"), make.progress(3, source="door")]
    )
    box.now += 100
    publish_all(box.log, FRAMES, [FRAME(4, "door")])
    assert len(reader.poll(99)) == 1
    assert reader.lost == 3
    assert box.counts("desk") == {"dropped.retention": 1}, "two of it were read"
    assert box.counts("door") == {"dropped.retention": 1}, "progress is no frame"


def test_sound_is_counted_for_both_of_its_stages(box: Box) -> None:
    readers = [box.log.reader(AUDIO, group) for group in ("sound", "speech")]
    publish_all(box.log, AUDIO, [make.audio(1), make.audio(2)])
    readers[0].poll(99)
    box.now += 100
    publish_all(box.log, AUDIO, [make.audio(3)])
    for reader in readers:
        reader.poll(99)
    assert box.counts("room") == {}
    assert box.counts("room/speech") == {"dropped.retention": 2}


def test_what_an_earlier_process_left_is_counted_once_for_known_sources(box: Box) -> None:
    reader = box.log.reader(FRAMES, "vision")
    publish_all(box.log, FRAMES, [FRAME(0, "desk"), FRAME(1, "desk"), FRAME(1, "gone")])
    reader.poll(1)
    reader.commit(0, 1, b"")
    box.log.close()
    box.log = box.opened()
    count_earlier(box.log, box.status, {("office", "desk"), ("office", "room")})
    assert box.counts("desk") == {"captured.earlier": 1}
    assert box.counts("gone") == {}
    assert box.status.snapshot().waiting == {"office": {"desk": 1}}
