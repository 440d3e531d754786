"""Compares two runs, incident by incident: what is added, gone or changed.

What subscribers get is compared: the documents of `workers/delivery/alert_document.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from pipeline.types import FOREVER, SECOND, Alert
from workers.delivery import cloudevent
from workers.replay.diff_fields import Allowance, Change, Fields, field_changes, ns_of, root
from workers.replay.sent_alerts import OUTSIDE_LABEL

NEAR = 5 * SECOND  # ns around an incident: a window is so long, and a track begins in it


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as subscribers know it; `revisions` are its documents by their number.

    Times in ns. `end` of an open incident is the time of its last revision.
    """

    id: str
    site: str
    group: str
    labels: tuple[str, ...]
    start: int
    end: int
    revisions: Mapping[int, Fields]

    @property
    def last(self) -> Fields:
        """The fields of the last revision."""
        return self.revisions[max(self.revisions)]

    @property
    def first(self) -> int:
        """The lowest revision that is there."""
        return min(self.revisions)


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """An incident of a difference, in its last revision."""

    id: str
    site: str
    labels: tuple[str, ...]
    severity: str
    start: str
    end: str | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents that differ: `added`, `gone`, `changed`, `split`, `merged` or `regrouped`.

    Where one became several, or several one, `changes` compares the two that are most alike.
    `unseen_frames` counts the frames near it that live models had no time to look at, where they
    are looked at now.
    """

    what: str
    before: tuple[Named, ...]
    after: tuple[Named, ...]
    changes: tuple[Change, ...] = ()
    unseen_frames: int = 0


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """How two runs differ; the numbers are of incidents without those of failed stages.

    Failed stages are told by the process, and a replay does not judge them again: they are listed,
    and are no difference.
    """

    before: int
    after: int
    differences: tuple[Difference, ...]
    stage_failed_before: tuple[Named, ...] = ()
    stage_failed_after: tuple[Named, ...] = ()


def incidents(documents: Iterable[Fields]) -> list[Incident]:
    """Returns the incidents of flat documents (`flat`), in the order of their first revisions."""
    found: dict[tuple[str, str], dict[int, Fields]] = {}
    for each in documents:
        key = str(each["site"]), str(each["alert_id"])
        found.setdefault(key, {})[int(str(each["revision"]))] = each
    return [incident(id_, site, revisions) for (site, id_), revisions in found.items()]


def incident(id_: str, site: str, revisions: Mapping[int, Fields]) -> Incident:
    """Returns an incident of the flat documents of its revisions."""
    last = revisions[max(revisions)]
    start, end = ns_of(last["start"]), ns_of(last["end"] or last["time"])
    labels = last["labels"]
    return Incident(
        id=id_,
        site=site,
        group=str(last.get("group", "")),
        labels=tuple(map(str, labels)) if isinstance(labels, list | tuple) else (),
        start=start,
        end=max(end, start + 1),
        revisions=revisions,
    )


def flat(document: Mapping[str, object]) -> Fields:
    """Returns the fields of a CloudEvent that are compared: its time, and its data."""
    data = document["data"]
    return {"time": document["time"], **(data if isinstance(data, dict) else {})}


def of_alert(alert: Alert) -> Fields:
    """Returns the fields of a revision, with everything that a document may leave out."""
    return flat(cloudevent.event(alert))


def diff(
    before: Iterable[Incident], after: Iterable[Incident], allowed: Allowance | None = None
) -> Diff:
    """Compares two runs."""
    runs = [[*before], [*after]]
    failed = [[one for one in run if OUTSIDE_LABEL in one.labels] for run in runs]
    was, now = ([one for one in run if OUTSIDE_LABEL not in one.labels] for run in runs)
    found = [_difference(*group, allowed or Allowance()) for group in matched(was, now)]
    return Diff(
        before=len(was),
        after=len(now),
        differences=tuple(each for each in found if each is not None),
        stage_failed_before=tuple(map(_named, failed[0])),
        stage_failed_after=tuple(map(_named, failed[1])),
    )


def with_unseen(found: Diff, unseen: Sequence[tuple[str, int]]) -> Diff:
    """Counts for each difference the frames, (site, start in ns), that live did not look at."""

    def counted(each: Difference) -> Difference:
        sides = (*each.before, *each.after)
        begin = min(ns_of(one.start) for one in sides) - NEAR
        ends = [ns_of(one.end) + NEAR for one in sides if one.end is not None]
        end = max(ends) if len(ends) == len(sides) else FOREVER
        near = sum(site == sides[0].site and begin <= time < end for site, time in unseen)
        return msgspec.structs.replace(each, unseen_frames=near)

    return msgspec.structs.replace(found, differences=tuple(map(counted, found.differences)))


Key = tuple[str, str]  # site and id
Group = tuple[list[Incident], list[Incident]]


def matched(before: Sequence[Incident], after: Sequence[Incident]) -> list[Group]:
    """Returns incidents that belong together, by start: by id, else by site, label and overlap.

    An incident of which no one is left to match belongs to the pair that it overlaps most: one
    incident was split, or several were merged. It does not matter which run is the first.
    """
    was, now = ({_key(one): one for one in run} for run in (before, after))
    pairs = [(was.pop(key), now.pop(key)) for key in [*was] if key in now]
    related = _related(was.values(), now.values())
    for one, other in sorted(related, key=lambda pair: _closest(*pair)):
        if _key(one) in was and _key(other) in now:
            pairs.append((was.pop(_key(one)), now.pop(_key(other))))
    groups: list[Group] = [([one], [other]) for one, other in pairs]
    ones, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    beside: list[tuple[int, Incident, Incident]] = [
        *((0, one, other) for one, other in _related(was.values(), others)),
        *((1, other, one) for one, other in _related(ones, now.values())),
    ]
    at = [{_key(pair[side]): n for n, pair in enumerate(pairs)} for side in (0, 1)]
    near: dict[tuple[int, Key], list[int]] = {}
    for side, one, other in beside:
        near.setdefault((side, _key(one)), []).append(at[1 - side][_key(other)])
    for side, left in enumerate((was, now)):
        for key, one in left.items():
            found = near.get((side, key), ())
            if not found:
                groups.append(([one], []) if side == 0 else ([], [one]))
                continue
            best = min(
                found, key=lambda n: (_closest(one, pairs[n][1 - side]), _closest(*pairs[n]))
            )
            groups[best][side].append(one)
    return sorted(groups, key=_place)


def _key(one: Incident) -> Key:
    return one.site, one.id


def _related(
    before: Iterable[Incident], after: Collection[Incident]
) -> Iterator[tuple[Incident, Incident]]:
    """Yields the pairs of one site that have a label in common and overlap in time."""
    by_site: dict[str, list[Incident]] = {}
    for one in sorted(after, key=lambda one: one.start):
        by_site.setdefault(one.site, []).append(one)
    longest = max((one.end - one.start for one in after), default=0)
    for one in before:
        there = by_site.get(one.site, [])
        at = bisect_left(there, one.start - longest, key=lambda other: other.start)
        for other in there[at:]:
            if other.start >= one.end:
                break
            grouped = one.group == other.group or not (one.group and other.group)
            if other.end > one.start and grouped and set(one.labels) & set(other.labels):
                yield one, other


def _closest(one: Incident, other: Incident) -> tuple[int, list[tuple[int, str]]]:
    """The order of pairs: the longest overlap first; it is the same for both directions."""
    overlap = min(one.end, other.end) - max(one.start, other.start)
    return -overlap, sorted([(one.start, one.id), (other.start, other.id)])


def _place(group: Group) -> tuple[int, str, str]:
    return min((one.start, one.site, one.id) for side in group for one in side)


def _difference(
    before: list[Incident], after: list[Incident], allowed: Allowance
) -> Difference | None:
    changes = tuple(changes_of(before[0], after[0], allowed)) if before and after else ()
    match len(before), len(after):
        case (_, 0):
            what = "gone"
        case (0, _):
            what = "added"
        case (1, 1):
            what = "changed"
        case (1, _):
            what = "split"
        case (_, 1):
            what = "merged"
        case _:
            what = "regrouped"
    if what == "changed" and not changes:
        return None
    sides = (tuple(map(_named, sorted(side, key=_start))) for side in (before, after))
    return Difference(what=what, before=next(sides), after=next(sides), changes=changes)


def _start(one: Incident) -> tuple[int, str]:
    return one.start, one.id


def _named(one: Incident) -> Named:
    last = one.last
    return Named(
        id=one.id,
        site=one.site,
        labels=one.labels,
        severity=str(last.get("severity", "")),
        start=str(last["start"]),
        end=None if last["end"] is None else str(last["end"]),
    )


def changes_of(before: Incident, after: Incident, allowed: Allowance) -> Iterator[Change]:
    """Yields the changes of the last revisions, then of earlier ones in other fields.

    Revisions are compared from the lowest one on that both have: older ones are no longer stored.
    """
    if before.id != after.id and "alert_id" not in allowed.ignored:
        yield Change(field="alert_id", before=before.id, after=after.id)
    changes = list(field_changes(before.last, after.last, allowed))
    yield from changes
    if "revisions" in allowed.ignored:
        return
    told = {root(change.field) for change in changes}
    first, last = max(before.first, after.first), min(max(before.revisions), max(after.revisions))
    for number, found in revision_changes(before, after, first, allowed):
        new = [change for change in found if root(change.field) not in told and number <= last]
        yield from (msgspec.structs.replace(change, revision=number) for change in new)
        told |= {root(change.field) for change in new}


def revision_changes(
    before: Incident, after: Incident, first: int, allowed: Allowance
) -> Iterator[tuple[int, list[Change]]]:
    """Yields the changes of each revision that differs, from number `first` on."""
    for number in sorted({*before.revisions, *after.revisions}):
        if number < first:
            continue
        was, now = before.revisions.get(number), after.revisions.get(number)
        if was is None or now is None:
            states = [None if of is None else of["state"] for of in (was, now)]
            yield number, [Change(field="state", before=states[0], after=states[1])]
        elif changes := list(field_changes(was, now, allowed)):
            yield number, changes
