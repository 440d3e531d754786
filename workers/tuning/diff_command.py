"""`fusewatch diff`: says how the alerts of two runs differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.errors import ConfigError
from workers.replay.diff import Diff, Difference, Named, diff, with_unseen
from workers.replay.diff_fields import Allowance, Change, cut
from workers.runtime.printable import printable
from workers.stored.left_out import Unusable
from workers.tuning.alert_files import files_of
from workers.tuning.run_alerts import Run, is_recording, judged_run, run_of

MAX_CHANGES = 12  # changes of one incident that the text names; the rest is counted
MAX_DIFFERENCES = 50  # of one file

FOLLOWS = {
    "split": "one incident became several",
    "merged": "several incidents became one",
    "regrouped": "several incidents became others",
}


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """By which config the second run is judged, as `replay` does it."""

    config: Path
    origin: str
    rules: str


def diff_command(
    before: Path,
    after: Path | None,
    *,
    allowed: Allowance,
    judged: Judged | None = None,
    as_json: bool = False,
) -> bool:
    """Compares alerts and prints how they differ; returns whether they do.

    Each of both is a file of alerts, a recording, or a folder of files of alerts; those of folders
    are paired by name. With `judged`, the second is a recording, a scene or a media file that is
    judged now; without it, the first one is. Raises ConfigError and OutsideError; where files of
    folders cannot be used, after the others were compared.
    """
    unusable = Unusable()
    pairs = list(_pairs(before, after, judged, unusable))
    found = [
        (was, now, with_unseen(diff(was.incidents, now.incidents, allowed), now.unseen))
        for was, now in pairs
    ]
    if as_json:
        rows = [
            {"before_file": was.name or None, "after_file": now.name or None}
            | msgspec.to_builtins(each)
            for was, now, each in found
        ]
        rows += [{"input": each.path, "left_out": each.why} for each in unusable.left_out]
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        for was, now, each in found:
            for line in _lines(was, now, each):
                sys.stdout.write(printable(line) + "\n")
    if count := len(unusable.left_out):
        msg = f"{count} of {count + len(found)} files cannot be compared: see above"
        raise ConfigError(msg)
    return any(each.differences for _, _, each in found)


def _pairs(
    before: Path, after: Path | None, judged: Judged | None, unusable: Unusable
) -> Iterator[tuple[Run, Run]]:
    if judged is not None:
        was = run_of(before)
        yield (
            was,
            judged_run(after or before, judged.config, origin=judged.origin, rules=judged.rules),
        )
        return
    if after is None:
        msg = f"{before}: compared with what? Name a second run, or --config CONFIG to judge it"
        raise ConfigError(msg)
    folders = [path for path in (before, after) if path.is_dir() and not is_recording(path)]
    if len(folders) == 1:
        other = after if folders[0] == before else before
        msg = f"{folders[0]} is a folder and {other} is not: name two files, or two folders"
        raise ConfigError(msg)
    if not folders:
        yield run_of(before), run_of(after)
        return
    ours, theirs = files_of(before), files_of(after)
    names = sorted({*ours, *theirs})
    for name in names:
        pair: tuple[Run, Run] | None = None
        with unusable.trying(Path(name), alone=len(names) == 1):
            pair = _run(ours.get(name)), _run(theirs.get(name))
        if pair is not None:
            yield pair


def _run(path: Path | None) -> Run:
    return Run(name="") if path is None else run_of(path)


def _lines(was: Run, now: Run, found: Diff) -> Iterator[str]:
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
    if each.unseen_frames:
        yield f"    live had no time to look at {each.unseen_frames} frames near it"
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
    was, now = _texts(change.before), _texts(change.after)
    if {*was} == {*now}:  # also where none of both is a list of texts
        yield f"    {change.field}{where}: {_value(change.before)} -> {_value(change.after)}"
        return
    yield f"    {change.field}{where}:"
    yield from (f"      - {cut(text)}" for text in was if text not in now)
    yield from (f"      + {cut(text)}" for text in now if text not in was)


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _value(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return cut(text) if text else '""'
