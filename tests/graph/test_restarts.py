"""Fusion is restarted at any record of a long film, with every rule: it says the same bytes.

Tracks live on faint boxes for longer than the horizon, objects stand still and are lost, persons
fall and lie behind a closed gate. A restart reads from the floor of its site.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec
from pipeline.config import rule_kinds, schema
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import Record, ns
from tests import wanderers
from tests.fakes import FakeText
from tests.graph.test_fusion_stage import BEGIN, SITE, SOURCES
from tests.make import comes, progress, roster, sound
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan
from workers.training.feature_extraction import RecordingHead

HORIZON = 20  # s
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
SECONDS = 150
AFTER = 40  # s; for so long the run after a restart is compared


def records_of(seed: int) -> list[Record]:
    """A film with what the other sources say, by time."""
    records: list[Record] = []
    for second in range(SECONDS):
        now = BEGIN + second
        if second % 10 == 0:
            records += [roster(*SOURCES, start=now, source=source) for source in SOURCES]
        records += [sound(now, gunshot=0.0), progress(now + 1, source="room")]
        records += [progress(now + 1, source=quiet) for quiet in ("room/speech", "reports")]
    records += wanderers.film(seed, SECONDS, BEGIN).records
    return sorted(records, key=comes)


def stage() -> tuple[FusionStage, RecordingHead]:
    head = RecordingHead()
    plan = site_plan(WATCHED, FakeText(), recorded=True)
    return FusionStage({"office": plan}, {"office": head}), head


def fed(host: Host, records: Sequence[Record], begin: int, end: int) -> list[list[bytes]]:
    return [
        [codec.encode(out) for out in host.feed(offset, records[offset], None)]
        for offset in range(begin, end)
    ]


def restarts_agree(seed: int, cuts: Sequence[float]) -> None:
    """Plays a film once, and restarts at each of the cuts."""
    records = records_of(seed)
    at = sorted({round(cut * (len(records) - 1)) for cut in cuts})
    whole, asked = stage()
    live, outs, notes = Host(whole, Assigned(0, 0, b"")), [], {}
    for offset in range(len(records)):
        if offset in at:
            notes[offset] = live.safe, live.note
        outs += fed(live, records, offset, offset + 1)
    starts = [comes(record) for record in records]
    for cut in at:
        until = bisect_right(starts, starts[cut] + ns(AFTER))
        again, anew = stage()
        safe, note = notes[cut]
        host = Host(again, Assigned(0, safe, note))
        assert not any(fed(host, records, safe, cut))
        before = len(anew.asked)
        assert fed(host, records, cut, until) == outs[cut:until]
        told = anew.asked[before:]
        if told:
            since = told[0][0].start
            ours = [one for one in asked.asked if since <= one[0].start <= told[-1][0].start]
            assert _numbers(ours) == _numbers(told)


def _numbers(asked: Sequence[tuple[object, object]]) -> list[object]:
    return [
        (window.start, {name: vector.tolist() for name, vector in tokens.vectors.items()})  # type: ignore[attr-defined]
        for window, tokens in asked
    ]


@settings(max_examples=6)
@given(st.integers(0, 2**32), st.lists(st.floats(0.3, 1), min_size=3, max_size=3))
def test_a_restart_at_any_record_says_the_same_bytes(seed: int, cuts: list[float]) -> None:
    restarts_agree(seed, cuts)
