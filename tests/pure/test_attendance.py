"""Who is lost is told, once and again while it stays lost; never twice for one loss."""

from __future__ import annotations

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
    assert lost(one, "desk", 100, 109.999) == []
    (told,) = lost(one, "desk", 110)
    assert (told.label, told.start, told.end) == ("source-lost", ns(110), ns(111))


def test_one_that_stays_lost_is_told_again_as_often_as_its_incident_needs() -> None:
    told = lost(attendance(), "desk", *range(100, 126))
    assert [anomaly.start // SECOND for anomaly in told] == [110, 115, 120, 125]


def test_a_promise_that_comes_again_tells_nothing() -> None:
    one = attendance()
    lost(one, "desk", 100)
    assert len(lost(one, "desk", 110, 110, 109, 110)) == 1


def test_one_that_was_back_is_lost_anew() -> None:
    one = attendance()
    lost(one, "desk", 100)
    one.promised(make.progress(105, source="desk"), ns(105))
    assert lost(one, "desk", 106, 110, 115.999) == []
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
