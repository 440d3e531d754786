"""The threads of one process: one stop event, and the first error stops them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE = 15.0  # s that threads get to end what they are doing


class Crew:
    """Threads under one stop event; the first error of any is kept, and stops the rest."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.failed = ""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Run `body` in a thread of its own; it watches `stop`."""
        thread = threading.Thread(target=self._guarded, args=(name, body), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> list[str]:
        """Wait for all to end; the names of those that did not."""
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _guarded(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.blame(name, error)

    def blame(self, name: str, error: BaseException) -> None:
        """Keep the first error, and stop all."""
        with self._lock:
            if self.error is None:
                self.error, self.failed = error, name
        self.stop.set()
