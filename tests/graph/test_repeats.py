"""What a killed capture published and could not strike off comes again: it changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.run import drain
from pipeline.types import Alert, Progress, Record, Roster
from tests.graph.conftest import FAKES
from workers import graph
from workers.bus.publish import publish_captured
from workers.config import loader
from workers.replay.scene_records import load_scene, scene_records
from workers.runtime.status import Status

Said = tuple[str, Record]  # topic, record


def batches(records: Sequence[Said], chance: random.Random) -> list[Sequence[Said]]:
    """The records in batches; each may come again, in whole or from its beginning."""
    cut, at = list[Sequence[Said]](), 0
    while at < len(records):
        size = chance.choice([1, 5, 30, 90])
        batch = records[at : at + size]
        while chance.random() < 0.5:
            cut.append(batch[: chance.randint(1, len(batch))])  # so far it came before the kill
        cut.append(batch)
        at += size
    return cut


def played(config: Path, given: Sequence[Sequence[Said]], *, recorded: bool) -> MemoryBus:
    """What the graph makes of batches: each is worked off before the next comes."""
    bus = MemoryBus(partitions=2, keep=True)
    nodes = graph.nodes(loader.load(config), FAKES, Status(), recorded=recorded)
    runners = [node.runner(bus) for node in nodes]
    left = iter(given)

    def pump() -> bool:
        batch = next(left, None)
        for topic, record in batch or ():
            publish_captured(bus, topic, record)
        bus.flush()
        return batch is not None

    drain(runners, pump)
    for runner in runners:
        runner.close()
    return bus


def told(bus: MemoryBus) -> list[tuple[object, ...]]:
    """The last revision of each incident: what must be equal in all runs."""
    last: dict[str, Alert] = {}
    for value in bus.values(topics.ALERTS):
        alert = codec.decode(value)
        last[alert.id] = alert
    return sorted(
        (a.site, a.labels, a.rules, a.severity, a.start, a.end or 0, a.state) for a in last.values()
    )


def observed(bus: MemoryBus) -> set[tuple[object, ...]]:
    """What was seen, heard and said: each once, however often it was observed."""
    records = [codec.decode(value) for value in bus.values(topics.OBSERVATIONS)]
    return {
        (type(record).__name__, record.source, record.start, record.end, codec.encode(record))
        for record in records
        if not isinstance(record, Progress | Roster)
    }


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "live"])
@pytest.mark.parametrize("seed", range(6))
def test_batches_that_come_twice_give_the_same_alerts_and_nothing_late(
    config: Path, scene: Callable[..., Path], seed: int, recorded: bool
) -> None:
    path = scene(person=(3, 8), loud=(6, 8), spoken=(12, 15), black=(9, 10))
    site = loader.load(config).sites["office"]
    records = list(scene_records(load_scene(path), site, status=Status()))
    chance = random.Random(seed)
    once = played(config, [records], recorded=True)
    again = played(config, batches(records, chance), recorded=recorded)
    assert told(once)
    assert told(again) == told(once)
    if recorded:  # a live detector need not look at every frame
        assert observed(again) == observed(once), "and no observation has two contents"
    assert len(again.values(topics.FRAMES)) > len(once.values(topics.FRAMES))
    for topic in (topics.LATE, topics.DEAD):
        assert again.values(topic) == []
