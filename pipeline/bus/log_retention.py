"""How much a topic of the local log may keep, and how safely."""

from __future__ import annotations

import msgspec


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much a topic may keep.

    `max_bytes` limits the size on disk, the WAL included; `max_age` is seconds since an entry was
    appended. `hold` keeps entries that a known group has not committed, whatever their age and
    size; with `capped` no entry is taken then that the log has no room for (DiskFull). `durable`
    makes every flush survive a power cut (fsync), not only a killed process.

    `gives_way` topics lose their oldest entries when the disk or the log is full, read or not; a
    topic with 1 loses them before a topic with 2. `urgent`: whoever appends is told at once that
    the disk is full (DiskFull), and after 2 seconds that a file is locked (FileBusy). An
    append to any other topic waits, but for chunks (`gives_way`), which are told of a full disk.
    """

    max_bytes: int = 1 << 30
    max_age: float = 30 * 86400
    hold: bool = False
    capped: bool = False
    durable: bool = False
    gives_way: int = 0
    urgent: bool = False


def cost(value: bytes) -> int:
    """Returns an upper estimate of the bytes of a row on disk, its index entry included."""
    size = len(value)
    if size < 4096:  # rows of one page: up to half of it stays empty
        return size + size // 2 + 256
    return size + size // 256 + 4608  # overflow pages, of which the last is half empty
