"""Who is who, by looks: objects that were hidden, and objects that met and parted.

An object is hidden if it vanished inside the picture, and if its looks are known. A track that has
just begun is the same object if it can have come there, if it looks alike, and if no other hidden
object fits as well.

Where two objects meet, one box covers the other, and their tracks may be exchanged. When they have
parted, their looks tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, product

from pipeline.judge.active_track import ActiveTrack
from pipeline.judge.appearance import MIXED, SAME, covered, unlike
from pipeline.types import SECOND, Box

MOST = 64  # hidden objects of a camera; the newest ones are kept
EDGE = 0.02  # of the frame; a box this near to its left or right edge touches it
CLEAR = 0.15  # by so much the best pair must be better than the next one
STRIDE = 1.2  # heights a second; nobody comes farther, apart from
ROOM = 1.0  # heights
NEARNESS = 0.3  # how much the way counts beside the looks
MEETING = 3 * SECOND  # ns
SURE = 0.5  # by so much two tracks must look more like each other than like themselves
SOON = SECOND // 2  # ns
TALLER = 2.0  # times; the heights of two boxes of one object differ by less


class HiddenTracks:
    """The hidden objects of one camera; each is forgotten `span` ns after it was last seen.

    `aspect` is the frame's width / height.
    """

    def __init__(self, span: int, aspect: float) -> None:
        self._span, self._aspect = span, aspect
        self._hidden: list[ActiveTrack] = []

    @property
    def ids(self) -> frozenset[int]:
        """The ids of the hidden objects."""
        return frozenset(one.id for one in self._hidden)

    def hide(self, one: ActiveTrack) -> None:
        """Adds a track that ends, if it may come back."""
        if one.told and one.looks and not _leaves(one):
            self._hidden = [*self._hidden, one][-MOST:]

    def forget(self, time: int) -> None:
        """Forgets who has been away for too long."""
        self._hidden = [one for one in self._hidden if time - one.seen <= self._span]

    def returned(
        self, new: Sequence[ActiveTrack], missed: Sequence[ActiveTrack]
    ) -> list[tuple[ActiveTrack, ActiveTrack]]:
        """Returns pairs of a new track and the track that it continues, which is hidden no more.

        `missed` are tracks that live and were not seen; they may be continued, too.
        """
        away = [*self._hidden, *(one for one in missed if one.looks and not _leaves(one))]
        new = [one for one in new if one.looks and not _at_edge(one.began)]
        costs = {
            (old, now): cost
            for old, now in product(range(len(away)), range(len(new)))
            if (cost := self._cost(away[old], new[now])) is not None
        }
        pairs = []
        while costs:
            (old, now), least = min(costs.items(), key=lambda item: (item[1], item[0]))
            near = {pair for pair in costs if pair[0] == old or pair[1] == now}
            if all(costs[pair] >= least + CLEAR for pair in near - {(old, now)}):
                pairs.append((new[now], away[old]))
            # Otherwise nobody can tell which of them it is.
            costs = {pair: cost for pair, cost in costs.items() if pair not in near}
        gone = {old.id for _, old in pairs}
        self._hidden = [one for one in self._hidden if one.id not in gone]
        return pairs

    def _cost(self, old: ActiveTrack, new: ActiveTrack) -> float | None:
        """How badly a new track continues another one; None if it cannot."""
        gap = new.first - old.seen
        if gap <= 0 or old.box.label != new.box.label:
            return None
        before, after = _height(old.box), _height(new.began)
        if max(before, after) > TALLER * min(before, after):
            return None
        way = self._way(old.box, new.began) / max(before, after)
        reach = ROOM + STRIDE * gap / SECOND
        if way > reach:
            return None
        looks = unlike(old.looks.rows, new.looks.rows)
        return looks + NEARNESS * way / reach if looks <= SAME else None

    def _way(self, one: Box, other: Box) -> float:
        """From the middle of a box to that of another one, in heights of the frame."""
        across = (other.x1 + other.x2 - one.x1 - one.x2) / 2 * self._aspect
        return math.hypot(across, (other.y1 + other.y2 - one.y1 - one.y2) / 2)


class Meetings:
    """The pairs of tracks of which one has covered the other, in the last `MEETING` ns."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], tuple[int, int]] = {}  # ids -> begin, last time

    def see(
        self, tracks: Sequence[ActiveTrack], time: int
    ) -> list[tuple[ActiveTrack, ActiveTrack, int]]:
        """Takes the tracks that were seen in a frame; returns pairs that are exchanged, and since
        when."""
        found = []
        for one, other in combinations(tracks, 2):
            ids = one.id, other.id
            if max(covered(one.box, other.box), covered(other.box, one.box)) > MIXED:
                self._since[ids] = self._since.get(ids, (time, 0))[0], time
            elif ids in self._since and one.look is not None and other.look is not None:
                if one.looks and other.looks and _exchanged(one, other):
                    found.append((one, other, self._since[ids][0]))
                del self._since[ids]
        self._since = {ids: at for ids, at in self._since.items() if time - at[1] <= MEETING}
        return found


def _exchanged(one: ActiveTrack, other: ActiveTrack) -> bool:
    """Whether each of two tracks looks like the other one did."""
    mine, yours = one.looks.rows, other.looks.rows
    kept = unlike(mine, one.look[None]) + unlike(yours, other.look[None])
    crossed = unlike(mine, other.look[None]) + unlike(yours, one.look[None])
    return crossed + SURE < kept


def _height(box: Box) -> float:
    return max(box.y2 - box.y1, 1e-3)


def _at_edge(box: Box) -> bool:
    return box.x1 <= EDGE or box.x2 >= 1 - EDGE


def _leaves(one: ActiveTrack) -> bool:
    """Whether it was last seen at the edge of the picture, or would have come there at once."""
    if len(one.path) < 2:
        return _at_edge(one.box)
    here, before = one.path[-1], one.path[-2]
    ahead = (here.x - before.x) / max(here.time - before.time, 1) * SOON
    return one.box.x1 + min(ahead, 0) <= EDGE or one.box.x2 + max(ahead, 0) >= 1 - EDGE
