"""`fusewatch` with fake models, in a process where others write to stderr, too.

The first word says who: `print`, `native` (a C library), `warning`, `thread`, `destructor`, `log`,
`secret`, `exception`, `all` of them, or `nobody`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from tests.graph.conftest import FAKES
from workers import cli, daemon

libc = ctypes.CDLL(None)
COLOURED = b"\x1b[1;31m2026 [E:onnxruntime] \x9b\xc2\x9b a native line \xe2\x80\xae\x1b[m\n"


def fail() -> None:
    msg = "a thread has failed"
    raise RuntimeError(msg)


class Fragile:
    """It cannot be destroyed."""

    def __del__(self) -> None:
        fail()


def thread() -> None:
    made = threading.Thread(target=fail, name="theirs")
    made.start()
    made.join()


NOISES: dict[str, Callable[[], Any]] = {
    "print": lambda: print("a printed line", file=sys.stderr),
    "native": lambda: libc.write(2, COLOURED, len(COLOURED)),
    "warning": lambda: warnings.warn("a warning\nof two lines", stacklevel=2),
    "thread": thread,
    "destructor": Fragile,
    "log": lambda: logging.getLogger("httpx").warning("a line of a library"),
    "secret": lambda: os.write(2, f"connecting to {os.environ.get('PLANTED')}\r\n".encode()),
}


def noise(which: str) -> None:
    for name, make in NOISES.items():
        if which in (name, "all"):
            make()


class Detector:
    """The fake detector; each call is loud."""

    def __call__(self, batch: Any) -> Any:
        noise(sys.argv[1])
        if sys.argv[1] == "exception":
            msg = "a stage has failed"
            raise RuntimeError(msg)
        return FAKES.detector(batch)


if __name__ == "__main__":
    import msgspec

    real = daemon.run
    loud = msgspec.structs.replace(FAKES, detector=Detector())

    def run(*given: Any, **more: Any) -> int:
        if sys.argv[1] != "all":  # no secret is known yet
            noise(sys.argv[1])
        return real(*given, **more, encoders=loud)

    daemon.run = run
    warnings.simplefilter("always")
    words, who = sys.argv[2:], sys.argv[1]
    code = cli.main(words)
    sys.stderr.flush()
    os._exit(code)
