"""Makes every line on stderr a JSON object: ours, those of Python and those of C libraries.

`json_stderr` is for `run` and `worker` where stderr is no terminal. Python's own messages
(warnings, exceptions of threads and of destructors) become log records. What is written to file
descriptor 2 goes through a pipe, and `NativeOutput` logs each of its lines. The log itself is
written to the stream that stderr was before.

The stacks of a crash (`faulthandler`) are written as they are. `workers/runtime/last_words.py`
keeps what a C library writes in the instant before it ends the process.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from workers.runtime.printable import printable

if TYPE_CHECKING:
    from workers.runtime.last_words import LastWords

log = logging.getLogger("fusewatch")

STDERR = 2  # the file descriptor
PIPE_BYTES = 1 << 20  # a library that holds Python's lock can write so much without a reader
MAX_LINE = 65_536  # bytes; a longer line is not shown: a secret could be cut in two at its end
JOIN_TIMEOUT = 5.0  # s for the last lines

_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_original: list[TextIO] = []  # the real stderr, while fd 2 is a pipe


class JsonLineFormatter(logging.Formatter):
    """One JSON object a line: time, level, thread, message, and the fields of `extra["data"]`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; a traceback is its field `error`."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "message": record.getMessage(),
            **getattr(record, "data", {}),
        }
        if record.exc_text or record.exc_info:
            line["error"] = record.exc_text or self.formatException(record.exc_info or (None,) * 3)
        text = json.dumps(line, ensure_ascii=False)
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class JsonHandler(logging.StreamHandler[Any]):
    """Writes JSON lines to the real stderr."""

    def __init__(self) -> None:
        super().__init__(original())
        self.setFormatter(JsonLineFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        """Says that a record cannot be written; nothing can be said where stderr is broken.

        What logging itself prints would come back to this handler.
        """
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            return
        line = {"level": "error", "message": f"a record of the log cannot be written: {error!r}"}
        with suppress(OSError, ValueError):
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


def original() -> TextIO:
    """The stream that stderr was before its lines were collected."""
    return _original[-1] if _original else sys.stderr


def on_terminal() -> bool:
    """Whether stderr is a terminal that still exists."""
    try:
        return os.isatty(original().fileno())
    except (OSError, ValueError, AttributeError):  # closed, or without a file descriptor
        return False


def is_json() -> bool:
    """Whether stderr has JSON lines only."""
    return any(isinstance(one, JsonHandler) for one in logging.getLogger().handlers)


def json_handler() -> logging.Handler:
    """The handler for JSON lines: that of `json_stderr`, or a new one."""
    root = logging.getLogger()
    return next((one for one in root.handlers if isinstance(one, JsonHandler)), None) or (
        JsonHandler()
    )


@contextmanager
def json_stderr() -> Iterator[None]:
    """Logs everything that is written to stderr as JSON lines, and restores stderr at the end."""
    root = logging.getLogger()
    before = log.handlers[:], log.level, log.propagate, root.handlers[:]
    with collected():
        root.handlers[:] = log.handlers[:] = [JsonHandler()]
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            with _hooks():
                yield
        finally:
            _end_collecting()
            log.handlers[:], log.level, log.propagate, root.handlers[:] = before


@contextmanager
def collected() -> Iterator[None]:
    """Logs each line that is written to file descriptor 2; `original` is the stream before.

    Where stderr is not file descriptor 2 (a test collects it), nothing changes.
    """
    try:
        real = sys.stderr.fileno() == STDERR
    except (OSError, ValueError, AttributeError):
        real = False
    if not real or _original:
        yield
        return
    sys.stderr.flush()
    native = NativeOutput(STDERR, _say)
    _original.append(native.before)
    _running.append(native)
    was_enabled = faulthandler.is_enabled()
    faulthandler.enable(native.before)
    try:
        yield
    finally:
        _end_collecting()
        if was_enabled:
            faulthandler.enable(sys.stderr)
        else:
            faulthandler.disable()
        _original.remove(native.before)


_running: list[NativeOutput] = []


def _end_collecting() -> None:
    """Logs the last lines; from here on stderr is what it was."""
    while _running:
        with suppress(ValueError, OSError):
            sys.stderr.flush()
        _running.pop().close()


def hide(secrets: Collection[str]) -> None:
    """Keeps the secrets out of what a crash leaves; a filter of the log does it for all else."""
    for native in _running:
        native.hide(secrets)


def _say(line: str) -> None:
    log.info("%s", line)


class NativeOutput:
    """Collects the lines that are written to a file descriptor; `say` gets each from a thread.

    The descriptor becomes a pipe. `before` is a stream to what it was. `close` passes on all that
    was written until then and restores the descriptor.
    """

    def __init__(self, number: int, say: Callable[[str], object]) -> None:
        self._number, self._say = number, say
        self._saved = os.dup(number)
        self.before: TextIO = open(  # noqa: SIM115 - closed by no one: the log writes to the last
            self._saved, "w", encoding="utf-8", errors="backslashreplace", closefd=False
        )
        self._reading, writing = os.pipe()
        with suppress(OSError):  # the system may allow less
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._wake, self._waking = os.pipe()
        self._last = _watcher(self._reading, self._saved)
        os.dup2(writing, number)
        os.close(writing)
        self._lines = Lines(say)
        self._thread = threading.Thread(target=self._read, name="native", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Restores the descriptor and passes on the last lines."""
        os.dup2(self._saved, self._number)
        os.close(self._waking)
        self._thread.join(JOIN_TIMEOUT)
        if self._last is not None and not self._thread.is_alive():
            self._last.close()

    def hide(self, secrets: Collection[str]) -> None:
        """Keeps these out of what is shown after a crash; `say` must do it for all else."""
        if self._last is not None:
            self._last.secrets(secrets)

    def _read(self) -> None:
        """Reads until `close`, and then what is left; a child may hold the pipe open for longer."""
        os.set_blocking(self._reading, False)
        ending = False
        while True:
            if not ending:
                ready, _, _ = select.select([self._reading, self._wake], [], [])
                ending = self._wake in ready
            try:
                some = os.read(self._reading, MAX_LINE)
            except BlockingIOError:
                some = b""
            if some:
                self._share(self._lines.rest + some)
                self._lines.put(some)
                self._share(self._lines.rest)
            elif ending:
                break
        self._lines.end()
        os.close(self._reading)
        os.close(self._wake)

    def _share(self, unlogged: bytes) -> None:
        if self._last is not None:
            self._last.unlogged(unlogged)


def _watcher(reading: int, saved: int) -> LastWords | None:
    # Most commands start no process: loading what can takes them some ms.
    from workers.runtime.last_words import LastWords  # noqa: PLC0415

    try:
        return LastWords(reading, saved)
    except OSError as error:  # no shell, or no more processes
        log.warning("what a library writes as it crashes will not be seen: %s", error)
        return None


class Lines:
    """Cuts bytes into lines without anything that a terminal executes; `say` gets each."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self.rest, self._long = b"", 0

    def put(self, some: bytes) -> None:
        """Adds bytes, and passes on the lines that are complete."""
        *lines, self.rest = re.split(rb"[\r\n]", self.rest + some)
        for line in lines:
            self._one(line)
        if len(self.rest) > MAX_LINE:
            self._long += len(self.rest)
            self.rest = b""

    def end(self) -> None:
        """Passes on the last line, which no newline ends."""
        self._one(self.rest)
        self.rest = b""

    def _one(self, line: bytes) -> None:
        size, self._long = self._long + len(line), 0
        if size > MAX_LINE:
            self._say(f"(a line of {size} bytes is left out)")
        elif text := printable(line.decode(errors="replace")).strip():
            self._say(text)


@contextmanager
def _hooks() -> Iterator[None]:
    """Turns Python's own messages into log records."""
    before = sys.excepthook, sys.unraisablehook, threading.excepthook

    def failed(kind: Any, error: Any, trace: Any) -> None:
        log.critical("the process failed", exc_info=(kind, error, trace))

    def thread_failed(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit and args.exc_value is not None:
            name = args.thread.name if args.thread else "?"
            given = (args.exc_type, args.exc_value, args.exc_traceback)
            log.critical("thread %s failed", name, exc_info=given)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        said = args.err_msg or "an exception was ignored"
        error = args.exc_value
        given = (args.exc_type, error, args.exc_traceback) if error is not None else None
        log.error("%s: %r", said, args.object, exc_info=given)

    sys.excepthook, sys.unraisablehook, threading.excepthook = failed, unraisable, thread_failed
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        sys.excepthook, sys.unraisablehook, threading.excepthook = before
