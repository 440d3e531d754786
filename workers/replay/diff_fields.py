"""Compares two documents of an alert, field by field.

The documents are those that subscribers get (`workers/delivery/alert_document.py`). Fields that
only one of the two has, such as those of a newer version, are not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from pipeline.config.problem import nearest
from pipeline.errors import ConfigError
from pipeline.types import SECOND
from workers.delivery.alert_document import AlertData, FindingData

MAX_VALUE = 120  # characters of a value that a text shows
KEY = ("source", "kind", "label", "zone", "line", "object")  # what makes two findings one

TOLD = ("site", "labels", "severity", "start", "end", "rules")  # what a last revision tells

Fields = Mapping[str, object]  # the fields of a document, as JSON values

_CLOCK = re.compile(r"\b(\d\d):(\d\d):(\d\d)Z")
_TEXTS = ("reasons", "reasons_new")
_SCORES = ("score", "contributions", "findings.score", "findings.box")
_TIMES = ("time", "start", "end", "findings.start", "findings.end", "findings.at")
_KNOWN = (
    "time",
    *AlertData.__struct_fields__,
    *(f"findings.{name}" for name in FindingData.__struct_fields__ if name not in KEY),
)
ALIASES: Mapping[str, tuple[str, ...]] = {  # words of --ignore for several fields
    "scores": _SCORES,
    "times": _TIMES,
    "reasons": _TEXTS,
    "revisions": ("revision", "changed", "reasons_new"),
}


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """Which differences do not count.

    `ignored` are fields and words of `ALIASES`. With `revisions`, only the last revision of an
    incident is compared. Scores may differ by `score`, times by `seconds`.
    """

    ignored: frozenset[str] = frozenset()
    score: float = 0.0
    seconds: float = 0.0

    @classmethod
    def of(
        cls, ignore: Sequence[str], score: float, seconds: float, *, last: bool = False
    ) -> Allowance:
        """Returns the allowance of these options; raises ConfigError that names the option.

        `last`: what a last revision tells (`TOLD`) is compared alone.
        """
        words = [word.strip() for each in ignore for word in each.split(",")]
        for word in words:
            if word not in _KNOWN and word not in ALIASES:
                hint = nearest(word, (*_KNOWN, *ALIASES)) or f"; such as {', '.join(ALIASES)}"
                msg = f"--ignore {word[:40]!a}: is no field of an alert{hint}"
                raise ConfigError(msg)
        for option, given in (("--score-tolerance", score), ("--time-tolerance", seconds)):
            if not 0 <= given < float("inf"):
                msg = f"{option} {given:g}: must be 0 or more"
                raise ConfigError(msg)
        meant = {field for word in words for field in ALIASES.get(word, (word,))}
        if last:
            meant |= {field for field in _KNOWN if field not in TOLD} | {"revisions"}
        return cls(ignored=frozenset(meant | set(words)), score=score, seconds=seconds)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A field that differs: in the last revisions, or in `revision` if these are alike.

    A field of a finding is named like `findings[desk intrusion floor].score`. A revision that only
    one run has is a change of the field `state`, with null for the other run.
    """

    field: str
    before: object
    after: object
    revision: int | None = None


def field_changes(before: Fields, after: Fields, allowed: Allowance) -> Iterator[Change]:
    """Yields the fields of two documents that differ, in their order; ids apart."""
    for name in before:
        if name == "alert_id" or name in allowed.ignored or name not in after:
            continue
        was, now = _compared(before, name), _compared(after, name)
        if name == "findings":
            yield from _finding_changes(_listed(was), _listed(now), allowed)
        elif not _same(name, was, now, allowed):
            yield Change(field=name, before=was, after=now)


def _compared(fields: Fields, name: str) -> object:
    """The value of a field; names of evidence without the id and the revision in them."""
    value = fields[name]
    if name != "evidence" or not isinstance(value, list):
        return value
    part = f"{fields['alert_id']}_{fields['revision']}_"
    return [str(file).replace(part, "") for file in value]


def root(field: str) -> str:
    return re.split(r"[.\[]", field, maxsplit=1)[0]


def _listed(findings: object) -> dict[tuple[str, ...], Fields]:
    """Findings by what makes them one."""
    rows = findings if isinstance(findings, list) else []
    rows = [row for row in rows if isinstance(row, dict)]
    return {tuple(str(row.get(name) or "") for name in KEY): row for row in rows}


def _finding_changes(
    before: Mapping[tuple[str, ...], Fields],
    after: Mapping[tuple[str, ...], Fields],
    allowed: Allowance,
) -> Iterator[Change]:
    differ = False
    for key in dict.fromkeys((*before, *after)):
        place = f"findings[{' '.join(word for word in key if word)}]"
        was, now = before.get(key), after.get(key)
        if was is None or now is None:
            differ = True
            yield Change(field=place, before=was, after=now)
            continue
        for name in was:
            field = f"findings.{name}"
            if name not in now or field in allowed.ignored:
                continue
            if not _same(field, was[name], now[name], allowed):
                differ = True
                yield Change(field=f"{place}.{name}", before=was[name], after=now[name])
    loose = allowed.score > 0 or allowed.seconds > 0 or {*_SCORES, *_TIMES} & allowed.ignored
    if not differ and not loose and [*before] != [*after]:
        orders = [[" ".join(filter(None, key)) for key in side] for side in (before, after)]
        yield Change(field="findings", before=orders[0], after=orders[1])


def _same(field: str, was: object, now: object, allowed: Allowance) -> bool:
    match was, now:
        case _ if was == now:
            same = True
        case [*_], [*_]:
            both = zip(was, now, strict=False)
            same = len(was) == len(now) and all(_same(field, *each, allowed) for each in both)
        case {**ours}, {**theirs} if field in _SCORES:
            names = {*ours, *theirs}
            same = all(_same(field, ours.get(n, 0), theirs.get(n, 0), allowed) for n in names)
        case ((float() | int()), (float() | int())) if field in _SCORES:
            same = abs(was - now) <= allowed.score + 1e-9
        case str(), str() if field in _TIMES:
            same = _same_time(was, now, allowed)
        case str(), str() if field in _TEXTS:
            same = _same_text(was, now, allowed)
        case _:
            same = False
    return same


def _same_time(was: str, now: str, allowed: Allowance) -> bool:
    try:
        return abs(ns_of(was) - ns_of(now)) <= allowed.seconds * SECOND
    except ValueError:
        return False  # a file that others wrote may hold any text


def _same_text(was: str, now: str, allowed: Allowance) -> bool:
    """Whether two reasons differ by their clock times alone, which are cut to whole seconds."""
    if _CLOCK.sub("Z", was) != _CLOCK.sub("Z", now):
        return False
    if "times" in allowed.ignored:
        return True
    clocks = [
        [int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in _CLOCK.findall(text)]
        for text in (was, now)
    ]
    apart = (abs(one - other) for one, other in zip(*clocks, strict=True))
    return all(min(away, 86_400 - away) < allowed.seconds + 1 for away in apart)


def ns_of(time: object) -> int:
    """The ns of a time of a document; it begins with a whole second in UTC."""
    text = str(time)
    whole = datetime.fromisoformat(f"{text[:19]}+00:00")
    return round(whole.timestamp()) * SECOND + int(text[20:29].rstrip("Z").ljust(9, "0"))


def cut(text: str) -> str:
    """Returns a value's beginning, where it is too long for a line."""
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."
