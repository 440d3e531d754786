"""How two runs differ: what is added, gone, changed, split and merged, and what may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.types import Alert, Finding, ns
from tests import make
from workers.replay.diff import Diff, diff, incidents, of_alert
from workers.replay.diff_fields import Allowance

EXACT = Allowance()


def incident(
    id_: str = "a",
    start: float = 10,
    end: float | None = 20,
    *,
    labels: tuple[str, ...] = ("intrusion",),
    **given_: Any,
) -> list[Alert]:
    """An opened revision and, with an `end`, a closed one; times in s."""
    shared = {"id": id_, "start": ns(start), "labels": labels, "label": labels[0]} | given_
    opened = make.alert(revision=0, state="opened", time=ns(start + 1), end=None, **shared)
    if end is None:
        return [opened]
    closed = make.alert(revision=1, state="closed", time=ns(end + 10), end=ns(end), **shared)
    return [opened, closed]


def compare(before: Sequence[Alert], after: Sequence[Alert], allowed: Allowance = EXACT) -> Diff:
    return diff(incidents(map(of_alert, before)), incidents(map(of_alert, after)), allowed)


def whats(found: Diff) -> list[str]:
    return [each.what for each in found.differences]


def changes(found: Diff) -> list[tuple[str, object, object]]:
    (one,) = found.differences
    return [(change.field, change.before, change.after) for change in one.changes]


def test_a_run_does_not_differ_from_itself() -> None:
    run = [*incident("a"), *incident("b", 30, None)]
    found = compare(run, run)
    assert (found.before, found.after, found.differences) == (2, 2, ())


def test_an_incident_of_one_run_alone_is_added_or_gone() -> None:
    one, other = incident("a"), incident("b", 100, 110)
    assert whats(compare(one, [*one, *other])) == ["added"]
    assert whats(compare([*one, *other], one)) == ["gone"]


def test_a_changed_field_has_both_values() -> None:
    found = compare(incident(severity="high"), incident(severity="low"))
    assert whats(found) == ["changed"]
    assert changes(found) == [("severity", "high", "low")]


def test_an_incident_with_another_id_is_matched_by_site_label_and_time() -> None:
    found = compare(incident("a", 10, 20), incident("b", 12, 20))
    assert whats(found) == ["changed"]
    assert ("alert_id", "a", "b") in changes(found)
    other = incident("b", 12, 20, labels=("fire",))
    assert whats(compare(incident("a", 10, 20), other)) == ["gone", "added"]
    assert whats(compare(incident("a", 10, 20), incident("b", 20, 30))) == ["gone", "added"]
    assert sorted(whats(compare(incident("a"), incident("b", site="shop")))) == ["added", "gone"]


def test_one_incident_that_became_two_was_split_and_two_that_became_one_were_merged() -> None:
    whole, parts = incident("a", 10, 40), [*incident("a", 10, 20), *incident("b", 25, 40)]
    found = compare(whole, parts)
    assert whats(found) == ["split"]
    (one,) = found.differences
    assert [[each.id for each in side] for side in (one.before, one.after)] == [["a"], ["a", "b"]]
    assert "end" in {change.field for change in one.changes}
    assert whats(compare(parts, whole)) == ["merged"]


def test_a_new_incident_of_another_group_is_no_part_of_a_split() -> None:
    desk = incident("a", 10, 40, group="desk")
    hall = incident("b", 12, 30, group="hall")
    assert whats(compare(desk, [*desk, *hall])) == ["added"]
    assert whats(compare(incident("a", 10, 40), [*desk, *hall])) == ["split"]


def test_an_earlier_revision_that_differs_alone_is_named_with_its_number() -> None:
    was, now = incident(severity="high"), incident(severity="high")
    now[0] = msgspec.structs.replace(now[0], severity="low")
    (one,) = compare(was, now).differences
    assert [(c.field, c.revision, c.after) for c in one.changes] == [("severity", 0, "low")]
    assert not compare(was, now, Allowance.of(["revisions"], 0, 0)).differences


def test_more_revisions_are_a_difference() -> None:
    was, now = incident(), incident()
    middle = make.alert(id="a", revision=1, state="updated", time=ns(15), start=ns(10), end=None)
    now = [now[0], middle, msgspec.structs.replace(now[1], revision=2)]
    assert ("revision", 1, 2) in changes(compare(was, now))


def test_revisions_that_are_no_longer_stored_are_not_compared() -> None:
    run = incident()
    assert not compare(run, run[1:]).differences
    assert not compare(run[1:], run).differences


def test_an_incident_of_a_failed_stage_is_listed_and_is_no_difference() -> None:
    failed = incident("f", 50, 60, labels=("stage-failed",), rules=("system",))
    found = compare([*incident(), *failed], incident())
    assert not found.differences
    assert [one.id for one in found.stage_failed_before] == ["f"]
    assert found.stage_failed_after == ()


def finding(score: float = 0.8, **given_: Any) -> Finding:
    seconds = {"start": ns(10), "end": ns(12), "at": ns(11)}
    told = {"source": "desk", "kind": "object", "label": "intrusion", "zone": "floor", "count": 3}
    return Finding(**(seconds | told | {"score": score} | given_))


def test_findings_are_compared_one_by_one() -> None:
    sound = finding(0.7, source="room", kind="sound", label="glass", zone="")
    was = incident(findings=(finding(0.8), sound))
    now = incident(findings=(finding(0.81), sound))
    assert changes(compare(was, now)) == [
        ("findings[desk object intrusion floor].score", 0.8, 0.81)
    ]
    gone = changes(compare(was, incident(findings=(finding(0.8),))))
    assert [(field, after) for field, _, after in gone] == [("findings[room sound glass]", None)]
    turned = incident(findings=(sound, finding(0.8)))
    assert [field for field, _, _ in changes(compare(was, turned))] == ["findings"]


def test_scores_may_differ_by_a_tolerance_or_be_ignored() -> None:
    was = incident(score=0.8, findings=(finding(0.8),), contributions={"vision": 0.6, "sound": 0.4})
    now = incident(score=0.81, findings=(finding(0.81),), contributions={"vision": 0.61})
    now = [
        msgspec.structs.replace(one, contributions={"vision": 0.61, "sound": 0.39}) for one in now
    ]
    assert compare(was, now).differences
    assert compare(was, now, Allowance(score=0.005)).differences
    assert not compare(was, now, Allowance(score=0.01)).differences
    assert not compare(was, now, Allowance.of(["scores"], 0, 0)).differences


def test_times_may_differ_by_a_tolerance_in_reasons_too() -> None:
    was = incident("a", 10, 20, reasons=("00:00:10Z person in zone floor (camera desk)",))
    now = incident("a", 10.4, 20.4, reasons=("00:00:11Z person in zone floor (camera desk)",))
    assert compare(was, now).differences
    assert compare(was, now, Allowance(seconds=0.3)).differences
    assert not compare(was, now, Allowance(seconds=0.4)).differences
    assert not compare(was, now, Allowance.of(["times"], 0, 0)).differences
    other = incident("a", 10.4, 20.4, reasons=("00:00:11Z person in zone door (camera desk)",))
    assert [field for field, _, _ in changes(compare(was, other, Allowance(seconds=1)))] == [
        "reasons"
    ]


def test_evidence_is_compared_without_the_id_and_revision_in_its_name() -> None:
    def shown(id_: str) -> list[Alert]:
        return [
            msgspec.structs.replace(one, evidence=(f"office/{id_}_{one.revision}_desk.jpg",))
            for one in incident(id_)
        ]

    assert [field for field, _, _ in changes(compare(shown("a"), shown("b")))] == ["alert_id"]
    assert "evidence" in [field for field, _, _ in changes(compare(shown("a"), incident("b")))]


def test_a_field_that_one_version_alone_has_is_not_compared() -> None:
    documents = list(map(of_alert, incident()))
    older = [{k: v for k, v in each.items() if k not in ("modes", "group")} for each in documents]
    assert not diff(incidents(documents), incidents(older)).differences
    assert not diff(incidents(older), incidents(documents)).differences


ALIKE = "alert_id", "revision", "site"  # these say which revision it is


@pytest.mark.parametrize("name", sorted({*of_alert(make.alert())} - {*ALIKE}))
def test_no_field_is_left_out(name: str) -> None:
    """What is of no field is not compared: a new field of the document must be."""
    before = [dict(of_alert(one)) for one in incident(findings=(finding(),))]
    after = [dict(each) for each in before]
    match after[-1][name]:
        case str() as text:
            after[-1][name] = text.replace("0", "1") if text[:1].isdigit() else f"{text}x"
        case [] | None:
            after[-1][name] = ["new"] if name != "findings" else after[-1][name]
        case [dict() as first, *rest]:
            after[-1][name] = [first | {"count": 99}, *rest]
        case list() as values:
            after[-1][name] = [*values, "new"]
        case dict() as values:
            after[-1][name] = values | {"new": 0.5}
        case float() as number:
            after[-1][name] = number / 2
    assert after != before
    (one,) = diff(incidents(before), incidents(after)).differences
    assert {change.field.partition("[")[0] for change in one.changes} == {name}


@pytest.mark.parametrize(
    ("ignore", "score", "seconds", "said"),
    [
        (["score,resons"], 0.0, 0.0, "--ignore 'resons': is no field of an alert; did you mean"),
        (["findings.kind"], 0.0, 0.0, "--ignore 'findings.kind': is no field"),
        ([], -1.0, 0.0, "--score-tolerance -1: must be 0 or more"),
        ([], 0.0, float("nan"), "--time-tolerance nan: must be 0 or more"),
    ],
)
def test_an_allowance_that_makes_no_sense_is_refused(
    ignore: list[str], score: float, seconds: float, said: str
) -> None:
    with pytest.raises(ConfigError, match="^" + said.replace("'", ".").split(";")[0]):
        Allowance.of(ignore, score, seconds)


times = st.integers(0, 40)


@st.composite
def runs(draw: st.DrawFn) -> list[Alert]:
    """Some incidents of two sites, which may overlap."""
    run: list[Alert] = []
    for id_ in draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)):
        start = draw(times)
        run += incident(
            id_,
            start,
            draw(st.none() | st.integers(start, 60)),
            labels=draw(st.sampled_from([("glass",), ("intrusion",), ("glass", "intrusion")])),
            site=draw(st.sampled_from(["office", "shop"])),
            group=draw(st.sampled_from(["", "desk", "hall"])),
            severity=draw(st.sampled_from(["low", "high"])),
            score=draw(st.sampled_from([0.5, 0.6])),
        )
    return run


OPPOSITE = {
    "added": "gone",
    "gone": "added",
    "split": "merged",
    "merged": "split",
    "changed": "changed",
    "regrouped": "regrouped",
}


@given(runs(), st.sampled_from([EXACT, Allowance(score=0.2, seconds=3)]))
def test_any_run_equals_itself(run: list[Alert], allowed: Allowance) -> None:
    assert not compare(run, run, allowed).differences


@given(runs(), runs())
def test_the_other_way_round_all_differences_are_the_opposite(
    one: list[Alert], other: list[Alert]
) -> None:
    there, back = compare(one, other), compare(other, one)
    turned = [
        (
            OPPOSITE[each.what],
            each.after,
            each.before,
            {(c.field, c.revision) for c in each.changes},
        )
        for each in there.differences
    ]
    found = [
        (each.what, each.before, each.after, {(c.field, c.revision) for c in each.changes})
        for each in back.differences
    ]
    assert sorted(turned, key=repr) == sorted(found, key=repr)


@given(runs(), runs())
def test_every_incident_is_told_once_or_is_the_same(one: list[Alert], other: list[Alert]) -> None:
    found = compare(one, other)
    for side, run in (("before", one), ("after", other)):
        told = [
            (named.site, named.id) for each in found.differences for named in getattr(each, side)
        ]
        assert len(told) == len(set(told))
        assert set(told) <= {(alert.site, alert.id) for alert in run}


@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(run: list[Alert], chance: Any) -> None:
    mixed = run.copy()
    chance.shuffle(mixed)
    assert not compare(run, mixed).differences
