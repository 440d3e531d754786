"""Something happens again in an open incident, and is told; what lasts is not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge.incident import IncidentFold, Timing
from pipeline.types import SECOND, Alert, Anomaly

START = 1_767_650_400 * SECOND
KINDS = {
    "gunshot": "sound",
    "glass": "sound",
    "help": "speech",
    "intrusion": "object",
    "fall": "behaviour",
}


def anomaly(
    at: float, label: str = "gunshot", *, severity: str = "critical", last: float = 1.0
) -> Anomaly:
    start = START + round(at * SECOND)
    return Anomaly(
        site="office",
        source="room",
        id=f"{label}-{at}-{severity}",
        start=start,
        end=start + round(last * SECOND),
        rule=f"rule-{label}",
        label=label,
        severity=severity,
        score=0.9,
        kind=KINDS[label],
        what=f"{label} found",
    )


def told(*anomalies: Anomaly) -> list[Alert]:
    timing = Timing(close_after=10 * SECOND, max_duration=900 * SECOND, remind=30 * SECOND)
    fold = IncidentFold(timing, lambda *_: ())
    return [alert for one in anomalies for alert in fold.on(one)]


def people(until: int) -> list[Anomaly]:
    """Somebody who is seen each second, so that the incident stays open."""
    return [anomaly(n, "intrusion", severity="medium") for n in range(until)]


def in_time(*parts: list[Anomaly]) -> list[Anomaly]:
    return sorted((one for part in parts for one in part), key=lambda one: one.start)


def again(alerts: list[Alert]) -> list[int]:
    """The seconds, to the end of the anomaly, at which something was told as happening again."""
    return [(a.time - START) // SECOND for a in alerts if "again" in a.changed]


def test_three_shots_among_people_are_told_the_second_and_third_as_again() -> None:
    shots = [anomaly(at) for at in (10, 50, 90)]
    alerts = told(*in_time(people(100), shots))
    assert [a.changed for a in alerts] == [
        ("opened",), ("severity", "labels", "rules"), ("again",), ("again",),
    ]  # fmt: skip
    assert again(alerts) == [51, 91]
    assert [a.reasons_new for a in alerts[2:]] == [
        ("22:00:50Z gunshot found",), ("22:01:30Z gunshot found",),
    ]  # fmt: skip


def test_eight_minutes_of_shots_are_told_twice_a_minute() -> None:
    alerts = told(*(anomaly(at) for at in range(0, 480, 5)))
    assert again(alerts) == [at + 1 for at in range(30, 480, 30)]


def test_an_event_just_before_the_time_is_not_told_and_at_it_is() -> None:
    assert again(told(*in_time(people(80), [anomaly(10), anomaly(39.999)]))) == []
    assert again(told(*in_time(people(80), [anomaly(10), anomaly(40)]))) == [41]


def test_a_revision_for_another_reason_tells_the_events_so_far() -> None:
    """The shot at 35 is told with the glass; the one at 50 comes 15 s after it."""
    events = [anomaly(10), anomaly(35), anomaly(36, "glass"), anomaly(50), anomaly(65)]
    alerts = told(*in_time(people(80), events))
    assert again(alerts) == [66]


def test_each_label_is_reminded_of_by_itself() -> None:
    events = [anomaly(10), anomaly(20, "glass"), anomaly(41), anomaly(51, "glass")]
    assert again(told(*in_time(people(80), events))) == [42, 52]


@pytest.mark.parametrize("severity", ["low", "medium"])
def test_what_is_not_grave_is_not_told_again(severity: str) -> None:
    events = [anomaly(at, severity=severity) for at in (10, 50, 90)]
    assert again(told(*in_time(people(100), events))) == []


def test_a_state_that_lasts_is_not_told_again() -> None:
    assert again(told(*(anomaly(n, "intrusion") for n in range(600)))) == []


def test_a_state_that_was_absent_is_told_again() -> None:
    shots = [anomaly(at, severity="medium") for at in range(0, 80, 5)]  # keep the incident open
    seen = [anomaly(at, "intrusion") for at in (*range(10, 20), *range(51, 60))]
    assert again(told(*in_time(shots, seen))) == [52]
    seen = [anomaly(at, "intrusion") for at in (*range(10, 20), *range(49, 60))]
    assert again(told(*in_time(shots, seen))) == []


def test_a_lost_source_is_never_told_again() -> None:
    lost = [
        msgspec.structs.replace(anomaly(at), rule="system", kind="system", label="source-lost")
        for at in range(0, 400, 5)
    ]
    assert len(told(*lost)) == 1


def test_no_revision_has_empty_reasons_also_where_an_incident_was_cut() -> None:
    fold = IncidentFold(Timing(max_duration=60 * SECOND), lambda *_: ())
    alerts = []
    for one in (anomaly(n, "intrusion") for n in range(200)):
        alerts += fold.on(msgspec.structs.replace(one, reasons=()))
        alerts += fold.advance(one.start)
    assert len({a.id for a in alerts}) == 4
    assert all(a.reasons for a in alerts)
    assert [a.reasons for a in alerts if a.state == "opened"] == [
        ("22:00:00Z intrusion found",), ("22:01:00Z intrusion found",),
        ("22:02:00Z intrusion found",), ("22:03:00Z intrusion found",),
    ]  # fmt: skip


MOMENTS = st.builds(
    anomaly,
    st.integers(0, 200),
    st.sampled_from(sorted(KINDS)),
    severity=st.sampled_from(["low", "critical"]),
    last=st.sampled_from([0.2, 1.0]),
)


@given(st.lists(MOMENTS, max_size=30, unique_by=lambda a: a.id))
def test_every_revision_differs_in_what_a_receiver_sees_and_says_why(
    anomalies: list[Anomaly],
) -> None:
    before: dict[str, Alert] = {}
    for alert in told(*anomalies):
        old = before.get(alert.id)
        assert alert.changed
        assert alert.reasons
        if old is None:
            assert alert.changed == ("opened",)
            assert alert.reasons_new == alert.reasons
        else:
            assert alert.revision == old.revision + 1
            for name in ("severity", "labels", "rules", "presence"):
                assert (getattr(alert, name) != getattr(old, name)) == (name in alert.changed)
            if alert.changed == ("again",):
                assert alert.reasons_new
                assert alert.findings != old.findings
        before[alert.id] = alert


def test_a_fall_is_an_event_and_another_one_is_told_again() -> None:
    falls = [anomaly(at, "fall", last=0.2) for at in (10, 20, 60)]
    assert again(told(*in_time(people(80), falls))) == [60]
