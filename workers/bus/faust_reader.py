"""Passes records from the event loop of a Faust app to the thread of a runner.

It does not import Faust: an event is any object with `ack`. The app calls `assigned`, `put`,
`still`, `revoked` and `failed` from its loop; the runner's thread calls the methods of a Reader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

from pipeline.ports import Assigned, Entry, Revoked


class FaustEvent(Protocol):
    """One record of Faust; `ack` is called when it is not needed any more."""

    def ack(self) -> object: ...


class FaustApp(Protocol):
    """The methods of the app that the reader calls, from any thread."""

    def ack(self, events: Sequence[FaustEvent]) -> None: ...
    def flow(self) -> None: ...
    def behind(self, partition: int, offset: int) -> int: ...
    def stop(self) -> None: ...


class FaustReader:
    """A Reader of the records that an app puts in, with a buffer of about `bound` bytes.

    `held` keeps the bound (back-pressure): the app fetches nothing while it is set, and `flow`
    notifies it of a change. `commit` acks the records below the offset, and the app commits them
    within a second. So a commit is not yet durable when it returns, and its note is not kept: Faust
    has no place for one.
    """

    def __init__(self, app: FaustApp, bound: int) -> None:
        self.held = False
        self.lost = 0  # records that retention deleted before they were read
        self._app = app
        self._bound = bound
        self._change = threading.Condition()
        self._waiting: deque[Assigned | Revoked | tuple[Entry, FaustEvent]] = deque()
        self._bytes = 0
        self._next: dict[int, int] = {}  # partition that we own -> offset expected from the app
        self._given: dict[int, int] = {}  # partition -> offset that the runner gets next
        self._unacked: dict[
            int, deque[tuple[int, FaustEvent]]
        ] = {}  # of partitions that the runner knows
        self._working = False  # a step works on the entries of the last `poll`
        self._still = False  # a rebalance has begun: `poll` returns nothing more
        self._closed = False
        self._error: BaseException | None = None

    # -- for the runner's thread

    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]:
        """At most `limit` entries over all partitions; raises the error that ended the app."""
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
        """Entries of the partition that `poll` has not returned yet; 1 if that is not known."""
        with self._change:
            offset = self._given.get(partition)
        return 1 if offset is None else self._app.behind(partition, offset)

    def close(self) -> None:
        """Ends the app, in at most 10 s; records that were not committed are read again."""
        with self._change:
            if self._closed:
                return
            self._closed, self._working = True, False
            self._waiting.clear()
            self._change.notify_all()
        self._app.stop()

    # -- for the app's loop

    def assigned(self, partition: int, offset: int, lost: int = 0) -> None:
        """Adds a partition from `offset` on; retention deleted `lost` entries before it unread."""
        with self._change:
            self.lost += lost
            self._next[partition] = offset
            self._waiting.append(Assigned(partition, offset, b""))
            self._change.notify_all()

    def following(self, partition: int) -> int | None:
        """The offset that should come next; None if we do not own the partition."""
        with self._change:
            return self._next.get(partition)

    def put(self, entry: Entry, event: FaustEvent) -> None:
        """Adds a record, in the order of its partition; drops it if we do not own the partition."""
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
        """Stops `poll` until `revoked`; returns whether the last step has ended and sent acks."""
        with self._change:
            self._still = True
            return not self._working

    def revoked(self, partitions: Collection[int]) -> None:
        """Removes partitions; their waiting records are dropped."""
        with self._change:
            self._waiting = deque(one for one in self._waiting if _place(one) not in partitions)
            self._bytes = sum(len(one[0].value) for one in self._waiting if isinstance(one, tuple))
            for partition in partitions:
                self._next.pop(partition, None)
                self._given.pop(partition, None)
                if self._unacked.pop(partition, None) is not None:  # the runner knows of it
                    self._waiting.append(Revoked(partition))
            self.held = self._bytes > self._bound
            self._still = False
            self._change.notify_all()
        self._app.flow()

    def failed(self, error: BaseException) -> None:
        """Stores the error that ended the app; `poll` raises it, even if records wait."""
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
    """The partition of an item that a revocation drops; None for Revoked, which is kept."""
    match waiting:
        case Revoked():
            return None
        case Assigned(partition=partition):
            return partition
        case (entry, _):
            return entry.partition
