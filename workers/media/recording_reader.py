"""Decodes recordings: each frame with its time on the recording's one line of time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from workers.media.containers import BROKEN, TIMELESS, timed
from workers.media.timeline import MAX_HOLE, Timeline, believed

RATES = range(1, 241)  # frame rates that are believed of a recording without times
USUAL_RATE = Fraction(25)
READ_AHEAD = 32_000_000  # bytes of packets that wait for another track
_REMEMBERED = 256  # packets whose frames may still come out of the decoder


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
        self._reached: dict[int, Fraction] = {}  # time of the newest packet
        self._number: dict[int, int] = {}
        self._next: dict[int, int | None] = {}  # the time that a next packet would be counted to
        self.ended: set[int] = set()  # tracks whose last frame has been given, as far as known
        self._timeless = container.format.name in TIMELESS

    def __iter__(self) -> Iterator[tuple[Any, Fraction | None, Any]]:
        """Yields (stream, seconds, frame); ends where the file ends or is cut off.

        Sound without a time (None) follows what came before it.
        """
        for packet in self._in_order():
            stream = packet.stream
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
        for packet in self._demuxed():
            if packet.stream.index != stream.index or not packet.size:
                continue
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

    def _demuxed(self) -> Iterator[Any]:
        """Yields the packets of the wanted tracks; those of the others only move the line."""
        packets = self._container.demux(self._streams)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, *BROKEN):
                return
            self._place(packet)
            if packet.stream.index in self._wanted:
                yield packet

    def _in_order(self) -> Iterator[Any]:
        """Yields the packets of all wanted tracks by their time.

        It reads on until each track has a later packet, the file ends, or `READ_AHEAD` bytes wait.
        """
        waiting: list[tuple[Fraction, int, Any]] = []
        newest = dict.fromkeys(self._wanted, Fraction(-1))
        ahead = 0
        for number, packet in enumerate(self._demuxed()):
            index = packet.stream.index
            newest[index] = max(newest[index], self._reached.get(index, Fraction(0)))
            heapq.heappush(waiting, (newest[index], number, packet))
            ahead += packet.size
            while waiting and (waiting[0][0] <= min(newest.values()) or ahead > READ_AHEAD):
                first = heapq.heappop(waiting)[2]
                ahead -= first.size
                yield first
        left = Counter(packet.stream.index for _, _, packet in waiting)
        self.ended = self._wanted - left.keys()
        while waiting:
            packet = heapq.heappop(waiting)[2]
            yield packet
            left[packet.stream.index] -= 1
            if not left[packet.stream.index]:
                self.ended.add(packet.stream.index)

    def _place(self, packet: Any) -> None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None or packet.time_base is None:
            return
        index, base = packet.stream.index, packet.time_base
        lasts = believed((packet.duration or 0) * base)
        self._shift[index] = self._line.shift(index, ticks * base, lasts)
        self._reached[index] = ticks * base + self._shift[index]
        if packet.pts is not None:
            known = self._shifts[index]
            known[packet.pts] = self._shift[index]
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
