"""Looks up entries of a local log by time, also while a daemon uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection, connect
from sqlite3 import Error as SqliteError
from urllib.parse import quote

from pipeline.errors import OutsideError
from pipeline.ports import Entry

_AT_ONCE = 500
_SPAN = """SELECT (SELECT min(offset) FROM entries WHERE start >= ?),
    (SELECT max(offset) FROM entries WHERE start < ?)"""
_BEFORE = """SELECT coalesce(
    (SELECT max(offset) + 1 FROM entries WHERE offset < ? AND start NOT NULL),
    (SELECT min(offset) FROM entries))"""
_BEYOND = """SELECT coalesce((SELECT min(offset) - 1 FROM entries WHERE offset > ? AND start >= ?),
    (SELECT max(offset) FROM entries))"""
_ROWS = """SELECT offset, key, value, trace FROM entries
    WHERE offset >= ? AND offset <= ? ORDER BY offset LIMIT ?"""
_APPENDED = """SELECT appended, offset, key, value, trace FROM entries
    WHERE offset >= ? AND appended >= ? AND appended < ? ORDER BY offset LIMIT ?"""
_AT = "SELECT appended, offset, key, value, trace FROM entries WHERE offset = ?"


def between(folder: Path, topic: str, start: int, end: int) -> Iterator[Entry]:
    """Yields the entries that start in `[start, end)` (event time, ns UTC), and their neighbours.

    The neighbours are the adjacent entries without a start: rosters before, and promises after,
    which close the open windows. Works while a daemon uses the log. Raises OutsideError when there
    is no such log.
    """
    with _looking(folder, topic) as link:
        first, last = link.execute(_SPAN, (start, end)).fetchone()
        if first is not None:
            (first,) = link.execute(_BEFORE, (first,)).fetchone()
        if last is not None:
            (last,) = link.execute(_BEYOND, (last, end)).fetchone()
        while first is not None and last is not None and first <= last:
            rows = link.execute(_ROWS, (first, last, _AT_ONCE)).fetchall()
            yield from (Entry(0, *row) for row in rows)
            first = rows[-1][0] + 1 if rows else None


def appended(folder: Path, topic: str, start: int, end: int) -> Iterator[tuple[int, Entry]]:
    """Yields (append time, entry) for `[start, end)` ns UTC; raises as `between` does."""
    if folder.is_dir() and not (folder / f"{topic}.db").exists():
        return  # nothing was ever published to this topic
    with _looking(folder, topic) as link:
        first = 0
        while rows := link.execute(_APPENDED, (first, start, end, _AT_ONCE)).fetchall():
            yield from ((when, Entry(0, *row)) for when, *row in rows)
            first = rows[-1][1] + 1


def oldest(folder: Path, topic: str) -> int | None:
    """Returns the offset of the oldest stored entry; None without one. Raises as `between` does."""
    if folder.is_dir() and not (folder / f"{topic}.db").exists():
        return None
    with _looking(folder, topic) as link:
        (found,) = link.execute("SELECT min(offset) FROM entries").fetchone()
        return None if found is None else int(found)


def at(folder: Path, topic: str, offset: int) -> tuple[int, Entry] | None:
    """Returns (append time, entry) at `offset`, or None; raises as `between` does."""
    if folder.is_dir() and not (folder / f"{topic}.db").exists():
        return None
    with _looking(folder, topic) as link:
        row = link.execute(_AT, (offset,)).fetchone()
        return None if row is None else (row[0], Entry(0, *row[1:]))


@contextmanager
def _looking(folder: Path, topic: str) -> Iterator[Connection]:
    path = folder / f"{topic}.db"
    try:
        with closing(connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as link:
            yield link
    except SqliteError as error:
        msg = f"{path} cannot be read ({error}); is this the state folder of a daemon?"
        raise OutsideError(msg) from error
