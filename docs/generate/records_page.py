"""The page docs/reference/records.md, made of the types in pipeline/types.py."""

from __future__ import annotations

from typing import get_args

import msgspec

from docs.generate.fields import NOTE, about, fields, table, wrapped
from pipeline import topics, types
from pipeline.run import KINDS

HEAD = """\
# Records

The records that flow from capture to delivery: what each topic holds, and each field with its type, unit and meaning.
The same types are used on the wire, in the local log and in JSON lines.

A time is a whole number of nanoseconds (ns) in UTC since 1970-01-01. A span is half open: it contains its `start` and
not its `end`. Boxes and lines are fractions of the frame: 0 is the left or top edge, 1 is the right or bottom edge. An
embedding is a vector of little-endian float16 numbers. It is empty where there is none.
"""
SPAN = {  # fields that mean the same in every record
    "start": "Begin of its span",
    "end": "End of its span",
    "seq": "Counts every captured frame or chunk of the source",
    "embedding": "The vector of its encoder",
}


def record_types() -> tuple[type[msgspec.Struct], ...]:
    """The records, in the order of the pipeline, and after some of them their parts."""
    found = list(get_args(types.Any))
    found.insert(found.index(types.Detections) + 1, types.Box)
    found.append(types.Finding)
    return tuple(found)


def page() -> str:
    """The whole page."""
    held = [
        (f"`{topic}`", ", ".join(f"[{t.__name__}](#{t.__name__.lower()})" for t in KINDS[topic]))
        for topic in topics.ALL_TOPICS
        if topic in KINDS
    ]
    parts = [HEAD, "## What each topic holds\n\n" + table(("topic", "records"), held)]
    parts += [_section(cls) for cls in record_types()]
    return "\n".join([*parts, NOTE.format("pipeline/types.py")])


def rows(cls: type) -> list[tuple[str, str, str, str]]:
    """Name, type with unit, default and meaning of each field."""
    told = []
    for row in fields(cls):
        unit, text = row.unit, row.about
        if row.name in SPAN and not (unit or text):
            unit, text = "ns" if row.name in ("start", "end") else "", SPAN[row.name]
        kind = row.type + (f"; {unit}" if unit else "")
        told.append((f"`{row.name}`", kind, row.default or "", text))
    return told


def _section(cls: type) -> str:
    head = ("field", "type; unit", "default", "meaning")
    return f"## {cls.__name__}\n\n{wrapped(about(cls))}\n\n{table(head, rows(cls))}"
