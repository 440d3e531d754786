"""What an incident found: the fold does not depend on order, and only telling cuts."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge import findings
from pipeline.judge.findings import Text
from pipeline.types import SECOND, Anomaly, Finding

START = 1_767_650_400 * SECOND
BOXES = [None, (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.5), (0.6, 0.2, 0.7, 0.4)]


def anomaly(at: float = 0, **given: object) -> Anomaly:
    start = START + round(at * SECOND)
    made = Anomaly(
        site="office",
        source="desk",
        id="a",
        start=start,
        end=start + SECOND,
        rule="zone-floor",
        label="intrusion",
        severity="high",
        score=0.9,
        kind="object",
        zone="floor",
        object="person",
        what="person in zone floor (camera desk)",
    )
    return msgspec.structs.replace(made, **given)


def folded(*anomalies: Anomaly) -> tuple[Finding, ...]:
    whole: dict[findings.Key, findings.FoldedFinding] = {}
    for one in anomalies:
        whole = findings.union(whole, findings.finding_of(one))
    return findings.told(whole)


def test_one_thing_is_one_finding_with_its_first_and_last_time_and_its_count() -> None:
    (found,) = folded(anomaly(5), anomaly(2), anomaly(9))
    assert (found.start, found.end, found.count) == (START + 2 * SECOND, START + 10 * SECOND, 3)
    assert (found.zone, found.line, found.object) == ("floor", "", "person")


@pytest.mark.parametrize(
    "other",
    [
        {"source": "door"},
        {"kind": "learned"},
        {"label": "loitering"},
        {"zone": "yard"},
        {"zone": "", "line": "gate"},
        {"object": "dog"},
    ],
)
def test_what_differs_in_a_name_is_a_finding_of_its_own(other: dict[str, str]) -> None:
    assert len(folded(anomaly(), anomaly(1, **other))) == 2


def test_another_rule_and_another_severity_are_the_same_finding() -> None:
    assert len(folded(anomaly(), anomaly(1, rule="zone-2", severity="low"))) == 1


def test_the_box_and_time_are_those_of_the_highest_score_first_the_earliest_then_the_least() -> (
    None
):
    (found,) = folded(
        anomaly(1, score=0.5, box=BOXES[1]),
        anomaly(4, score=0.8, box=BOXES[1]),
        anomaly(3, score=0.8, box=BOXES[3]),
        anomaly(3, score=0.8, box=BOXES[2]),
    )
    assert (found.score, found.at, found.box) == (0.8, START + 3 * SECOND, BOXES[2])


def test_the_gravest_then_the_surest_then_the_newest_thirty_two_are_told() -> None:
    many = [anomaly(n, label=f"low-{n}", severity="low", score=0.99) for n in range(40)]
    grave = anomaly(1, label="grave", severity="critical", score=0.2)
    sure = [anomaly(n, label=f"high-{n}", score=0.5 + n / 100) for n in range(5)]
    told = folded(*many, *sure, grave)
    assert len(told) == findings.MOST_FINDINGS == 32
    assert [f.label for f in told[:6]] == ["grave", *(f"high-{n}" for n in (4, 3, 2, 1, 0))]
    assert [f.label for f in told[6:]] == [f"low-{n}" for n in range(39, 13, -1)]


def test_a_finding_of_an_older_version_has_the_kind_of_its_modality() -> None:
    old = anomaly(kind="", what="", zone="", object="", reasons=("00:00:00Z glass heard",))
    kinds = {
        findings.kind_of(msgspec.structs.replace(old, contributions=shares, rule=rule))
        for shares, rule in (
            ({"vision": 1.0}, "zone"),
            ({"sound": 1.0}, "sound"),
            ({"vision": 0.4, "sound": 0.6}, "fusion"),
            ({}, "system"),
        )
    }
    assert kinds == {"object", "sound", "learned", "system"}
    assert findings.reason_of(old) == "00:00:00Z glass heard"
    assert findings.reason_of(anomaly(kind="", what="")) == "22:00:00Z intrusion"


def test_a_reason_is_short_however_many_words_a_report_holds() -> None:
    reason = findings.reason_of(anomaly(what="fire, " * 3000 + "reported by guard-1"))
    assert len(reason) == len("22:00:00Z ") + findings.MAX_REASON
    assert reason.endswith("…")


ANOMALIES = st.builds(
    anomaly,
    st.integers(0, 8),
    source=st.sampled_from(["desk", "door"]),
    label=st.sampled_from(["intrusion", "loitering"]),
    severity=st.sampled_from(["low", "critical"]),
    score=st.sampled_from([0.5, 0.9]),
    box=st.sampled_from(BOXES),
    what=st.sampled_from(["one", "two"]),
)


@given(st.lists(ANOMALIES, max_size=12), st.randoms(), st.integers(0, 12))
def test_findings_do_not_depend_on_order_or_grouping(
    anomalies: list[Anomaly], chance: random.Random, cut: int
) -> None:
    def fold(items: list[Anomaly]) -> dict[findings.Key, findings.FoldedFinding]:
        whole: dict[findings.Key, findings.FoldedFinding] = {}
        for one in items:
            whole = findings.union(whole, findings.finding_of(one))
        return whole

    shuffled = list(anomalies)
    chance.shuffle(shuffled)
    parts = findings.union(fold(shuffled[cut:]), fold(shuffled[:cut]))
    assert fold(anomalies) == fold(shuffled) == parts
    assert findings.told(fold(anomalies)) == findings.told(parts)
    assert sum(f.count for f in findings.told(parts)) == len(anomalies)


TEXTS = st.frozensets(st.tuples(st.integers(0, 60), st.sampled_from("abc")), max_size=60)


@given(st.lists(TEXTS, max_size=6), st.randoms())
def test_the_ends_of_texts_do_not_depend_on_order(
    parts: list[frozenset[Text]], chance: random.Random
) -> None:
    everything = findings.ends(frozenset().union(*parts))
    chance.shuffle(parts)
    kept: frozenset[Text] = frozenset()
    for part in parts:
        kept = findings.ends(kept | part)
    assert kept == everything


def test_of_many_texts_the_first_eight_and_the_newest_twelve_are_kept() -> None:
    kept = sorted(findings.ends((n, f"line {n}") for n in range(100)))
    assert [n for n, _ in kept] == [*range(8), *range(88, 100)]
