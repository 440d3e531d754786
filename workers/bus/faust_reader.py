"""Between the event loop of a Faust app, which feeds records, and the thread that steps a runner.

Knows no Faust: an event is anything with `ack`. The app calls `assigned`, `put`, `still`, `revoked`
and `failed` from its loop; the runner's thread calls what a Reader has.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

from pipeline.ports import Assigned, Entry, Revoked


class FaustEvent(Protocol):
    """One record as Faust hands it over; `ack` once nobody needs it any longer."""

    def ack(self) -> object: ...


class FaustApp(Protocol):
    """What the reader asks of the app that feeds it; every call may come from any thread."""

    def ack(self, events: Sequence[FaustEvent]) -> None: ...
    def flow(self) -> None: ...
    def behind(self, partition: int, offset: int) -> int: ...
    def stop(self) -> None: ...


class FaustReader:
    """A Reader of what an app feeds, `bound` bytes of records at most waiting in it.

    The bound is kept by `held`: the app fetches nothing while it is set, and is told by `flow` that
    it changed. `commit` lets the app commit, within a second, what lies below the offset; it is not
    yet durable when it returns, and the note is not kept: Faust has no place for one.
    """

    def __init__(self, app: FaustApp, bound: int) -> None:
        self.held = False
        self.lost = 0  # records that retention deleted before they were read
        self._app = app
        self._bound = bound
        self._change = threading.Condition()
        self._waiting: deque[Assigned | Revoked | tuple[Entry, FaustEvent]] = deque()
        self._bytes = 0
        self._next: dict[int, int] = {}  # of each partition that is ours: what may come
        self._given: dict[int, int] = {}  # and what the runner gets next
        self._unacked: dict[
            int, deque[tuple[int, FaustEvent]]
        ] = {}  # of those that the runner knows
        self._working = False  # a step is at work on what `poll` gave
        self._still = False  # a rebalance has begun: nothing more is given
        self._closed = False
        self._error: BaseException | None = None

    # -- for the runner's thread

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        """At most `limit` entries over all partitions; raises what the app died of."""
        with self._change:
            self._working = False
            self._change.notify_all()
            self._change.wait_for(self._ready, wait)
            if self._error is not None:
                raise self._error
            self._check_open()
            events = self._taken(limit) if self._ready() else []
            room = self.held and self._bytes <= self._bound // 2
            if room:
                self.held = False
        if room:
            self._app.flow()
        return events

    def commit(self, partition: int, offset: int, note: bytes) -> None:
        """Acks every event of the partition below `offset`: a restart reads from there."""
        with self._change:
            self._check_open()
            unacked = self._unacked.get(partition, deque())
            done = []
            while unacked and unacked[0][0] < offset:
                done.append(unacked.popleft()[1])
        if done:
            self._app.ack(done)

    def behind(self, partition: int) -> int:
        """Entries of the partition that `poll` has not given yet; 1 at least while unsure."""
        with self._change:
            offset = self._given.get(partition)
        return 1 if offset is None else self._app.behind(partition, offset)

    def close(self) -> None:
        """Ends the app, in 10 s at most; what was not committed is read again."""
        with self._change:
            if self._closed:
                return
            self._closed, self._working = True, False
            self._waiting.clear()
            self._change.notify_all()
        self._app.stop()

    # -- for the app's loop

    def assigned(self, partition: int, offset: int, lost: int = 0) -> None:
        """The partition is ours, from `offset` on, of which so many before were deleted unread."""
        with self._change:
            self.lost += lost
            self._next[partition] = offset
            self._waiting.append(Assigned(partition, offset, b""))
            self._change.notify_all()

    def following(self, partition: int) -> int | None:
        """The offset that should come next; None where the partition is not ours."""
        with self._change:
            return self._next.get(partition)

    def put(self, entry: Entry, event: FaustEvent) -> None:
        """A record, in the order of its partition; dropped where that is not ours (any longer)."""
        with self._change:
            following = self._next.get(entry.partition)
            if self._closed or following is None or entry.offset < following:
                return
            self.lost += entry.offset - following
            self._next[entry.partition] = entry.offset + 1
            self._waiting.append((entry, event))
            self._bytes += len(entry.value)
            full = not self.held and self._bytes > self._bound
            if full:
                self.held = True
            self._change.notify_all()
        if full:
            self._app.flow()

    def still(self) -> bool:
        """Gives nothing more until `revoked`; whether the last step has ended, its acks sent."""
        with self._change:
            self._still = True
            return not self._working

    def revoked(self, partitions: Collection[int]) -> None:
        """The partitions are no longer ours: what waits of them is dropped."""
        with self._change:
            self._waiting = deque(one for one in self._waiting if _place(one) not in partitions)
            self._bytes = sum(len(one[0].value) for one in self._waiting if isinstance(one, tuple))
            for partition in partitions:
                self._next.pop(partition, None)
                self._given.pop(partition, None)
                if self._unacked.pop(partition, None) is not None:  # else it was never told
                    self._waiting.append(Revoked(partition))
            self.held = self._bytes > self._bound
            self._still = False
            self._change.notify_all()
        self._app.flow()

    def failed(self, error: BaseException) -> None:
        """The app died: `poll` raises this, whatever still waits."""
        with self._change:
            self._error = self._error or error
            self._change.notify_all()

    # -- under the lock

    def _ready(self) -> bool:
        told = self._error is not None or self._closed
        return told or bool(self._waiting and not self._still)

    def _taken(self, limit: int) -> list[Assigned | Entry | Revoked]:
        events: list[Assigned | Entry | Revoked] = []
        while self._waiting:
            match self._waiting[0]:
                case Assigned(partition=partition, offset=offset) as event:
                    self._unacked[partition] = deque()
                    self._given[partition] = offset
                    events.append(event)
                case Revoked() as event:
                    events.append(event)
                case (entry, event):
                    if limit == 0:
                        break
                    limit -= 1
                    self._working = True
                    self._bytes -= len(entry.value)
                    self._unacked[entry.partition].append((entry.offset, event))
                    self._given[entry.partition] = entry.offset + 1
                    events.append(entry)
            self._waiting.popleft()
        return events

    def _check_open(self) -> None:
        if self._closed:
            msg = "this reader is closed"
            raise RuntimeError(msg)


def _place(waiting: Assigned | Revoked | tuple[Entry, FaustEvent]) -> int | None:
    """The partition of what may be dropped when it is revoked; not of the news that it was."""
    match waiting:
        case Revoked():
            return None
        case Assigned(partition=partition):
            return partition
        case (entry, _):
            return entry.partition
