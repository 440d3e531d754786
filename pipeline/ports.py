"""The seven interfaces: Source, Model, State, Stage, Reader, Bus and Sink.

A new sensor, model, stage, bus or destination implements one of them, or two that belong together
(State and Stage, Reader and Bus). A Protocol in another file is none of these: it says what that
file asks of one collaborator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec

from pipeline.types import Alert, Chunk, Progress, Record


class Source(Protocol):
    """One connection to a camera, microphone or recording; raises SourceLost when the stream
    breaks.

    A Progress that is not alive says that a source has nothing until its next chunk (a hole).
    """

    def __iter__(self) -> Iterator[Chunk | Progress]: ...
    def close(self) -> None: ...


class Model(Protocol):
    """Maps a batch to one result per item; has no access to time, the bus or the config file."""

    def __call__(self, batch: Sequence[Any]) -> Sequence[Any]: ...


class State(Protocol):
    """The state of a stage for one partition.

    Records held until `floor(site)` or earlier (`types.needed_until`) do not affect the output of
    `on` any more. A restart that feeds the later records again, in order, reaches an equal state.
    """

    def on(self, record: Record, inferred: Any) -> Sequence[Record]: ...
    def floor(self, site: str) -> int: ...


class Stage(Protocol):
    """A step of the graph: reads one topic and has one `State` per partition.

    `infer` gets a whole poll over all partitions, returns one result per record, and is stateless.
    `open` takes the floors by site at which a restart continues; empty for a new partition. Read
    them with `get`: they come from a note, which stores only a hash of each name.
    """

    def infer(self, batch: Sequence[Record]) -> Sequence[Any]: ...
    def open(self, floors: dict[str, int]) -> State: ...


class Assigned(msgspec.Struct, frozen=True):
    """The reader now owns `partition`; its next entry is the first at or after `offset`."""

    partition: int
    offset: int
    note: bytes


class Entry(msgspec.Struct, frozen=True):
    """One stored record: its bytes and their place.

    `trace` is a traceparent, or empty. `fault` is a defect that the bus found before the entry was
    decoded (an unknown schema version, for example): such an entry goes to the dead letters.
    """

    partition: int
    offset: int
    key: str
    value: bytes
    trace: str = ""
    fault: str = ""


class Revoked(msgspec.Struct, frozen=True):
    """The reader no longer owns `partition`."""

    partition: int


class Reader(Protocol):
    """One member of a consumer group on one topic; not shared between threads.

    `poll` gives at most `limit` entries and waits at most `wait` seconds for the first.
    `commit` says where a restart reads from: `offset`. What was published before is durable then.
    The commit itself may come a little later, unless the bus says more: a restart may read some
    entries again.
    `behind` is how many entries of a partition wait to be polled: at least 1 where that is not
    known, such as before the partition is assigned. `lost` counts the entries that retention
    deleted before this reader came to them; it grows as `poll` passes over them.
    """

    @property
    def lost(self) -> int: ...
    def poll(self, limit: int, wait: float = 0.0) -> Sequence[Assigned | Entry | Revoked]: ...
    def commit(self, partition: int, offset: int, note: bytes) -> None: ...
    def behind(self, partition: int) -> int: ...
    def close(self) -> None: ...


class Bus(Protocol):
    """Topics of bytes, ordered by key; `publish` may buffer until `flush`.

    `fetch` returns the stored chunks of one source that overlap `[start, end)`; for evidence only.
    """

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None: ...
    def flush(self) -> None: ...
    def reader(self, topic: str, group: str) -> Reader: ...
    def fetch(self, topic: str, key: str, start: int, end: int) -> Sequence[bytes]: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """A destination of alerts; raises Retry or Rejected. `trace` is a traceparent, or empty."""

    def send(self, alert: Alert, trace: str = "") -> None: ...
