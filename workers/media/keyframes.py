"""Chooses which packets of a live stream are decoded: all, or keyframes only (`detect.decode`).

Decoding keyframes only is cheap, and costs up to the distance of two keyframes of delay. See
`docs/explanations/decoding.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.limits import MAX_KEYFRAME_DISTANCE
from pipeline.types import SECOND
from workers.media.picture_decoder import KEPT_BYTES, PictureDecoder

IDLE_AFTER = 10 * SECOND  # ns without motion until a camera is idle (`auto`)
BUSY = ("all", "first", "light", "motion")  # looks of a camera that is not idle
SLACK = SECOND  # ns by which the times of a stream may differ from those of its arrival
MAX_USELESS = 3  # keyframes in a row without a time or a frame, until all frames are decoded
NO_KEYFRAME = f"no keyframe came for {MAX_KEYFRAME_DISTANCE // SECOND} s"
TOO_MUCH = f"more than {KEPT_BYTES // 1_000_000} MB came without a keyframe"
NOT_ALONE = "its keyframes cannot be decoded alone"
UNTIMED = "its keyframes have no times"


class KeyframeGate:
    """Decodes the packets of one stream by `mode`: `all`, `keyframes` or `auto`.

    Until two keyframes have come, all frames are decoded. `auto` decodes keyframes only while the
    camera is idle; `looked` tells it what the last look found. If keyframes are of no use, all
    frames are decoded, and `whole` gets the reason. `clock` returns ns.
    """

    def __init__(
        self,
        decoder: PictureDecoder,
        mode: str,
        clock: Callable[[], int],
        whole: Callable[[str], None],
    ) -> None:
        self._decoder, self._mode, self._clock, self._whole = decoder, mode, clock, whole
        self._all = mode == "all"  # for good
        self._begun = clock()
        self._kept: list[Any] = []  # packets since the last keyframe that were not decoded
        self._bytes = 0
        self._key: tuple[int | None, int] | None = None  # the last one's time and arrival, ns
        self._busy: int | None = None  # ns; start of the last frame that was not idle
        self._idle = False
        self._empty = self._untimed = 0  # keyframes in a row
        self.sparse = False  # keyframes only are decoded now
        self.distance = 0  # ns; the longest distance of two keyframes; 0: not known
        self._left_out = 0  # packets that were not decoded and never will be

    def decode(self, packet: Any) -> list[Any]:
        """Returns the frames that come after this packet; raises one of BROKEN if it is damaged.

        The last of them is that of a keyframe whose followers are left out, if `sparse` is true.
        """
        if self._all:
            return self._decoder.decode(packet)
        if not packet.size:  # the end
            return self._decoder.rest()
        now = self._clock()
        if packet.is_keyframe:
            return self._keyframe(packet, now)
        late = now - (self._key[1] if self._key else self._begun) > MAX_KEYFRAME_DISTANCE
        if self.sparse:
            return self._leave_out(packet, late)
        if late:
            self._fall(NO_KEYFRAME)
        return self._decoder.decode(packet)

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
        self._measure(packet, now)
        self._left_out += len(self._kept)
        self._kept, self._bytes = [], 0
        frames: list[Any] = []
        if not self.sparse:
            if not self.distance or not (self._mode == "keyframes" or self._idle):
                return self._decoder.decode(packet)
            self.sparse = True
            frames = self._decoder.rest()
        alone = self._decoder.alone(packet)
        self._empty = 0 if alone else self._empty + 1
        if self._empty >= MAX_USELESS:
            self._fall(NOT_ALONE)
        return frames + alone

    def _measure(self, packet: Any, now: int) -> None:
        """Notes the distance from the last keyframe, where the stream's times are believable."""
        timed = packet.pts is not None and packet.time_base is not None
        time = round(packet.pts * packet.time_base * SECOND) if timed else None
        before, self._key = self._key, (time, now)
        self._untimed = 0 if timed else self._untimed + 1
        if self._untimed >= MAX_USELESS:
            self._fall(UNTIMED)
        if before is None or before[0] is None or time is None:
            return
        lasted, waited = time - before[0], now - before[1]
        if 0 < lasted <= MAX_KEYFRAME_DISTANCE and abs(lasted - waited) <= SLACK:
            self.distance = max(self.distance, lasted)

    def _fall(self, why: str) -> list[Any]:
        """Decodes all frames from now on; returns the newest of those since the last keyframe."""
        self._all, self.sparse = True, False
        self._whole(why)
        kept, self._kept = self._kept, []
        frames = [frame for packet in kept for frame in self._decoder.decode(packet)]
        self._left_out += max(0, len(kept) - 1)
        return frames[-1:]
