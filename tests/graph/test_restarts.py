"""Fusion is restarted at any record of a long film, with every rule: it says the same bytes.

Tracks live on faint boxes for longer than the horizon, objects stand still and are lost, persons
fall and lie behind a closed gate. A restart reads from the floor of its site.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec
from pipeline.config import rule_kinds, schema
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import Anomaly, Record, ns
from tests import wanderers
from tests.fakes import FakeText
from tests.graph.test_fusion_stage import BEGIN, SITE, SOURCES
from tests.make import comes, early, mode, progress, roster, sound, utterance
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan
from workers.training.feature_extraction import RecordingHead

HORIZON = 20  # s
HEARS = ("room", "room/speech", "reports")
WATCHED = msgspec.structs.replace(
    SITE,
    cameras={
        "desk": schema.Camera(
            source="device:0",
            zones={
                "floor": schema.Zone(coordinates="0,0, 0.6,0, 0.6,1, 0,1"),
                "all": schema.Zone(coordinates="0,0, 1,0, 1,1, 0,1"),
            },
            lines={"door": schema.Line(coordinates="0.5,0, 0.5,1")},
        )
    },
    rules=(
        rule_kinds.ZoneRule(zone="floor", severity="high"),
        rule_kinds.ZoneRule(  # from 00:17 to 00:18
            zone="all", name="at night", objects=("person", "car"), min_score=0.3,
            schedule="00:17-00:18",
        ),
        rule_kinds.ZoneRule(zone="all", name="armed", modes=("armed",)),
        rule_kinds.LoiteringRule(zone="floor", seconds=15, objects=("person", "car")),
        rule_kinds.CrowdRule(zone="all", count=2, seconds=5),
        rule_kinds.LineRule(line="door"),
        rule_kinds.BehaviourRule(
            labels=dict.fromkeys(
                ("fall", "lying", "running", "abandoned-object", "vehicle-at-rest"), 0.3
            ),
            seconds=12,
        ),
        rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="critical"),
    ),
    windows=schema.Windows(horizon=HORIZON, patience=60),
    stationary=schema.Stationary(after=8),
)  # fmt: skip
LISTENED = msgspec.structs.replace(
    WATCHED,
    cameras={},
    rules=(
        rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="critical"),
        rule_kinds.SoundRule(labels={"gunshot": 0.3}, name="armed", modes=("armed",)),
        rule_kinds.KeywordRule(words={"en": ("help",)}, label="distress", min_confidence=0.6),
    ),
)
SECONDS = 150
AFTER = 40  # s; for so long the run after a restart is compared


def modes_of(seed: int) -> list[Record]:
    """Somebody arms and disarms the site; what is in force is said every ten seconds."""
    chance, told, name = random.Random(seed), [], ""
    for second in range(SECONDS):
        now = BEGIN + second
        if chance.random() < 0.04:
            name, since = ("disarmed" if name == "armed" else "armed"), now
            told.append(mode(name, since))
        elif name and second % 10 == 0:
            told.append(mode(name, since, said=now))
    return told


def records_of(seed: int) -> list[Record]:
    """A film with what the other sources say, by time."""
    records: list[Record] = []
    for second in range(SECONDS):
        now = BEGIN + second
        if second % 10 == 0:
            records += [roster(*SOURCES, start=now, source=source) for source in SOURCES]
        records += [sound(now, gunshot=0.0), progress(now + 1, source="room")]
        records += [progress(now + 1, source=quiet) for quiet in ("room/speech", "reports")]
    return sorted(records + modes_of(seed) + wanderers.film(seed, SECONDS, BEGIN), key=comes)


def heard_of(seed: int) -> list[Record]:
    """What a site without cameras hears, by time; its sources are silent now and then."""
    chance, records = random.Random(seed), list[Record]()
    for second in range(SECONDS):
        now = BEGIN + second
        if second % 10 == 0:
            records += [roster(*HEARS, start=now, source=source) for source in HEARS]
        loud = chance.random() < 0.1
        records += [early(now, gunshot=0.8)] if loud and chance.random() < 0.5 else []
        records += [sound(now, gunshot=chance.uniform(0.2, 0.9) if loud else 0.0)]
        if chance.random() < 0.05:
            records += [utterance(now, "help", seconds=1)]
        records += [progress(now + 1, source=each) for each in HEARS if chance.random() < 0.8]
    return sorted(records + modes_of(seed), key=comes)


def opened(assigned: Assigned, site: schema.Site) -> tuple[Host, RecordingHead]:
    head = RecordingHead()
    plan = site_plan(site, FakeText(), recorded=True)
    return Host(FusionStage({"office": plan}, {"office": head}), assigned), head


def numbers(head: RecordingHead) -> dict[int, dict[str, list[float]]]:
    """What the head was asked, by the start of the window."""
    return {
        window.start: {name: vector.tolist() for name, vector in tokens.vectors.items()}
        for window, tokens in head.asked
    }


class Played(NamedTuple):
    """What a run without restarts said of each record, and what its head was asked.

    `commits` are the offset and the note before some records.
    """

    records: Sequence[Record]
    outs: Sequence[Sequence[bytes]]
    asked: dict[int, dict[str, list[float]]]
    commits: dict[int, Assigned]
    site: schema.Site


def fed(host: Host, offset: int, record: Record) -> list[bytes]:
    return [codec.encode(out) for out in host.feed(offset, record, None)]


def played(records: Sequence[Record], cuts: Collection[int], site: schema.Site = WATCHED) -> Played:
    """Plays a film; the commits are those before the records `cuts`."""
    host, head = opened(Assigned(0, 0, b""), site)
    outs, commits = [], {}
    for offset, record in enumerate(records):
        if offset in cuts:
            commits[offset] = Assigned(0, host.safe, host.note)
        outs.append(fed(host, offset, record))
    return Played(records, outs, numbers(head), commits, site)


def restarts_alike(whole: Played, cut: int) -> None:
    """Asserts that a run that is restarted before a record goes on as if nothing had happened."""
    host, head = opened(whole.commits[cut], whole.site)
    for offset in range(whole.commits[cut].offset, cut):
        assert fed(host, offset, whole.records[offset]) == []
    head.asked.clear()  # these windows were judged before the restart
    until = comes(whole.records[cut]) + ns(AFTER)
    for offset in range(cut, len(whole.records)):
        if comes(whole.records[offset]) > until:
            break
        assert fed(host, offset, whole.records[offset]) == whole.outs[offset]
    made = numbers(head)
    if made:
        span = range(min(made), max(made) + 1)
        assert {start: some for start, some in whole.asked.items() if start in span} == made


@settings(max_examples=6)
@given(st.integers(0, 2**32), st.lists(st.floats(0.3, 1), min_size=3, max_size=3))
def test_a_restart_at_any_record_says_the_same_bytes(seed: int, cuts: list[float]) -> None:
    records = records_of(seed)
    at = {round(cut * (len(records) - 1)) for cut in cuts}
    whole = played(records, at)
    for cut in at:
        restarts_alike(whole, cut)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.lists(st.floats(0.3, 1), min_size=3, max_size=3))
def test_a_restart_of_a_site_without_cameras_says_the_same_bytes(
    seed: int, cuts: list[float]
) -> None:
    records = heard_of(seed)
    at = {round(cut * (len(records) - 1)) for cut in cuts}
    whole = played(records, at, LISTENED)
    for cut in at:
        restarts_alike(whole, cut)


def test_the_films_show_something_to_every_rule() -> None:
    told: set[str] = set()
    for seed in range(12):
        outs = (codec.decode(out) for said in played(records_of(seed), ()).outs for out in said)
        told |= {out.label for out in outs if isinstance(out, Anomaly)}
    assert told == {
        *("intrusion", "loitering", "crowd", "line-crossed", "fall", "lying", "running"),
        *("abandoned-object", "vehicle-at-rest"),
    }
