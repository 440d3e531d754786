"""Publishes the chunks of a source as records, and its absence while it is lost.

`Capture` has two loops, each for a thread of its own (started in `workers/daemon.py`). `read`
reads the device into a bounded buffer and reconnects after a loss. `publish_loop` publishes from
the buffer, and publishes `Progress(alive=False)` for a lost source. So a device that hangs blocks
nothing else.

After `Progress(alive=False)` with `upto` no record that starts before `upto` is published: such
frames are dropped, audio is cut there, and both are counted.

Counts of a source: captured = published + gated.rate + gated.undecoded + dropped.* + chunks in the
buffer.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pipeline import backoff
from pipeline.errors import DiskFull, SourceLost
from pipeline.ports import Source
from pipeline.sources import known_at
from pipeline.types import (
    ROSTER_EVERY,
    SECOND,
    AudioChunk,
    Chunk,
    FrameChunk,
    Progress,
    Record,
    Report,
    Roster,
)
from workers.capture.clock import Clock
from workers.media.motion import LOOKS
from workers.runtime.status import Status

RECONNECT_DELAYS = backoff.doubling(first=1.0, longest=30.0)  # s; up to half is taken off
STALLED_AFTER = 5 * SECOND  # without a chunk for so long a source that seems to live is lost
FRAMES_MISSED = 3  # or as long as so many frames take, if they are further apart
HEALTHY_AFTER = 30 * SECOND  # after living so long the delays begin at the shortest again
MAX_CHUNK_BYTES = 900_000  # of one record: a broker's usual limit is 1 MiB
# bytes of a chunk's record around its data: names, numbers, times; 300 are usual
CHUNK_OVERHEAD = 1024
MAX_AUDIO_CHUNKS = 500  # audio chunks that wait for the publisher; 30 s and more

log = logging.getLogger("fusewatch")

Publish = Callable[[str, Sequence[Record]], None]  # topic, records; durable, or raises DiskFull
# source, what; "dropped.*" and "gated.*" are frames that are not published
Count = Callable[[str, str], None]
MakeSource = Callable[[Count], Source]


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that all sources of a site share; `hop` is the ns between a lost one's Progress."""

    site: str
    sources: tuple[str, ...]
    hop: int = SECOND
    stalled: int = STALLED_AFTER
    max_bytes: int = MAX_CHUNK_BYTES


class LatestBuffer:
    """Buffer from reader to publisher: the newest frame of each source, and `MAX_AUDIO_CHUNKS`
    others.

    The next frame of a source takes over the look of a frame that is not published: what wanted a
    look still gets it.
    """

    def __init__(self, dropped: Count) -> None:
        self._frames: dict[str, FrameChunk] = {}
        self._rest: deque[Chunk] = deque()
        self._owed: dict[str, str] = {}  # source -> the look of a frame that was dropped
        self._dropped = dropped
        self._filled = threading.Condition()

    def put(self, chunk: Chunk) -> None:
        """Adds a chunk without blocking: a frame replaces an older one, oldest audio is dropped."""
        with self._filled:
            if isinstance(chunk, FrameChunk):
                if chunk.source in self._frames:
                    self._dropped(chunk.source, "dropped.newer")
                    self._owe(self._frames[chunk.source])
                look = min(self._owed.pop(chunk.source, ""), chunk.look, key=LOOKS.index)
                if look != chunk.look:
                    chunk = msgspec.structs.replace(chunk, look=look)
                self._frames[chunk.source] = chunk
            else:
                if len(self._rest) >= MAX_AUDIO_CHUNKS:
                    self._dropped(self._rest.popleft().source, "dropped.overrun")
                self._rest.append(chunk)
            self._filled.notify()

    def owe(self, chunk: Chunk) -> None:
        """Says that a chunk was taken or refused, and is not published."""
        with self._filled:
            if isinstance(chunk, FrameChunk):
                self._owe(chunk)

    def _owe(self, frame: FrameChunk) -> None:
        owed = self._owed.get(frame.source, "")
        self._owed[frame.source] = min(owed, frame.look, key=LOOKS.index)

    def take(self, wait: float) -> list[Chunk]:
        """Removes all chunks, in order of time; waits at most `wait` seconds for the first."""
        with self._filled:
            if not self._frames and not self._rest:
                self._filled.wait(wait)
            taken: list[Chunk] = [*self._frames.values(), *self._rest]
            self._frames.clear()
            self._rest.clear()
        return sorted(taken, key=known_at)

    def wake(self) -> None:
        """Makes a waiting `take` return at once."""
        with self._filled:
            self._filled.notify()


class Capture:
    """One connection and the sources that it carries: `topics` is source name -> chunk topic.

    A camera or microphone is one source; a stream that both a camera and a microphone name is two.
    `make_source` connects and returns a new Source, or raises SourceLost. A source that ends (a
    file) is not connected again. `chance` returns numbers in [0, 1) for the jitter.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        topics: Mapping[str, str],
        make_source: MakeSource,
        *,
        publish: Publish,
        status: Status,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self.topics = dict(topics)
        self._settings = settings
        self._make_source = make_source
        self._publish = publish
        self._status = status
        self._clock = clock
        self._chance = chance
        self._slot = LatestBuffer(self._count)
        self._defects: set[str] = set()
        self._lock = threading.Lock()  # guards `_state`, `_reason`, `_heard`: the reader writes
        self._state, self._reason = "connecting", "connecting"
        self._heard = dict.fromkeys(topics, clock())
        self._spans: dict[str, int] = {}  # source -> ns until its next frame is due
        self._holes: dict[str, str] = {}  # sources that say that they have nothing -> the reason
        self._seq = dict.fromkeys(topics, 0)
        self._vain = dict.fromkeys(topics, 0)  # dropped within the source since its last chunk
        self._gated: Counter[tuple[str, str]] = Counter()  # (source, what): the same, by choice
        self._upto = dict.fromkeys(topics, -1)  # the largest `upto` published while lost
        self._roster_due = -1

    # The reader: the only thread that uses the device.

    def read(self, stop: threading.Event) -> None:
        """Reads the source and reconnects, with backoff, until `stop` is set or the source ends."""
        failures = 0
        while not stop.is_set():
            began = self._clock()
            try:
                self._live(stop)
            except SourceLost as error:
                self._set("lost", str(error))
            except Exception as error:
                self._set("lost", self._defect(error))
            else:
                if not stop.is_set():
                    self._set("ended", "the recording has ended")
                return
            if self._clock() - began > HEALTHY_AFTER:
                failures = 0
            failures += 1
            stop.wait(backoff.delay(failures, RECONNECT_DELAYS) * (1 - self._chance() / 2))

    def _defect(self, error: Exception) -> str:
        """The reason of an error that no source should raise: a defect ends one life of a source.

        Its traceback is logged once; the same one again is counted.
        """
        kind = f"unexpected {type(error).__name__}"
        for source in self.topics:
            self._count(source, "defects")
        if kind not in self._defects:
            self._defects.add(kind)
            names = "+".join(self.topics)
            log.error("%s/%s: %s", self._settings.site, names, kind, exc_info=error)
        return f"{kind}: a defect of Fusewatch; the log has its traceback"

    def _live(self, stop: threading.Event) -> None:
        """Reads one connection to its end; raises SourceLost."""
        self._set("connecting", self._reason)
        with self._lock:
            self._holes.clear()
        source = self._make_source(self._told)
        self._gated.clear()
        base, self._vain = dict(self._seq), dict.fromkeys(self.topics, 0)
        try:
            for chunk in source:
                if stop.is_set():
                    return
                if isinstance(chunk, Progress):
                    self._said(chunk)
                else:
                    self._take(chunk, base)
        finally:
            source.close()

    def _said(self, said: Progress) -> None:
        """A source says that it lives, or that it has nothing from now on until its next chunk."""
        with self._lock:
            if said.alive:
                self._heard[said.source] = self._clock()
                return
            self._holes[said.source] = said.reason
        self._slot.wake()

    def _take(self, chunk: Chunk, base: Mapping[str, int]) -> None:
        """Numbers and checks one chunk, and puts it into the buffer."""
        site, source = self._settings.site, chunk.source
        if isinstance(chunk, (FrameChunk, AudioChunk)):
            seq = base[source] + chunk.seq
            # Frames grabbed but not wanted. Those that the source dropped are counted already.
            passed = seq - self._seq[source] - self._vain[source]
            gated = {what: n for (of, what), n in self._gated.items() if of == source}
            rate = passed - sum(gated.values())
            self._status.counts(site, source, {"captured": passed + 1, "gated.rate": rate, **gated})
            self._gated = Counter({key: n for key, n in self._gated.items() if key[0] != source})
            self._seq[source], self._vain[source] = seq + 1, 0
            chunk = msgspec.structs.replace(chunk, seq=seq)
            self._status.reach(site, source, "captured", chunk.start)
        with self._lock:
            self._heard[source] = self._clock()
            if isinstance(chunk, FrameChunk):
                self._spans[source] = chunk.end - chunk.start
            self._holes.pop(source, None)
            self._state, self._reason = "live", ""
        if (
            isinstance(chunk, Report)
            or len(chunk.data) + CHUNK_OVERHEAD <= self._settings.max_bytes
        ):
            self._slot.put(chunk)
        else:
            self._slot.owe(chunk)
            self._count(source, "dropped.too-large")

    def _told(self, source: str, what: str) -> None:
        """Counts for a source; PortAudio's thread calls it too."""
        if what.startswith("gated."):  # counted with the next chunk, whose `seq` counts them too
            self._gated[source, what] += 1
            return
        more = {what: 1}
        if what.startswith("dropped."):
            self._vain[source] += 1
            more["captured"] = 1
        self._status.counts(self._settings.site, source, more)

    def _set(self, state: str, reason: str) -> None:
        with self._lock:
            self._state, self._reason = state, reason
        self._slot.wake()

    # The publisher: the only thread that publishes.

    def publish_loop(self, stop: threading.Event) -> None:
        """Publishes until `stop` is set."""
        wait = 0.0
        while not stop.is_set():
            self.publish_once(wait)
            wait = min(self._settings.hop, SECOND) / SECOND

    def publish_once(self, wait: float = 0.0) -> None:
        """Publishes the buffered chunks, or absence if there are none; waits `wait` s for one."""
        chunks = self._slot.take(wait)
        now = self._clock()
        due = now >= self._roster_due
        if due:
            self._roster_due = now + ROSTER_EVERY
        for source, topic in self.topics.items():
            mine = [kept for c in chunks if c.source == source and (kept := self._promised(c))]
            records = [*mine] if mine else self._absence(source, now)
            if due:
                start = min(now, *(chunk.start for chunk in mine)) if mine else now
                records = [self._roster(source, start), *records]
            what = self._stored(topic, records)
            if what != "published":
                for chunk in mine:
                    self._slot.owe(chunk)
                self._blind(topic, source, now)
            self._status.source(self._settings.site, source, *self._how(source, now))
            self._status.count(self._settings.site, source, what, len(mine))

    def _blind(self, topic: str, source: str, now: int) -> None:
        """Says that the source was lost up to now, as its chunks were not stored.

        Records that small find their place sooner than chunks; the site's windows wait for them.
        """
        gone = Progress(
            site=self._settings.site,
            source=source,
            upto=max(now, self._upto[source]),
            alive=False,
            reason="no space left on the disk",
        )
        if self._stored(topic, [self._roster(source, now), gone]) == "published":
            self._upto[source] = gone.upto
        else:
            self._roster_due = -1

    def _stored(self, topic: str, records: Sequence[Record]) -> str:
        """Publishes the records; returns the count that their chunks belong to."""
        try:
            if records:
                self._publish(topic, records)
        except DiskFull:
            return "dropped.disk-full"
        return "published"

    def _promised(self, chunk: Chunk) -> Chunk | None:
        """The part of the chunk from the `upto` that was published while its source was lost."""
        upto = self._upto[chunk.source]
        if chunk.start >= upto:
            return chunk
        cut = cut_before(chunk, upto) if isinstance(chunk, AudioChunk) else None
        if cut is None:
            self._slot.owe(chunk)
        self._count(chunk.source, "cut.promised" if cut else "dropped.promised")
        return cut

    def _absence(self, source: str, now: int) -> list[Record]:
        """The Progress of a lost source, once a hop: nothing starts before now."""
        state, reason = self._how(source, now)
        if state == "live" or now < self._upto[source] + self._settings.hop:
            return []
        self._upto[source] = now
        return [
            Progress(site=self._settings.site, source=source, upto=now, alive=False, reason=reason)
        ]

    def _how(self, source: str, now: int) -> tuple[str, str]:
        """State and reason of one source; one source may stall while the other one still sends."""
        with self._lock:
            state, reason, heard = self._state, self._reason, self._heard[source]
            hole = self._holes.get(source)
            patience = max(self._settings.stalled, FRAMES_MISSED * self._spans.get(source, 0))
        if state in ("live", "connecting") and hole is not None:
            return "lost", hole
        if state == "live" and now - heard > patience:
            return "lost", f"nothing came for {patience / SECOND:g} s"
        return state, reason

    def _roster(self, source: str, now: int) -> Roster:
        return Roster(
            site=self._settings.site, source=source, sources=self._settings.sources, start=now
        )

    def _count(self, source: str, what: str) -> None:
        self._status.count(self._settings.site, source, what)


def cut_before(chunk: AudioChunk, start: int) -> AudioChunk | None:
    """The part of `chunk` from the first sample at or after `start` (ns), or None."""
    skip = -(-(start - chunk.start) * chunk.rate // SECOND)
    size = 2 * chunk.channels
    if skip * size >= len(chunk.data):
        return None
    begins = chunk.start + -(-skip * SECOND // chunk.rate)
    return msgspec.structs.replace(chunk, start=begins, data=chunk.data[skip * size :])
