"""Two hundred sites on one partition: notes that Kafka takes, and stalls that stay their own."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from models.hearing.transcript import Transcript
from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.config import rule_kinds, schema
from pipeline.errors import Retry
from pipeline.host import Host
from pipeline.ports import Assigned, Stage
from pipeline.run import Runner, drain
from pipeline.types import Alert, Anomaly, Progress, Record, Roster, event_start, ns
from tests import make
from tests.fakes import FakeText, FakeVoice, FakeYamnet, fake_head
from workers.delivery.delivery import (
    Delivery,
    DeliveryEnvironment,
    Subscriber,
    dead_letter_publisher,
)
from workers.delivery.outbox import MAX_PENDING
from workers.stages.alert import AlertStage
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_incidents, site_plan
from workers.stages.sound import SoundStage
from workers.stages.speech import SpeechStage

BROKER = 4096  # bytes: `offset.metadata.max.bytes` of a Kafka broker as it comes
BEGIN = 1_795_478_400  # s: 2026-11-24T00:00:00Z
EVERY = 15  # s between two words of a source
NAMES = [f"{'site-with-a-rather-long-name-number':-<36}{number:04}" for number in range(200)]
SOURCES = ("room", "room/speech")
HALL = schema.Site(
    microphones={"room": schema.Microphone(source="device:default")},
    rules=(rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="critical"),),
)
HORIZON, PATIENCE = round(HALL.windows.horizon), round(HALL.windows.patience)


def fusion(names: Sequence[str], *, recorded: bool = False) -> FusionStage:
    plan = site_plan(HALL, FakeText(), recorded=recorded)
    return FusionStage(dict.fromkeys(names, plan))


def alert(names: Sequence[str]) -> AlertStage:
    return AlertStage(dict.fromkeys(names, site_incidents(HALL)), lambda *_: ())


def said(
    site: str, at: float, *, shot: bool = False, sources: Sequence[str] = SOURCES
) -> list[Record]:
    """What the microphone of a site says of the second before `at`."""
    heard = make.sound(at - 1, site=site, gunshot=0.9 if shot else 0.0)
    return [
        make.roster(*SOURCES, start=at - 1, site=site, source="room"),
        *([heard] if "room" in sources else []),
        *(make.progress(at, site=site, source=source) for source in sources),
    ]


class Line:
    """Fusion and alerting over one partition that a test fills; what they say is kept."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self.bus = MemoryBus(keep_bytes=0)
        self.listens = {
            topic: self.bus.reader(topic, "test") for topic in (topics.ANOMALIES, topics.ALERTS)
        }
        self.fusion = Runner(
            fusion(names),
            self.bus,
            topic=topics.OBSERVATIONS,
            group="fusion",
            out=topics.ANOMALIES,
        )
        self.alert = Runner(
            alert(names), self.bus, topic=topics.ANOMALIES, group="alert", out=topics.ALERTS
        )
        self.runners = (self.fusion, self.alert)

    def feed(self, records: Sequence[Record]) -> None:
        for record in records:
            key = topics.key_of(topics.OBSERVATIONS, record)
            self.bus.publish(topics.OBSERVATIONS, key, codec.encode(record))
        self.bus.flush()
        drain(self.runners)

    def told(self, topic: str) -> list[Record]:
        """What came in a topic since the last call."""
        records = []
        while events := self.listens[topic].poll(1000):
            for event in events:
                if not isinstance(event, Assigned):
                    records.append(codec.decode(event.value))  # type: ignore[union-attr]
                    self.listens[topic].commit(0, event.offset + 1, b"")  # type: ignore[union-attr]
        return records

    @property
    def host(self) -> Host:
        return self.fusion.hosts[0]

    def held(self) -> dict[str, int]:
        """How many records of each site a restart of fusion would still need."""
        assert self.host.safe >= 0
        return {site: len(held) for site, held in self.host._held.items()}

    def notes(self) -> int:
        """The longest note that stands in a commit."""
        return max(len(runner.committed[0][1]) for runner in self.runners)


# -- notes


def test_notes_of_fusion_and_alerting_fit_into_what_a_broker_takes() -> None:
    line, longest = Line(), 0
    for step in range(1, 7):
        records = list[Record]()
        for number, site in enumerate(NAMES):
            records += said(site, BEGIN + EVERY * step + number * 0.013, shot=step % 5 == 1)
        line.feed(records)
        longest = max(longest, line.notes())
    assert {len(runner.committed[0][1]) for runner in line.runners} == {2417}
    assert longest <= 2417 < BROKER


def unsaid(batch: Sequence[np.ndarray]) -> list[Transcript]:
    return [Transcript("", "en", 0.0) for _ in batch]


EARS = {
    "sound": SoundStage(FakeYamnet(), fake_head),
    "speech": SpeechStage(FakeVoice(), unsaid, FakeText()),
}


@pytest.mark.parametrize("stage", EARS.values(), ids=EARS)
def test_notes_of_the_ears_fit_into_what_a_broker_takes(stage: Stage) -> None:
    bus = MemoryBus()
    runner = Runner(stage, bus, topic=topics.AUDIO, group="ear", out=topics.OBSERVATIONS)
    for step in range(3):
        for number, site in enumerate(NAMES):
            chunk = make.audio(BEGIN + step + number * 0.003, seconds=1, site=site, seq=step)
            bus.publish(topics.AUDIO, f"{site}/room", codec.encode(chunk))
        bus.flush()
        drain([runner])
        assert len(runner.committed[0][1]) == 2417 < BROKER


class Away:
    """A receiver that answers nothing."""

    def send(self, alert: Alert, trace: str = "") -> None:
        raise Retry("nobody there")  # noqa: EM101


def test_a_delivery_s_note_fits_with_all_that_it_may_have_under_way() -> None:
    bus, now = MemoryBus(), float(BEGIN)
    delivery = Delivery(
        Subscriber(name="x" * 40, sink=Away(), address="https://siem.example/hook"),
        bus.reader(topics.ALERTS, "delivery"),
        dead_letter_publisher(bus),
        DeliveryEnvironment(clock=lambda: now, random=lambda: 0.99),
    )
    for number in range(2 * MAX_PENDING):
        one = make.alert(site=NAMES[number % 200], id=f"{number:016x}")
        bus.publish(topics.ALERTS, one.site, codec.encode(one))
    bus.flush()
    longest = 0
    for _ in range(600):
        delivery.step()
        now += 30
        longest = max(longest, len(bus.committed(topics.ALERTS, "delivery", 0).note))
    assert delivery.pending == MAX_PENDING
    assert 3000 < longest < BROKER


def test_sites_that_are_renamed_again_and_again_do_not_fill_the_note() -> None:
    assigned = Assigned(0, 0, b"")
    for life in range(5):
        names = [f"{life}-{number}" for number in range(100)]
        host = Host(fusion(names), assigned)
        at = BEGIN + life * EVERY
        for number, site in enumerate(names):
            for record in said(site, at + number * 0.013):
                host.feed(host.reached, record, None)
        assert len(host.note) < BROKER
        assigned = Assigned(0, host.reached, host.note)
    kept = Host(fusion(names), assigned)._noted
    spoke_last = [f"{life}-{number}" for life in (4, 3, 2) for number in range(100)]
    assert all(name in kept for name in spoke_last)
    assert not all(f"0-{number}" in kept for number in range(100))


def test_a_site_that_left_the_config_begins_anew_when_it_is_back() -> None:
    bus = MemoryBus()
    told = 0
    for life, names in enumerate((["hall", "yard"], ["yard"], ["hall", "yard"])):
        runners = [
            Runner(
                fusion(names), bus, topic=topics.OBSERVATIONS, group="fusion", out=topics.ANOMALIES
            ),
            Runner(alert(names), bus, topic=topics.ANOMALIES, group="alert", out=topics.ALERTS),
        ]
        for step in range(1, 4):
            at = BEGIN + 60 * life + EVERY * step
            for site in ("hall", "yard"):
                for record in said(site, at, shot=step == 1):
                    bus.publish(topics.OBSERVATIONS, site, codec.encode(record))
            bus.flush()
            drain(runners)
        for runner in runners:
            runner.close()
        alerts = [codec.decode(value) for value in bus.values(topics.ALERTS)]
        opened = Counter(a.site for a in alerts if isinstance(a, Alert) and a.state == "opened")
        told += "hall" in names
        assert opened == {"hall": told, "yard": life + 1}


# -- a site that stalls


MUTE, STUCK = NAMES[7], NAMES[8]  # nothing is heard of one; a source of the other never promises


def hours(
    begin: float, end: float, names: Sequence[str] = NAMES[:30], *, shots: int = 0
) -> Iterator[tuple[float, list[Record]]]:
    """What all sites say, step by step, but for the two that stall."""
    for step in range(round(begin * 3600) // EVERY, round(end * 3600) // EVERY):
        at, records = BEGIN + EVERY * (step + 1), list[Record]()
        for number, site in enumerate(names):
            if site == MUTE and step > 4:
                continue
            sources = ("room",) if site == STUCK else SOURCES
            shot = shots > 0 and (step + number) % shots == 0
            records += said(site, at + number * 0.01, shot=shot, sources=sources)
        yield at, records


@pytest.mark.parametrize("sites", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_a_site_that_stalls_for_an_hour_stalls_no_other_and_is_forgotten_in_time(
    sites: int,
) -> None:
    names = NAMES[:sites]
    line, promised = Line(names), dict[str, int]()
    shots, alerts = Counter[str](), Counter[str]()
    longest = Counter[str]()
    for at, records in hours(0, 1, names, shots=97):
        line.feed(records)
        shots.update(r.site for r in records if getattr(r, "labels", {}).get("gunshot"))
        for told in line.told(topics.ANOMALIES):
            if isinstance(told, Progress):
                promised[told.site] = told.upto
        alerts.update(
            told.site
            for told in line.told(topics.ALERTS)
            if isinstance(told, Alert) and told.state == "opened" and told.label == "gunshot"
        )
        for site in names:
            if site not in (MUTE, STUCK):  # their windows are as far as what was said
                assert promised[site] >= ns(at), site
        longest |= Counter(line.held())
        assert shots == alerts
        assert line.notes() < BROKER
    of_an_ordinary_site = (HORIZON // EVERY + 4) * 4
    assert max(n for site, n in longest.items() if site not in (MUTE, STUCK)) <= of_an_ordinary_site
    assert longest[STUCK] <= ((PATIENCE + HORIZON) // EVERY + 4) * 3
    # The two were waited for no longer than patience allows, so a restart reads no more than that.
    assert promised[STUCK] >= ns(at - PATIENCE - 2 * EVERY)
    assert promised[MUTE] >= ns(at - PATIENCE - 2 * EVERY)
    assert line.held()[MUTE] == 0
    part = line.bus.partitions(topics.OBSERVATIONS)[0]
    oldest = codec.decode(part.entries[line.host.safe - part.base].value)
    assert event_start(oldest) >= ns(at - PATIENCE - HORIZON - 4 * EVERY)


def test_a_restart_amid_a_stall_reads_again_and_says_nothing_twice() -> None:
    line = Line()
    for _, records in hours(0, 0.1, shots=31):
        line.feed(records)
    before = line.told(topics.ALERTS)
    assert before
    line.fusion.close()
    line.fusion = Runner(
        fusion(NAMES), line.bus, topic=topics.OBSERVATIONS, group="fusion", out=topics.ANOMALIES
    )
    line.runners = (line.fusion, line.alert)
    line.feed([])
    assert line.told(topics.ALERTS) == []
    for _, records in hours(0.1, 0.15, shots=31):
        line.feed(records)
    opened = [a for a in line.told(topics.ALERTS) if isinstance(a, Alert) and a.state == "opened"]
    assert opened
    assert not {a.id for a in opened} & {a.id for a in before if isinstance(a, Alert)}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_hours_of_a_stall() -> None:
    line, names = Line(), NAMES[:12]
    sizes = []
    tracemalloc.start()
    try:
        for hour in range(4):
            for _, records in hours(hour, hour + 1, names):
                line.feed(records)
                line.told(topics.ANOMALIES), line.told(topics.ALERTS)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    print([f"{size / 1e6:.1f} MB" for size in sizes])
    assert sizes[-1] < sizes[0] * 1.05


# -- sites of different times


def test_a_site_whose_clock_is_behind_is_not_late() -> None:
    line = Line(["hall", "yard"])
    behind = 5 * PATIENCE
    for step in range(1, 3 * PATIENCE // EVERY):
        at = BEGIN + EVERY * step
        line.feed([*said("hall", at), *said("yard", at - behind, shot=step % 50 == 0)])
    assert not line.bus.values(topics.LATE)
    anomalies = [a for a in line.told(topics.ANOMALIES) if isinstance(a, Anomaly)]
    assert {(a.site, a.label) for a in anomalies} == {("yard", "gunshot")}


def test_a_site_that_is_back_after_a_silence_is_taken_by_its_own_clock() -> None:
    line = Line(["hall", "yard"])
    behind = 5 * PATIENCE
    for at in range(BEGIN + 1, BEGIN + 3 * PATIENCE, 3):
        line.feed(said("hall", at))
        if not 100 < at - BEGIN < 100 + 2 * PATIENCE:
            line.feed(said("yard", at - behind))
    assert not line.bus.values(topics.LATE)


def test_a_clock_that_jumps_a_year_ahead_makes_no_other_site_late() -> None:
    line = Line(["hall", "yard"])
    for step in range(1, 3 * PATIENCE // EVERY):
        at = BEGIN + EVERY * step
        ahead = 365 * 86_400 if step > 10 else 0
        line.feed([*said("hall", at + ahead), *said("yard", at, shot=step % 50 == 0)])
    assert not line.bus.values(topics.LATE)
    opened = [a for a in line.told(topics.ALERTS) if isinstance(a, Alert)]
    assert {a.site for a in opened} == {"yard"}


def test_what_a_site_spooled_for_hours_is_not_late_because_the_others_are_ahead() -> None:
    line = Line(["hall", "yard"])
    line.feed([*said("hall", BEGIN + 1), *said("yard", BEGIN + 1)])
    ahead = 4 * 3600
    for step in range(1, 600):  # the yard's uplink is slow: it goes through its spool step by step
        line.feed(said("hall", BEGIN + ahead + step))
        line.feed(said("yard", BEGIN + EVERY * step, shot=step == 500))
    assert not line.bus.values(topics.LATE)
    told = [a for a in line.told(topics.ALERTS) if isinstance(a, Alert)]
    assert {(a.site, a.label) for a in told} == {("yard", "gunshot")}


def test_a_site_without_a_roster_holds_nothing_back_for_ever() -> None:
    line = Line(["hall", "yard"])
    records = [r for r in said("yard", BEGIN + 1) if not isinstance(r, Roster)]
    line.feed(records)
    for step in range(1, PATIENCE + HORIZON + 30, 2):
        line.feed(said("hall", BEGIN + step))
    assert line.held()["yard"] == 0


def test_words_that_promise_nothing_new_do_not_count_as_speaking() -> None:
    # A worker that dies at the same frame again and again says its last records each time.
    line = Line(["hall", "yard"])
    again = [r for r in said("yard", BEGIN + 1) if r.source == "room/speech"]
    promised = 0
    for at in range(BEGIN + 1, BEGIN + 2 * PATIENCE, 3):
        yard = [r for r in said("yard", at) if r.source == "room"]
        line.feed([*said("hall", at), *yard, *again])
        for told in line.told(topics.ANOMALIES):
            if isinstance(told, Progress) and told.site == "yard":
                promised = told.upto
    assert promised >= ns(at - PATIENCE - 2 * EVERY)
