"""Tells an explanation as text: as a whole, around a moment, or of one incident."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from pipeline.judge.refusal import Refusal
from pipeline.judge.refusal_words import clock, seconds_of, town
from pipeline.types import SECOND, Alert, Anomaly
from workers.explain.explained import Explained
from workers.explain.refusals import (
    NearMiss,
    causes,
    cuts,
    fired_seconds,
    near_misses,
    seconds_by_reason,
)

_UTC = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})Z ")  # how a reason of an alert begins
_DAY = 86_400  # s
MOST_NEAR, MOST_FAR, MOST_REASONS = 12, 8, 4  # lines
AROUND = 5 * SECOND  # ns before and after a moment


def title(of: Explained) -> str:
    """What is explained: site, day, times and their zone."""
    begin = datetime.fromtimestamp(of.start // SECOND, of.zone)
    span = f"{clock(of.start, of.zone)} to {clock(of.end, of.zone)}"
    return f"{of.name}: site {of.site}, {begin:%Y-%m-%d}, {span} in {town(of.zone)}"


def summary(of: Explained) -> Iterator[str]:
    """Yields the lines about the whole span."""
    yield title(of)
    yield from (f"  {note}" for note in of.notes)
    fired = fired_seconds(of.anomalies)
    yield ""
    yield "What fired:" if of.last else "Nothing fired."
    yield from (f"  {line}" for line in incidents(of))
    near = near_misses(of.refusals, fired)
    yield ""
    yield "What nearly fired, the nearest first:" if near else "Nothing nearly fired."
    yield from (f"  {near_line(each, of)}" for each in near[:MOST_NEAR])
    if len(near) > MOST_NEAR:
        yield f"  and {len(near) - MOST_NEAR} more; --json names all of them"
    yield ""
    yield "What stood in the way, in seconds:"
    counts = seconds_by_reason(of.refusals, fired)
    for rule in of.rules:
        reasons = counts.get(rule)
        found = len({second for name, _, second in fired if name == rule})
        parts = [f"fired {found}"] if found else []
        parts += [f"{why} {n}" for why, n in reasons.most_common(MOST_REASONS)] if reasons else []
        yield f"  {rule}: {', '.join(parts) or 'nothing was seen, heard or said for it'}"
    if of.left_out:
        yield ""
        yield "What the stages left out:"
        yield from (f"  {what}: {n}" for what, n in of.left_out.items())


def incidents(of: Explained) -> Iterator[str]:
    """Yields a line for each incident."""
    for alert in of.last.values():
        end = "still open" if alert.end is None else f"to {clock(alert.end, of.zone)}"
        yield (
            f"{clock(alert.start, of.zone)} {end} {', '.join(alert.labels)} "
            f"({alert.severity}, score {alert.score:.2f}; {', '.join(alert.rules)}) {alert.id}"
        )


def near_line(each: NearMiss, of: Explained) -> str:
    """One near miss."""
    lasted = (each.end - each.start) // SECOND
    during = f" ({lasted} s)" if lasted > 1 else ""
    return f"{clock(each.start, of.zone)}{during} {cause_line(each.best)}"


def cause_line(refusal: Refusal) -> str:
    """The rule, its source, and what stood in the way."""
    source = f", {refusal.source}" if refusal.source and refusal.source != "window" else ""
    return f"{refusal.rule}{source}: {refusal.why}"


def around(of: Explained, at: int) -> Iterator[str]:
    """Yields the lines about a moment: what stood in the way, the first cause first."""
    start, end = at - AROUND, at + AROUND
    begin, until = clock(start, of.zone), clock(end, of.zone)
    yield title(of)
    yield f"Around {clock(at, of.zone)} ({begin} to {until}), the first cause first:"
    near, far = causes_around(of, at)
    for number, one in enumerate(near[:MOST_NEAR], 1):
        yield f"  {number}. {clock(one.start, of.zone)} {cause_line(one)}"
    if not near:
        yield "  Nothing alone stood in the way of a rule or head."
    found = [one for one in of.anomalies if start <= one.start < end]
    if found:
        yield "What fired:"
        yield from (f"  {line}" for line in _fired(found, of))
    if far:
        yield "Further off:"
        yield from (f"  {clock(o.start, of.zone)} {cause_line(o)}" for o in far[:MOST_FAR])
    told = {one.rule for one in (*near, *far)} | {one.rule for one in found}
    silent = [rule for rule in of.rules if rule not in told]
    if silent:
        yield f"Nothing was seen, heard or said for: {', '.join(silent)}"


def causes_around(of: Explained, at: int) -> tuple[list[Refusal], list[Refusal]]:
    """What alone stood in the way around a moment, first cause first; and what else did."""
    start, end = at - AROUND, at + AROUND
    found = causes(of.refusals.between(start, end), fired_seconds(of.anomalies), at)
    return [one for one in found if one.near], [one for one in found if not one.near]


def _fired(found: Sequence[Anomaly], of: Explained) -> Iterator[str]:
    by_rule: dict[tuple[str, str, str], list[Anomaly]] = {}
    for one in found:
        by_rule.setdefault((one.rule, one.source, one.label), []).append(one)
    for (rule, source, label), each in by_rule.items():
        best = max(one.score for one in each)
        first = clock(min(one.start for one in each), of.zone)
        times = f", {_times(len(each))}" if len(each) > 1 else ""
        where = "" if source == "window" else f", {source}"
        yield f"{first} {rule}{where}: {label} {best:.2f}{times}"


def local(reason: str, alert: Alert, of: Explained) -> str:
    """A reason of an alert, with its time on the clock of the site, where it has one in UTC."""
    found = _UTC.match(reason)
    if found is None:
        return reason
    hour, minute, second = (int(each) for each in found.groups())
    begin = alert.start // SECOND
    today = begin // _DAY * _DAY + hour * 3600 + minute * 60 + second
    time = min((today - _DAY, today, today + _DAY), key=lambda each: abs(each - begin))
    return f"{clock(time * SECOND, of.zone)} {reason[found.end() :]}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def incident(of: Explained, revisions: Sequence[Alert]) -> Iterator[str]:
    """Yields the lines about one incident: why it came, how it went on, why it closed."""
    last = revisions[-1]
    end = "still open" if last.end is None else f"to {clock(last.end, of.zone)}"
    yield title(of)
    yield (
        f"Incident {last.id}: {', '.join(last.labels)}; {last.severity}, score {last.score:.2f}; "
        f"{clock(last.start, of.zone)} {end}"
    )
    yield f"Why it came (rules {', '.join(last.rules)}; modes {', '.join(last.modes) or 'none'}):"
    yield from (f"  {local(reason, last, of)}" for reason in last.reasons)
    yield from (f'  said: "{words}"' for words in last.transcript)
    shares = sorted(last.contributions.items(), key=lambda item: -item[1])
    if shares:
        yield f"Contributions: {', '.join(f'{name} {share:.0%}' for name, share in shares)}"
    if last.heads:
        yield f"Heads: {', '.join(last.heads)}"
    yield "Findings:"
    for each in last.findings:
        place = f", zone {each.zone}" if each.zone else f", line {each.line}" if each.line else ""
        yield (
            f"  {each.label} {each.score:.2f} ({each.kind}, {each.source}{place}), "
            f"{clock(each.start, of.zone)} to {clock(each.end, of.zone)}, {_times(each.count)}"
        )
    if last.findings_cut:
        yield f"  and {last.findings_cut} more"
    yield "Revisions:"
    for alert in revisions:
        reasons = "; ".join(local(reason, alert, of) for reason in alert.reasons_new)
        new = f": {reasons}" if reasons else ""
        yield (
            f"  {alert.revision} {clock(alert.time, of.zone)} {alert.state}"
            f" ({', '.join(alert.changed)}){new}"
        )
    yield "Why it closed:"
    yield from (f"  {line}" for line in closing(of, last))
    near = [one for one in near_misses(of.refusals, fired_seconds(of.anomalies))
            if last.start - AROUND <= one.start < (last.end or of.end) + AROUND]  # fmt: skip
    if near:
        yield "What nearly fired meanwhile:"
        yield from (f"  {near_line(each, of)}" for each in near[:MOST_FAR])


def closing(of: Explained, last: Alert) -> Iterator[str]:
    """Yields why an incident closed when it did."""
    found = cuts(of.refusals, last.id)
    for one in found:
        yield f"{clock(one.start, of.zone)} {one.why}"
    if not found and last.end is None:
        yield "it is open at the end of the input"
    elif not found and last.end is not None:
        gap = seconds_of(of.settings.incidents.close_after)
        yield f"{clock(last.end, of.zone)} was its last finding, and none came within {gap}"
