"""Chooses which packets of a live stream are decoded: all, or keyframes only (`detect.decode`).

Decoding keyframes only is cheap, and costs up to the distance of two keyframes of delay. See
`docs/explanations/decoding.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.limits import MAX_KEYFRAME_DISTANCE
from pipeline.types import SECOND
from workers.media.containers import BROKEN
from workers.media.picture_decoder import KEPT_BYTES, PictureDecoder, joined

IDLE_AFTER = 10 * SECOND  # ns without motion until a camera is idle (`auto`)
BUSY = ("all", "first", "light", "motion")  # looks of a camera that is not idle
SLACK = SECOND  # ns by which the times of a stream may differ from those of its arrival
MAX_USELESS = 3  # keyframes in a row without a time or a frame, until all frames are decoded
MAX_UNPROVED = 1  # the same for a frame, where no keyframe has given one yet
NO_KEYFRAME = f"no keyframe came for {MAX_KEYFRAME_DISTANCE // SECOND} s"
TOO_MUCH = f"more than {KEPT_BYTES // 1_000_000} MB came without a keyframe"
NOT_ALONE = "its keyframes cannot be decoded alone"
UNTIMED = "its keyframes have no times"
FALSE_TIMES = "the times of its keyframes do not fit their arrival"


class KeyframeGate:
    """Decodes the packets of one stream by `mode`: `all`, `keyframes` or `auto`.

    Until two keyframes have come, all frames are decoded. `auto` decodes keyframes only while the
    camera is idle; `looked` tells it what the last look found. If keyframes are of no use, all
    frames are decoded, and `whole` gets the reason. `clock` returns ns.

    A keyframe may come as several packets of one time, which are joined. So a keyframe that is
    decoded alone waits for the next packet. So does each keyframe of a stream that has sent such a
    keyframe. `joins` is false for a codec whose every packet is a picture.
    """

    def __init__(
        self,
        decoder: PictureDecoder,
        mode: str,
        clock: Callable[[], int],
        whole: Callable[[str], None],
        *,
        joins: bool = True,
    ) -> None:
        self._decoder, self._mode, self._clock, self._whole = decoder, mode, clock, whole
        self._all = mode == "all"  # for good
        self._begun = self._believed = clock()  # ns; the latter: of the last believable distance
        self._parts: list[Any] = []  # packets of a keyframe that waits to be decoded alone
        self._in_key = False  # the last packet was of a keyframe
        self._joins = joins
        self._split = False  # a keyframe came as several packets
        self._kept: list[Any] = []  # packets since the last keyframe that were not decoded
        self._bytes = 0
        self._key: tuple[int | None, int] | None = None  # the last one's time and arrival, ns
        self._busy: int | None = None  # ns; start of the last frame that was not idle
        self._idle = False
        self._empty = self._untimed = self._doubtful = 0  # keyframes in a row
        self._proved = False  # a keyframe has given a frame alone
        self.sparse = False  # keyframes only are decoded now
        self.distance = 0  # ns; the longest distance of two keyframes; 0: not known
        self._left_out = 0  # packets that were not decoded and never will be

    def decode(self, packet: Any) -> list[Any]:
        """Returns the frames that come after this packet; raises one of BROKEN if it is damaged.

        The last of them is that of a keyframe whose followers are left out, if `sparse` is true.
        """
        now = self._clock()
        if self._goes_on(packet, now):
            return self._more(packet, now)
        if not self._parts:
            return self._next(packet, now)
        self._split = self._split or len(self._parts) > 1
        key, self._parts = joined(self._parts), []
        try:
            frames = self._whole_keyframe(key)
        except BROKEN:
            self._next(packet, now)
            raise
        return frames + self._next(packet, now)

    @property
    def holds(self) -> bool:
        """Whether a keyframe waits for the next packet."""
        return bool(self._parts)

    def _goes_on(self, packet: Any, now: int) -> bool:
        """Whether the packet belongs to the keyframe that the last packet belonged to."""
        if not self._in_key or self._key is None or not packet.size:
            return False
        same = _time(packet) is not None and _time(packet) == self._key[0]
        return same and (bool(self._parts) or now - self._key[1] <= SLACK)

    def _more(self, packet: Any, now: int) -> list[Any]:
        """Takes another packet of a keyframe."""
        if not self._parts:
            self._split = self._split or (packet.is_keyframe and self._joins)
            return self._decoder.decode(packet)
        self._parts.append(packet)
        if now - self._arrived() <= SLACK:
            return []
        self._joins = False  # the times stand still: these are many pictures
        return self._fall(FALSE_TIMES)

    def _arrived(self) -> int:
        """The ns at which the last keyframe came."""
        return self._key[1] if self._key else self._begun

    def _next(self, packet: Any, now: int) -> list[Any]:
        """Decodes the first packet of a picture, or leaves it out."""
        frames: list[Any] = []
        if self._kept and not self.sparse:  # `looked` has found motion in their keyframe
            kept, self._kept, self._bytes = self._kept, [], 0
            frames = [frame for one in kept for frame in self._decoder.decode(one)]
        self._in_key = bool(packet.size and packet.is_keyframe)
        if not packet.size:  # the end
            return frames + self._decoder.rest()
        if self._in_key:
            return frames + self._keyframe(packet, now)
        late = now - self._arrived() > MAX_KEYFRAME_DISTANCE
        if self.sparse:
            return self._leave_out(packet, late)
        if late and not self._all:
            self._fall(NO_KEYFRAME)
        return frames + self._decoder.decode(packet)

    def _leave_out(self, packet: Any, late: bool) -> list[Any]:
        self._kept.append(packet)
        self._bytes += packet.size
        if late or self._bytes > KEPT_BYTES:
            return self._fall(NO_KEYFRAME if late else TOO_MUCH)
        return []

    def take_left_out(self) -> int:
        """Returns how many packets were left out for good since the last call."""
        left_out, self._left_out = self._left_out, 0
        return left_out

    def looked(self, look: str, start: int) -> None:
        """Tells what the frame that starts at `start` (ns) shows: its `look`."""
        if look in BUSY or self._busy is None:
            self._busy = start
        self._idle = start - self._busy >= IDLE_AFTER
        if self._mode == "auto" and self.sparse and not self._idle:
            self.sparse = False  # what follows this keyframe is decoded

    def lasts(self, period: int) -> int:
        """Returns the ns until the next frame is due; `period` is that of `detect.fps`.

        It is a whole number of periods, so that the jitter of keyframes leaves no hole.
        """
        return period * max(1, -(-self.distance // period)) if self.sparse else period

    def _keyframe(self, packet: Any, now: int) -> list[Any]:
        before = self._key[0] if self._key else None
        self._left_out += len(self._kept)
        self._kept, self._bytes = [], 0
        frames = self._measure(packet, now)
        time = _time(packet)
        moves = time is not None and time != before
        if self._joins and moves and (self._split or self._may_be_alone()):
            self._parts = [packet]
            return frames
        return frames + self._whole_keyframe(packet)

    def _may_be_alone(self) -> bool:
        """Whether the next keyframe is decoded alone."""
        if self._all:
            return False
        return self.sparse or bool(self.distance and (self._mode == "keyframes" or self._idle))

    def _whole_keyframe(self, packet: Any) -> list[Any]:
        if not self._may_be_alone():
            return self._decoder.decode(packet)
        frames = [] if self.sparse else self._decoder.rest()
        self.sparse = True
        alone = self._decoder.alone(packet)
        self._proved |= bool(alone)
        self._empty = 0 if alone else self._empty + 1
        if self._empty >= (MAX_USELESS if self._proved else MAX_UNPROVED):
            self._fall(NOT_ALONE)
        return frames + alone

    def _measure(self, packet: Any, now: int) -> list[Any]:
        """Notes the distance from the last keyframe, where the stream's times are believable.

        Returns the frames that come where the times are of no use.
        """
        time = _time(packet)
        before, self._key = self._key, (time, now)
        if self._all:
            return []
        self._untimed = self._untimed + 1 if time is None else 0
        if self._untimed >= MAX_USELESS:
            return self._fall(UNTIMED)
        if before is None or before[0] is None or time is None:
            return []
        lasted, waited = time - before[0], now - before[1]
        if 0 < lasted <= MAX_KEYFRAME_DISTANCE and abs(lasted - waited) <= SLACK:
            self.distance = max(self.distance, lasted)
            self._believed, self._doubtful = now, 0
            return []
        self._doubtful += 1
        useless = self._doubtful >= MAX_USELESS and now - self._believed > MAX_KEYFRAME_DISTANCE
        return self._fall(FALSE_TIMES) if useless else []

    def _fall(self, why: str) -> list[Any]:
        """Decodes all frames from now on; returns the newest of those since the last keyframe."""
        if not self._all:
            self._whole(why)
        self._all, self.sparse = True, False
        kept = self._parts + self._kept
        self._parts, self._kept, self._bytes = [], [], 0
        frames = [frame for packet in kept for frame in self._decoder.decode(packet)]
        self._left_out += max(0, len(kept) - 1)
        return frames[-1:]


def _time(packet: Any) -> int | None:
    """The stream's own time (ns) of a packet, if it has one."""
    if packet.pts is None or packet.time_base is None:
        return None
    time: int = round(packet.pts * packet.time_base * SECOND)
    return time
