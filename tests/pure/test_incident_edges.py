"""What an alert says when there is more than one answer, and incidents that just touch."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.config import schema
from pipeline.judge.incident import IncidentFold, Timing
from pipeline.types import SECOND, Alert, Anomaly, Presence, ns
from tests.make import anomaly
from workers.delivery.snapshots import evidence_names
from workers.stages.alert import SiteIncidents
from workers.stages.site_plan import site_incidents

TIMING = Timing(close_after=10 * SECOND, max_duration=60 * SECOND)


def incidents() -> IncidentFold:
    return IncidentFold(
        TIMING, lambda site, group, id_, rev: evidence_names(site, id_, rev, ("desk",))
    )


def test_a_closing_alert_names_the_pictures_of_its_opening() -> None:
    """Pictures are cut at each revision but the closing one: another name is of no file."""
    fold = incidents()
    (opened,) = fold.on(anomaly(100, "glass"))
    (updated,) = fold.on(anomaly(101, "gunshot"))
    (closed,) = fold.advance(ns(120))
    assert opened.evidence == (f"office/{opened.id}_0_desk.jpg",)
    assert updated.evidence == (f"office/{opened.id}_1_desk.jpg",)
    assert (closed.revision, closed.evidence) == (2, opened.evidence)


GLASS = anomaly(100, "glass", score=0.6)
SURER = anomaly(101, "gunshot", score=0.9)
GRAVER = anomaly(102, "siren", score=0.5, severity="critical")
AS_SURE = anomaly(103, "explosion", score=0.9)
LOW = anomaly(100, "glass", score=0.6, severity="low")
SURER_LOW = anomaly(101, "gunshot", score=0.9, severity="low")


@pytest.mark.parametrize(
    ("anomalies", "label"),
    [
        ([GLASS, SURER], "gunshot"),
        ([SURER, GLASS], "gunshot"),
        ([GLASS, SURER, GRAVER], "siren"),
        ([GLASS, SURER, AS_SURE], "explosion"),
        ([LOW, SURER_LOW], "gunshot"),
    ],
    ids=["the-surest-last", "the-surest-first", "the-gravest", "equals-by-name", "all-low"],
)
def test_an_alert_is_called_by_its_gravest_then_surest_label_then_by_name(
    anomalies: list[Anomaly], label: str
) -> None:
    fold = incidents()
    for one in anomalies:
        fold.on(one)
    (closed,) = fold.advance(ns(9999))
    assert closed.label == label


def with_(one: Anomaly, **given: object) -> Anomaly:
    return msgspec.structs.replace(one, **given)


def last(*anomalies: Anomaly) -> Alert:
    """The closing revision of these."""
    fold = incidents()
    for one in anomalies:
        fold.on(one)
    return fold.advance(ns(10_000))[-1]


def test_contributions_are_shares_of_a_noisy_or_and_sum_to_one() -> None:
    """1 - 0.9 is (1 - 0.6838)^2: sound carries twice as much as speech."""
    sound = with_(anomaly(100, score=0.9), contributions={"sound": 1.0})
    speech = with_(anomaly(101, "cry", score=0.6838), contributions={"speech": 1.0})
    assert last(sound, speech).contributions == {"sound": 0.667, "speech": 0.333}


def test_the_strongest_evidence_of_a_modality_counts_and_certainty_has_a_bound() -> None:
    """0.999 is (1 - 0.001); three times ten to the minus one."""
    weak = with_(anomaly(100, score=0.2), contributions={"sound": 1.0})
    sure = with_(anomaly(101, score=1.0), contributions={"sound": 1.0})
    speech = with_(anomaly(102, score=0.9), contributions={"speech": 1.0})
    assert last(weak, sure, speech).contributions == {"sound": 0.75, "speech": 0.25}


def test_a_share_of_an_anomalys_score_is_the_evidence_of_its_modality() -> None:
    both = with_(anomaly(100, score=0.8), contributions={"sound": 0.75, "speech": 0.25})
    told = last(both).contributions  # 0.6 and 0.2 of evidence
    assert told == {"sound": 0.804, "speech": 0.196}


def test_what_says_nothing_of_modalities_has_no_contributions() -> None:
    assert last(with_(anomaly(100), contributions={})).contributions == {}
    assert last(with_(anomaly(100, score=0.0))).contributions == {}


def test_an_alert_has_the_first_eight_and_the_newest_twelve_reasons_and_lines() -> None:
    said = [
        with_(anomaly(100 + n, text=f"line {n}"), reasons=(f"reason {n}",), id=str(n))
        for n in range(30)
    ]
    closed = last(*reversed(said[:9]), *said[9:])
    kept = [*range(8), *range(18, 30)]
    assert closed.transcript == tuple(f"line {n}" for n in kept)
    assert closed.reasons == tuple(f"reason {n}" for n in kept)


def test_an_alert_has_each_reason_once() -> None:
    closed = last(
        *(with_(anomaly(100 + n), reasons=(f"reason {n // 2}",), id=str(n)) for n in range(8))
    )
    assert closed.reasons == tuple(f"reason {n}" for n in range(4))


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (("silent", "present"), "present"),
        (("present", "silent"), "present"),
        (("present", "lost"), "lost"),
        (("lost", "silent"), "lost"),
    ],
)
def test_of_a_source_the_more_telling_state_is_told(states: tuple[str, str], told: str) -> None:
    one, other = ({"desk": Presence(state)} for state in states)
    closed = last(with_(anomaly(100), presence=one), with_(anomaly(101, "cry"), presence=other))
    assert closed.presence == {"desk": Presence(told)}


# -- what belongs together


@pytest.mark.parametrize(("gap", "incidents_"), [(9.999, 1), (10.0, 2)])
def test_anomalies_less_than_the_gap_apart_are_one_incident(gap: float, incidents_: int) -> None:
    fold = incidents()
    told = fold.on(anomaly(100)) + fold.on(anomaly(101 + gap, "cry")) + fold.advance(ns(9999))
    assert len({alert.id for alert in told}) == incidents_


@pytest.mark.parametrize(("after", "incidents_"), [(59.999, 1), (60.0, 2)])
def test_an_incident_takes_what_starts_before_its_longest_duration(
    after: float, incidents_: int
) -> None:
    fold = incidents()
    told = fold.on(anomaly(100, seconds=100)) + fold.on(anomaly(100 + after, "cry"))
    told += fold.advance(ns(9999))
    assert len({alert.id for alert in told}) == incidents_


@pytest.mark.parametrize(("start", "told"), [(99.999, 0), (100.0, 1)])
def test_what_starts_before_the_floor_of_a_restart_is_closed_already(
    start: float, told: int
) -> None:
    fold = IncidentFold(TIMING, lambda site, group, id_, revision: (), floor=ns(100))
    assert len(fold.on(anomaly(start))) == told


def test_what_is_needed_is_the_earliest_start_of_what_is_open_or_waits() -> None:
    fold = incidents()
    assert fold.needs is None
    fold.on(anomaly(100))
    assert fold.needs == ns(100)
    fold.on(anomaly(150))  # waits
    assert fold.needs == ns(100)
    fold.on(anomaly(50))  # waits too
    assert fold.needs == ns(50)
    fold.advance(ns(9999))
    assert fold.needs is None


def test_an_incident_that_came_late_is_opened_and_closed_beside_the_open_one() -> None:
    fold = incidents()
    fold.on(anomaly(200, "glass"))
    fold.on(anomaly(201, "gunshot"))
    assert fold.on(anomaly(100, "cry", seconds=2)) == []
    opened, closed = fold.advance(ns(150))
    assert (opened.state, opened.revision, opened.time) == ("opened", 0, ns(102))
    assert (closed.state, closed.revision, closed.time) == ("closed", 1, ns(150))
    assert opened.id == closed.id
    assert opened.labels == ("cry",)
    # The open one goes on as if nothing had been.
    assert fold.on(anomaly(202, "glass")) == []
    (updated,) = fold.on(anomaly(203, "siren"))
    assert (updated.revision, updated.labels) == (2, ("glass", "gunshot", "siren"))


def test_what_waits_opens_the_next_incident_with_its_own_revisions() -> None:
    fold = incidents()
    told = fold.on(anomaly(100)) + fold.on(anomaly(150, "cry")) + fold.on(anomaly(151, "siren"))
    told += fold.advance(ns(120)) + fold.advance(ns(9999))
    assert [(a.state, a.revision) for a in told] == [
        ("opened", 0), ("closed", 1), ("opened", 0), ("closed", 1),
    ]  # fmt: skip
    assert [a.time for a in told] == [ns(101), ns(120), ns(152), ns(9999)]


def test_revisions_are_told_at_the_end_of_what_caused_them() -> None:
    fold = incidents()
    fold.on(anomaly(100))
    (updated,) = fold.on(anomaly(95, "cry"))
    assert (updated.time, updated.start) == (ns(96), ns(95))


def test_without_settings_an_incident_ends_as_a_site_says_by_default() -> None:
    assert SiteIncidents(Timing()) == site_incidents(schema.Site())
