"""A host at the bounds of its note."""

from __future__ import annotations

import pytest

from pipeline.host import FLOOR_UNIT, LOWEST, MAX_FLOORS, Host, pack, round_down, unpack
from pipeline.ports import Assigned
from pipeline.types import BEFORE_ALL, FOREVER, Record, ns
from tests import make


class Kept:
    """A stage whose floors a test sets."""

    def __init__(self, **floors: int) -> None:
        self.floors = floors

    def infer(self, batch: object) -> list[None]:
        return []

    def open(self, floors: dict[str, int]) -> Kept:
        return self

    def on(self, record: Record, inferred: object) -> list[Record]:
        return [record]

    def floor(self, site: str) -> int:
        return self.floors.get(site, BEFORE_ALL)


HIGHEST = (2**39 - 1) * FLOOR_UNIT


@pytest.mark.parametrize(
    ("floor", "kept"),
    [
        (0, 0),
        (FLOOR_UNIT - 1, 0),
        (FLOOR_UNIT, FLOOR_UNIT),
        (-1, -FLOOR_UNIT),
        (HIGHEST, HIGHEST),
        (HIGHEST + FLOOR_UNIT, HIGHEST),
        (FOREVER, FOREVER // FLOOR_UNIT * FLOOR_UNIT),
        (2**63, HIGHEST),
        ((LOWEST + 1) * FLOOR_UNIT, (LOWEST + 1) * FLOOR_UNIT),
        ((LOWEST + 1) * FLOOR_UNIT - 1, BEFORE_ALL),
        (LOWEST * FLOOR_UNIT, BEFORE_ALL),
        (BEFORE_ALL, BEFORE_ALL),
    ],
)
def test_a_floor_in_a_note_is_rounded_down_to_ten_milliseconds(floor: int, kept: int) -> None:
    assert round_down(floor) == kept
    assert unpack(pack(5, {7: floor})) == (5, {7: kept})


def test_no_note_says_that_nothing_was_reached() -> None:
    assert unpack(b"") == (0, {})


def test_five_bytes_reach_174_years_either_way() -> None:
    assert ns(0.01) == FLOOR_UNIT
    assert 174 < HIGHEST / ns(365.25 * 86_400) < 175
    assert -LOWEST * FLOOR_UNIT - HIGHEST == FLOOR_UNIT


def test_a_site_whose_floor_is_forever_holds_nothing_and_is_in_no_note() -> None:
    for floor, sites in ((FOREVER, 0), (FOREVER - FLOOR_UNIT, 1)):
        host = Host(Kept(a=floor), Assigned(0, 0, b""))
        host.feed(0, make.sound(0, site="a"), None)
        assert len(unpack(host.note)[1]) == sites


def test_sites_that_were_not_fed_fill_a_note_up_to_its_most_floors() -> None:
    """The ones with the highest floors stay: they spoke last."""
    old = {number: number * FLOOR_UNIT for number in range(MAX_FLOORS + 20)}
    host = Host(Kept(a=ns(1)), Assigned(0, 0, pack(1, old)))
    host.feed(0, make.sound(0, site="a"), None)
    _, floors = unpack(host.note)
    assert len(floors) == MAX_FLOORS
    assert set(range(21, MAX_FLOORS + 20)) < floors.keys()
    assert len(pack(2**63, dict.fromkeys(range(MAX_FLOORS), 0))) == 3977


def test_more_sites_than_a_note_has_room_for_are_all_in_it_while_they_are_fed() -> None:
    old = {number: FLOOR_UNIT for number in range(10)}
    host = Host(Kept(), Assigned(0, 0, pack(0, old)))
    for number in range(MAX_FLOORS + 5):
        host.feed(number, make.sound(number, site=f"s{number}"), None)
    _, floors = unpack(host.note)
    assert len(floors) == MAX_FLOORS + 5


def test_while_it_rebuilds_a_host_says_what_it_was_assigned() -> None:
    note = pack(2, {})
    host = Host(Kept(), Assigned(0, 0, note))
    for offset, rebuilding in ((0, True), (1, False)):
        assert (host.rebuilding, host.safe, host.note) == (True, 0, note)
        assert host.reached == 2
        assert host.feed(offset, make.sound(offset), None) == []
        assert host.rebuilding is rebuilding
    assert host.feed(2, make.sound(2), None) == [make.sound(2)]
    assert host.reached == 3


def test_a_note_behind_the_offset_that_is_assigned_is_overtaken() -> None:
    """Retention may have deleted what was reached."""
    host = Host(Kept(), Assigned(0, 9, pack(4, {})))
    assert (host.reached, host.rebuilding, host.safe) == (9, False, 9)


def test_offsets_may_have_gaps_and_never_come_twice() -> None:
    host = Host(Kept(), Assigned(0, 0, b""))
    assert host.skip(0)
    assert host.skip(5)
    assert host.reached == 6
    with pytest.raises(RuntimeError, match="offset 5 came again: 6 was to come"):
        host.skip(5)


def test_a_host_wants_what_is_new_and_what_its_site_still_needs() -> None:
    note = pack(10, {})
    host = Host(Kept(), Assigned(0, 0, note))
    assert host.wants(0, make.sound(0))  # a site without a floor needs everything
    host.feed(0, make.sound(3, site="a"), None)
    host.feed(10, make.sound(20, site="a"), None)
    low = Host(Kept(a=ns(4)), Assigned(0, 0, b""))
    low.feed(0, make.sound(9, site="a"), None)
    again = Host(Kept(), Assigned(0, 0, low.note))
    assert not again.wants(0, make.sound(3, site="a"))  # it ends at the floor
    assert again.wants(0, make.sound(3.01, site="a"))
    assert again.wants(1, make.sound(0, site="a"))  # new, however old it is
