"""Rules with modes in the fusion stage: any interleaving, any restart, before the windows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import rule_kinds, schema
from pipeline.config.site_modes import Modes
from pipeline.types import (
    Anomaly,
    DeadLetter,
    Mode,
    Progress,
    Record,
    event_start,
    needed_until,
    ns,
)
from tests import make
from tests.fakes import FakeText
from tests.make import box, comes, described, detections, early, progress, roster, sound, utterance
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan

BEGIN = 1_000  # s
ARMED = ("armed",)
FLOOR = schema.Zone(coordinates="0,0, 1,0, 1,1, 0,1")
SITE = schema.Site(
    cameras={
        "desk": schema.Camera(
            source="device:0",
            zones={"floor": FLOOR},
            lines={"door": schema.Line(coordinates="0.5,0, 0.5,1")},
        )
    },
    microphones={"room": schema.Microphone(source="device:default")},
    modes=Modes(default="disarmed", schedule={"home": "00:17-00:18"}),
    rules=(
        rule_kinds.ZoneRule(zone="floor", modes=ARMED),
        rule_kinds.LineRule(line="door", modes=("armed", "home")),
        rule_kinds.LoiteringRule(zone="floor", seconds=3, modes=ARMED),
        rule_kinds.CrowdRule(zone="floor", count=1, seconds=2, modes=ARMED),
        rule_kinds.SoundRule(labels={"gunshot": 0.5}, severity="critical", modes=ARMED),
        rule_kinds.KeywordRule(words={"en": ("help",)}, min_confidence=0.6, modes=ARMED),
        rule_kinds.SoundRule(labels={"glass": 0.5}, name="glass"),
    ),
    windows=schema.Windows(horizon=40, patience=60),
    stationary=schema.Stationary(after=20),
    fusion=schema.Fusion(threshold=0.6, modes=ARMED),
)
SOURCES = ("desk", "room", "room/speech", "reports")


def stage(site: schema.Site = SITE, *, recorded: bool = True) -> FusionStage:
    return FusionStage({"office": site_plan(site, FakeText(), recorded=recorded)})


def mode(
    name: str, at: float, *, until: float | None = None, rule: str = "", said: float | None = None
) -> Mode:
    """A mode or a snooze; times in seconds after the begin."""
    end = None if until is None else BEGIN + until
    when = None if said is None else BEGIN + said
    return make.mode(name, BEGIN + at, until=end, rule=rule, said=when)


def timeline(
    seconds: int,
    *modes: Mode,
    person: Sequence[int] = (),
    shots: Sequence[int] = (),
    weak: Sequence[int] = (),
    said: Sequence[int] = (),
    soon: Sequence[int] = (),
    lost: int = 1000,
) -> dict[str, list[Record]]:
    """What each source says, second by second; the reports source is lost from `lost` on."""
    records: dict[str, list[Record]] = {source: [] for source in SOURCES}
    for second in range(seconds):
        now = BEGIN + second
        if second % 10 == 0:
            for source in records.values():
                source.append(roster(*SOURCES, start=now))
        for frame in range(5):
            at = now + frame / 5
            boxes = (box(x=0.3 + second % 7 / 20),) if second in person else ()
            seen = detections(at, *boxes)
            promised = msgspec.structs.replace(progress(0, source="desk"), upto=seen.start + 1)
            records["desk"] += [seen, promised]
        level = 0.9 if second in shots else 0.45 if second in weak else 0.0
        heard = sound(now, gunshot=level, glass=level if second % 3 == 0 else 0.0)
        if second in soon:
            records["room"].append(early(now, gunshot=0.8, glass=0.9))
        records["room"] += [heard, progress(now + 1, source="room")]
        if second in said:
            sure = 0.9 if second % 2 else 0.5
            records["room/speech"].append(utterance(now, "help", confidence=sure))
        records["room/speech"].append(progress(now + 1, source="room/speech"))
        if second >= lost:
            gone = progress(now + 1, source="reports", alive=False, reason="gone")
            records["reports"].append(gone)
            continue
        if second % 10 == 0:
            records["reports"] += again(modes, now)
        due = [each for each in modes if ns(now) <= each.start < ns(now + 1)]
        records["reports"] += sorted(due, key=lambda each: each.start)
        if second % 9 == 4:
            records["reports"].append(described(now + 0.5, "help"))
        records["reports"].append(progress(now + 1, source="reports"))
    return records


def again(modes: Sequence[Mode], now: int) -> list[Record]:
    """What is in force, said with the roster."""
    newest = {each.rule: each for each in modes if each.start < ns(now)}
    held = (each for each in newest.values() if each.mode != "auto")
    return [
        msgspec.structs.replace(each, said=ns(now))
        for each in held
        if each.until is None or each.until > ns(now)
    ]


def mixed(sources: dict[str, list[Record]], chance: random.Random) -> list[Record]:
    """Any interleaving that keeps the order of each source."""
    left = {name: list(reversed(records)) for name, records in sources.items()}
    order: list[Record] = []
    while names := [name for name, records in left.items() if records]:
        order.append(left[chance.choice(names)].pop())
    return order


def in_step(sources: dict[str, list[Record]]) -> list[Record]:
    """As a live site gives them: by time."""
    return sorted((record for each in sources.values() for record in each), key=comes)


def play(records: Sequence[Record], site: schema.Site = SITE) -> list[Record]:
    state = stage(site).open({})
    return [out for record in records for out in state.on(record, None)]


def anomalies(outs: Sequence[Record]) -> list[Anomaly]:
    return [out for out in outs if isinstance(out, Anomaly)]


def told(outs: Sequence[Record]) -> set[tuple[object, ...]]:
    """All but what depends on the moment at which a rule without modes judges."""
    return {
        (a.rule, a.label, a.source, a.start, a.end, a.score, a.kind, a.zone, a.box, a.id)
        + ((a.mode,) if a.rule != "glass" else ())
        for a in anomalies(outs)
    }


FEW = settings(max_examples=25, deadline=None)  # each plays half a minute of a site
SPANS = st.lists(st.integers(0, 29), max_size=12)


@st.composite
def changes(draw: st.DrawFn) -> list[Mode]:
    """Modes and snoozes, in the order in which persons give them, at odd moments."""
    tenths = sorted(draw(st.sets(st.integers(0, 290), max_size=6)))
    found = []
    for at in tenths:
        rule = draw(st.sampled_from(("", "", "", "zone-floor", "*")))
        names = ("snoozed", "auto") if rule else ("armed", "disarmed", "home", "auto")
        lasts = draw(st.none() | st.integers(1, 150))
        until = None if lasts is None else (at + lasts) / 10
        found.append(mode(draw(st.sampled_from(names)), at / 10, until=until, rule=rule))
    return found


@FEW
@given(changes(), SPANS, SPANS, SPANS, SPANS, st.randoms())
def test_any_interleaving_gives_the_same_anomalies(
    given_modes: list[Mode],
    person: list[int],
    shots: list[int],
    weak: list[int],
    said: list[int],
    chance: random.Random,
) -> None:
    snoozes = [each for each in given_modes if not each.rule or each.rule == "zone-floor"]
    sources = timeline(30, *snoozes, person=person, shots=shots, weak=weak, said=said, soon=said)
    assert told(play(mixed(sources, chance))) == told(play(in_step(sources)))


@FEW
@given(changes(), SPANS, SPANS, SPANS, SPANS, st.randoms())
def test_no_anomaly_starts_before_what_fusion_promised(
    given_modes: list[Mode],
    person: list[int],
    shots: list[int],
    weak: list[int],
    said: list[int],
    chance: random.Random,
) -> None:
    upto = 0
    sources = timeline(
        30, *given_modes, person=person, shots=shots, weak=weak, said=said, soon=said
    )
    for out in play(mixed(sources, chance)):
        if isinstance(out, Progress):
            upto = out.upto
        elif isinstance(out, Anomaly):
            assert out.start >= upto


@FEW
@given(changes(), SPANS, SPANS, SPANS, st.floats(0, 1), st.randoms())
def test_a_restart_at_any_record_goes_on_as_if_nothing_had_happened(
    given_modes: list[Mode],
    person: list[int],
    shots: list[int],
    said: list[int],
    cut: float,
    chance: random.Random,
) -> None:
    sources = timeline(30, *given_modes, person=person, shots=shots, said=said, soon=shots)
    records = mixed(sources, chance)
    at = round(cut * len(records))
    whole, before = stage().open({}), stage().open({})
    outs = [list(whole.on(record, None)) for record in records]
    for record in records[:at]:
        before.on(record, None)
    floor = before.floor("office")
    after = stage().open({"office": floor})
    for record in records[:at]:
        if needed_until(record) > floor:
            after.on(record, None)
    assert [list(after.on(record, None)) for record in records[at:]] == outs[at:]


def test_a_restart_long_after_a_site_was_armed_still_knows_it() -> None:
    records = in_step(timeline(200, mode("armed", 3), shots=[190], person=[150, 151, 152]))
    cut = next(i for i, record in enumerate(records) if event_start(record) >= ns(BEGIN + 180))
    whole, before = stage().open({}), stage().open({})
    outs = [list(whole.on(record, None)) for record in records]
    for record in records[:cut]:
        before.on(record, None)
    floor = before.floor("office")
    assert floor == ns(BEGIN + 103)  # 180 - 1 - 40 - 4 - 12 - 20
    after = stage().open({"office": floor})
    for record in records[:cut]:
        if needed_until(record) > floor:
            after.on(record, None)
    rest = [list(after.on(record, None)) for record in records[cut:]]
    assert rest == outs[cut:]
    found = [a for out in rest for a in anomalies(out) if a.label == "gunshot"]
    assert [(a.start, a.mode) for a in found] == [(ns(BEGIN + 190), "armed")]


def test_a_rule_waits_for_the_mode_and_tells_before_the_windows_and_the_promise() -> None:
    sources = timeline(12, mode("armed", 4), shots=[6])
    late = [record for record in sources.pop("reports") if isinstance(record, Mode | Progress)]
    state = stage().open({})
    first = [out for record in in_step(sources) for out in state.on(record, None)]
    assert not [a for a in anomalies(first) if a.label == "gunshot"]
    state.on(roster(*SOURCES, start=BEGIN, source="reports"), None)
    rest = [(record, list(state.on(record, None))) for record in late]
    (record, outs), *others = [pair for pair in rest if anomalies(pair[1])]
    assert event_start(record) == ns(BEGIN + 7)
    assert [type(out).__name__ for out in outs] == ["Anomaly", "Progress"]
    assert (anomalies(outs)[0].label, anomalies(outs)[0].mode) == ("gunshot", "armed")
    assert others == []


def test_a_rule_without_modes_does_not_wait() -> None:
    sources = timeline(12, shots=[6])
    del sources["reports"]
    found = anomalies(play(in_step(sources)))
    assert [(a.rule, a.label, a.mode) for a in found] == [("glass", "glass", "disarmed")]


def test_a_lost_reports_source_lets_the_rules_judge_by_what_is_known() -> None:
    shots = [2, 8]
    known = timeline(12, mode("armed", 1), shots=shots, lost=4)
    assert {a.start for a in anomalies(play(in_step(known))) if a.label == "gunshot"} == {
        ns(BEGIN + 2),
        ns(BEGIN + 8),
    }
    unknown = timeline(12, shots=shots, lost=0)
    assert not [a for a in anomalies(play(in_step(unknown))) if a.label == "gunshot"]


def test_a_reports_source_that_says_nothing_is_waited_for_no_longer_than_the_patience() -> None:
    sources = timeline(110, mode("armed", 1), shots=[8])
    sources["reports"] = sources["reports"][:3]  # roster, mode and a promise
    state = stage(recorded=False).open({})
    outs = [(event_start(r), list(state.on(r, None))) for r in in_step(sources)]
    found = [(at, a.start) for at, out in outs for a in anomalies(out) if a.label == "gunshot"]
    ((at, start),) = found
    assert start == ns(BEGIN + 8)
    assert ns(BEGIN + 8 + 60) < at <= ns(BEGIN + 8 + 62)


def test_a_site_whose_roster_has_no_reports_does_not_wait_for_them_for_ever() -> None:
    sources = timeline(12, shots=[6])
    del sources["reports"]
    site = msgspec.structs.replace(SITE, modes=Modes())
    records = [r for r in in_step(sources) if not hasattr(r, "sources")]
    records.insert(0, roster("desk", "room", "room/speech", start=BEGIN))
    assert [a.label for a in anomalies(play(records, site)) if a.label == "gunshot"] == ["gunshot"]


def test_armed_and_disarmed_in_the_middle_of_a_visit() -> None:
    """Each time the site is armed, who moves there is news; a line that was crossed before is
    not crossed by arming."""
    sources = timeline(
        30, mode("armed", 5), mode("disarmed", 10), mode("armed", 20, until=25), person=range(30)
    )
    found = anomalies(play(in_step(sources)))
    zone = [a for a in found if a.rule == "zone-floor"]
    assert sorted({a.start // ns(1) - BEGIN for a in zone}) == [*range(5, 10), *range(20, 25)]
    assert [a.start // ns(1) - BEGIN for a in zone if a.reasons] == [5, 20]
    loiter = sorted({a.start // ns(1) - BEGIN for a in found if a.rule == "loitering-floor"})
    assert loiter[0] == 8  # the time before the site was armed does not count
    assert set(loiter) <= {8, 9, 23, 24}
    crossed = [a.start // ns(1) - BEGIN for a in found if a.rule == "line-door"]
    assert crossed
    assert all(5 <= at < 10 or at >= 20 for at in crossed)  # from 25 on: home, by schedule


def test_a_mode_by_schedule_needs_no_record() -> None:
    """00:17 UTC is 1,020 s after 1970 began."""
    sources = timeline(30, person=range(30))
    found = anomalies(play(in_step(sources)))
    assert {a.mode for a in found if a.rule == "line-door"} <= {"home"}
    assert all(a.start >= ns(1020) for a in found if a.rule == "line-door")


def test_windows_are_judged_in_the_modes_of_fusion_alone() -> None:
    def fused(*modes: Mode) -> list[int]:
        site = msgspec.structs.replace(
            SITE, rules=tuple(msgspec.structs.replace(rule, modes=()) for rule in SITE.rules)
        )
        sources = timeline(20, *modes, weak=[8], said=[8])
        return [
            a.start // ns(1) - BEGIN
            for a in anomalies(play(in_step(sources), site))
            if a.rule == "fusion"
        ]

    assert fused() == []
    assert fused(mode("armed", 1)) == [8]
    assert fused(mode("armed", 1), mode("home", 8)) == []
    assert fused(mode("armed", 1), mode("snoozed", 7, until=9, rule="fusion")) == []
    assert fused(mode("armed", 1), mode("snoozed", 7, until=9, rule="*")) == []


def test_a_snoozed_rule_is_quiet_and_the_others_are_not() -> None:
    shots = [4, 8, 16]
    for rule, quiet in (("sound", [4, 16]), ("*", [4, 16]), ("glass", [4, 8, 16])):
        sources = timeline(
            20, mode("armed", 1), mode("snoozed", 6, until=12, rule=rule), shots=shots
        )
        found = anomalies(play(in_step(sources)))
        heard = [a.start // ns(1) - BEGIN for a in found if a.label == "gunshot"]
        assert heard == quiet


def test_a_lost_source_is_told_whatever_is_snoozed() -> None:
    sources = timeline(30, mode("snoozed", 1, rule="*"))
    sources["desk"] = [
        *sources["desk"][:11],
        *(progress(BEGIN + s, source="desk", alive=False, reason="no route") for s in range(2, 30)),
    ]
    state = stage(recorded=False).open({})
    found = anomalies([out for record in in_step(sources) for out in state.on(record, None)])
    assert {(a.rule, a.label) for a in found} == {("system", "source-lost")}
    assert {a.mode for a in found if a.start < ns(1020)} == {"disarmed"}


@pytest.mark.parametrize(
    "odd",
    [
        mode("amred", 3),
        mode("armed", 3, until=3),
        mode("snoozed", 3, rule="nobody"),
        mode("armed", 3, rule="sound"),
    ],
)
def test_a_record_that_means_nothing_is_a_dead_letter_and_holds_nothing_up(odd: Mode) -> None:
    sources = timeline(12, mode("armed", 1), shots=[6])
    sources["reports"].insert(12, odd)
    outs = play(in_step(sources))
    (dead,) = [out for out in outs if isinstance(out, DeadLetter)]
    assert dead.reason.startswith("reports: ")
    assert [a.label for a in anomalies(outs) if a.label == "gunshot"] == ["gunshot"]


def test_a_mode_of_an_unknown_site_is_a_dead_letter() -> None:
    (dead,) = stage().open({}).on(msgspec.structs.replace(mode("armed", 1), site="ofice"), None)
    assert isinstance(dead, DeadLetter)
