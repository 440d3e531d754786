"""What alerts are worth against the truth, and which settings no other beats."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.types import FOREVER, SYSTEM, ns
from tests import make
from workers.tuning.outcomes import (
    Case,
    Event,
    Found,
    Outcome,
    Revision,
    Truth,
    found_in,
    measured,
    unbeaten,
)
from workers.tuning.sweep import Tried
from workers.tuning.sweep_command import short_names
from workers.tuning.trade_off import draw


def found(
    start: float, end: float, *told: float, labels: tuple[str, ...] = ("intrusion",)
) -> Found:
    """An incident with revisions at `told`; times in s."""
    revisions = tuple(Revision(ns(time), labels) for time in told or (start,))
    return Found(site="office", start=ns(start), end=ns(end), labels=labels, revisions=revisions)


def event(start: float, end: float, label: str = "intrusion", site: str = "office") -> Event:
    return Event(site, ns(start), ns(end), label)


def case(*events: Event, hours: float = 1, wrong: tuple[Event, ...] | None = None) -> Case:
    truth = Truth(events=events, wrong=wrong)
    return Case(name="scene", length=ns(hours * 3600), truth=truth)


def test_recall_false_alerts_and_the_time_to_an_alert() -> None:
    told = [found(12, 20, 13), found(100, 110), found(200, 210)]
    one = measured([(case(event(10, 20), event(50, 60), hours=0.5), told)])
    assert (one.events, one.found, one.false, one.incidents) == (2, 1, 2, 3)
    assert (one.recall, one.false_an_hour, one.alert_after_s) == (0.5, 4.0, 3.0)


def test_several_cases_are_one_measurement_and_those_without_truth_count_incidents_alone() -> None:
    quiet = case(hours=3)
    unknown = Case(name="log", length=ns(36_000))
    one = measured(
        [(case(event(10, 20)), [found(10, 15)]), (quiet, [found(5, 6)]), (unknown, [found(1, 2)])]
    )
    assert (one.recall, one.false_an_hour, one.hours, one.incidents) == (1.0, 0.25, 4.0, 3)


def test_an_event_within_a_second_of_an_incident_is_found() -> None:
    assert measured([(case(event(10, 20)), [found(20.9, 25)])]).found == 1
    assert measured([(case(event(10, 20)), [found(21.1, 25)])]).found == 0
    other = case(event(10, 20, site="shop"))
    assert measured([(other, [found(10, 20)])]).found == 0


def test_an_incident_that_was_open_before_tells_of_an_event_by_its_next_revision() -> None:
    assert measured([(case(event(50, 60)), [found(10, 70, 11, 52)])]).alert_after_s == 2.0
    assert measured([(case(event(50, 60)), [found(10, 70, 11)])]).alert_after_s == 0.0


def test_with_a_label_its_events_and_incidents_alone_count() -> None:
    both = found(10, 30, 11, labels=("glass", "intrusion"))
    told = [both, found(100, 110)]
    truth = case(event(10, 12, "glass"), event(20, 30))
    one = measured([(truth, told)], "glass")
    assert (one.events, one.found, one.incidents, one.false) == (1, 1, 1, 0)
    assert measured([(truth, told)], "intrusion").false == 1


def test_of_reviewed_alerts_only_the_wrong_ones_are_false() -> None:
    truth = case(event(10, 20), wrong=(event(100, 110),))
    one = measured([(truth, [found(10, 20), found(100, 105), found(200, 210)])])
    assert (one.recall, one.false, one.unreviewed) == (1.0, 1, 1)


def test_without_truth_nothing_is_known_and_nothing_is_best() -> None:
    one = measured([(Case(name="log", length=ns(60)), [found(1, 2)])])
    assert (one.recall, one.false_an_hour, one.rank, one.incidents) == (None, None, None, 1)
    assert unbeaten([one, one]) == [False, False]


def test_incidents_about_fusewatch_itself_do_not_count_and_what_closes_tells_nothing() -> None:
    alerts = [
        make.alert(id="a", time=ns(11), start=ns(10)),
        make.alert(id="a", revision=1, state="closed", time=ns(40), start=ns(10), end=ns(20)),
        make.alert(id="b", rules=(SYSTEM,)),
        make.alert(id="c", start=ns(50), time=ns(51)),
    ]
    first, second = found_in(alerts)
    assert (first.end, [each.time for each in first.revisions]) == (ns(20), [ns(11)])
    assert second.end == FOREVER


def outcome(recall: float | None, false: float | None, after: float | None = 1.0) -> Outcome:
    return Outcome(
        incidents=1,
        events=10,
        found=0,
        false=0,
        unreviewed=0,
        hours=1,
        recall=recall,
        false_an_hour=false,
        alert_after_s=after,
        alert_after_p95_s=after,
    )


def test_a_setting_is_beaten_by_one_that_is_better_in_one_figure_and_as_good_in_the_others() -> (
    None
):
    outcomes = [
        outcome(1.0, 5.0),  # beaten by the next one
        outcome(1.0, 4.0),
        outcome(0.9, 1.0),
        outcome(0.9, 1.0),  # equal: neither beats the other
        outcome(0.8, 1.0, 0.5),  # sooner
        outcome(0.0, 1.0, None),  # finds nothing
    ]
    assert unbeaten(outcomes) == [False, True, True, True, True, False]


@given(
    st.lists(
        st.builds(
            outcome,
            st.sampled_from([0.0, 0.5, 1.0]),
            st.sampled_from([0.0, 1.0, 2.0]),
            st.sampled_from([None, 1.0, 2.0]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_some_setting_is_never_beaten_and_every_other_is_beaten_by_one_of_those(
    outcomes: list[Outcome],
) -> None:
    best = unbeaten(outcomes)
    assert any(best)
    front = [one.rank for one, good in zip(outcomes, best, strict=True) if good]
    for one, good in zip(outcomes, best, strict=True):
        rank = one.rank
        assert rank is not None
        beaten = [
            r
            for r in front
            if r and r != rank and all(a <= b for a, b in zip(r, rank, strict=True))
        ]
        assert bool(beaten) != good


def tried(recall: float | None, false: float | None, value: object, **more: bool) -> Tried:
    marks = {"unbeaten": False, "as_now": False} | more
    return Tried(
        values={"sites.office.rules.z.min_score": value}, outcome=outcome(recall, false), **marks
    )


def circles_of(svg: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)  # noqa: S314, it is ours
    return list(root.iter("{http://www.w3.org/2000/svg}circle"))


def test_the_picture_is_svg_with_a_point_for_each_setting_and_always_the_same() -> None:
    runs = [
        tried(1.0, 4.0, 0.3, unbeaten=True),
        tried(0.8, 0.5, 0.5, unbeaten=True, as_now=True),
        tried(0.7, 6.0, "<b>&"),
    ]
    svg = draw(runs)
    circles = circles_of(svg)
    assert len(circles) == len(runs) + 1  # and a ring
    assert len(circles_of(draw([*runs, *runs]))) == len(circles)  # the same place
    assert "&lt;b&gt;&amp; (1.0 s)</text>" in svg
    assert draw(runs) == svg


@pytest.mark.parametrize("most", [0.0, 0.013, 1.0, 7.3, 999.0, 123_456.0])
def test_every_point_lies_within_the_picture(most: float) -> None:
    runs = [tried(0.0, most, 1), tried(1.0, 0.0, 2), *(tried(0.5, most, n) for n in range(40))]
    for circle in circles_of(draw(runs)):
        assert 0 <= float(circle.attrib["cx"]) <= 720
        assert 0 <= float(circle.attrib["cy"]) <= 460


def test_a_picture_without_truth_is_refused() -> None:
    with pytest.raises(ConfigError, match="the inputs have no truth"):
        draw([tried(None, None, 1)])


def test_columns_are_named_by_what_tells_the_settings_apart() -> None:
    paths = ["sites.office.rules.zone-floor.min_score", "sites.office.rules.sound.labels.glass"]
    assert short_names(paths) == ["zone-floor.min_score", "sound.labels.glass"]
    assert short_names(paths[:1]) == ["zone-floor.min_score"]
    assert short_names(["sites.a.fusion.threshold", "sites.b.fusion.threshold"]) == [
        "a.fusion.threshold",
        "b.fusion.threshold",
    ]
