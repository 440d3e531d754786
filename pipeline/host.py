"""Runs one stage on one partition: the only place that processes a record.

A restart reads again from `safe`, rebuilds the state from the records that are still needed, and
publishes nothing until the offset that it had reached. The `note` holds what it needs for that:

    note = "1" + base64(crc32 of the rest, u32 | reached, u64 | (site hash, u32; floor, i40) ...)

All numbers are big endian. A floor is in units of 10 ms, rounded down, so that 200 sites fit in
2,420 bytes of ASCII. Kafka stores the note as offset metadata (a string of 4,096 bytes at most),
the local log in a column. Two sites with the same hash share the lower floor: the restart then
reads further back, with no other effect.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections import deque
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from pipeline.errors import OutsideError
from pipeline.ports import Assigned, Stage
from pipeline.types import BEFORE_ALL, FOREVER, Record, needed_until

FLOOR_UNIT = 10_000_000  # ns; five signed bytes of such units cover 174 years before and after
LOWEST = -(2**39)  # in FLOOR_UNIT; stands for every lower floor too
MAX_FLOORS = 330  # so many make a note of 3,977 bytes

_VERSION = b"1"
_HEAD = struct.Struct(">IQ")
_FLOOR = struct.Struct(">IbI")  # i40: its highest byte, signed, and the other four


@lru_cache(maxsize=4096)
def site_hash(site: str) -> int:
    """Returns the CRC-32 of a site's name, which stands for the site in a note."""
    return zlib.crc32(site.encode())


class Floors(dict[str, int]):
    """Floors by site, read from a note. Use `get`, `[]` or `in`: only hashes of the names are
    stored."""

    def __init__(self, by_hash: dict[int, int]) -> None:
        super().__init__((f"{number:08x}", floor) for number, floor in by_hash.items())
        self.by_hash = by_hash

    def get(self, site: str, default: Any = None) -> Any:
        return self.by_hash.get(site_hash(site), default)

    def __getitem__(self, site: str) -> int:
        return self.by_hash[site_hash(site)]

    def __contains__(self, site: object) -> bool:
        return isinstance(site, str) and site_hash(site) in self.by_hash


def round_down(floor: int) -> int:
    """Returns the highest floor at or below `floor` that a note can hold, in ns."""
    unit = floor // FLOOR_UNIT
    return BEFORE_ALL if unit <= LOWEST else min(unit, -LOWEST - 1) * FLOOR_UNIT


def pack(reached: int, floors: dict[int, int]) -> bytes:
    """Returns the note of the reached offset and the floors by site hash."""
    body = bytearray(_HEAD.pack(0, reached))
    for number, floor in sorted(floors.items()):
        unit = max(round_down(floor) // FLOOR_UNIT, LOWEST)
        body += _FLOOR.pack(number, unit >> 32, unit & 0xFFFFFFFF)
    struct.pack_into(">I", body, 0, zlib.crc32(body[4:]))
    return _VERSION + base64.b64encode(body)


def unpack(note: bytes) -> tuple[int, dict[int, int]]:
    """Returns the reached offset and the floors by site hash; raises OutsideError for an
    invalid note."""
    if not note:
        return 0, {}
    try:
        body = base64.b64decode(note[1:], validate=True)
        crc, reached = _HEAD.unpack_from(body)
        good = note[:1] == _VERSION and crc == zlib.crc32(body[4:])
        rows = list(_FLOOR.iter_unpack(body[_HEAD.size :]))
    except (binascii.Error, struct.error) as error:
        raise _unreadable(note) from error
    if not good:
        raise _unreadable(note)
    floors = {}
    for number, high, low in rows:
        unit = (high << 32) | low
        floors[number] = BEFORE_ALL if unit == LOWEST else unit * FLOOR_UNIT
    return reached, floors


def _unreadable(note: bytes) -> OutsideError:
    msg = (
        f"the note of this consumer group is not one of ours: {note[:24]!r}. Another program or a "
        "newer Fusewatch committed it: use that version, or a group of another name"
    )
    return OutsideError(msg)


def _finite(floors: dict[int, int]) -> dict[int, int]:
    """Drops the floors of sites that hold nothing; under another config such a site starts
    afresh."""
    return {site: floor for site, floor in floors.items() if floor < round_down(FOREVER)}


@runtime_checkable
class KeepsTime(Protocol):
    """A state to which also records matter that a restart skips: they tell how time went on."""

    def passed(self, record: Record) -> None: ...


@runtime_checkable
class CountsRecords(Protocol):
    """A state that counts what it does, but not again what it did before a restart.

    `counting` is false while it is fed a record that was answered before the restart.
    """

    counting: bool


class Host:
    """Feeds the records of one partition to a stage's state, from the offset of `assigned`.

    Raises OutsideError when the note of `assigned` cannot be read.
    """

    def __init__(self, stage: Stage, assigned: Assigned) -> None:
        reached, floors = unpack(assigned.note)
        self._assigned = assigned
        self._reached = max(reached, assigned.offset)
        self._next = assigned.offset
        self._noted = Floors(_finite(floors))
        self._state = stage.open(self._noted)
        # Asked once: for a Protocol it takes longer than most records.
        self._keeps_time = self._state if isinstance(self._state, KeepsTime) else None
        self._counts = self._state if isinstance(self._state, CountsRecords) else None
        self._held: dict[str, deque[tuple[int, int]]] = {}  # site -> (offset, needed until)

    @property
    def reached(self) -> int:
        """Every entry below this offset was processed and its results were published."""
        return self._reached

    @property
    def rebuilding(self) -> bool:
        """Whether the next entry was already processed before the restart."""
        return self._next < self._reached

    def wants(self, offset: int, record: Record) -> bool:
        """Returns whether `feed` uses this record, and so needs the model's result for it."""
        if offset >= self._reached:
            return True
        return needed_until(record) > int(self._noted.get(record.site, BEFORE_ALL))

    def feed(self, offset: int, record: Record, inferred: Any) -> list[Record]:
        """Returns the stage's output for this record; nothing if it was published before the
        restart."""
        told = self.skip(offset)
        if not told and not self.wants(offset, record):
            if self._keeps_time is not None:
                self._keeps_time.passed(record)
            return []
        if self._counts is not None:
            self._counts.counting = told
        out = self._state.on(record, inferred)
        self._held.setdefault(record.site, deque()).append((offset, needed_until(record)))
        return list(out) if told else []

    def skip(self, offset: int) -> bool:
        """Moves past an entry; returns whether it is new, so that its results must be published.

        Raises RuntimeError when the offset was passed already.
        """
        if offset < self._next:
            msg = f"offset {offset} came again: {self._next} was to come"
            raise RuntimeError(msg)
        self._next = offset + 1
        new = offset >= self._reached
        self._reached = max(self._reached, self._next)
        return new

    @property
    def safe(self) -> int:
        """The smallest offset that a restart still needs."""
        if self.rebuilding:
            return self._assigned.offset
        heads = []
        for site, held in self._held.items():
            floor = round_down(self._state.floor(site))
            while held and held[0][1] <= floor:
                held.popleft()
            if held:
                heads.append(held[0][0])
        return min(heads, default=self._reached)

    @property
    def note(self) -> bytes:
        """What a restart needs beside `safe`: at most 2,420 bytes of ASCII for 200 sites."""
        if self.rebuilding:
            return self._assigned.note  # it describes the state that is being rebuilt
        fed: dict[int, int] = {}
        for site in self._held:
            floor, number = round_down(self._state.floor(site)), site_hash(site)
            fed[number] = min(floor, fed.get(number, floor))
        # A site without records since the restart keeps its floor. But sites that never return
        # (renamed ones, for example) must not fill the note: those with the newest floors stay.
        noted = self._noted.by_hash
        rest = sorted(noted.keys() - fed.keys(), key=noted.__getitem__, reverse=True)
        kept = {number: noted[number] for number in rest[: max(MAX_FLOORS - len(fed), 0)]}
        return pack(self._reached, _finite(kept) | _finite(fed))
