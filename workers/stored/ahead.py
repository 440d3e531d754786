"""Reads items ahead in a thread of its own, so that two cores work on one replay."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

LOOKS_EVERY = 0.1  # s between two looks whether the items are wanted any more


class _End:
    """The items are over; `error` is what ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """The items of an iterator, in its order; at most `most` wait.

    The iterator runs in the thread alone. Its error is raised where its next item would be. `close`
    ends the thread.
    """

    def __init__(self, items: Iterator[T], most: int) -> None:
        self._items = items
        self._waiting: queue.Queue[T | _End] = queue.Queue(most)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._read, name="read ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._waiting.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def close(self) -> None:
        """Ends the thread; items that wait are dropped."""
        self._unwanted.set()
        self._thread.join()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as raised:
            error = raised
        finally:
            if isinstance(self._items, Generator):
                self._items.close()  # its files, too, are of this thread
        self._put(_End(error))

    def _put(self, item: T | _End) -> bool:
        while not self._unwanted.is_set():
            with suppress(queue.Full):
                self._waiting.put(item, timeout=LOOKS_EVERY)
                return True
        return False
