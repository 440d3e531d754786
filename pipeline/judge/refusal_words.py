"""The words of refusals: scores below thresholds, hours, incidents that ended, windows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from pipeline.judge.findings import is_event
from pipeline.judge.refusal import Obstacle
from pipeline.types import SECOND, Anomaly

NEXT = 3  # times `close_after`; a later finding has nothing to do with the incident before
_WHAT = {
    "close_after": "nothing was found for",
    "max_duration": "it lasted for",
}


def clock(time: int, zone: ZoneInfo) -> str:
    """The time of day on the clock of a zone, `21:58:03`; `time` in ns."""
    return f"{datetime.fromtimestamp(time // SECOND, zone):%H:%M:%S}"


def town(zone: ZoneInfo) -> str:
    """The short name of a time zone: `Berlin`, `UTC`."""
    return zone.key.rpartition("/")[2].replace("_", " ")


def off_hours(hours: str, time: int, zone: ZoneInfo) -> str:
    """Says that a rule did not hold at `time`, ns."""
    return f"schedule {hours}: it was {clock(time, zone)[:5]} in {town(zone)}"


def below(what: str, score: float, threshold: float, name: str = "") -> str:
    """`person 0.38 < min_score 0.40`: a score, its threshold and the setting, if it has a name."""
    digits = next((n for n in (2, 3) if round(score, n) < threshold), 4)
    whole, _, part = f"{threshold:.4f}".rstrip("0").partition(".")
    at = f"{name} " if name else ""
    return f"{what} {score:.{digits}f} < {at}{whole}.{part:0<2}"


def percent(part: float) -> str:
    """A part of the frame: `3 %`, and `less than 1 %`."""
    return "less than 1 %" if part < 0.01 else f"{part:.0%}".replace("%", " %")


def seconds_of(span: float) -> str:
    """A span in seconds for a person to read: `7 s`, `0.4 s`."""
    return f"{span:.1f} s" if span < 10 and span != int(span) else f"{span:.0f} s"


def ended(incident: str, bound: str, limit: int, after: tuple[str, int] | None) -> Obstacle:
    """Why an incident ended: the setting `bound` of `limit` ns.

    `after` is the label of the next finding, and how long after the last one it came, ns.
    """
    why = f"incident {incident} closed: {_WHAT[bound]} {seconds_of(limit / SECOND)} ({bound})"
    if after is None:
        return Obstacle(why, label=incident, near=False)
    label, gap = after
    if bound == "close_after":
        why = f"{why}, and the next, {label}, came {seconds_of(gap / SECOND)} after the last"
    near = bound != "close_after" or gap <= NEXT * limit
    return Obstacle(why, round(gap / SECOND, 3), limit / SECOND, incident, near=near)


def untold(incident: str, one: Anomaly, remind: int) -> Obstacle:
    """Why an anomaly gave no revision; `remind` in ns."""
    why = f"{one.label} joined the open incident {incident}, which had told it"
    event = is_event(one) and bool(one.reasons)  # what goes on gives no reason again
    if event:
        after = seconds_of(remind / SECOND)
        why = f"{why}; high and critical events are told again {after} later (remind)"
    return Obstacle(why, one.score, label=one.label, near=event)


def no_frames(what: str, kind: str, lasted: int, reason: str) -> Obstacle:
    """A lost source: `what` it is, the kind of things that did not come, for `lasted` ns."""
    why = f"{what} lost: no {kind} for {seconds_of(lasted / SECOND)}"
    return Obstacle(f"{why}: {reason}" if reason else why)


def unfused(reason: str, score: float, threshold: float, kinds: Iterable[str]) -> Obstacle:
    """Why the evidence of rules, of these kinds of sources, was no anomaly together."""
    if reason == "one-kind":
        why = f"evidence of {' and '.join(kinds)} alone: fusion needs several kinds"
        return Obstacle(why, score, threshold, near=False)
    if reason == "not-fresh":
        why = "its evidence was judged with earlier windows"
        return Obstacle(why, score, threshold, near=False)
    return Obstacle(below("fused evidence", score, threshold), score, threshold)


def unlearned(score: float, threshold: float, *, lasts: bool) -> Obstacle:
    """Why a learned head found nothing in a window; `lasts`: it had found it before."""
    if lasts:
        why = below("told before, and in the newest second the head is at", score, threshold)
        return Obstacle(why, score, threshold, near=False)
    return Obstacle(below("head", score, threshold), score, threshold)


def less_sure(score: float, fused: float) -> Obstacle:
    """Why what a learned head found was not told: the rules together were as sure."""
    why = f"head {score:.2f}: the evidence of the rules, {fused:.2f}, was told in its place"
    return Obstacle(why, score, fused, near=False)
