"""One stage on one partition: what a restart needs, what it skips, and the note between."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import DecodeError, OutsideError
from pipeline.host import FLOOR_UNIT, Host, pack, round_down, site_hash, unpack
from pipeline.ports import Assigned
from pipeline.types import BEFORE_ALL, FOREVER, Record, needed_until, ns
from tests import make
from tests.pure.windowed import Happening, Windowed, happenings, told


class Kept:
    """A stage whose floors a test sets; it answers each record with the record itself."""

    def __init__(self) -> None:
        self.floors: dict[str, int] = {}
        self.opened: dict[str, int] = {}
        self.seen: list[Record] = []

    def infer(self, batch: Any) -> list[None]:
        return [None] * len(batch)

    def open(self, floors: dict[str, int]) -> Kept:
        self.opened = floors
        return self

    def on(self, record: Record, inferred: Any) -> list[Record]:
        self.seen.append(record)
        return [record]

    def floor(self, site: str) -> int:
        return self.floors.get(site, BEFORE_ALL)


def decoded(value: bytes) -> Record | None:
    try:
        return codec.decode(value)
    except DecodeError:
        return None


def restarted(stage: Any, host: Host) -> Host:
    return Host(stage, Assigned(0, host.safe, host.note))


@pytest.fixture
def stage() -> Kept:
    return Kept()


def test_safe_is_the_first_record_that_its_own_site_still_needs(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    for offset, site in enumerate("abab"):
        host.feed(offset, make.sound(offset, site=site), None)  # ends at offset + 1
    assert host.safe == 0
    stage.floors = {"a": ns(1)}
    assert host.safe == 1
    stage.floors = {"a": ns(1), "b": ns(4)}
    assert host.safe == 2
    stage.floors = {"a": ns(3), "b": ns(4)}
    assert host.safe == 4


def test_a_record_that_ends_at_the_floor_is_no_longer_needed(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 7, b""))
    host.feed(7, make.sound(0, site="a"), None)
    stage.floors = {"a": ns(1) - 1}
    assert host.safe == 7
    stage.floors = {"a": ns(1)}
    assert host.safe == 8


def test_a_restart_skips_what_lies_below_the_floor_and_is_silent_about_the_rest(
    stage: Kept,
) -> None:
    records = [make.sound(k, site=site) for k in range(3) for site in "ab"]
    host = Host(stage, Assigned(0, 0, b""))
    for offset, record in enumerate(records):
        assert host.feed(offset, record, None) == [record]
    stage.floors = {"a": ns(2), "b": ns(1)}
    again = Kept()
    host = restarted(again, host)
    assert host.rebuilding
    assert [host.feed(k, records[k], None) for k in range(3, 6)] == [[], [], []]
    assert again.seen == [records[3], records[4], records[5]]  # all three end beyond their floors
    assert not host.rebuilding
    assert host.feed(6, records[0], None) == [records[0]]  # new, however old it is


def test_a_record_of_another_site_between_is_skipped_by_its_own_floor(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    records = [make.sound(0, site="a"), make.sound(0, site="b"), make.sound(5, site="a")]
    for offset, record in enumerate(records):
        host.feed(offset, record, None)
    stage.floors = {"a": 0, "b": ns(9)}
    again = Kept()
    host = restarted(again, host)
    for offset, record in enumerate(records):
        assert host.wants(offset, record) == (record.site == "a")
        host.feed(offset, record, None)
    assert [record.site for record in again.seen] == ["a", "a"]


def test_a_restart_knows_its_floors_before_it_is_fed(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    host.feed(0, make.sound(0, site="a"), None)
    host.feed(1, make.sound(0, site="b"), None)
    stage.floors = {"a": ns(-3), "b": ns(77)}
    restarted(stage, host)
    assert stage.opened.get("a") == stage.opened["a"] == ns(-3)
    assert stage.opened.get("b", 0) == ns(77)
    assert stage.opened.get("c") is None
    assert stage.opened.get("c", 5) == 5
    assert ("a" in stage.opened, "c" in stage.opened) == (True, False)


def test_a_crash_loop_changes_neither_safe_nor_note(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    for offset in range(6):
        host.feed(offset, make.sound(offset, site="a"), None)
    stage.floors = {"a": ns(2)}
    safe, note = host.safe, host.note
    assert safe == 2
    for fed in range(4):
        host = Host(Kept(), Assigned(0, safe, note))
        for offset in range(safe, safe + fed):
            host.feed(offset, make.sound(offset, site="a"), None)
        assert (host.safe, host.note) == (safe, note)


def test_a_site_that_is_not_fed_again_keeps_its_floor(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    host.feed(0, make.sound(0, site="quiet"), None)
    host.feed(1, make.sound(0, site="loud"), None)
    stage.floors = {"quiet": ns(50), "loud": 0}
    for life in range(3):
        host = restarted(stage, host)
        for offset in range(1, 3 + life):
            host.feed(offset, make.sound(offset, site="loud"), None)
        assert unpack(host.note)[1][site_hash("quiet")] == ns(50)


def test_a_stage_that_holds_nothing_has_a_note_of_the_offset_alone(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    for k in range(300):
        stage.floors[f"site{k}"] = FOREVER
        host.feed(k, make.sound(k, site=f"site{k}"), None)
    assert host.safe == 300
    assert len(host.note) < 20


def test_a_site_of_which_nothing_is_held_is_in_no_note_so_that_it_may_begin_anew(
    stage: Kept,
) -> None:
    host = Host(stage, Assigned(0, 0, b""))
    host.feed(0, make.sound(0, site="left"), None)
    host.feed(1, make.sound(0, site="stays"), None)
    stage.floors = {"left": FOREVER, "stays": 0}
    assert unpack(host.note)[1] == {site_hash("stays"): 0}
    restarted(stage, host)
    assert stage.opened.get("left") is None
    Host(stage, Assigned(0, 0, pack(5, {site_hash("left"): FOREVER})))  # an old note
    assert stage.opened.get("left") is None


def test_an_offset_that_comes_again_is_a_bug(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 5, b""))
    host.feed(5, make.sound(0), None)
    host.feed(9, make.sound(1), None)  # a hole is the log's retention
    with pytest.raises(RuntimeError, match="offset 9 came again: 10 was to come"):
        host.feed(9, make.sound(1), None)


@given(happenings, st.data())
def test_safe_is_exactly_the_oldest_record_that_is_needed(
    happened: list[Happening], data: st.DataObject
) -> None:
    entries = [decoded(value) for _, value in told(happened)]
    stage = Windowed()
    host = Host(stage, Assigned(0, 0, b""))
    cut = data.draw(st.integers(0, len(entries)))
    fed: list[tuple[int, Record]] = []
    for offset, record in enumerate(entries[:cut]):
        if record is None:
            host.skip(offset)
        else:
            host.feed(offset, record, stage.infer([record])[0])
            fed.append((offset, record))
        if data.draw(st.booleans()):
            assert host.safe <= offset + 1  # asking at any time changes nothing
    floors = {record.site: round_down(host._state.floor(record.site)) for _, record in fed}
    needed = [offset for offset, record in fed if needed_until(record) > floors[record.site]]
    assert host.safe == min(needed, default=cut)
    reached, noted = unpack(host.note)
    assert reached == cut
    assert noted == {site_hash(site): floor for site, floor in floors.items()}


# -- the note


floors_ns = st.integers(-(2**62), FOREVER)


@given(st.integers(0, 2**63), st.dictionaries(st.integers(0, 2**32 - 1), floors_ns))
def test_a_note_comes_back_with_its_floors_rounded_down(
    reached: int, floors: dict[int, int]
) -> None:
    again, rounded = unpack(pack(reached, floors))
    assert again == reached
    assert rounded == {site: round_down(floor) for site, floor in floors.items()}
    assert all(0 <= floors[site] - rounded[site] < FLOOR_UNIT for site in floors)


@pytest.mark.parametrize("floor", [BEFORE_ALL, -(2**62) * 3 // 2, -(2**63) + 5])
def test_a_floor_below_all_that_fits_is_no_floor(floor: int) -> None:
    assert unpack(pack(0, {1: floor}))[1] == {1: BEFORE_ALL}
    assert round_down(floor) == BEFORE_ALL


def test_two_hundred_sites_fit_in_2500_bytes_of_ascii(stage: Kept) -> None:
    host = Host(stage, Assigned(0, 2**40, b""))
    for k in range(200):
        site = f"{'a-very-long-name-for-a-site':_<36}{k:04}"
        assert len(site) == 40
        stage.floors[site] = 1_767_225_600_123_456_789 + k * 777_777_777
        host.feed(2**40 + k, make.sound(2e9, site=site), None)
    assert len(host.note) <= 2500
    assert host.note.isascii()
    assert host.note.decode().isprintable()
    again = restarted(Kept(), host)
    assert {site: again._noted[site] for site in stage.floors} == {
        site: round_down(floor) for site, floor in stage.floors.items()
    }


def test_sites_of_one_hash_share_the_lower_floor(stage: Kept) -> None:
    one, two = "plumless", "buckeroo"  # a well known pair of equal CRC-32
    assert site_hash(one) == site_hash(two)
    for low, high in ((one, two), (two, one)):
        host = Host(stage, Assigned(0, 0, b""))
        host.feed(0, make.sound(0, site=low), None)
        host.feed(1, make.sound(0, site=high), None)
        stage.floors = {low: ns(3), high: ns(8)}
        assert unpack(host.note)[1] == {site_hash(one): ns(3)}


@pytest.mark.parametrize(
    "note",
    [
        b"2" + pack(5, {1: 2})[1:],
        pack(5, {1: 2})[:-4],
        pack(5, {1: 2}).replace(b"A", b"B", 1),
        b"1",
        b"1not base64!",
        b"\xff\x00",
        b'{"offset": 5}',
    ],
)
def test_a_note_that_is_not_ours_is_refused_by_what_to_do(note: bytes) -> None:
    with pytest.raises(OutsideError, match="or a group of another name"):
        Host(Kept(), Assigned(0, 0, note))


@given(st.binary())
def test_no_bytes_make_unpack_raise_anything_else(note: bytes) -> None:
    with suppress(OutsideError):
        unpack(note)


def test_the_pure_core_loads_no_numpy() -> None:
    code = (
        "import sys, pipeline.types, pipeline.host, pipeline.run, pipeline.bus.memory, "
        "pipeline.bus.log; sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Timekeeper(Kept):
    """A stage that also learns of the records that a restart skips."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[Record] = []

    def passed(self, record: Record) -> None:
        self.skipped.append(record)


def test_a_state_that_keeps_time_learns_of_what_a_restart_skips() -> None:
    before = Timekeeper()
    host = Host(before, Assigned(0, 0, b""))
    records = [make.sound(0, site="a"), make.sound(1, site="b"), make.sound(2, site="a")]
    for offset, record in enumerate(records):
        host.feed(offset, record, None)
    before.floors = {"a": ns(0), "b": ns(9)}
    after = Timekeeper()
    again = Host(after, Assigned(0, host.safe, host.note))
    assert [again.feed(offset, record, None) for offset, record in enumerate(records)] == [[]] * 3
    assert (after.seen, after.skipped) == ([records[0], records[2]], [records[1]])
    assert before.skipped == []
