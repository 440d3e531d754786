"""Runs the threads of one process and handles its signals; the first error stops all threads."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping

from pipeline.errors import FusewatchError
from workers.runtime.stderr_log import on_terminal

log = logging.getLogger("fusewatch")

IDLE_WAIT = 0.25  # s that an idle stage sleeps between looks at `stop`; new entries may wake it
LOOK_EVERY = 0.1  # s between two looks of the main thread at how things are
JOIN_TIMEOUT = 15.0  # s that threads get to finish
BUG = 70  # exit code for an internal error (sysexits.h: EX_SOFTWARE)


class Supervisor:
    """Threads under one stop event; the first error of any thread is kept and stops the others.

    SIGHUP sets `reload`; the main thread calls `asked`, which clears it, and reloads.
    """

    def __init__(self) -> None:
        self.stop, self.reload = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.failed = ""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def run(self, body: Callable[[], None], close: Callable[[], None]) -> int:
        """Runs `body` in the main thread; SIGTERM and SIGINT set `stop`, and `body` should end.

        SIGHUP sets `reload`, or `stop` if the process has lost its terminal. `close` is called in
        any case. Returns 0, or BUG when a thread failed by an internal error, with its traceback in
        the log. Raises the error if its cause is outside (a FusewatchError).
        """
        from_terminal = on_terminal()

        def hung_up() -> None:
            (self.stop if from_terminal and not on_terminal() else self.reload).set()

        meant: Mapping[int, Callable[[], None]] = {
            signal.SIGTERM: self.stop.set,
            signal.SIGINT: self.stop.set,
            signal.SIGHUP: hung_up,
        }
        before = {number: signal.signal(number, lambda n, _: meant[n]()) for number in meant}
        try:
            body()
        except (FusewatchError, OSError):
            raise
        except Exception as error:
            # A bug: its traceback goes to the log, which cuts out secrets, like a thread's.
            self.blame("the start", error)
        finally:
            close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._outcome()

    def asked(self) -> bool:
        """Returns whether a reload was asked for since the last call."""
        asked = self.reload.is_set()
        if asked:
            self.reload.clear()
        return asked

    def _outcome(self) -> int:
        if self.error is None:
            return 0
        if isinstance(self.error, FusewatchError):
            log.critical("%s failed: %s", self.failed, self.error)
            raise self.error
        log.critical("%s failed", self.failed, exc_info=self.error)
        return BUG

    def start(self, name: str, body: Callable[[], None]) -> None:
        """Runs `body` in a thread of its own; `body` must end when `stop` is set."""
        thread = threading.Thread(target=self._guarded, args=(name, body), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def repeat(
        self, name: str, turn: Callable[[], object], close: Callable[[], None] = lambda: None
    ) -> None:
        """Calls `turn` repeatedly in a thread of its own until `stop`; then calls `close`."""

        def body() -> None:
            try:
                while not self.stop.is_set():
                    turn()
            finally:
                close()

        self.start(name, body)

    def join(self) -> list[str]:
        """Waits `JOIN_TIMEOUT` s for the threads; logs and returns the names of late ones."""
        until = time.monotonic() + JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        late = [thread.name for thread in self._threads if thread.is_alive()]
        if late:
            log.warning("threads that did not end in %g s: %s", JOIN_TIMEOUT, ", ".join(late))
        return late

    def _guarded(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.blame(name, error)

    def blame(self, name: str, error: BaseException) -> None:
        """Keeps the first error, with the name of its thread, and stops all threads."""
        with self._lock:
            if self.error is None:
                self.error, self.failed = error, name
        self.stop.set()
