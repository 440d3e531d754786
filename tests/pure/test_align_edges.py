"""Windows at their edges: what touches a window without lying in it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import msgspec
import pytest

from pipeline.judge.align import Aligner, Output, Unknown
from pipeline.types import SECOND, Presence, Record, Window, ns
from tests import make

SIZE, HOP, HORIZON = ns(4), ns(1), ns(20)


def office() -> Aligner:
    return Aligner(make.SITE, SIZE, HOP, horizon=HORIZON)


def feed(aligner: Aligner, *records: Record) -> list[Output]:
    return [output for record in records for output in aligner.push(record)]


def indices(outputs: Iterable[Output]) -> list[int]:
    return [output.index for output in outputs if isinstance(output, Window)]


def presence_of(source: str, outputs: Iterable[Output]) -> dict[int, Presence]:
    """By the second in which a window starts."""
    return {o.start // SECOND: o.presence[source] for o in outputs if isinstance(o, Window)}


def test_a_source_lost_from_a_windows_end_on_is_only_silent_in_that_window() -> None:
    aligner = office()
    out = feed(
        aligner,
        make.roster("desk", "room", start=100),
        make.progress(100),  # the loss is known before any window of it closes
        make.progress(102, source="room"),
        make.progress(104, source="room", alive=False),
        make.progress(110, source="room"),
        make.progress(120),
    )
    presence = presence_of("room", out)
    assert presence[98] is Presence.SILENT  # [98, 102) ends where the loss begins
    assert presence[99] is Presence.LOST
    assert presence[103] is Presence.LOST
    assert presence[104] is Presence.SILENT  # [104, 108) begins where the loss ends


def test_a_source_that_stays_lost_while_another_is_waited_for_is_one_span() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100), make.progress(100))
    feed(aligner, make.progress(101, source="room", alive=False))
    feed(aligner, make.progress(103, source="room"))
    for second in range(104, 160):
        feed(aligner, make.progress(second, source="room", alive=False))
    room = aligner._sources["room"]
    assert room.spans[-1] == (ns(103), ns(159))
    assert len(room.spans) == 2


@pytest.mark.parametrize(
    ("span", "taken"), [(-1, False), (0, True), (HORIZON, True), (HORIZON + 1, False)]
)
def test_a_span_of_nothing_and_of_the_horizon_are_taken_and_none_beyond(
    span: int, taken: bool
) -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100))
    seen = make.detections(100)
    out = aligner.push(msgspec.structs.replace(seen, end=seen.start + span))
    assert (out == []) is taken
    assert aligner.held == taken


def test_rosters_in_any_order_give_the_same_windows() -> None:
    """Kafka keeps no order between two who say a roster."""
    rosters = [
        make.roster("desk", start=100),
        make.roster("desk", "gate", start=104),
        make.roster("desk", "gate", start=110, source="gate"),
    ]
    given = set()
    for order in permutations(rosters):
        aligner = office()
        feed(aligner, *order, make.progress(102, source="gate"), make.progress(115, source="gate"))
        given.add(tuple(indices(aligner.push(make.progress(115)))))
    assert given == {tuple(range(101, 112))}


def test_an_old_roster_of_a_time_whose_windows_are_closed_names_nobody() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.progress(100), make.progress(103))
    assert aligner.push(make.roster("desk", "gate", start=90)) == []
    (output,) = aligner.push(make.sound(105, source="gate"))
    assert isinstance(output, Unknown)
    assert output.reason == "no roster of the site names this source"


def test_without_a_roster_a_restart_goes_back_no_further_than_the_horizon() -> None:
    aligner = office()
    assert aligner.declare_lost_until(ns(100)) == ([], [])
    assert aligner.floor == ns(100) - HORIZON
    aligner.declare_lost_until(ns(90))
    assert aligner.floor == ns(100) - HORIZON


def test_a_word_at_the_end_of_an_empty_window_does_not_make_it_one_near_a_word() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100))
    for second in (100, 121, 200):
        feed(aligner, make.progress(second))
    out = feed(aligner, make.progress(100, source="room"), make.progress(200, source="room"))
    near = (HORIZON - SIZE) // HOP
    assert indices(out) == [*range(97, 101 + near), *range(118, 122 + near)]


def test_a_roster_that_says_what_the_one_before_it_said_is_not_kept() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.roster("desk", "gate", start=104))
    feed(aligner, make.roster("gate", "desk", start=110))
    assert len(aligner._rosters) == 2


def test_a_source_that_came_and_left_again_is_waited_for_no_longer() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", start=100), make.roster("desk", "gate", start=104))
    feed(aligner, make.roster("desk", start=106), make.progress(110))
    assert aligner.watermark == ns(110)


@pytest.mark.parametrize(("size", "hop", "horizon"), [(4, 4, 4), (4, 1, 4), (1, 1, 1)])
def test_windows_may_be_as_long_as_the_horizon_and_as_the_hop(
    size: int, hop: int, horizon: int
) -> None:
    aligner = Aligner(make.SITE, ns(size), ns(hop), horizon=ns(horizon))
    seen = make.detections(100)
    out = feed(aligner, make.roster("desk", start=100), seen, make.progress(120))
    found = [output for output in out if isinstance(output, Window) and seen in output.observations]
    assert len(found) == size // hop


def test_a_source_that_has_promised_just_the_limit_has_not_stalled() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100), make.progress(100))
    feed(aligner, make.progress(110, source="room"))
    assert aligner.declare_lost_until(ns(110))[1] == ["desk"]
    assert aligner._sources["room"].spans == []


def test_who_never_spoke_is_taken_to_have_been_there_since_the_first_who_did() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "gate", "room", start=100))
    feed(aligner, make.progress(100), make.progress(115, source="gate"))
    assert sorted(aligner.declare_lost_until(ns(110))[1]) == ["desk", "room"]
    other = office()
    feed(other, make.roster("desk", "gate", "room", start=100))
    feed(other, make.progress(112), make.progress(115, source="gate"))
    assert other.declare_lost_until(ns(110))[1] == []


def test_a_promise_for_a_source_that_says_nothing_new_makes_nothing_lost() -> None:
    """The source said the same before it was lost."""
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100), make.progress(100))
    feed(aligner, make.progress(102, source="room"))
    feed(aligner, make.progress(102, source="room", alive=False))
    out = feed(aligner, make.progress(106, source="room"), make.progress(106))
    assert set(presence_of("room", out).values()) == {Presence.SILENT}


def test_a_stalled_source_that_repeats_the_limit_is_not_back() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100), make.progress(100))
    feed(aligner, make.progress(200, source="room"))
    assert aligner.declare_lost_until(ns(110))[1] == ["desk"]
    feed(aligner, make.progress(110))
    assert aligner.declare_lost_until(ns(120))[1] == []


def test_a_second_loss_is_not_forgotten_with_the_first() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100), make.progress(100))
    for upto, alive in ((100, True), (101, False), (103, True), (112, False), (120, True)):
        feed(aligner, make.progress(upto, source="room", alive=alive))
    out = [each for upto in (101, 109, 114, 120) for each in feed(aligner, make.progress(upto))]
    presence = presence_of("room", out)
    assert {second for second in presence if presence[second] is Presence.LOST} == {
        97, 98, 99, 100, *range(100, 112)
    }  # fmt: skip


def test_while_nobody_has_spoken_all_are_taken_to_be_there_since_the_first_roster() -> None:
    aligner = office()
    feed(aligner, make.roster("desk", "room", start=100), make.roster("desk", start=120))
    assert aligner.declare_lost_until(ns(100))[1] == []
    assert aligner.declare_lost_until(ns(101))[1] == ["desk"]
