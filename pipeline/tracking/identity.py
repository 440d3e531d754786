"""Who is who, by looks: objects that were hidden, and objects that met and parted.

An object is hidden if it vanished inside the picture, and if its looks are known. A track that has
just begun is the same object if it can have come there, if it looks alike, and if no other hidden
object fits as well.

Where two objects meet, one box covers the other, and their tracks may be exchanged. When they have
parted, their looks tell.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from itertools import combinations, product

from pipeline.tracking.active_track import ActiveTrack
from pipeline.tracking.appearance import EDGE, MIXED, SAME, at_edge, covered, unlike
from pipeline.types import SECOND, Box

MOST = 64  # objects of a camera that are away; the newest ones are kept
# A pair of a hidden object and a new track costs the negative logarithm of its likelihood.
MOST_COST = 7.0  # of a pair that may be one object
SURELY = 0.15  # unlikeness up to which nothing more is awaited
CLEAR = 0.7  # by so much the best pair must be better than the next one
TELLS = 18.0  # the cost of a look that has nothing in common
STAYS, WANDERS = 0.5, 0.5  # heights, and heights a second: how far away a hidden object comes out
ROOM, STRIDE = 0.5, 1.2  # likewise, at most
TALLER = 2.0  # times; the heights of two boxes of one object differ by less
MEETING = 3 * SECOND  # ns; for so long after they met two tracks may be exchanged
SURE = 0.2  # by so much two tracks must look more like each other than like themselves
SOON, SINKS = 0.5, 0.2  # s; heights in that time


class HiddenTracks:
    """The hidden objects of one camera; each is forgotten `span` ns after it was last seen.

    `aspect` is the frame's width / height.
    """

    def __init__(self, span: int, aspect: float) -> None:
        self._span, self.aspect = span, aspect
        self._away: list[ActiveTrack] = []
        self._doubtful: set[int] = set()  # new tracks that perhaps continue another one

    @property
    def ids(self) -> frozenset[int]:
        """The ids of the hidden objects."""
        return frozenset(one.id for one in self._away if not self._leaves(one))

    def hide(self, one: ActiveTrack) -> None:
        """Adds a track that ends.

        One that left at the edge does not come back, but a new track may look like it.
        """
        if one.told and one.looks:
            self._away = [*self._away, one][-MOST:]

    def forget(self, time: int) -> None:
        """Forgets who has been away for too long."""
        self._away = [one for one in self._away if time - one.seen <= self._span]

    def returned(
        self, new: Sequence[ActiveTrack], missed: Sequence[ActiveTrack], young: Container[int]
    ) -> list[tuple[ActiveTrack, ActiveTrack]]:
        """Returns pairs of a new track and the track that it continues, which is hidden no more.

        `missed` are tracks that live and were not seen; they may be continued, too. `young` are the
        ids of new tracks for which a few boxes more can be awaited.
        """
        self._doubtful = set()
        away = [*self._away, *(one for one in missed if one.looks)]
        new = [one for one in new if one.looks and not at_edge(one.began)]
        costs = {
            (old, now): cost
            for old, now in product(range(len(away)), range(len(new)))
            if (cost := self._cost(away[old], new[now])) is not None
        }
        pairs = []
        while costs:
            (old, now), least = min(costs.items(), key=lambda item: (item[1], item[0]))
            near = {pair for pair in costs if pair[0] == old or pair[1] == now}
            best = all(costs[pair] >= least + CLEAR for pair in near - {(old, now)})
            if best and not self._leaves(away[old]):
                if new[now].id in young and self._looks(away[old], new[now]) > SURELY:
                    self._doubtful.add(new[now].id)
                else:
                    pairs.append((new[now], away[old]))
            # Otherwise nobody can tell which of them it is.
            costs = {pair: cost for pair, cost in costs.items() if pair not in near}
        gone = {old.id for _, old in pairs}
        self._away = [one for one in self._away if one.id not in gone]
        return pairs

    def unclear(self, new: ActiveTrack, missed: Sequence[ActiveTrack]) -> bool:
        """Whether a few boxes more may tell who it is.

        It looks more or less like a hidden object. Or others cover it, so that it may be a box of
        two persons. Or it is where a hidden object would come out, and may show a part of it only.
        """
        if new.id in self._doubtful:
            return True
        if not new.began.appearance or at_edge(new.began):
            return False
        away = [*self._away, *(one for one in missed if one.looks)]
        return not new.looks or any(self._near(old, new) for old in away if not self._leaves(old))

    def _near(self, old: ActiveTrack, new: ActiveTrack) -> bool:
        gap = new.first - old.looks.time
        way = self._way(old.box, new.began) / max(_height(old.box), _height(new.began))
        return gap > 0 and old.box.label == new.box.label and way <= STAYS + WANDERS * gap / SECOND

    def _cost(self, old: ActiveTrack, new: ActiveTrack) -> float | None:
        """How badly a new track continues another one; None if it cannot.

        The place is about normally distributed around the last one.
        """
        gap = new.first - old.looks.time
        if gap <= 0 or old.box.label != new.box.label:
            return None
        before, after = _height(old.box), _height(new.began)
        if max(before, after) > TALLER * min(before, after):
            return None
        way = self._way(old.box, new.began) / max(before, after)
        looks = self._looks(old, new)
        if looks > SAME or way > ROOM + STRIDE * gap / SECOND:
            return None
        spread = STAYS + WANDERS * gap / SECOND
        cost = TELLS * looks + (way / spread) ** 2 / 2 + 2 * math.log(spread)
        return cost if cost <= MOST_COST else None

    def _looks(self, old: ActiveTrack, new: ActiveTrack) -> float:
        return unlike(old.looks.rows, new.looks.rows)

    def _leaves(self, one: ActiveTrack) -> bool:
        """Whether it was last seen at the edge of the picture, or would have come there at once.

        Many cameras cut the feet off. So the lower edge counts only for who goes down to it.
        """
        across, down = (speed * SOON for speed in one.motion.speed)
        box, across = one.box, across / self.aspect
        sinks = box.y2 >= 1 - EDGE and down > SINKS * _height(box)
        return sinks or box.x1 + min(across, 0) <= EDGE or box.x2 + max(across, 0) >= 1 - EDGE

    def _way(self, one: Box, other: Box) -> float:
        """From the middle of a box to that of another one, in heights of the frame."""
        across = (other.x1 + other.x2 - one.x1 - one.x2) / 2 * self.aspect
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
            elif ids in self._since and _exchanged(one, other):
                found.append((one, other, self._since.pop(ids)[0]))
        self._since = {ids: at for ids, at in self._since.items() if time - at[1] <= MEETING}
        return found


def _exchanged(one: ActiveTrack, other: ActiveTrack) -> bool:
    """Whether each of two tracks looks like the other one did."""
    if one.look is None or other.look is None or not (one.looks and other.looks):
        return False
    mine, yours = one.looks.rows, other.looks.rows
    kept = unlike(mine, one.look[None]) + unlike(yours, other.look[None])
    crossed = unlike(mine, other.look[None]) + unlike(yours, one.look[None])
    return crossed + SURE < kept


def _height(box: Box) -> float:
    return max(box.y2 - box.y1, 1e-3)
