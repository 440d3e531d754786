"""Where objects stand still: one that is lost from view and found again in its place is not new."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.tracking.beginnings import MOST
from pipeline.tracking.track import FAITH, Track
from pipeline.types import Box


class _Place(NamedTuple):
    """Where an object stands; times in ns."""

    box: Box
    seen: int
    rested: int  # when a track last stood still here for long enough
    needs: int  # from where on a restart must read to know that


class StationaryMemory:
    """Remembers where objects stand still, in all cameras.

    An object that is lost from view and found again in its place is then not reported as new. An
    object that moves less than `distance` heights in `after` ns is still; its place is kept for
    `horizon` ns. Whoever is found there keeps the place, for `FAITH` at most.
    """

    def __init__(self, after: int, distance: float, horizon: int) -> None:
        self._after, self._distance, self._horizon = after, distance, horizon
        self._faith = max(FAITH, horizon)
        self._places: dict[tuple[str, int], _Place] = {}  # (camera, track) -> its place
        self._gone: deque[tuple[int, int]] = deque(maxlen=MOST)  # until when, `needs`
        self._before: dict[str, int] = {}  # camera -> its last frame, ns
        self._again: set[tuple[str, int]] = set()  # young tracks of objects that stood still before

    def again(
        self,
        camera: str,
        time: int,
        tracks: Sequence[Track],
        still: frozenset[int],
        begun: Callable[[int, int], int] = lambda number, time: time,
    ) -> set[int]:
        """Returns the ids of young tracks at the place of a still object; `still` ids are known.

        `begun` is that of the camera's tracker.
        """
        for key, place in list(self._places.items()):
            if key[0] == camera and not self._lasts(place, time):
                self._gone.append((time, self._places.pop(key).needs))
        rested: dict[int, tuple[int, int]] = {}  # track -> `rested` and `needs` of its place
        for track in tracks:
            if track.id in still:
                rested[track.id] = time, begun(track.id, time - self._after)
            elif track.moved(self._after) < self._distance:
                known = [(place.rested, place.needs) for place in self._known(camera, track)]
                if known:
                    rested[track.id] = max(known)
        found = set(rested) - still
        self._again = {key for key in self._again if key[0] != camera}
        self._again |= {(camera, number) for number in found}
        for track in tracks:
            if track.id in rested:
                self._keep((camera, track.id), _Place(track.box, time, *rested[track.id]))
        self._before[camera] = time
        return found

    def _keep(self, key: tuple[str, int], place: _Place) -> None:
        old = self._places.get(key)
        stood = old is not None and old.rested == self._before[key[0]]  # it still stands there
        if old is not None and not stood and old.needs != place.needs:
            self._gone.append((place.seen, old.needs))
        self._places[key] = place

    def needs(self, limit: int) -> int:
        """Returns the time, ns, from which on a restart must read to know the places at `limit`.

        It must know as well who was there `after` ns before. The limit must not fall from call to
        call.
        """
        self._gone = deque((each for each in self._gone if each[0] > limit), maxlen=MOST)
        places = [place.needs for place in self._places.values()]
        return min([limit, *places, *(needs for _, needs in self._gone)])

    def _known(self, camera: str, track: Track) -> list[_Place]:
        """The places at which the object of a track may have stood still before."""
        key = camera, track.id
        if key in self._again and key in self._places:
            return [self._places[key]]
        here = [place for key, place in self._places.items() if key[0] == camera]
        return [place for place in here if alike(track.box, place.box)]

    def _lasts(self, place: _Place, time: int) -> bool:
        return time - place.seen < self._horizon and time - place.rested <= self._faith


def alike(one: Box, other: Box, least: float = 0.7) -> bool:
    """Returns whether two boxes of one label cover the same place (IoU of at least `least`)."""
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    if one.label != other.label or wide <= 0 or high <= 0:
        return False
    areas = sum((box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other))
    return wide * high >= least * (areas - wide * high)
