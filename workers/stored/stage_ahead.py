"""Runs a stage ahead of those that read its results, in a thread of its own.

The stages that look at pictures and hear sound take nearly all of the time of a replay, and none of
them reads what another one makes. So each has a thread and a bus of its own. What it makes is
published where and in the order in which it would be if all stages took turns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from queue import SimpleQueue

import msgspec

from pipeline.bus.memory import MemoryBus
from pipeline.ports import Bus, Entry
from workers.graph import Node

Published = tuple[str, str, bytes, str]  # topic, key, value, trace: as `Bus.publish` takes them


class Outgoing(MemoryBus):
    """A bus that holds what it is given, and keeps apart what is published to it."""

    def __init__(self) -> None:
        super().__init__(keep_bytes=0)
        self._published: list[Published] = []

    def publish(self, topic: str, key: str, value: bytes, trace: str = "") -> None:
        """Keeps a record apart, for `taken`."""
        self._published.append((topic, key, value, trace))

    def give(self, entries: Iterable[Published]) -> None:
        """Makes entries visible to the readers."""
        for entry in entries:
            super().publish(*entry)
        self.flush()

    def taken(self) -> list[Published]:
        """Returns what was published since the last call."""
        published, self._published = self._published, []
        return published


class _Turn(msgspec.Struct, frozen=True):
    """What the stage has made of so many entries; `error` ended it."""

    entries: int = 0
    made: Sequence[Published] = ()
    error: BaseException | None = None


class StageAhead:
    """A stage that works ahead; `step` publishes its results as the `step` of a `Runner` does.

    `give` takes the entries of the next slice as soon as they are known. They must also be
    published on `bus`, slice by slice, and `step` must come to the end of a slice before the next
    one is published. An error of the stage is raised by the `step` that would have run it. `close`
    ends the thread; what it has not done is left out. Stages that share a model share a `lock`.
    """

    def __init__(self, node: Node, bus: Bus, lock: threading.Lock | None = None) -> None:
        self.topic = node.topic
        self._limit = node.limit
        self._lock = lock or threading.Lock()
        self._bus = bus
        self._reader = bus.reader(node.topic, node.name)
        self._own = Outgoing()
        self._runner = node.runner(self._own)
        self._given: SimpleQueue[Sequence[Published]] = SimpleQueue()
        self._turns: SimpleQueue[_Turn] = SimpleQueue()
        self._ahead = 0  # entries whose results were published before they were polled
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"{node.name} ahead", daemon=True)
        self._thread.start()

    def give(self, entries: Iterable[Published]) -> None:
        """Takes the entries of a slice; those of other topics are passed over."""
        if mine := [entry for entry in entries if entry[0] == self.topic]:
            self._given.put(mine)

    def step(self, wait: float = 0.0) -> int:
        """Publishes what the stage made of the next entries on the bus; returns their number."""
        polled = self._reader.poll(self._limit, wait)
        entries = [event for event in polled if isinstance(event, Entry)]
        self._ahead -= len(entries)
        while self._ahead < 0:
            turn = self._turns.get()
            if turn.error is not None:
                raise turn.error
            for topic, key, value, trace in turn.made:
                self._bus.publish(topic, key, value, trace)
            self._ahead += turn.entries
        if entries:
            self._bus.flush()
        for number, upto in {entry.partition: entry.offset + 1 for entry in entries}.items():
            self._reader.commit(number, upto, b"")
        return len(entries)

    def close(self) -> None:
        """Ends the thread and closes the reader."""
        self._unwanted.set()
        self._given.put(())
        self._thread.join()
        self._runner.close()
        self._reader.close()

    def _work(self) -> None:
        try:
            while not self._unwanted.is_set():
                slice_ = self._given.get()
                self._own.give(slice_)
                left = len(slice_)
                while left and not self._unwanted.is_set():
                    with self._lock:
                        done = self._runner.step()
                    self._turns.put(_Turn(entries=done, made=self._own.taken()))
                    left -= done
        except BaseException as error:
            self._turns.put(_Turn(error=error))
