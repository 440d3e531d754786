"""A learned head in the fusion stage: it adds to the rules, is told once, and can be changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given

from models.fusion.head import RULES_HEAD, Head
from models.fusion.noisy_or import Verdict
from models.fusion.query import HeadQuery
from pipeline import topics
from pipeline.bus.log_search import between
from pipeline.config import schema
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import FOREVER, SECOND, Anomaly, Record, Sound, event_start, ns
from tests.fakes import FakeText
from tests.graph.conftest import FAKES, run_edge
from tests.graph.test_fusion_stage import FEW, SITE, SPANS, timeline
from workers.config import loader
from workers.replay.observation_replay import rejudge
from workers.replay.scene_replay import ReplayOptions, replay
from workers.stages.fusion import FusionStage
from workers.stages.site_plan import site_plan
from workers.training.feature_extraction import RecordingHead


class Loud:
    """Finds what is loud: -20 dBFS or more in any second of the window."""

    version, threshold = "loud 1", 0.5

    def score(self, question: HeadQuery) -> float:
        return self([question])[0].score

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        return [
            Verdict(
                score=0.9 if any(self.loud(o) for o in question.window.observations) else 0.1,
                label="siren",
                contributions={"sound": 1.0},
            )
            for question in batch
        ]

    def loud(self, observation: Record) -> bool:
        return getattr(observation, "loudness_db", -120.0) >= -20


def records(loud: Sequence[int], **more: Sequence[int]) -> list[Record]:
    lines = timeline(30, **more)
    starts = {ns(1_000 + at) for at in loud}
    lines["room"] = [
        msgspec.structs.replace(r, loudness_db=-10.0)
        if isinstance(r, Sound) and r.start in starts
        else r
        for r in lines["room"]
    ]
    return sorted((r for line in lines.values() for r in line), key=event_start)


class Sure(Loud):
    """The same, and surer of it than any rule."""

    version = "sure 1"

    def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
        answers = super().__call__(batch)
        return [msgspec.structs.replace(v, score=0.99 if v.score > 0.5 else 0.1) for v in answers]


Swaps = Mapping[float, Mapping[str, Head]]  # second from which on -> heads


def told(stage: FusionStage, given: Sequence[Record], swaps: Swaps | None = None) -> list[Anomaly]:
    host, left = Host(stage, Assigned(0, 0, b"")), dict(swaps or {})
    made: list[Record] = []
    for offset, record in enumerate(given):
        for second in [second for second in left if event_start(record) > ns(1_000 + second)]:
            stage.swap(left.pop(second))
        made += host.feed(offset, record, None)
    return [out for out in made if isinstance(out, Anomaly)]


def stage(head: Head | None = None, fusion: schema.Fusion = SITE.fusion) -> FusionStage:
    site = msgspec.structs.replace(SITE, fusion=fusion)
    plan = site_plan(site, FakeText(), recorded=True)
    return FusionStage({"office": plan}, {} if head is None else {"office": head})


def seconds(anomalies: Sequence[Anomaly]) -> list[int]:
    return [a.start // SECOND - 1_000 for a in anomalies]


def nameless(anomalies: Sequence[Anomaly]) -> list[Anomaly]:
    """Without the name of the head that was asked."""
    return [msgspec.structs.replace(a, head="") for a in anomalies]


def learned(anomalies: Sequence[Anomaly]) -> list[Anomaly]:
    return [a for a in anomalies if a.rule == "learned"]


def test_it_is_told_when_it_begins_and_goes_on_only_while_the_newest_hop_shows_it() -> None:
    found = learned(told(stage(Loud()), records([10, 11, 20])))
    assert [a.start // SECOND - 1_000 for a in found] == [10, 11, 20]
    assert [bool(a.reasons) for a in found] == [True, False, True]
    assert found[0].label == "siren"
    assert found[0].severity == "high"
    assert found[0].contributions == {"sound": 1.0}
    assert "siren learned from sound 100%" in found[0].reasons[0]


def test_it_takes_nothing_from_the_rules() -> None:
    given = records([10, 20], person=range(3, 9), shots=[14], said=[22])
    alone = told(stage(), given)
    both = told(stage(Loud()), given)
    assert alone
    assert {a.id for a in alone} <= {a.id for a in both}
    assert learned(alone) == []


@FEW
@given(person=SPANS, shots=SPANS, weak=SPANS, said=SPANS, loud=SPANS)
def test_what_rules_tell_is_told_with_a_head_as_without(
    person: list[int], shots: list[int], weak: list[int], said: list[int], loud: list[int]
) -> None:
    happened = records(loud, person=person, shots=shots, weak=weak, said=said)
    alone = nameless(told(stage(), happened))
    with_head = nameless(told(stage(Sure()), happened))
    assert [a for a in with_head if a.rule != "learned"] == alone


def test_evidence_of_several_rules_keeps_its_name_beside_a_head_that_is_surer() -> None:
    found = told(stage(Sure()), records([14], weak=[14], said=[14]))
    assert [(a.rule, a.label) for a in found] == [("fusion", "distress"), ("learned", "siren")]
    assert len({a.id for a in found}) == 2


def test_a_head_that_is_less_sure_than_several_rules_adds_nothing() -> None:
    given = records([14], weak=[14], said=[14], person=range(11, 16))
    found = told(stage(Loud()), given)
    assert "fusion" in {a.rule for a in found}
    assert learned(found) == []


def test_where_a_rule_has_named_what_happens_the_head_adopts_its_name() -> None:
    found = learned(told(stage(Loud()), records([14], shots=[14])))
    assert {(a.label, a.severity) for a in found} == {("gunshot", "critical")}


def test_every_anomaly_says_who_judges() -> None:
    given = records([10], person=range(3, 9))
    assert {a.head for a in told(stage(Loud()), given)} == {"loud 1"}
    assert {a.head for a in told(stage(), given)} == {RULES_HEAD}


def test_without_a_threshold_in_the_config_the_head_has_its_own() -> None:
    given = records([10])
    for own, heard in ((0.85, [10]), (0.95, [])):
        head = Loud()
        head.threshold = own
        assert seconds(told(stage(head, schema.Fusion()), given)) == heard


def test_a_threshold_in_the_config_goes_before_that_of_the_head() -> None:
    assert told(stage(Loud(), schema.Fusion(threshold=0.95)), records([10])) == []
    head = Loud()
    head.threshold = 0.95
    assert seconds(told(stage(head, schema.Fusion(threshold=0.85)), records([10]))) == [10]


def test_the_severity_of_what_it_finds_is_that_of_the_config() -> None:
    (found,) = told(stage(Loud(), schema.Fusion(severity="low")), records([10]))
    assert (found.rule, found.severity) == ("learned", "low")


def test_another_head_judges_from_the_next_window_on() -> None:
    found = learned(told(stage(Loud()), records([8, 20]), {14: {"office": Sure()}}))
    assert [(a.head, a.score) for a in found] == [("loud 1", 0.9), ("sure 1", 0.99)]
    assert seconds(found) == [8, 20]


def test_an_anomaly_names_the_head_that_answered_also_when_a_swap_comes_amid_its_answer() -> None:
    class Swapped(Loud):
        def __call__(self, batch: Sequence[HeadQuery]) -> list[Verdict]:
            judging.swap({"office": Sure()})
            return super().__call__(batch)

    judging = stage(Swapped())
    given = records(range(0, 30))
    found, *_ = learned(told(judging, given))
    assert (found.head, found.score) == ("loud 1", 0.9)


def test_without_a_head_any_more_the_rules_judge_alone() -> None:
    given = records([8, 20], person=range(16, 19))
    found = told(stage(Loud()), given, {14: {}})
    assert seconds(learned(found)) == [8]
    assert {a.head for a in found if a.start > ns(1_015)} == {RULES_HEAD}


def test_a_head_that_comes_later_judges_from_then_on() -> None:
    assert seconds(learned(told(stage(), records([8, 20]), {14: {"office": Loud()}}))) == [20]


def test_for_a_head_that_comes_again_everything_is_new() -> None:
    found = told(stage(Loud()), records([10]), {11.5: {}, 12.5: {"office": Loud()}})
    assert seconds(found) == [10, 12]


def test_a_site_without_a_head_is_as_before() -> None:
    plan = site_plan(SITE, FakeText(), recorded=True)
    both = FusionStage({"office": plan, "yard": plan}, {"yard": Sure()})
    given = records([10], person=range(3, 9))
    assert told(both, given) == told(stage(), given)


@pytest.mark.parametrize("cut", [60, 150, 250])
def test_a_restart_tells_the_same(cut: int) -> None:
    given = records([5, 6, 10, 17], person=range(3, 9))
    whole = told(stage(Loud()), given)
    host = Host(stage(Loud()), Assigned(0, 0, b""))
    first = [o for offset, r in enumerate(given[:cut]) for o in host.feed(offset, r, None)]
    safe, note = host.safe, host.note
    host = Host(stage(Loud()), Assigned(0, safe, note))
    rest = [o for offset, r in enumerate(given[safe:], safe) for o in host.feed(offset, r, None)]
    assert [o for o in (*first, *rest) if isinstance(o, Anomaly)] == whole


def test_what_is_learned_from_is_what_the_daemon_sees(
    config: Path, scene: Callable[..., Path]
) -> None:
    settings = loader.load(config)
    path = scene(person=(3, 6), loud=(8, 9), spoken=(12, 14))
    training, daemon = RecordingHead(), RecordingHead()
    replay(settings, path, FAKES, study=ReplayOptions(heads={"office": training}))
    run_edge(config, path)
    log = between(config.parent / "state" / "log", topics.OBSERVATIONS, 0, FOREVER)
    rejudge(settings, FAKES, log, 0, FOREVER, heads={"office": daemon})
    assert len(training.asked) == len(daemon.asked) > 15
    for (one, ours), (other, theirs) in zip(training.asked, daemon.asked, strict=True):
        assert (one.start, one.end) == (other.start, other.end)
        assert ours.states == theirs.states
        assert ours.vectors.keys() == theirs.vectors.keys()
        for modality, vector in ours.vectors.items():
            assert np.array_equal(vector, theirs.vectors[modality]), modality
