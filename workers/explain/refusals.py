"""Keeps what stood in the way, and puts the first cause first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from pipeline.judge.refusal import INCIDENT, Ask, Refusal, refusal_of
from pipeline.types import FOREVER, SECOND, Anomaly

Second = tuple[str, str, int]  # rule, source, UTC second

PAUSE = 3  # s; the same cause after a longer pause is told anew
# what lasts for hours and is as it is meant to be: no near miss
USUAL = frozenset({"gated", "lost", "still", "unseen", "joined", "looks"})


class SiteRefusals:
    """A collector that keeps the refusals of one site in `[since, until)`, ns.

    Of each rule, source and second it keeps the strongest of each reason. What is said of incidents
    counts also after the span: an incident closes later than its last finding.
    """

    def __init__(self, since: int, until: int = FOREVER) -> None:
        self._since, self._until = since, until
        self.kept: dict[Second, dict[str, Refusal]] = {}

    def refuse(self, rule: str, source: str, start: int, reason: str, ask: Ask) -> None:
        """Keeps one refusal."""
        if start < self._since or (start >= self._until and rule != INCIDENT):
            return
        refusal = refusal_of(rule, source, start, reason, ask())
        of = self.kept.setdefault((rule, source, start // SECOND), {})
        known = of.get(reason)
        if known is None or refusal.weight >= known.weight:
            of[reason] = refusal

    def between(self, start: int, end: int) -> Iterator[Refusal]:
        """Yields what was kept of the seconds that overlap `[start, end)`, ns."""
        first, last = start // SECOND, -(-end // SECOND)
        for (_, _, second), of in self.kept.items():
            if first <= second < last:
                yield from of.values()


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """One cause that stood in the way of one rule from `start` to `end`, ns; `best` is the moment
    that came nearest."""

    start: int
    end: int
    best: Refusal


def first_of(refusals: Iterable[Refusal]) -> Refusal | None:
    """Returns the first cause: of what came nearest to an alert, what stood in its way."""
    return max(refusals, key=lambda refusal: refusal.weight, default=None)


def fired_seconds(anomalies: Iterable[Anomaly]) -> set[Second]:
    """The seconds in which a rule or head found something."""
    return {(one.rule, one.source, one.start // SECOND) for one in anomalies}


def causes(
    refusals: Iterable[Refusal], fired: set[Second], near_to: int | None = None
) -> list[Refusal]:
    """Returns the strongest refusal of each rule, source, reason and label, first cause first.

    Of a second in which the rule fired, only that it was told before counts. Of equally strong ones
    the nearest to `near_to` (ns) is taken.
    """

    def away(refusal: Refusal) -> int:
        return 0 if near_to is None else abs(refusal.start - near_to)

    best: dict[tuple[str, str, str, str], Refusal] = {}
    for one in refusals:
        if (one.rule, one.source, one.start // SECOND) in fired and one.reason != "joined":
            continue
        key = one.rule, one.source, one.reason, one.label
        known = best.get(key)
        if known is None or (one.weight, -away(one)) > (known.weight, -away(known)):
            best[key] = one
    return sorted(best.values(), key=lambda one: (*(-w for w in one.weight), away(one), one.rule))


def near_misses(kept: SiteRefusals, fired: set[Second]) -> list[NearMiss]:
    """Returns what nearly fired, the nearest first: the first cause of each second, where it alone
    stood in the way; seconds with one cause that follow one another are one near miss."""
    runs: dict[tuple[str, str, str, str], NearMiss] = {}
    done: list[NearMiss] = []
    for (rule, source, second), of in sorted(kept.kept.items(), key=lambda item: item[0][2]):
        first = first_of(of.values())
        if first is None or not first.near or first.reason in USUAL:
            continue
        if rule == INCIDENT or (rule, source, second) in fired:
            continue
        key, start = (rule, source, first.reason, first.label), second * SECOND
        run = runs.get(key)
        if run is not None and start - run.end > PAUSE * SECOND:
            done.append(run)
            run = None
        best = first if run is None or first.weight > run.best.weight else run.best
        begin = start if run is None else run.start
        runs[key] = NearMiss(start=begin, end=start + SECOND, best=best)
    found = [*done, *runs.values()]
    return sorted(found, key=lambda one: (*(-w for w in one.best.weight), one.start, one.best.rule))


def seconds_by_reason(kept: SiteRefusals, fired: set[Second]) -> dict[str, Counter[str]]:
    """In how many seconds what was the first cause, by rule."""
    counts: dict[str, Counter[str]] = {}
    for key, of in kept.kept.items():
        first = first_of(of.values())
        if first is not None and key not in fired and key[0] != INCIDENT:
            counts.setdefault(key[0], Counter())[first.reason] += 1
    return counts


def cuts(kept: SiteRefusals, incident: str) -> Sequence[Refusal]:
    """Why an incident ended, and how far the next one was, in the order of time."""
    found = [
        refusal
        for (rule, _, _), of in kept.kept.items()
        if rule == INCIDENT
        for refusal in of.values()
        if refusal.label == incident
    ]
    return sorted(found, key=lambda refusal: refusal.start)


def by_second(kept: SiteRefusals, rules: Sequence[str]) -> Mapping[tuple[str, str], list[Refusal]]:
    """The first cause of each second, by rule and source, in the order of time."""
    found: dict[tuple[str, str], list[Refusal]] = {}
    for (rule, source, _), of in sorted(kept.kept.items(), key=lambda item: item[0][2]):
        first = first_of(of.values())
        if first is not None and rule in rules:
            found.setdefault((rule, source), []).append(first)
    return found
