"""What gives way while a stage cannot keep up: frames of vision, and parts of hearing.

Both classes work on live input alone: in a replay, nothing gives way.
`docs/explanations/overload.md` explains the rules.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.types import SECOND, AudioChunk, FrameChunk, Record
from workers.media.motion import LOOKS

Who = tuple[str, str]  # site, source
Backlog = Callable[[], int]  # how many entries wait to be polled
PICTURES_AT_ONCE = 16  # decoded pictures held in memory, and the detector's largest batch
CATCH_UP_SPEED = 4  # times real time, the least speed at which a backlog is worked off
PERIODS = range(SECOND // 50, SECOND + 1)  # ns; the frame periods that turns adapt to
SPARE = 1.0  # s of work that an idle time saves up for a burst, at most
MEASURED = 5.0  # s of work after which a measured speed is believed
# parts of hearing that give way, and the s of work in waiting sound from which they do
TRANSCRIPTION, VOICE, SOUND = "transcription", "voice", "sound events"
SPEECH_LIMITS = {TRANSCRIPTION: 30.0, VOICE: 40.0}
SOUND_LIMITS = {SOUND: 50.0}
FORGETS = 30.0  # s of work after which a measurement counts half


class _Camera:
    """What the sampler remembers of one camera."""

    def __init__(self) -> None:
        self.seen: int | None = None  # start of the newest frame that was looked at, ns
        self.since: int | None = None  # start of the first frame that waits for a look since, ns
        self.owed = ""  # the strongest look of the frames that wait since
        self.wanted = 0  # start of the newest frame that wanted a look, ns
        self.looks = 1  # runs of the detector for one of its frames

    def urgency(self, frame: FrameChunk) -> tuple[bool, int]:
        """A sort key. A moving camera counts from its last look, a still one from its demand."""
        if self.seen is None or frame.start < self.seen:
            return True, 0
        if min(frame.look, self.owed, key=LOOKS.index) != "heartbeat":
            return False, frame.start - self.seen
        return False, frame.start - (frame.start if self.since is None else self.since)


class FrameTurn:
    """The frames of one poll in the order in which they are looked at, and the time for them.

    A turn ends after half a frame period if newer frames wait, and after a whole one if not. So a
    frame is never older than two periods when it is looked at. It goes on in three cases: for the
    cameras that are due, up to a whole period; for a backlog, and for a burst after an idle time,
    both until `least` s are over. `looks` are the runs of the detector for each frame of the order.
    """

    def __init__(
        self,
        order: Sequence[int],
        due: int,
        firsts: int,
        period: float,
        least: float,
        looks: Sequence[int] = (),
    ) -> None:
        self.order, self.least = order, least
        self._due, self._firsts, self._period = due, firsts, period
        self._looks = looks or [1] * len(order)

    def room(self, done: int, spent: float, cost: float, waits: Backlog) -> int:
        """How many frames to look at next, after `done` of them in `spent` s; `cost` s a look."""
        left = min(len(self.order) - done, PICTURES_AT_ONCE)
        if left <= 0:
            return 0
        if not done and not cost:  # nothing is known of the detector: one frame of each camera
            return max(1, min(left, self._firsts))
        # The cost of the first frames is a weak estimate for the rest.
        most = left if cost else min(left, done)
        cost = cost or spent / sum(self._looks[:done]) or 1e-9
        until = max(self.least, self._period / 2)
        if spent >= until:
            if spent >= self._period:
                return 0
            until = self._period
            if waits():  # newer frames: only cameras that have waited for long go on
                most = min(most, self._due - done)
        affordable = (until - spent) / cost
        sums = accumulate(self._looks[done : done + most])
        return max(0, min(most, max(1, sum(looks <= affordable for looks in sums))))


class FrameSampler:
    """Chooses the frames of each poll that are looked at while there is no time for all.

    The newest frame of each camera comes first: cameras in motion by the time since their last
    look, still ones by the time since their heartbeat was due. Then come older frames, spread
    evenly, and audited ones last. A frame that is left out passes its look on to the camera's next
    frame, also across polls. `looks` says how often the detector runs for a frame, which is what
    the frame costs. Not thread-safe, but for `watch`.

    Time in which no frame waited is saved up, at most `SPARE` s. A burst, such as after a pause of
    the disk, may use it, so that a machine with time left over drops nothing. Under a lasting
    overload nothing is saved up (a token bucket).
    """

    def __init__(
        self, timer: Callable[[], float], looks: Callable[[FrameChunk], int] = lambda _: 1
    ) -> None:
        self._timer, self._looks_of = timer, looks
        self._waits: Backlog = lambda: 0
        self._cameras: dict[Who, _Camera] = defaultdict(_Camera)
        self._polls: deque[set[Who]] = deque(maxlen=64)  # one poll may hold only some sources
        self._cost = 0.0  # s of a turn for each run of the detector; 0: unknown
        self._began, self._ended, self._looked, self._busy = 0.0, math.inf, 0, False  # last turn
        self._spare = 0.0  # s of work that are saved up

    def watch(self, backlog: Backlog) -> None:
        """Takes the function that returns how many entries wait."""
        self._waits = backlog

    def plan(self, frames: Mapping[int, FrameChunk], audited: Sequence[int]) -> FrameTurn:
        """Orders the frames of a poll; `audited` are keys of gated frames to look at besides."""
        self._measure()
        if not frames:
            return FrameTurn((), 0, 0, 0.0, 0.0)
        by_source: dict[Who, list[int]] = defaultdict(list)
        for index, frame in frames.items():
            by_source[frame.site, frame.source].append(index)
        self._polls.append(set(by_source))
        firsts, others = self._wanted(frames, by_source)
        known = len(set().union(*self._polls))
        spans = sum(frames[of[-1]].end - frames[of[0]].start for of in by_source.values())
        periods = [frames[i].end - frames[i].start for i in firsts]
        period = min(max(min(periods, default=SECOND), PERIODS[0]), PERIODS[-1])
        order = [*firsts, *others, *(i for i in reversed(audited) if i not in firsts)]
        return FrameTurn(
            order,
            self._due(frames, firsts),
            len(firsts),
            period / SECOND,
            max(self._spare, spans / SECOND / CATCH_UP_SPEED / known),
            [self._looks_of(frames[i]) for i in order],
        )

    def room(self, turn: FrameTurn, done: int) -> int:
        """How many frames of the turn to look at next, after `done` of them."""
        return turn.room(done, self._timer() - self._began, self._cost, self._waits)

    def looked(self, frames: Mapping[int, FrameChunk], seen: Iterable[int]) -> None:
        """Ends a turn in which the frames with the keys `seen` were looked at."""
        done = set(seen)
        for index, frame in frames.items():
            if index in done:
                camera = self._cameras[frame.site, frame.source]
                camera.seen, camera.since, camera.owed = frame.start, None, ""
        for frame in frames.values():
            camera = self._cameras[frame.site, frame.source]
            if frame.look and (camera.seen is None or frame.start > camera.seen):
                camera.owed = min(camera.owed, frame.look, key=LOOKS.index)
                camera.since = frame.start if camera.since is None else camera.since
        self._looked = sum(self._looks_of(frames[index]) for index in done)
        self._busy, self._ended = self._waits() > 0, self._timer()
        spent = self._ended - self._began
        if self._busy:
            self._spare = max(0.0, self._spare - spent)
        elif done:
            self._learn(spent / self._looked)

    def _measure(self) -> None:
        """Begins a turn; if the last one was followed by it at once, learns what that one cost."""
        now = self._timer()
        if self._busy and self._looked:
            self._learn((now - self._began) / self._looked)
        if not self._busy:
            self._spare = min(SPARE, self._spare + max(0.0, now - self._ended))
        self._began, self._looked, self._busy = now, 0, False

    def _learn(self, cost: float) -> None:
        self._cost = (self._cost + cost) / 2 if self._cost else cost

    def _wanted(
        self, frames: Mapping[int, FrameChunk], by_source: Mapping[Who, Sequence[int]]
    ) -> tuple[list[int], list[int]]:
        """The frames that want a look: the newest one of each camera, most urgent first; others."""
        firsts, turns = [], []
        for who, of in by_source.items():
            camera = self._cameras[who]
            wanted = [index for index in reversed(of) if frames[index].look]
            if not wanted and camera.owed:
                wanted = [of[-1]]
            firsts += wanted[:1]
            turns += [(_spread(k), index) for k, index in enumerate(wanted) if k]
            if wanted:
                camera.wanted = frames[wanted[0]].start
                camera.looks = self._looks_of(frames[wanted[0]])

        def urgency(index: int) -> tuple[bool, int]:
            return self._cameras[frames[index].site, frames[index].source].urgency(frames[index])

        return sorted(firsts, key=urgency, reverse=True), [index for _, index in sorted(turns)]

    def _due(self, frames: Mapping[int, FrameChunk], firsts: Sequence[int]) -> int:
        """How many of the first frames are of cameras that have waited for their fair time."""
        newest = max(frame.start for frame in frames.values())
        wanting = sum(
            camera.looks for camera in self._cameras.values() if camera.wanted > newest - SECOND
        )
        fair = wanting * self._cost * SECOND
        urgencies = (
            self._cameras[frames[i].site, frames[i].source].urgency(frames[i]) for i in firsts
        )
        return sum(new or waited >= fair for new, waited in urgencies)


def _spread(ago: int) -> int:
    """A sort key (bit reversal): the newest frame is first, and any first few are spread evenly."""
    return int(f"{ago:016b}"[::-1], 2)


@dataclass
class HearingLoad:
    """What the sound stage of a process tells its speech stage, which gives way first."""

    sound: float = 0.0  # s of work that wait for the sound stage


@dataclass
class _Speed:
    """A measured speed: seconds of sound a second of work; infinite until it is believed."""

    sound: float = 0.0
    work: float = 0.0
    measured: float = 0.0

    def add(self, sound: float, work: float) -> None:
        kept = 0.5 ** (work / FORGETS)
        self.sound, self.work = self.sound * kept + sound, self.work * kept + work
        self.measured += work

    def needs(self, sound: float) -> float:
        """Seconds of work for so many seconds of sound."""
        if self.measured < MEASURED or not sound:
            return 0.0
        return sound * self.work / self.sound if self.sound else math.inf


class HearingPace:
    """Decides how much of hearing is done with the chunks of a poll.

    `limits` has the parts of the work, the first to give way first, and how many seconds of work
    may wait before it does. The seconds are those of this stage, or of the sound stage if it needs
    longer. `leads`: this is the sound stage. Not thread-safe, but for `watch`.
    """

    def __init__(
        self,
        limits: Mapping[str, float],
        load: HearingLoad,
        *,
        leads: bool = False,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._limits, self._load, self._leads, self._timer = limits, load, leads, timer
        self._waits: Backlog = lambda: 0
        self._speeds: dict[str | None, _Speed] = defaultdict(_Speed)
        self._last: tuple[str | None, float, float] | None = None  # what gave way, sound, begin

    def watch(self, backlog: Backlog) -> None:
        """Takes the function that returns how many entries wait to be polled."""
        self._waits = backlog

    def gives_way(self, batch: Sequence[Record]) -> str | None:
        """The part of the work that gives way in this poll, with all before it; None: no part."""
        now = self._timer()
        if self._last is not None:
            before, heard, began = self._last
            self._speeds[before].add(heard, now - began)
        sound = sum(r.end - r.start for r in batch if isinstance(r, AudioChunk)) / SECOND
        entries = self._waits()
        waiting = sound * (1 + entries / len(batch)) if batch else 0.0
        gives: str | None = None
        if self._leads:
            self._load.sound = self._speeds[None].needs(waiting)
        for part, limit in self._limits.items():
            if max(self._speeds[gives].needs(waiting), self._load.sound) <= limit:
                break
            gives = part
        self._last = (gives, sound, now) if entries else None
        return gives
