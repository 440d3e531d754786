"""Runs long work in a pool of processes, one a core, that end with their parent."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError, ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process
from types import TracebackType
from typing import Any


def pool(ready: Callable[..., object], *given: Any, count: int = 0) -> ProcessPoolExecutor:
    """Creates a pool of spawned processes: one a core, or `count`.

    They are spawned because models have threads, which a fork would lose. Each process calls
    `ready(*given)` before its first task. When the parent is killed or interrupted, they end too.
    """
    spawn = get_context("spawn")
    return _Pool(count or os.cpu_count(), spawn, _begin, (ready, given))


class _Pool(ProcessPoolExecutor):
    """A pool whose processes end at once when its block is left by Ctrl-C or SIGTERM."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if kind is not None and not issubclass(kind, Exception):
            said, threading.excepthook = threading.excepthook, _say_unless_cancelled
            try:
                for process in active_children():
                    process.terminate()
                self.shutdown(cancel_futures=True)
            finally:
                threading.excepthook = said
            gc.collect()  # the semaphores of its queues go, so that nobody reports them as leaked
        return super().__exit__(kind, error, trace)


def _say_unless_cancelled(args: threading.ExceptHookArgs) -> None:
    """Passes over the error of Python 3.11: a broken pool fails futures that were cancelled."""
    if args.exc_type is not InvalidStateError:
        threading.__excepthook__(args)


def _begin(ready: Callable[..., object], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent reports Ctrl-C, in one line
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    ready(*given)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the parent is gone: no process would take a result
