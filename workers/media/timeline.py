"""Lays all tracks of one recording on one line of time that begins at zero and has no jumps.

Zero is the earliest start of any track, so a sound that begins three seconds after the picture
stays three seconds late. A hole of at most `MAX_HOLE` is time that passes. A larger jump, or a step
back, begins a new *segment* (files that were joined, a clock that was set): it goes on where the
last one ended. `capture` plays a file by this line, and a scene reads it by the same one.
"""

from __future__ import annotations

from fractions import Fraction

MAX_HOLE = Fraction(60)  # s; a larger jump in the times is not believed
STEP_BACK = Fraction(1)  # s; a smaller step back is disorder within one segment


def believed(lasts: Fraction) -> Fraction:
    """The length of a packet or frame, as far as it is believed: from 0 to `MAX_HOLE`."""
    return min(max(lasts, Fraction(0)), MAX_HOLE)


class Timeline:
    """The segments of one recording; times are seconds as `Fraction`."""

    def __init__(self, zero: Fraction) -> None:
        self._zero = zero
        self._shifts = [Fraction(0)]  # of each segment
        self._segment: dict[int, int] = {}  # track -> its present segment
        self._last: dict[int, Fraction] = {}  # track -> time of its newest packet
        self._end = Fraction(0)  # of all tracks

    def shift(self, track: int, time: Fraction, lasts: Fraction) -> Fraction:
        """What is to be added to the times of a packet at `time` that lasts so long.

        Packets of a track come in the order of decoding.
        """
        number = self._segment.get(
            track, len(self._shifts) - 1
        )  # a late track begins in the newest
        while not self._fits(track, time + self._shifts[number] - self._zero):
            if number + 1 == len(self._shifts):
                self._shifts.append(self._end + self._zero - time)
                number += 1
                break
            number += 1
        self._segment[track] = number
        at = time + self._shifts[number] - self._zero
        self._last[track] = at
        self._end = max(self._end, at + lasts)
        return self._shifts[number] - self._zero

    def _fits(self, track: int, at: Fraction) -> bool:
        last = self._last.get(track)
        if last is None:
            return -MAX_HOLE <= at <= self._end + MAX_HOLE
        return last - STEP_BACK <= at <= self._end + MAX_HOLE
