"""A learned head in the fusion stage: it adds to the rules, is told once, and can be changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from models.fake import FakeText
from models.fusion.noisy_or import Verdict
from models.fusion.question import Question
from pipeline import topics
from pipeline.bus.log import between
from pipeline.host import Host
from pipeline.ports import Assigned
from pipeline.types import FOREVER, SECOND, Anomaly, Record, ns
from tests.graph.conftest import FAKES, run_edge
from tests.graph.test_fusion_stage import SITE, timeline
from workers import configfile, graph
from workers.examples import Notes
from workers.fusion import RULES, FusionStage
from workers.rejudge import rejudge
from workers.replay import Study, replay


class Loud:
    """Finds what is loud: -20 dBFS or more in any second of the window."""

    version, threshold = "loud 1", 0.5

    def __call__(self, batch: Sequence[Question]) -> list[Verdict]:
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
    from msgspec.structs import replace

    from pipeline.types import Sound, event_start

    lines = timeline(30, **more)
    seconds = {ns(1_000 + at) for at in loud}
    lines["room"] = [
        replace(r, loudness_db=-10.0) if isinstance(r, Sound) and r.start in seconds else r
        for r in lines["room"]
    ]
    return sorted((r for line in lines.values() for r in line), key=event_start)


def told(stage: FusionStage, given: Sequence[Record], note: bytes = b"") -> list[Anomaly]:
    host = Host(stage, Assigned(0, 0, note))
    made = [out for offset, r in enumerate(given) for out in host.feed(offset, r, None)]
    return [out for out in made if isinstance(out, Anomaly)]


def stage(head: object = None) -> FusionStage:
    plan = graph.site_plan(SITE, FakeText(), recorded=True)
    return FusionStage({"office": plan}, {} if head is None else {"office": head})  # type: ignore[dict-item]


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


def test_where_a_rule_has_named_what_happens_the_head_adopts_its_name() -> None:
    found = learned(told(stage(Loud()), records([14], shots=[14])))
    assert {(a.label, a.severity) for a in found} == {("gunshot", "critical")}


def test_every_anomaly_says_who_judges() -> None:
    given = records([10], person=range(3, 9))
    assert {a.head for a in told(stage(Loud()), given)} == {"loud 1"}
    assert {a.head for a in told(stage(), given)} == {RULES}


def test_another_head_judges_from_the_next_window_on() -> None:
    made = stage(Loud())
    host = Host(made, Assigned(0, 0, b""))
    given = records([8, 20])
    found = []
    for offset, record in enumerate(given):
        if offset == len(given) // 2:
            made.swap({})
        found += [o for o in host.feed(offset, record, None) if isinstance(o, Anomaly)]
    assert [a.start // SECOND - 1_000 for a in learned(found)] == [8]


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
    settings = configfile.load(config)
    path = scene(person=(3, 6), loud=(8, 9), spoken=(12, 14))
    training, daemon = Notes(), Notes()
    replay(settings, path, FAKES, study=Study(heads={"office": training}))
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
