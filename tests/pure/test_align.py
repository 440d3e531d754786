"""Windows, one promise at a time; the properties are in test_align_properties.py."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pipeline import codec
from pipeline.judge.align import Aligner, Output, Repeat, Unknown
from pipeline.types import SECOND, Late, Presence, Record, Window, ns
from tests import make

SIZE, HOP, HORIZON = ns(4), ns(1), ns(20)


def office(floor: int = 0, size: int = SIZE, hop: int = HOP) -> Aligner:
    return Aligner(make.SITE, size, hop, horizon=HORIZON, floor=floor)


def feed(aligner: Aligner, *records: Record) -> list[Output]:
    return [output for record in records for output in aligner.push(record)]


def windows(outputs: Iterable[Output]) -> list[Window]:
    return [output for output in outputs if isinstance(output, Window)]


def spans(outputs: Iterable[Output]) -> list[tuple[float, float]]:
    return [(window.start / SECOND, window.end / SECOND) for window in windows(outputs)]


def two() -> Record:
    return make.roster("desk", "room", start=100)


def test_a_window_closes_when_the_slowest_source_has_promised_its_end() -> None:
    aligner = office()
    assert feed(aligner, two(), make.progress(100), make.progress(104, source="room")) == []
    assert feed(aligner, make.progress(100.9)) == []
    assert spans(aligner.push(make.progress(101))) == [(97, 101)]
    assert spans(aligner.push(make.progress(103.5))) == [(98, 102), (99, 103)]


def test_a_window_closes_exactly_at_its_end() -> None:
    aligner = office()
    feed(aligner, make.roster("desk"), make.progress(100))
    before = make.progress(101)
    assert aligner.push(type(before)(site=before.site, source="desk", upto=ns(101) - 1)) == []
    assert spans(aligner.push(before)) == [(97, 101)]


def test_nothing_closes_before_every_source_has_spoken() -> None:
    aligner = office()
    assert feed(aligner, two(), make.detections(100), make.progress(150)) == []
    assert aligner.watermark is None
    assert spans(aligner.push(make.progress(102, source="room")))[0] == (97, 101)
    assert aligner.watermark == ns(102)


def test_the_first_window_is_the_earliest_that_holds_the_first_start() -> None:
    aligner = office()
    out = feed(
        aligner, two(), make.sound(100.5), make.progress(102), make.progress(102, source="room")
    )
    assert spans(out) == [(97, 101), (98, 102)]


def test_a_first_promise_below_what_was_seen_is_the_first_start() -> None:
    aligner = office()
    feed(aligner, make.roster("desk"), make.detections(101), make.progress(100))
    assert spans(feed(aligner, make.detections(100), make.progress(101))) == [(97, 101)]


def test_a_word_at_the_start_of_its_roster_counts_in_any_order() -> None:
    """Found by the deep run: the roster's own hold had hidden the source's first word."""
    rosters = [make.roster("desk", start=100), make.roster("desk", "gate", start=100)]
    desk = [*rosters, make.progress(150)]
    gate = [rosters[1], make.progress(100, source="gate"), make.progress(150, source="gate")]
    assert spans(feed(office(), *desk, *gate)) == spans(feed(office(), *gate, *desk)) != []


def test_windows_have_an_absolute_index() -> None:
    (window,) = windows(feed(office(), make.roster("desk"), make.progress(100), make.progress(101)))
    assert (window.index, window.start, window.end) == (97, ns(97), ns(101))


def test_times_before_the_epoch_round_down() -> None:
    aligner = office(floor=-ns(100))
    out = feed(aligner, make.roster("desk", start=-10), make.detections(-2.5), make.progress(0))
    assert spans(out) == [(-6, -2), (-5, -1), (-4, 0)]


def test_an_observation_is_in_each_window_that_it_overlaps_and_in_no_other() -> None:
    aligner = office()
    said = make.utterance(100.5, seconds=5)
    out = feed(aligner, make.roster("room/speech"), said, make.progress(120, source="room/speech"))
    holding = [window.start // SECOND for window in windows(out) if window.observations]
    assert holding == list(range(97, 106))


def test_spans_are_half_open() -> None:
    aligner = office()
    seen = make.detections(101, seconds=1)
    out = feed(aligner, make.roster("desk"), make.progress(100), seen, make.progress(110))
    holding = [window.start // SECOND for window in windows(out) if window.observations]
    assert holding == [98, 99, 100, 101]


def test_an_instant_is_in_the_windows_that_hold_it() -> None:
    aligner = office()
    out = feed(aligner, make.roster("desk"), make.detections(101, seconds=0), make.progress(110))
    holding = [window.start // SECOND for window in windows(out) if window.observations]
    assert holding == [98, 99, 100, 101]


def test_a_size_that_is_no_multiple_of_the_hop_cuts_inside_a_hop() -> None:
    aligner = office(size=ns(2.5), hop=ns(1))
    early, late = make.detections(102.4, seconds=0.05), make.detections(102.6, seconds=0.05)
    out = feed(aligner, make.roster("desk"), make.progress(101), late, early, make.progress(110))
    holding = {w.start // SECOND: w.observations for w in windows(out) if w.observations}
    assert holding == {100: (early,), 101: (early, late), 102: (early, late)}


def test_observations_stand_by_start_then_source_then_type() -> None:
    aligner = office()
    records = [
        make.utterance(101, source="b"),
        make.sound(101, source="b"),
        make.detections(101, source="a"),
        make.detections(100, source="b"),
    ]
    out = feed(aligner, make.roster("a", "b"), *records)
    out += feed(aligner, make.progress(104, source="a"), make.progress(104, source="b"))
    assert windows(out)[-1].observations == tuple((records[3], records[2], records[1], records[0]))


def test_a_record_below_its_own_sources_promise_is_a_repeat() -> None:
    aligner = office()
    seen = make.detections(100)
    feed(aligner, two(), seen, make.progress(100.1))
    assert aligner.push(seen) == [Repeat(make.SITE, "desk", "Detections", ns(100))]


def test_an_equal_record_before_the_promise_is_a_repeat_too() -> None:
    aligner = office()
    seen = make.detections(100)
    assert feed(aligner, two(), seen) == []
    assert aligner.push(seen) == [Repeat(make.SITE, "desk", "Detections", ns(100))]


def test_a_record_exactly_at_the_promise_is_known_when_it_comes_again() -> None:
    """Speech promises no more than the start of the utterance still open."""
    aligner = office()
    said = make.utterance(100)
    feed(aligner, make.roster("room/speech"), said, make.progress(100, source="room/speech"))
    assert aligner.push(said) == [Repeat(make.SITE, "room/speech", "Utterance", ns(100))]


@pytest.mark.parametrize(
    "other",
    [make.detections(100, seconds=0.4), make.sound(100, source="desk"), make.sound(100)],
    ids=["end", "type", "source"],
)
def test_what_differs_in_end_type_or_source_is_no_repeat(other: Record) -> None:
    aligner = office()
    feed(aligner, two(), make.detections(100))
    assert aligner.push(other) == []


def test_below_a_promise_made_for_its_source_a_record_is_late() -> None:
    aligner = office()
    heard = make.sound(101)
    feed(aligner, two(), make.progress(100, source="room"))
    feed(aligner, make.progress(105, source="room", alive=False))
    (late,) = aligner.push(heard)
    assert isinstance(late, Late)
    assert (late.site, late.source, late.start, late.kind) == ("office", "room", ns(101), "Sound")
    assert codec.decode(late.record) == heard


def test_a_repeat_of_what_was_used_before_the_loss_is_not_late() -> None:
    aligner = office()
    heard = make.sound(101)
    feed(aligner, two(), make.progress(100, source="room"), heard)
    feed(aligner, make.progress(105, source="room", alive=False))
    assert aligner.push(heard) == [Repeat(make.SITE, "room", "Sound", ns(101))]


def test_a_promise_never_goes_back() -> None:
    aligner = office()
    feed(aligner, make.roster("desk"), make.progress(105))
    assert aligner.push(make.progress(103)) == []
    assert aligner.watermark == ns(105)
    (repeat,) = aligner.push(make.detections(104))
    assert isinstance(repeat, Repeat)


def test_a_promise_said_again_does_not_hold_the_watermark() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(110), make.progress(102, source="room"))
    feed(aligner, make.progress(103), make.progress(108, source="room"))
    assert aligner.watermark == ns(108)


def test_a_source_is_present_lost_or_silent_by_window() -> None:
    aligner = office(size=ns(2))
    out = feed(
        aligner,
        two(),
        make.progress(120),
        make.sound(100),
        make.progress(102, source="room"),
        make.progress(104, source="room", alive=False, reason="unplugged"),
        make.progress(108, source="room"),
    )
    presence = {window.start // SECOND: window.presence["room"].value for window in windows(out)}
    assert presence == {
        99: "present",
        100: "present",
        101: "lost",
        102: "lost",
        103: "lost",
        104: "silent",
        105: "silent",
        106: "silent",
    }


def test_a_source_that_is_lost_from_the_start_is_lost_in_the_first_window() -> None:
    aligner = office()
    feed(aligner, two(), make.detections(100), make.progress(110))
    out = feed(aligner, make.progress(105, source="room", alive=False))
    assert {window.presence["room"] for window in windows(out)} == {Presence.LOST}


def test_lost_and_seen_in_one_window_is_present() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(110), make.sound(100), make.progress(101, source="room"))
    out = feed(aligner, make.progress(104, source="room", alive=False))
    assert windows(out)[0].presence["room"] is Presence.PRESENT


def test_a_lost_microphone_does_not_stall_a_camera() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(100, source="room"))
    for second in range(100, 140):
        feed(aligner, make.detections(second), make.progress(second + 0.1))
        feed(aligner, make.progress(second + 1, source="room", alive=False))
        assert aligner.watermark == ns(second + 0.1)


def test_a_source_that_no_roster_names_is_unknown() -> None:
    aligner = office()
    stray, promise = make.detections(100, source="ghost"), make.progress(100, source="ghost")
    out = feed(aligner, two(), stray, promise)
    assert [type(output) for output in out] == [Unknown, Unknown]
    assert [output.record for output in out if isinstance(output, Unknown)] == [stray, promise]


def test_a_record_before_any_roster_is_unknown() -> None:
    (output,) = office().push(make.detections(100))
    assert isinstance(output, Unknown)
    assert "no roster" in output.reason


@pytest.mark.parametrize("seconds", [-1, 21])
def test_a_span_that_is_negative_or_beyond_the_horizon_is_refused(seconds: float) -> None:
    aligner = office()
    (output,) = feed(aligner, two(), make.detections(100, seconds=seconds))
    assert isinstance(output, Unknown)
    assert "span" in output.reason
    assert aligner.held == 0


def test_a_new_source_holds_the_watermark_from_its_roster_on() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.detections(100), make.progress(103))
    feed(aligner, make.roster("desk", "gate", start=104))
    assert spans(aligner.push(make.progress(110)))[-1] == (100, 104)
    assert aligner.watermark == ns(104)
    out = aligner.push(make.progress(106, source="gate"))
    assert spans(out) == [(101, 105), (102, 106)]


def test_a_source_is_listed_from_the_window_on_that_starts_under_its_roster() -> None:
    aligner = office(size=ns(2))
    out = feed(
        aligner,
        make.roster("desk", start=100),
        make.progress(100),
        make.roster("desk", "gate", start=104),
        make.progress(108),
        make.progress(108, source="gate"),
    )
    listed = {window.start // SECOND: sorted(window.presence) for window in windows(out)}
    assert listed[103] == ["desk"]
    assert listed[104] == ["desk", "gate"]


def test_a_source_that_is_seen_in_a_window_is_listed_there() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.progress(103))
    feed(aligner, make.roster("desk", "gate", start=104), make.detections(104, source="gate"))
    out = feed(aligner, make.progress(110), make.progress(110, source="gate"))
    listed = {window.start // SECOND: sorted(window.presence) for window in windows(out)}
    assert listed[100] == ["desk"]
    assert listed[101] == ["desk", "gate"]


def test_a_removed_source_no_longer_holds_the_watermark() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(110), make.progress(102, source="room"))
    assert aligner.watermark == ns(102)
    feed(aligner, make.roster("desk", start=103))
    assert aligner.watermark == ns(110)


def test_what_a_removed_source_still_says_is_used_late_or_unknown() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(104.5), make.progress(102, source="room"))
    feed(aligner, make.roster("desk", start=106))
    used, late, unknown = make.sound(105), make.sound(103), make.sound(106)
    assert aligner.push(used) == []
    assert [type(output) for output in aligner.push(late)] == [Late]
    assert [type(output) for output in aligner.push(unknown)] == [Unknown]
    assert windows(aligner.push(make.progress(106)))[-1].observations == (used,)


def test_a_removed_source_is_forgotten_when_its_last_window_is_closed() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(102), make.progress(102, source="room"))
    feed(aligner, make.roster("desk", start=103), make.progress(120))
    (output,) = aligner.push(make.progress(121, source="room"))
    assert isinstance(output, Unknown)


def test_a_source_that_comes_back_to_the_roster_holds_from_there_on() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(110), make.progress(102, source="room"))
    feed(aligner, make.roster("desk", start=103), make.roster("desk", "room", start=112))
    feed(aligner, make.progress(120))
    assert aligner.watermark == ns(112)


def test_an_equal_roster_said_again_changes_nothing() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(120), make.progress(102, source="room"))
    assert aligner.push(make.roster("room", "desk", start=110)) == []
    assert spans(aligner.push(make.progress(105, source="room")))[-1] == (101, 105)
    assert len(aligner._rosters) == 1


def test_a_roster_that_comes_late_does_not_set_the_watermark_back() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.progress(110))
    assert feed(aligner, make.roster("desk", "gate", start=104)) == []
    assert aligner.watermark == ns(110)
    out = feed(aligner, make.progress(108, source="gate"), make.progress(112, source="gate"))
    assert out == []
    assert spans(aligner.push(make.progress(111))) == [(107, 111)]


def test_an_old_roster_that_comes_last_changes_nothing() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.progress(103))
    feed(aligner, make.roster("desk", "gate", start=104), make.progress(110))
    assert aligner.push(make.roster("desk", start=103)) == []
    assert aligner.watermark == ns(104)


def test_an_empty_roster_holds_what_it_has() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(104), make.progress(104, source="room"))
    assert aligner.push(make.Roster(site=make.SITE, source="desk", sources=(), start=ns(105))) == []
    assert aligner.watermark == ns(104)


def test_a_clock_that_jumps_by_years_costs_nothing() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=0), make.detections(0), make.progress(1))
    later = make.detections(1.7e9)
    out = feed(aligner, make.progress(1.7e9), later, make.progress(1.7e9 + 4))
    assert len(out) < 60
    assert windows(out)[0].start == 0
    assert [w.index for w in windows(out) if later in w.observations] == [
        1_700_000_000 - 3 + i for i in range(4)
    ]


def test_in_a_long_silence_the_windows_near_a_word_are_given() -> None:
    aligner = office()
    feed(aligner, two(), *(make.progress(second) for second in (100, 500, 1000)))
    out = feed(aligner, make.progress(100, source="room"), make.progress(1000, source="room"))
    after = (HORIZON - SIZE) // HOP  # so long after a word an empty window is still given
    given = [window.index for window in windows(out)]
    assert given == [*range(97, 101 + after), *range(497, 501 + after)]


def test_empty_windows_are_given_while_somebody_speaks() -> None:
    aligner = office()
    out = feed(aligner, make.roster("desk", start=100), make.progress(100))
    for second in range(100, 200):
        out += feed(aligner, make.progress(second, alive=False))
    assert [window.index for window in windows(out)] == list(range(97, 196))


def test_a_source_that_stalls_below_the_limit_is_taken_as_lost() -> None:
    aligner = office()
    feed(
        aligner, two(), make.progress(101, source="room"), make.detections(101), make.progress(130)
    )
    assert aligner.declare_lost_until(ns(120) - HORIZON) == ([], [])
    out, names = aligner.declare_lost_until(ns(130) - HORIZON)
    assert names == ["room"]
    assert aligner.watermark == ns(110)
    assert windows(out)[-1].presence == {"desk": Presence.SILENT, "room": Presence.LOST}
    assert aligner.declare_lost_until(ns(131) - HORIZON)[1] == []
    (late,) = aligner.push(make.sound(105))
    assert isinstance(late, Late)


def test_a_source_that_never_spoke_stalls_too() -> None:
    aligner = office()
    feed(aligner, two(), make.detections(100), make.progress(125))
    assert aligner.declare_lost_until(ns(119) - HORIZON) == ([], [])
    out, names = aligner.declare_lost_until(ns(126) - HORIZON)
    assert names == ["room"]
    assert spans(out)[0] == (97, 101)


def test_after_a_restart_the_unheard_have_promised_the_floor() -> None:
    aligner = office(floor=ns(100))
    seen = make.detections(99, seconds=2)
    feed(aligner, make.roster("desk", "room", start=75), seen, make.progress(119))
    assert aligner.declare_lost_until(ns(119.5) - HORIZON) == ([], [])
    assert aligner.declare_lost_until(ns(121) - HORIZON)[1] == ["room"]


def test_a_source_that_saw_but_has_not_promised_yet_does_not_stall() -> None:
    aligner = office()
    feed(aligner, two(), make.detections(100), make.sound(100))
    assert aligner.declare_lost_until(ns(101) - HORIZON) == ([], [])


def test_a_stalled_source_that_speaks_and_stalls_again_is_named_again() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(101, source="room"), make.progress(200))
    assert aligner.declare_lost_until(ns(130) - HORIZON)[1] == ["room"]
    feed(aligner, make.progress(125, source="room"))
    assert aligner.declare_lost_until(ns(140) - HORIZON)[1] == []
    assert aligner.declare_lost_until(ns(150) - HORIZON)[1] == ["room"]


def test_a_stalled_site_that_is_forced_keeps_no_more_than_the_limit_leaves() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(100, source="room"))
    most = 0
    for tenth in range(1000, 4000):
        feed(aligner, make.detections(tenth / 10), make.progress(tenth / 10 + 0.05))
        aligner.declare_lost_until(ns(tenth / 10) - HORIZON)
        most = max(most, aligner.held)
    assert most <= (HORIZON + SIZE + HOP) // ns(0.1) + 1
    assert len(aligner._words) <= (HORIZON + SIZE) // HOP * 2 + 2


def test_what_stalls_and_flaps_for_long_is_kept_in_little() -> None:
    aligner = office()
    feed(aligner, two(), make.progress(100))
    for second in range(100, 2000):
        feed(aligner, make.sound(second), make.progress(second + 0.4, source="room", alive=False))
        feed(aligner, make.progress(second + 1, source="room"), make.progress(second + 1))
    room = aligner._sources["room"]
    assert len(room.spans) < 10
    assert len(room.seen) == len(room.queue) < 10
    assert aligner.held < 10
    assert len(aligner._words) < 10


def test_below_the_floor_no_window_is_given() -> None:
    aligner = office(floor=ns(101))
    out = feed(aligner, make.roster("desk"), make.progress(100), make.progress(110))
    assert spans(out)[0] == (101, 105)


def test_the_floor_follows_the_watermark_by_the_horizon() -> None:
    aligner = office(floor=ns(90))
    feed(aligner, make.roster("desk"))
    assert aligner.floor == ns(90)
    feed(aligner, make.progress(105))
    assert aligner.floor == ns(90)
    feed(aligner, make.progress(115))
    assert aligner.floor == ns(95)


@pytest.mark.parametrize(
    ("size", "hop", "horizon"), [(4, 0, 120), (4, -1, 120), (1, 2, 120), (4, 1, 3)]
)
def test_impossible_windows_are_refused(size: int, hop: int, horizon: int) -> None:
    with pytest.raises(ValueError, match="0 < hop <= size <= horizon"):
        Aligner(make.SITE, size, hop, horizon=horizon)


def test_a_record_of_another_site_is_a_bug() -> None:
    with pytest.raises(ValueError, match="'shop'"):
        office().push(make.detections(100, site="shop"))


def test_a_chunk_is_a_bug() -> None:
    with pytest.raises(TypeError, match="FrameChunk"):
        office().push(make.frame(100))
