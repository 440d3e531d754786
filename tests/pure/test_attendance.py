"""Who is lost is told, once and again while it stays lost; never twice for one loss."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.judge.source_presence import SourcePresence
from pipeline.types import SECOND, Anomaly, Presence, ns
from tests import make

AFTER, EVERY = ns(10), ns(5)


def attendance() -> SourcePresence:
    one = SourcePresence(make.SITE, hop=SECOND, size=ns(4), lost_after=AFTER, cry_every=EVERY)
    one.expect(("desk", "room", "room/speech", "reports"))
    return one


def lost(one: SourcePresence, source: str, *seconds: float) -> list[Anomaly]:
    """What is told while `source` is spoken for at these seconds."""
    return [
        anomaly
        for at in seconds
        for anomaly in one.promised(make.progress(at, source=source, alive=False), ns(at))
    ]


def stays_lost(one: SourcePresence, source: str, since: float, until: float) -> list[Anomaly]:
    """What is told while `source` is spoken for each second, and at `until`."""
    return lost(one, source, *range(int(since), int(until)), until)


def test_a_lost_microphone_is_told_once_though_it_is_two_sources() -> None:
    one, told = attendance(), list[Anomaly]()
    for second in range(100, 130):
        for source in ("room", "room/speech"):
            told += lost(one, source, second)
    assert {anomaly.source for anomaly in told} == {"room"}
    assert len({anomaly.id for anomaly in told}) == len(told)


def test_speech_of_a_lost_microphone_is_lost_all_the_same() -> None:
    one = attendance()
    lost(one, "room/speech", 100)
    assert one.presence(ns(100))["room/speech"] is Presence.LOST


def test_a_source_is_told_when_it_has_been_lost_for_long_enough_and_not_before() -> None:
    one = attendance()
    assert stays_lost(one, "desk", 100, 109.999) == []
    (told,) = lost(one, "desk", 110)
    assert (told.label, told.start, told.end) == ("source-lost", ns(110), ns(111))


def test_one_that_stays_lost_is_told_again_as_often_as_its_incident_needs() -> None:
    told = lost(attendance(), "desk", *range(100, 126))
    assert [anomaly.start // SECOND for anomaly in told] == [110, 115, 120, 125]


@given(st.integers(100, 110), st.integers(100, 110))
def test_when_a_loss_is_told_again_does_not_depend_on_its_begin(one: int, other: int) -> None:
    told = [
        [anomaly.id for anomaly in lost(attendance(), "desk", *range(since, 160))]
        for since in (one, other)
    ]
    assert told[0][-6:] == told[1][-6:]


def test_a_promise_that_comes_again_tells_nothing() -> None:
    one = attendance()
    stays_lost(one, "desk", 100, 109)
    assert len(lost(one, "desk", 110, 110, 109, 110)) == 1


def test_one_that_was_back_is_lost_anew() -> None:
    one = attendance()
    lost(one, "desk", 100)
    one.promised(make.progress(105, source="desk"), ns(105))
    assert stays_lost(one, "desk", 106, 115.999) == []
    assert len(lost(one, "desk", 116)) == 1


def test_a_source_counts_as_present_for_a_window_after_its_last_observation() -> None:
    one = attendance()
    one.observed(make.sound(99))
    assert one.presence(ns(104) - 1)["room"] is Presence.PRESENT
    assert one.presence(ns(104))["room"] is Presence.SILENT


def test_a_source_speaks_for_as_long_as_patience_says() -> None:
    one = attendance()
    one.promised(make.progress(100, source="desk"), ns(200))
    assert one.speaking(ns(260), ns(60)) == {"desk"}
    assert one.speaking(ns(260) + 1, ns(60)) == set()


# --- a restart


def test_the_time_of_a_restart_does_not_count_as_lost() -> None:
    one = attendance()
    assert lost(one, "desk", 100, 101, 102) == [], "its camera is lost, then we are stopped"
    assert stays_lost(one, "desk", 124, 133.999) == [], "started again 22 s later"
    (told,) = lost(one, "desk", 134)
    assert told.start == ns(134)


def test_promises_that_come_slowly_are_no_restart() -> None:
    assert lost(attendance(), "desk", 100, 105) == []
    assert len(lost(attendance(), "desk", 100, 105, 110)) == 1
    slow = SourcePresence(make.SITE, hop=ns(4), size=ns(8), lost_after=AFTER, cry_every=EVERY)
    assert len(lost(slow, "desk", 100, 112)) == 1, "three hops"


def test_a_capture_that_is_started_again_begins_anew() -> None:
    one, gone = attendance(), "its capture has said nothing for 15 s"
    for at in range(100, 109):
        said = make.progress(at, source="desk", alive=False, reason=gone)
        assert one.promised(said, ns(at)) == []
    assert stays_lost(one, "desk", 109, 118.999) == [], "it connects"
    assert len(lost(one, "desk", 119)) == 1


def test_a_capture_that_stays_away_is_told() -> None:
    one, gone = attendance(), "its capture has said nothing for 15 s"
    words = [
        make.progress(at, source="desk", alive=False, reason=gone) for at in range(100, 113, 2)
    ]
    told = [anomaly for said in words for anomaly in one.promised(said, said.upto)]
    assert [anomaly.start for anomaly in told] == [ns(110)]


def test_a_source_that_was_seen_before_a_restart_is_lost_from_its_start_on() -> None:
    one = attendance()
    one.promised(make.progress(100, source="desk"), ns(100))
    assert stays_lost(one, "desk", 122, 131.999) == []
    assert len(lost(one, "desk", 132)) == 1
