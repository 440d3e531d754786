"""Decodes recordings: each frame with its time on the recording's one line of time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from workers.media.containers import BROKEN, TIMELESS, timed
from workers.media.timeline import MAX_HOLE, Timeline, believed

RATES = range(1, 241)  # frame rates that are believed of a recording without times
USUAL_RATE = Fraction(25)
READ_AHEAD = 32_000_000  # bytes of packets that wait for another track
_REMEMBERED = 256  # packets whose frames may still come out of the decoder


class _Placed(NamedTuple):
    packet: Any
    shift: Fraction | None  # of its segment; None if it has no time
    at: Fraction | None  # when it is decoded, on the line


class RecordingReader:
    """Decodes the wanted tracks of an open recording, each frame with its time on the line.

    All tracks are read, decoded or not, because the line is that of the whole recording: two
    readers of one file with different tracks see the same times. `count(stream, what)` counts what
    is unusable.
    """

    def __init__(
        self, container: Any, wanted: Sequence[Any], count: Callable[[Any, str], None]
    ) -> None:
        self._container = container
        self._wanted = {stream.index for stream in wanted}
        self._count = count
        self._streams = [s for s in container.streams if timed(s)]
        self._line = Timeline(
            min((s.start_time * s.time_base for s in self._streams if s.start_time is not None),
                default=Fraction(0))
        )  # fmt: skip
        self._shifts: dict[int, dict[int, Fraction]] = {s.index: {} for s in self._streams}
        self._shift: dict[int, Fraction] = {}
        self._reached: dict[int, Fraction] = {}  # time of the newest packet that was decoded
        self._number: dict[int, int] = {}
        self._next: dict[int, int | None] = {}  # the time that a next packet would be counted to
        self.ended: set[int] = set()  # tracks whose last frame has been given, as far as known
        self._timeless = container.format.name in TIMELESS

    def __iter__(self) -> Iterator[tuple[Any, Fraction | None, Any]]:
        """Yields (stream, seconds, frame); ends where the file ends or is cut off.

        Sound without a time (None) follows what came before it.
        """
        for placed in self._in_order():
            packet, stream = placed.packet, placed.packet.stream
            self._note(placed)
            try:
                frames = packet.decode()
            except BROKEN:
                self._count(stream, "unusable.undecodable")
                continue
            guessed = self._guessed(packet, frames)
            for frame in frames:
                at = None if guessed else self._at(stream, frame)
                if at is None and stream.type == "video":
                    self._count(stream, "unusable.untimed")
                else:
                    yield stream, at, frame

    def length(self, stream: Any) -> Fraction:
        """Reads all packets, decodes none; returns the seconds to the end of the last one."""
        starts: list[Fraction] = []
        last = Fraction(0)
        for placed in self._demuxed():
            packet = placed.packet
            if packet.stream.index != stream.index or not packet.size:
                continue
            self._note(placed)
            if self._timeless:
                starts.append(len(starts) / frame_rate(stream))
            elif packet.pts is not None:
                at = packet.pts * packet.time_base + self._shift[stream.index]
                if not self._near(stream, at):
                    continue
                starts.append(at)
                last = believed((packet.duration or 0) * packet.time_base)
        starts.sort()
        gap = starts[-1] - starts[-2] if len(starts) > 1 else 1 / USUAL_RATE
        return starts[-1] + max(last, gap) if starts else Fraction(0)

    def _demuxed(self) -> Iterator[_Placed]:
        """Yields the packets of the wanted tracks; those of the others only move the line."""
        packets = self._container.demux(self._streams)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, *BROKEN):
                return
            placed = self._placed(packet)
            if packet.stream.index in self._wanted:
                yield placed

    def _in_order(self) -> Iterator[_Placed]:
        """Yields the packets of all wanted tracks by their time.

        It reads on until each track has a later packet, the file ends, or `READ_AHEAD` bytes wait.
        """
        waiting: list[tuple[Fraction, int, _Placed]] = []
        newest = dict.fromkeys(self._wanted, Fraction(-1))
        ahead = 0
        for number, placed in enumerate(self._demuxed()):
            index = placed.packet.stream.index
            newest[index] = max(newest[index], placed.at or Fraction(0))
            heapq.heappush(waiting, (newest[index], number, placed))
            ahead += placed.packet.size
            while waiting and (waiting[0][0] <= min(newest.values()) or ahead > READ_AHEAD):
                first = heapq.heappop(waiting)[2]
                ahead -= first.packet.size
                yield first
        left = Counter(placed.packet.stream.index for _, _, placed in waiting)
        self.ended = self._wanted - left.keys()
        while waiting:
            placed = heapq.heappop(waiting)[2]
            yield placed
            index = placed.packet.stream.index
            left[index] -= 1
            if not left[index]:
                self.ended.add(index)

    def _placed(self, packet: Any) -> _Placed:
        """The packet with its place on the line, which is known in the order of the file."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None or packet.time_base is None:
            return _Placed(packet, None, None)
        lasts = believed((packet.duration or 0) * packet.time_base)
        shift = self._line.shift(packet.stream.index, ticks * packet.time_base, lasts)
        return _Placed(packet, shift, ticks * packet.time_base + shift)

    def _note(self, placed: _Placed) -> None:
        """Notes the place of the packet that is decoded now, for the frames that come of it."""
        packet, shift = placed.packet, placed.shift
        if shift is None or placed.at is None:
            return
        index = packet.stream.index
        self._shift[index], self._reached[index] = shift, placed.at
        if packet.pts is not None:
            known = self._shifts[index]
            known[packet.pts] = shift
            if len(known) > _REMEMBERED:
                del known[next(iter(known))]

    def _guessed(self, packet: Any, frames: Sequence[Any]) -> bool:
        """Whether a sound packet's time was counted on by FFmpeg from a length that is wrong.

        A packet of an MPEG stream without a time of its own gets that of the last one and its
        length. After a change of the sample rate, that length is still the one of the old rate.
        """
        index, ticks, lasts = packet.stream.index, packet.pts, packet.duration
        counted = ticks is not None and ticks == self._next.get(index)
        self._next[index] = None if ticks is None or not lasts else ticks + lasts
        if packet.stream.type != "audio" or not counted or not lasts:
            return False
        sounds = sum(Fraction(f.samples, f.sample_rate) for f in frames if f.sample_rate > 0)
        return bool(frames) and abs(sounds - lasts * packet.time_base) > sounds / 4

    def _at(self, stream: Any, frame: Any) -> Fraction | None:
        if self._timeless:
            number = self._number.get(stream.index, 0)
            self._number[stream.index] = number + 1
            return number / frame_rate(stream)
        if frame.pts is None or frame.time_base is None:
            return None
        usual = self._shift.get(stream.index, Fraction(0))
        shift: Fraction = self._shifts[stream.index].pop(frame.pts, usual)
        at: Fraction = frame.pts * frame.time_base + shift
        return at if self._near(stream, at) else None

    def _near(self, stream: Any, at: Fraction) -> bool:
        """Whether a time of display is near the times of decoding, which make the line."""
        return -MAX_HOLE <= at <= self._reached.get(stream.index, Fraction(0)) + MAX_HOLE


def frame_rate(stream: Any) -> Fraction:
    """The frames a second of a video stream without times."""
    for rate in (stream.guessed_rate, stream.average_rate):
        if rate is not None and int(rate) in RATES:
            return Fraction(rate)
    return USUAL_RATE
