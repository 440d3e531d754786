"""Whatever part of a log is judged again, the incidents come out as they were sent, byte for byte.

The logs have two sites with sources that lag, stall, are lost and come back, and restarts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from pipeline import codec, topics, trace
from pipeline.bus.log import LocalLog
from pipeline.config.schema import Config
from pipeline.run import Runner
from pipeline.stages import JUDGES
from pipeline.types import Alert, Record, ns
from tests import make
from tests.graph.conftest import FAKES
from workers import graph
from workers.bus.history import history
from workers.config import loader
from workers.replay.again import Again, judge_again
from workers.runtime.status import Status

SITES, SOURCES = ("north", "south"), ("desk", "room", "room/speech", "reports")
BEGIN = 1_767_650_400  # 2026-01-05T22:00:00Z, s
SHORT = 420  # s of a log that every span needs whole: who stands there may have come long before
LONG = 1500  # s of a log
RESTARTS = 0.2
SITE = """
    cameras:
      desk:
        source: "device:0"
        detect: {fps: 1}
        zones: {floor: {coordinates: "0,0, 1,0, 1,1, 0,1"}}
    microphones:
      room: {source: "device:default"}
    rules:
      - {rule: zone, zone: floor, severity: high}
      - {rule: sound, labels: {gunshot: 0.5}, severity: critical}
      - {rule: keyword, words: {en: [help, ladder]}, label: distress}
    windows: {horizon: 20, patience: 40}
    incidents: {close_after: 5, max_duration: 30, lost_after: 10}
    stationary: {after: 15}
    fusion: {head: rules}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text("version: 1\nsites:\n" + "".join(f"  {site}:{SITE}" for site in SITES))
    return path


def spans(
    dice: random.Random, count: int, longest: float, seconds: int
) -> list[tuple[float, float]]:
    begins = [dice.uniform(0, seconds) for _ in range(count)]
    return [(at, at + dice.uniform(1, longest)) for at in begins]


def among(at: float, given: Sequence[tuple[float, float]]) -> bool:
    return any(begin <= at < end for begin, end in given)


def site_log(dice: random.Random, site: str, seconds: int) -> Iterator[tuple[float, Record]]:
    """(arrival, record) of one site; each source is late by a lag of its own."""
    often = seconds // SHORT
    people, shots = spans(dice, 6 * often, 50, seconds), spans(dice, 6 * often, 4, seconds)
    cries = [dice.uniform(0, seconds) for _ in range(4 * often)]
    for source in SOURCES:
        lost, stalled = spans(dice, 2 * often, 60, seconds), spans(dice, often, 70, seconds)
        lag = dice.choice((0.0, 0.1, 3.0, 12.0))
        for second in range(seconds):
            at, arrival = BEGIN + second, second + 1 + lag + dice.uniform(0, 0.4)
            if source == "desk" and second % 10 == 0:
                yield arrival, make.roster(*SOURCES, start=at, site=site)
            if among(second, stalled):
                continue
            alive = source == "reports" or not among(second, lost)
            if alive and source == "desk":
                boxes = [make.box(x=0.3 + 0.002 * (second % 60))] if among(second, people) else []
                yield arrival, make.detections(at, *boxes, site=site, seconds=1)
            if alive and source == "room":
                loud = 0.9 if among(second, shots) else 0.0
                if loud or second % 37 == 0:  # sometimes the whole second does not find it again
                    soon = make.early(at, site=site, gunshot=0.8)
                    yield arrival - 0.45, soon  # later than what the source said before
                yield arrival, make.sound(at, site=site, gunshot=loud)
            if alive and source == "room/speech" and any(second == int(cry) for cry in cries):
                yield arrival, make.utterance(at, "help, a ladder", site=site)
            said = make.progress(at + 1, site=site, source=source, alive=alive)
            yield arrival + 0.001, said


class Killed(Exception):
    """The process ends here."""


class KillingLog(LocalLog):
    """A log whose next flush is the last thing that a process does: nothing is committed."""

    kills = False

    def flush(self) -> None:
        super().flush()
        if self.kills:
            self.kills = False
            raise Killed


def record(dice: random.Random, config: Path, seconds: int = SHORT) -> list[Alert]:
    """Judges a log in `state`, with restarts; returns what was sent, each revision once."""
    rows = [row for site in SITES for row in site_log(dice, site, seconds)]
    gap = dice.uniform(100, seconds)  # then nothing runs for a while
    rows = [row for row in rows if not gap <= row[0] < gap + dice.choice((0, 8, 60))]
    rows.sort(key=lambda row: row[0])
    clock = [0]
    settings = loader.load(config)
    bus = KillingLog(config.parent / "state" / "log", clock=lambda: clock[0])

    def started() -> list[Runner]:
        nodes = graph.nodes(settings, FAKES, Status(), recorded=False, stages=JUDGES)
        return [node.runner(bus) for node in nodes]

    runners = started()
    while rows:
        count = dice.choice((1, 5, 40, 200))
        for arrival, each in rows[:count]:
            clock[0] = ns(BEGIN + arrival)
            bus.publish(topics.OBSERVATIONS, each.site, codec.encode(each), trace.begin(each))
        del rows[:count]
        bus.flush()
        bus.kills = dice.random() < RESTARTS
        stopped = dice.random() < RESTARTS
        try:
            while sum(runner.step() for runner in runners):
                pass
        except Killed:
            stopped = True
        if stopped:
            for runner in runners:
                runner.close()
            runners = started()
            while sum(runner.step() for runner in runners):
                pass
    reader = bus.reader(topics.ALERTS, "test")
    sent: dict[tuple[str, int], Alert] = {}
    for entry in reader.poll(100_000)[1:]:
        alert = codec.decode(entry.value)  # type: ignore[union-attr]
        sent.setdefault((alert.id, alert.revision), alert)
    bus.close()
    return list(sent.values())


def again(config: Path, since: float, until: float) -> Again:
    settings: Config = loader.load(config)
    with history(settings, config, config.parent / "state") as stored:
        return judge_again(settings, FAKES, stored, ns(BEGIN + since), ns(BEGIN + until))


def overlapping(sent: Sequence[Alert], since: float, until: float) -> list[Alert]:
    last = {alert.id: alert for alert in sent}
    start, end = ns(BEGIN + since), ns(BEGIN + until)
    wanted = {a.id for a in last.values() if a.start < end and (a.end is None or a.end > start)}
    return [alert for alert in sent if alert.id in wanted]


def judged_as_sent(config: Path, sent: Sequence[Alert], since: float, until: float) -> int:
    """Asserts that a part of a log is judged as it was; returns how many entries were read."""
    judged = again(config, since, until)
    expected = overlapping(sent, since, until)
    got = {codec.encode(alert) for alert in judged.judged.alerts}
    assert judged.compared.differs == [], (since, until)
    assert got == {codec.encode(alert) for alert in expected}, (since, until)
    assert len(judged.judged.alerts) == len(expected)
    assert judged.compared.unsure == []
    return judged.judged.entries


@pytest.mark.parametrize("group", ["site", "source"])
@pytest.mark.parametrize("seed", range(3))
def test_every_cut_of_a_log_gives_what_was_sent(config: Path, seed: int, group: str) -> None:
    config.write_text(
        config.read_text().replace("lost_after: 10", f"lost_after: 10, group: {group}")
    )
    dice = random.Random(seed)
    sent = record(dice, config)
    assert len({alert.id for alert in sent}) > 8
    for since in range(0, SHORT, 35):
        judged_as_sent(config, sent, since, since + dice.choice((1, 20, 90, SHORT)))


@pytest.mark.parametrize("seed", range(2))
def test_a_late_cut_of_a_long_log_gives_what_was_sent_without_its_begin(
    config: Path, seed: int
) -> None:
    dice = random.Random(seed)
    sent = record(dice, config, LONG)
    whole = again(config, 0, LONG).judged.entries
    for since in range(LONG - 200, LONG, 70):
        read = judged_as_sent(config, sent, since, since + dice.choice((1, 20, 90)))
        assert 0 < read < whole, "it does not read the whole log"


@pytest.mark.parametrize("seed", range(3))
def test_what_differs_because_its_begin_is_no_longer_stored_is_named(
    config: Path, seed: int
) -> None:
    dice = random.Random(seed)
    record(dice, config)
    named = 0
    for begin in range(60, SHORT, 60):
        with closing(connect(config.parent / "state/log/observations.v1.db")) as link, link:
            sql = "SELECT min(offset) FROM entries WHERE start >= ?"
            first = link.execute(sql, (ns(BEGIN + begin),)).fetchone()
            link.execute("DELETE FROM entries WHERE offset < ?", first)
        found = again(config, 0, SHORT).compared
        unsure = {each.id for each in found.unsure}
        assert {each.id for each in found.differs if each.what != "added"} <= unsure
        named += len(unsure)
    assert named > 0
