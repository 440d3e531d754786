"""`fusewatch diff`: says how the alerts of two runs differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError
from workers.exit_codes import FOUND, OK
from workers.replay.diff import Diff, Difference, Incident, Named, diff
from workers.replay.diff_fields import Allowance, Change, cut
from workers.runtime.printable import printable
from workers.tuning.alert_files import files_of, read_alerts

MAX_CHANGES = 12  # changes of one incident that the text names; the rest is counted
MAX_DIFFERENCES = 50  # of one file

FOLLOWS = {
    "split": "one incident became several",
    "merged": "several incidents became one",
    "regrouped": "several incidents became others",
}


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The alerts of one run, and what they are called; a name is empty where there is no file."""

    name: str
    incidents: Sequence[Incident] = ()


def diff_command(before: Path, after: Path, *, allowed: Allowance, as_json: bool) -> int:
    """Compares alerts and prints how they differ; returns 1 if they do, else 0.

    Each of both is a file of alerts, or a folder of them; those of folders are paired by name.
    Raises ConfigError.
    """
    pairs = list(_pairs(before, after))
    found = [(was, now, diff(was.incidents, now.incidents, allowed)) for was, now in pairs]
    if as_json:
        rows = [
            {"before_file": was.name or None, "after_file": now.name or None}
            | msgspec.to_builtins(each)
            for was, now, each in found
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        for was, now, each in found:
            for line in _lines(was, now, each):
                sys.stdout.write(printable(line) + "\n")
    return FOUND if any(each.differences for _, _, each in found) else OK


def _pairs(before: Path, after: Path) -> Iterator[tuple[Side, Side]]:
    for path, other in ((before, after), (after, before)):
        if path.is_dir() and not other.is_dir():
            msg = f"{path} is a folder and {other} is not: name two files, or two folders"
            raise ConfigError(msg)
    if not before.is_dir():
        yield _side(before), _side(after)
        return
    was, now = files_of(before), files_of(after)
    for name in sorted({*was, *now}):
        yield _side(was.get(name)), _side(now.get(name))


def _side(path: Path | None) -> Side:
    return Side(name="") if path is None else Side(name=str(path), incidents=read_alerts(path))


def _lines(was: Side, now: Side, found: Diff) -> Iterator[str]:
    names = [side.name or "(no such file)" for side in (was, now)]
    title = f"{names[0]} -> {names[1]}"
    if not found.differences:
        yield f"{title}: {_count(found.before)}, the same"
    else:
        kinds = [each.what for each in found.differences]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(sorted(kinds)))
        yield f"{title}: {_count(found.before)} and {found.after}: {counts}"
    for each in found.differences[:MAX_DIFFERENCES]:
        yield from _difference(each)
    if len(found.differences) > MAX_DIFFERENCES:
        yield f"  and {len(found.differences) - MAX_DIFFERENCES} more; --json names all of them"
    for word, failed in (
        ("before", found.stage_failed_before),
        ("after", found.stage_failed_after),
    ):
        for one in failed:
            yield f"  not compared ({word}): {_named(one)} tells of a failed stage"


def _count(number: int) -> str:
    return f"{number} incident{'s' if number != 1 else ''}"


def _difference(each: Difference) -> Iterator[str]:
    named = each.after[0] if each.what == "added" else each.before[0]
    if each.what not in FOLLOWS:
        yield f"  {each.what} {_named(named)}"
    else:
        yield f"  {each.what}: {FOLLOWS[each.what]}"
        yield from (f"    before {_named(one)}" for one in each.before)
        yield from (f"    after  {_named(one)}" for one in each.after)
    for change in each.changes[:MAX_CHANGES]:
        yield from _change(change)
    if len(each.changes) > MAX_CHANGES:
        yield f"    and {len(each.changes) - MAX_CHANGES} more; --json names all of them"


def _named(one: Named) -> str:
    end = "still open" if one.end is None else f"to {_second(one.end)[11:]}"
    labels = ", ".join(one.labels)
    return f"{one.id} {one.site}: {labels} ({one.severity}), {_second(one.start)} {end}"


def _second(time: str) -> str:
    """A time of a document up to its tenth of a second, where it has one."""
    tenth = time[19:21] if time[20:21] not in ("", "0") else ""
    return f"{time[:19]}{tenth}Z"


def _change(change: Change) -> Iterator[str]:
    where = "" if change.revision is None else f" (revision {change.revision})"
    match change.before, change.after:
        case [*was], [*now] if _texts(was) and _texts(now) and {*was} != {*now}:
            yield f"    {change.field}{where}:"
            yield from (f"      - {cut(text)}" for text in was if text not in now)
            yield from (f"      + {cut(text)}" for text in now if text not in was)
        case was, now:
            yield f"    {change.field}{where}: {_value(was)} -> {_value(now)}"


def _texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return cut(text) if text else '""'
