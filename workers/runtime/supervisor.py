"""The threads of one process and its signals: one stop event, and the first error stops all."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from pipeline.errors import FusewatchError

log = logging.getLogger("fusewatch")

IDLE_WAIT = 0.25  # s that an idle stage sleeps between looks at `stop`; new entries may wake it
LOOK_EVERY = 0.1  # s between two looks of the main thread at how things are
JOIN_TIMEOUT = 15.0  # s that threads get to end what they are doing
BUG = 70  # exit code for a defect of ours (sysexits.h: EX_SOFTWARE)


class Supervisor:
    """Threads under one stop event; the first error of any is kept, and stops the rest.

    `reload` is set by SIGHUP; who runs in the main thread clears it and does what it asks for.
    """

    def __init__(self) -> None:
        self.stop, self.reload = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self.failed = ""
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def run(self, body: Callable[[], None], close: Callable[[], None]) -> int:
        """Run `body` in this, the main thread; SIGTERM and SIGINT set `stop`, and it should end.

        SIGHUP sets `reload`, or `stop` where it means that the terminal that we had is gone.
        Then `close`, in any case. Returns 0, or BUG when a thread failed by a defect of ours, with
        its traceback in the log; raises the error where the outside world was its reason.
        """
        on_terminal = _on_terminal()

        def hung_up() -> None:
            (self.stop if on_terminal and not _on_terminal() else self.reload).set()

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
            # A bug: its traceback goes where secrets are cut out, as a thread's does.
            self.blame("the start", error)
        finally:
            close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._outcome()

    def asked(self) -> bool:
        """Whether somebody asked for a reload since this was called last."""
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
        """Run `body` in a thread of its own; it watches `stop`."""
        thread = threading.Thread(target=self._guarded, args=(name, body), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def repeat(
        self, name: str, turn: Callable[[], object], close: Callable[[], None] = lambda: None
    ) -> None:
        """Call `turn` again and again in a thread of its own, until `stop`; then `close`."""

        def body() -> None:
            try:
                while not self.stop.is_set():
                    turn()
            finally:
                close()

        self.start(name, body)

    def join(self) -> list[str]:
        """Wait for all to end, and warn of those that do not: their names."""
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
        """Keep the first error, and stop all."""
        with self._lock:
            if self.error is None:
                self.error, self.failed = error, name
        self.stop.set()


def _on_terminal() -> bool:
    """Whether stderr is a terminal that is still there."""
    try:
        return os.isatty(sys.stderr.fileno())
    except (OSError, ValueError):  # it is none at all, or closed
        return False
