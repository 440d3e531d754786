"""Measures alerts against the truth: recall, false alerts an hour, and the time to an alert.

An incident counts for a true event that it overlaps, whatever its label, unless one label is asked
for. An incident beside all of them is a false alert. Where people have reviewed alerts, the true
events are the alerts that they called right. An incident is false there only if it overlaps an
alert that they called wrong; others were not reviewed, and are counted apart. Alerts about lost
sources and failed stages do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from models.training.dataset import TRUTH_COLLAR
from pipeline.types import FOREVER, SECOND, SYSTEM, Alert

HOUR = 3600 * SECOND


class Event(msgspec.Struct, frozen=True):
    """Something that a person knows: `[start, end)` in ns, at a site."""

    site: str
    start: int
    end: int
    label: str


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an input: true events, and for reviewed alerts what was wrong.

    `wrong` is None where everything that happened is known.
    """

    events: tuple[Event, ...]
    wrong: tuple[Event, ...] | None = None


class Revision(msgspec.Struct, frozen=True):
    """When a revision that tells of something was caused, ns, and its labels; none that closes."""

    time: int
    labels: tuple[str, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An incident, as far as it is measured; `end` is FOREVER while it is open."""

    site: str
    start: int
    end: int
    labels: tuple[str, ...]
    revisions: tuple[Revision, ...]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What was judged: its length in ns, and its truth, if that is known."""

    name: str
    length: int
    truth: Truth | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the alerts of one combination of settings are worth; null: nothing to measure it by."""

    incidents: int
    events: int  # true ones
    found: int  # of them
    false: int
    unreviewed: int
    hours: float  # with a known truth
    recall: float | None
    false_an_hour: float | None
    alert_after_s: float | None  # median over the events that were found
    alert_after_p95_s: float | None

    @property
    def rank(self) -> tuple[float, float, float] | None:
        """What is to be small: missed share, false alerts an hour, and the time to an alert."""
        if self.recall is None and self.false_an_hour is None:
            return None
        after = float("inf") if self.alert_after_s is None else self.alert_after_s
        return 1 - (self.recall or 0), self.false_an_hour or 0, after


def found_in(alerts: Iterable[Alert]) -> list[Found]:
    """Returns the incidents of alert revisions, without those about Fusewatch itself."""
    by_id: dict[tuple[str, str], list[Alert]] = {}
    for alert in alerts:
        by_id.setdefault((alert.site, alert.id), []).append(alert)
    return [
        Found(
            site=last.site,
            start=last.start,
            end=FOREVER if last.end is None else last.end,
            labels=last.labels,
            revisions=tuple(
                Revision(each.time, each.labels) for each in revisions if each.state != "closed"
            ),
        )
        for revisions in by_id.values()
        if SYSTEM not in (last := revisions[-1]).rules
    ]


def measured(cases: Sequence[tuple[Case, Sequence[Found]]], label: str = "") -> Outcome:
    """Returns the outcome over several cases; with a `label`, of its events and incidents alone."""
    incidents = events = false = unreviewed = length = 0
    after: list[float] = []
    for case, found in cases:
        told = [one for one in found if not label or label in one.labels]
        incidents += len(told)
        if case.truth is None:
            continue
        length += case.length
        true = [each for each in case.truth.events if not label or each.label == label]
        events += len(true)
        after += [time for each in true if (time := _after(each, told, label)) is not None]
        beside = [one for one in told if not any(_near(one, each) for each in true)]
        if case.truth.wrong is None:
            false += len(beside)
        else:
            wrong = [one for one in beside if any(_near(one, each) for each in case.truth.wrong)]
            false += len(wrong)
            unreviewed += len(beside) - len(wrong)
    return Outcome(
        incidents=incidents,
        events=events,
        found=len(after),
        false=false,
        unreviewed=unreviewed,
        hours=length / HOUR,
        recall=len(after) / events if events else None,
        false_an_hour=false * HOUR / length if length else None,
        alert_after_s=round(float(np.median(after)), 3) if after else None,
        alert_after_p95_s=round(float(np.quantile(after, 0.95)), 3) if after else None,
    )


def _near(one: Found, event: Event) -> bool:
    """Whether an incident overlaps an event, whose ends nobody can place to the second."""
    begin, end = event.start - TRUTH_COLLAR, event.end + TRUTH_COLLAR
    return one.site == event.site and one.start < end and one.end > begin


def _after(event: Event, found: Sequence[Found], label: str) -> float | None:
    """How many seconds after the begin of an event an alert told of it; None: none did.

    By event time: what models and networks take is not in it. An incident that was open before
    tells of it by its next revision; without one it was there at the begin.
    """
    times = []
    for one in found:
        if not _near(one, event):
            continue
        told = [each.time for each in one.revisions if not label or label in each.labels]
        later = [time for time in told if time >= event.start - TRUTH_COLLAR]
        times.append(min(later or told))
    return max(0.0, (min(times) - event.start) / SECOND) if times else None


def unbeaten(outcomes: Sequence[Outcome]) -> list[bool]:
    """Returns whether no other outcome is better in one figure, and as good in the others.

    Without any truth nothing is known to be better, and no outcome is named.
    """
    ranks = [outcome.rank for outcome in outcomes]
    known = [rank for rank in ranks if rank is not None]
    return [rank is not None and not any(_beats(other, rank) for other in known) for rank in ranks]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
