"""Incidents do not depend on which source came first."""

from __future__ import annotations

import random
from operator import attrgetter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.judge.incident import Incident, IncidentFold, Timing
from pipeline.types import SECOND, Alert, Anomaly, Presence, Progress, Record, needed_until
from workers.delivery.snapshots import evidence_names
from workers.stages.alert import AlertStage, SiteIncidents

TIMING = Timing(close_after=10 * SECOND, max_duration=60 * SECOND)
START = 1_767_650_400 * SECOND


def anomaly(
    at: float,
    label: str = "intrusion",
    *,
    last: float = 0.2,
    score: float = 0.9,
    severity: str = "high",
    presence: dict[str, Presence] | None = None,
    head: str = "",
    source: str = "desk",
    **more: str,
) -> Anomaly:
    start = START + round(at * SECOND)
    return Anomaly(
        site="office",
        source=source,
        id=f"{label}-{at}-{last}-{score}",  # not of its head: a restart may have another
        start=start,
        end=start + round(last * SECOND),
        rule=f"rule-{label}",
        label=label,
        severity=severity,
        score=score,
        presence=presence or {},
        reasons=(f"{label} at {at}",),
        contributions={"sound" if label in ("gunshot", "scream") else "vision": 1.0},
        head=head,
        **more,
    )


def incidents() -> IncidentFold:
    return IncidentFold(TIMING, lambda site, group, alert, revision: ())


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def finished(alerts: list[Alert]) -> set[tuple[object, ...]]:
    """The last revision of each incident by content: what must be equal in all runs."""
    last = {alert.id: alert for alert in alerts}
    told = attrgetter(
        *("site", "labels", "severity", "start", "end", "rules", "state", "heads", "findings"),
        *("modes", "score", "transcript"),
    )
    return {told(alert) for alert in last.values()}


def play(anomalies: list[Anomaly], order: list[Anomaly], skew: float) -> list[Alert]:
    """Anomalies in `order`, the watermark as far as the ones still to come allow."""
    fold, told = incidents(), []
    left = list(order)
    for item in order:
        told += fold.on(item)
        left.remove(item)
        if left:
            told += fold.advance(min(a.start for a in left) // SECOND * SECOND)
    del anomalies, skew
    return told + fold.advance(at(10_000))


def test_an_anomaly_opens_an_incident_at_once() -> None:
    (alert,) = incidents().on(anomaly(5, "glass"))
    assert (alert.state, alert.revision, alert.labels) == ("opened", 0, ("glass",))
    assert alert.time == at(5.2)
    assert alert.end is None


def test_a_second_label_is_an_update_of_the_same_incident() -> None:
    fold = incidents()
    fold.on(anomaly(5, "glass"))
    (alert,) = fold.on(anomaly(7))
    assert (alert.state, alert.revision, alert.labels) == ("updated", 1, ("glass", "intrusion"))


def test_more_of_the_same_is_not_told() -> None:
    fold = incidents()
    fold.on(anomaly(5))
    assert fold.on(anomaly(6, score=0.99)) == []


def test_another_head_is_not_told_by_itself_but_with_the_next_revision() -> None:
    fold = incidents()
    (opened,) = fold.on(anomaly(5, head="b 1"))
    assert opened.heads == ("b 1",)
    assert fold.on(anomaly(6, head="a 2")) == []
    assert fold.on(anomaly(6.5)) == []
    (updated,) = fold.on(anomaly(7, "glass", head="b 1"))
    assert updated.heads == ("a 2", "b 1")
    (closed,) = fold.advance(at(30))
    assert closed.heads == ("a 2", "b 1")


def test_an_incident_that_no_head_judged_has_none() -> None:
    (opened,) = incidents().on(anomaly(5))
    assert opened.heads == ()


def test_a_lost_source_is_told_and_stays_told() -> None:
    fold = incidents()
    fold.on(anomaly(5, presence={"desk": Presence.PRESENT}))
    (lost,) = fold.on(anomaly(6, presence={"desk": Presence.LOST}))
    assert lost.presence == {"desk": Presence.LOST}
    assert fold.on(anomaly(7, presence={"desk": Presence.PRESENT})) == []


def test_only_the_watermark_closes_and_ten_seconds_after_the_last_evidence() -> None:
    fold = incidents()
    fold.on(anomaly(5))
    assert fold.advance(at(15.1)) == []
    (closed,) = fold.advance(at(15.2))
    assert (closed.state, closed.start, closed.end) == ("closed", at(5), at(5.2))


def test_what_is_out_of_reach_waits_and_joins_when_the_gap_is_bridged() -> None:
    fold = incidents()
    fold.on(anomaly(5))
    assert fold.on(anomaly(20, "gunshot")) == []
    (joined,) = fold.on(anomaly(14))
    assert joined.labels == ("gunshot", "intrusion")


def test_what_is_out_of_reach_opens_the_next_incident_when_the_first_closes() -> None:
    fold = incidents()
    fold.on(anomaly(5))
    fold.on(anomaly(20, "gunshot"))
    closed, opened = fold.advance(at(16))
    assert (closed.time, opened.time) == (at(16), at(20.2))
    assert (closed.state, opened.state, opened.labels) == ("closed", "opened", ("gunshot",))
    assert closed.id != opened.id


def test_what_goes_on_before_the_open_incident_is_one_however_late_it_comes() -> None:
    """Sound that is far ahead, after an outage say, opens an incident before pictures come."""
    fold, told = incidents(), []
    told += fold.on(anomaly(200, "glass"))
    for second in range(40):
        told += fold.on(anomaly(second, last=0.2)) + fold.advance(at(second))
    told += fold.advance(at(50))
    assert [(a.state, a.labels, a.start, a.end) for a in told[1:]] == [
        ("opened", ("intrusion",), at(0), None),
        ("closed", ("intrusion",), at(0), at(39.2)),
    ]


def test_an_incident_is_split_when_it_lasts_too_long() -> None:
    fold, told = incidents(), []
    for second in range(150):
        told += fold.on(anomaly(second))
        told += fold.advance(at(second))
    told += fold.advance(at(1000))
    spans = [(a.start, a.end) for a in told if a.state == "closed"]
    assert spans == [(at(0), at(59.2)), (at(60), at(119.2)), (at(120), at(149.2))]


def test_the_first_and_the_newest_reasons_are_kept_whatever_the_order() -> None:
    items = [Incident.opened(anomaly(at_, "glass")) for at_ in range(40)]
    forward, backward = items[0], items[-1]
    for item in items[1:]:
        forward = forward.joined(item)
    for item in reversed(items[:-1]):
        backward = backward.joined(item)
    assert sorted(forward.reasons) == sorted(backward.reasons)
    kept = [int(text.rpartition(" ")[2]) for _, text in sorted(forward.reasons)]
    assert kept == [*range(8), *range(28, 40)]


def progress(upto: float) -> Progress:
    return Progress(site="office", source="fusion", upto=at(upto))


def stage() -> AlertStage:
    return AlertStage(
        {"office": SiteIncidents(TIMING)}, lambda s, g, a, r: evidence_names(s, a, r, ("desk",))
    )


def test_an_anomaly_that_comes_again_after_its_incident_closed_says_nothing() -> None:
    state = stage().open({})
    state.on(anomaly(5), None)
    assert [a.state for a in state.on(progress(20), None)] == ["closed"]
    assert list(state.on(anomaly(5), None)) == []


def test_a_lost_source_is_an_incident_of_its_own() -> None:
    state = stage().open({})
    (seen,) = state.on(anomaly(5), None)
    lost = msgspec.structs.replace(anomaly(6, "source-lost"), rule="system")
    (told,) = state.on(lost, None)
    assert told.state == "opened"
    assert told.id != seen.id


def test_a_restart_knows_what_belonged_to_the_incident_before() -> None:
    # The first incident is split at 400 s; its last evidence reaches into the second one's time,
    # which lasts so long that it is what the floor waits for.
    timing = Timing(close_after=10 * SECOND, max_duration=400 * SECOND)
    stage = AlertStage({"office": SiteIncidents(timing)}, lambda site, group, alert, revision: ())
    records: list[Record] = []
    for second in range(780):
        records += [progress(second), anomaly(second, last=4.0)]
    state = stage.open({})
    told = [alert for record in records for alert in state.on(record, None)]
    floor = state.floor("office")
    again = stage.open({"office": floor})
    for record in records:
        if needed_until(record) > floor:
            again.on(record, None)
    (closed,) = again.on(progress(799.9), None) or again.on(progress(2000), None)
    assert floor == at(400)
    assert (closed.id, closed.start) == (told[-1].id, at(400))


def test_an_outage_is_one_alert_a_day_not_one_every_ten_minutes() -> None:
    state, told = stage().open({}), []
    for second in range(0, 6 * 3600, 5):
        lost = anomaly(second, "source-lost", last=1.0)
        told += state.on(msgspec.structs.replace(lost, rule="system"), None)
        told += state.on(progress(second), None)
    assert [a.state for a in told] == ["opened"]


def test_ids_stay_the_same_through_restarts_and_splits() -> None:
    timing = Timing(close_after=10 * SECOND, max_duration=600 * SECOND)
    stage = AlertStage({"office": SiteIncidents(timing)}, lambda site, group, alert, revision: ())
    records: list[Record] = []
    for second in range(1400):
        records += [progress(second), anomaly(second)]
    records.append(progress(5000))
    whole = stage.open({})
    outs = [[(a.id, a.revision) for a in whole.on(record, None)] for record in records]
    for cut in (1190, 1240, 1380, 1780, 2400):
        before = stage.open({})
        for record in records[:cut]:
            before.on(record, None)
        floor = before.floor("office")
        again = stage.open({"office": floor})
        for record in records[:cut]:
            if needed_until(record) > floor:
                again.on(record, None)
        rest = [[(a.id, a.revision) for a in again.on(record, None)] for record in records[cut:]]
        assert rest == outs[cut:], cut


MOMENTS = st.builds(
    anomaly,
    st.integers(0, 250).map(lambda n: n / 2),
    st.sampled_from(["intrusion", "gunshot", "scream"]),
    last=st.sampled_from([0.2, 1.0, 4.0]),
    score=st.sampled_from([0.5, 0.7, 0.9]),
    severity=st.sampled_from(["low", "high", "critical"]),
    presence=st.dictionaries(st.sampled_from(["desk", "room"]), st.sampled_from(Presence)),
    head=st.sampled_from(["", "shipped 1", "shipped 2"]),
    source=st.sampled_from(["desk", "room", "room/speech", "reports"]),
    mode=st.sampled_from(["", "armed", "disarmed"]),
)
LOST = st.builds(
    lambda at, source: msgspec.structs.replace(
        anomaly(at, f"source-lost-{source}", source=source, last=1.0), rule="system", kind="system"
    ),
    st.integers(0, 25).map(lambda n: n * 5),
    st.sampled_from(["desk", "room"]),
)


@given(st.lists(MOMENTS, max_size=25, unique_by=lambda a: a.id), st.randoms(), st.integers(0, 30))
def test_incidents_are_the_same_whichever_source_came_first(
    anomalies: list[Anomaly], chance: random.Random, skew: int
) -> None:
    in_order = sorted(anomalies, key=lambda a: (a.start, a.id))
    mixed = sorted(anomalies, key=lambda a: (a.start + chance.randint(0, skew) * SECOND, a.id))
    assert finished(play(anomalies, in_order, skew)) == finished(play(anomalies, mixed, skew))


@given(st.lists(MOMENTS, max_size=25, unique_by=lambda a: a.id), st.integers(0, 100))
def test_incidents_are_the_same_however_far_one_source_is_ahead(
    anomalies: list[Anomaly], lead: int
) -> None:
    in_order = sorted(anomalies, key=lambda a: (a.start, a.id))
    ahead = sorted(
        anomalies, key=lambda a: (a.start - lead * SECOND * (a.label == "gunshot"), a.id)
    )
    assert finished(play(anomalies, in_order, 0)) == finished(play(anomalies, ahead, 0))


@given(st.lists(MOMENTS, min_size=1, max_size=12), st.randoms())
def test_the_fold_does_not_depend_on_order(anomalies: list[Anomaly], chance: random.Random) -> None:
    def fold(items: list[Anomaly]) -> Incident:
        whole = Incident.opened(items[0])
        for item in items[1:]:
            whole = whole.joined(Incident.opened(item))
        return msgspec.structs.replace(whole, opened_by="")

    shuffled = list(anomalies)
    chance.shuffle(shuffled)
    assert fold(anomalies) == fold(shuffled)


@given(st.lists(MOMENTS, max_size=25, unique_by=lambda a: a.id))
def test_every_incident_opens_once_closes_once_and_counts_its_revisions(
    anomalies: list[Anomaly],
) -> None:
    order = sorted(anomalies, key=lambda a: (a.start, a.id))
    told: dict[str, list[Alert]] = {}
    for alert in play(anomalies, order, 0):
        told.setdefault(alert.id, []).append(alert)
    for revisions in told.values():
        assert [a.revision for a in revisions] == list(range(len(revisions)))
        assert next(a.state for a in revisions) == "opened"
        assert [a.state for a in revisions].count("closed") == 1
        assert revisions[-1].state == "closed"


@settings(deadline=None)
@given(
    st.lists(MOMENTS | LOST, max_size=20, unique_by=lambda a: a.id),
    st.booleans(),
    st.randoms(),
    st.integers(0, 12),
)
def test_a_restart_at_any_record_goes_on_with_the_same_revisions(
    anomalies: list[Anomaly], by_source: bool, chance: random.Random, skew: int
) -> None:
    """Lost sources are incidents of their own, which hold the floor back into closed ones."""
    stage = AlertStage({"office": SiteIncidents(TIMING, by_source)}, lambda *_: ())
    order = sorted(anomalies, key=lambda a: (a.start + chance.randint(0, skew) * SECOND, a.id))
    records: list[Record] = []
    for number, item in enumerate(order):
        upto = min(a.start for a in order[number:]) // SECOND * SECOND
        records += [Progress(site="office", source="fusion", upto=upto), item]
    records.append(Progress(site="office", source="fusion", upto=at(10_000)))
    whole = stage.open({})
    told, floors = [], []
    for record in records:
        told.append(list(whole.on(record, None)))
        floors.append(whole.floor("office"))
    for cut in range(1, len(records)):
        again = stage.open({"office": floors[cut - 1]})
        for record in records[:cut]:
            if needed_until(record) > floors[cut - 1]:
                again.on(record, None)
        assert [list(again.on(record, None)) for record in records[cut:]] == told[cut:]


@given(
    st.lists(MOMENTS | LOST, max_size=25, unique_by=lambda a: a.id),
    st.booleans(),
    st.randoms(),
    st.integers(0, 30),
)
def test_incidents_by_source_are_the_same_whichever_source_came_first(
    anomalies: list[Anomaly], by_source: bool, chance: random.Random, skew: int
) -> None:
    stage = AlertStage({"office": SiteIncidents(TIMING, by_source)}, lambda *_: ())

    def last(order: list[Anomaly]) -> set[tuple[object, ...]]:
        state, told = stage.open({}), []
        for number, item in enumerate(order):
            told += state.on(item, None)
            left = order[number + 1 :]
            if left:
                upto = min(a.start for a in left) // SECOND * SECOND
                told += state.on(Progress(site="office", source="fusion", upto=upto), None)
        told += state.on(progress(10_000), None)
        return {
            (group, *content)
            for group in {alert.group for alert in told}
            for content in finished([alert for alert in told if alert.group == group])
        }

    in_order = sorted(anomalies, key=lambda a: (a.start, a.id))
    mixed = sorted(anomalies, key=lambda a: (a.start + chance.randint(0, skew) * SECOND, a.id))
    assert last(in_order) == last(mixed)


def test_two_thousand_shuffles_of_one_incident_fold_to_the_same() -> None:
    chance = random.Random(12)
    labels, boxes = ("gunshot", "intrusion", "scream"), (None, (0.1, 0.1, 0.2, 0.2))
    items = [
        msgspec.structs.replace(
            anomaly(n / 4, chance.choice(labels), score=chance.choice((0.5, 0.9))),
            id=str(n),
            box=chance.choice(boxes),
            mode=chance.choice(("armed", "disarmed")),
            text=f"words {n}" if n % 3 == 0 else "",
        )
        for n in range(60)
    ]
    folds = []
    for _ in range(2000):
        chance.shuffle(items)
        whole = Incident.opened(items[0])
        for item in items[1:]:
            whole = whole.joined(Incident.opened(item))
        folds.append(msgspec.structs.replace(whole, opened_by=""))
    assert all(fold == folds[0] for fold in folds)


def test_by_source_a_microphone_is_one_group_and_the_whole_site_another() -> None:
    state = AlertStage({"office": SiteIncidents(TIMING, by_source=True)}, lambda *_: ()).open({})
    groups = [
        alert.group
        for source, kind in (
            ("desk", "object"),
            ("room", "sound"),
            ("room/speech", "speech"),
            ("reports", "report"),
            ("window", "learned"),
        )
        for alert in state.on(
            msgspec.structs.replace(anomaly(5, kind, source=source), kind=kind), None
        )
        if alert.state == "opened"
    ]
    assert groups == ["desk", "room", ""]


def test_a_restart_during_an_outage_does_not_cut_what_lasts_elsewhere() -> None:
    """The outage began within the first incident; from there all later ones would be cut anew."""
    stage = AlertStage({"office": SiteIncidents(TIMING)}, lambda *_: ())
    records: list[Record] = []
    for second in range(300):
        records += [progress(second), anomaly(second)]
        if second >= 5 and second % 5 == 0:
            lost = anomaly(second, "source-lost", last=1.0)
            records.append(msgspec.structs.replace(lost, rule="system"))
    records.append(progress(1000))
    whole = stage.open({})
    told = [list(whole.on(record, None)) for record in records[:-1]]
    floor = whole.floor("office")
    again = stage.open({"office": floor})
    for record in records[:-1]:
        if needed_until(record) > floor:
            again.on(record, None)
    assert floor == at(0)
    assert sum(len(alerts) for alerts in told) > 8
    assert list(again.on(records[-1], None)) == list(whole.on(records[-1], None))


def test_the_same_anomaly_has_another_id_where_each_source_has_its_own_incident() -> None:
    ids = set()
    for by_source in (False, True):
        state = AlertStage({"office": SiteIncidents(TIMING, by_source)}, lambda *_: ()).open({})
        ids |= {alert.id for alert in state.on(anomaly(5), None)}
    assert len(ids) == 2


def test_closed_incidents_are_forgotten_where_no_restart_may_begin_within_them() -> None:
    stage = AlertStage({"office": SiteIncidents(TIMING)}, lambda *_: ())
    state = stage.open({})
    for number in range(500):
        for second in range(3):
            state.on(anomaly(number * 30 + second), None)
        state.on(progress(number * 30 + 29), None)
    (site,) = state._sites.values()
    kept = {span for fold in site._folds.values() for span in fold.closed}
    assert len(kept) <= 1
    assert state.floor("office") == at(499 * 30 + 29)
