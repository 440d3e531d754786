"""Capture: what a source sees and hears becomes records, whether it lives or is lost.

`Capture` has two plain loops, each for a thread of its own (started in `workers/daemon.py`): `read`
pulls the device into a bounded slot and connects again when it is lost; `publish_loop` takes from
the slot and speaks for a source while it is silent. So a device that hangs hangs nothing else.

What is promised is kept: once `Progress(alive=False)` said that nothing starts before `upto`,
frames that start before it are dropped and sound is cut there, both counted.

Ledger of a source: captured = published + gated.rate + dropped.* + what waits in the slot.
"""

from __future__ import annotations

import threading
from collections import deque
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
from workers.runtime.status import Status

RECONNECT_DELAYS = backoff.doubling(first=1.0, longest=30.0)  # s; up to half is taken off
STALLED_AFTER = 5 * SECOND  # without a chunk for so long a source that seems to live is lost
HEALTHY_AFTER = 30 * SECOND  # after living so long the delays begin at the shortest again
MAX_CHUNK_BYTES = 900_000  # of one record: a broker's usual limit is 1 MiB
# bytes of a chunk's record around its data: names, numbers, times; 300 are usual
CHUNK_OVERHEAD = 1024
MAX_AUDIO_CHUNKS = 100  # audio chunks that wait for the publisher; 10 s and more

Publish = Callable[[str, Sequence[Record]], None]  # topic, records; durable, or raises DiskFull
Count = Callable[[str, str], None]  # source, what; "dropped.*" is a frame captured in vain
MakeSource = Callable[[Count], Source]


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every source of a site shares; `hop` is how often a lost source is spoken for, ns."""

    site: str
    sources: tuple[str, ...]
    hop: int = SECOND
    stalled: int = STALLED_AFTER
    max_bytes: int = MAX_CHUNK_BYTES


class LatestBuffer:
    """Between reader and publisher: the newest frame of each source, and sound up to a limit."""

    def __init__(self, dropped: Count) -> None:
        self._frames: dict[str, FrameChunk] = {}
        self._rest: deque[Chunk] = deque()
        self._dropped = dropped
        self._filled = threading.Condition()

    def put(self, chunk: Chunk) -> None:
        """Never blocks: a frame replaces an older one, and the oldest sound gives way."""
        with self._filled:
            if isinstance(chunk, FrameChunk):
                if chunk.source in self._frames:
                    self._dropped(chunk.source, "dropped.newer")
                self._frames[chunk.source] = chunk
            else:
                if len(self._rest) >= MAX_AUDIO_CHUNKS:
                    self._dropped(self._rest.popleft().source, "dropped.overrun")
                self._rest.append(chunk)
            self._filled.notify()

    def take(self, wait: float) -> list[Chunk]:
        """All that is there, in order of time; waits at most `wait` seconds for the first."""
        with self._filled:
            if not self._frames and not self._rest:
                self._filled.wait(wait)
            taken: list[Chunk] = [*self._frames.values(), *self._rest]
            self._frames.clear()
            self._rest.clear()
        return sorted(taken, key=known_at)

    def wake(self) -> None:
        """Let a waiting `take` return at once."""
        with self._filled:
            self._filled.notify()


class Capture:
    """One connection and the sources that it carries: `topics` is source name -> chunk topic.

    A camera or microphone has one; a stream that a camera and a microphone both name has two.
    `make_source` connects: it gives a new life of the source or raises SourceLost. A source that
    simply ends (a file) is not connected again. `chance` gives numbers in [0, 1) for the jitter.
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
        self._lock = threading.Lock()  # of the four that follow: written by the reader
        self._state, self._reason = "connecting", "connecting"
        self._heard = dict.fromkeys(topics, clock())
        self._seq = dict.fromkeys(topics, 0)
        self._vain = dict.fromkeys(topics, 0)  # dropped within the source since its last chunk
        self._upto = dict.fromkeys(topics, -1)  # the largest promise made while lost
        self._roster_due = -1

    # The reader: the only one that touches the device.

    def read(self, stop: threading.Event) -> None:
        """Read the source, life after life, until `stop` is set or it ends for good."""
        failures = 0
        while not stop.is_set():
            began = self._clock()
            try:
                self._live(stop)
            except SourceLost as error:
                self._set("lost", str(error))
            else:
                if not stop.is_set():
                    self._set("ended", "the recording has ended")
                return
            if self._clock() - began > HEALTHY_AFTER:
                failures = 0
            failures += 1
            stop.wait(backoff.delay(failures, RECONNECT_DELAYS) * (1 - self._chance() / 2))

    def _live(self, stop: threading.Event) -> None:
        """One life of the source; raises SourceLost."""
        self._set("connecting", self._reason)
        source = self._make_source(self._told)
        base = dict(self._seq)
        try:
            for chunk in source:
                if stop.is_set():
                    return
                self._take(chunk, base)
        finally:
            source.close()

    def _take(self, chunk: Chunk, base: Mapping[str, int]) -> None:
        """Number and check one chunk, and hand it to the publisher."""
        site, source = self._settings.site, chunk.source
        if isinstance(chunk, (FrameChunk, AudioChunk)):
            seq = base[source] + chunk.seq
            passed = seq - self._seq[source]  # seq counts what was grabbed: more than what comes
            self._status.count(site, source, "captured", passed + 1)
            self._status.count(site, source, "gated.rate", passed - self._vain[source])
            self._seq[source], self._vain[source] = seq + 1, 0
            chunk = msgspec.structs.replace(chunk, seq=seq)
        with self._lock:
            self._heard[source] = self._clock()
            self._state, self._reason = "live", ""
        if (
            isinstance(chunk, Report)
            or len(chunk.data) + CHUNK_OVERHEAD <= self._settings.max_bytes
        ):
            self._slot.put(chunk)
        else:
            self._count(source, "dropped.too-large")

    def _told(self, source: str, what: str) -> None:
        """What a source counts itself; for PortAudio's thread too."""
        if what.startswith("dropped."):
            self._vain[source] += 1
        self._count(source, what)

    def _set(self, state: str, reason: str) -> None:
        with self._lock:
            self._state, self._reason = state, reason
        self._slot.wake()

    # The publisher: the only one that speaks.

    def publish_loop(self, stop: threading.Event) -> None:
        """Publish until `stop` is set."""
        wait = 0.0
        while not stop.is_set():
            self.publish_once(wait)
            wait = min(self._settings.hop, SECOND) / SECOND

    def publish_once(self, wait: float = 0.0) -> None:
        """Publish what is there, or what there is to say while nothing is; waits for the first."""
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
            self._status.source(self._settings.site, source, *self._how(source, now))
            self._status.count(self._settings.site, source, what, len(mine))

    def _stored(self, topic: str, records: Sequence[Record]) -> str:
        """Publish the records; under which word their chunks are counted."""
        try:
            if records:
                self._publish(topic, records)
        except DiskFull:
            return "dropped.disk-full"
        return "published"

    def _promised(self, chunk: Chunk) -> Chunk | None:
        """The chunk as far as it keeps what was promised while its source was lost."""
        upto = self._upto[chunk.source]
        if chunk.start >= upto:
            return chunk
        cut = after(chunk, upto) if isinstance(chunk, AudioChunk) else None
        self._count(chunk.source, "cut.promised" if cut else "dropped.promised")
        return cut

    def _absence(self, source: str, now: int) -> list[Record]:
        """What is said for a source that is lost: once a hop that nothing came."""
        state, reason = self._how(source, now)
        if state == "live" or now < self._upto[source] + self._settings.hop:
            return []
        self._upto[source] = now
        return [
            Progress(site=self._settings.site, source=source, upto=now, alive=False, reason=reason)
        ]

    def _how(self, source: str, now: int) -> tuple[str, str]:
        """State and reason of one source: a connection may live and carry only the other one."""
        with self._lock:
            state, reason, heard = self._state, self._reason, self._heard[source]
        if state == "live" and now - heard > self._settings.stalled:
            return "lost", f"nothing came for {self._settings.stalled / SECOND:g} s"
        return state, reason

    def _roster(self, source: str, now: int) -> Roster:
        return Roster(
            site=self._settings.site, source=source, sources=self._settings.sources, start=now
        )

    def _count(self, source: str, what: str) -> None:
        self._status.count(self._settings.site, source, what)


def after(chunk: AudioChunk, start: int) -> AudioChunk | None:
    """The part of `chunk` from the first sample at or after `start` (ns), or None."""
    skip = -(-(start - chunk.start) * chunk.rate // SECOND)
    size = 2 * chunk.channels
    if skip * size >= len(chunk.data):
        return None
    begins = chunk.start + -(-skip * SECOND // chunk.rate)
    return msgspec.structs.replace(chunk, start=begins, data=chunk.data[skip * size :])
