"""Writes as JSON lines what a process that has crashed left on its stderr.

`workers/runtime/last_words.py` has it run by its path, after the end of the process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workers.config.secrets import Redacting, Secrets
from workers.runtime import stderr_log


def tell(reading: int, unlogged: int, secrets: int) -> None:
    """Writes the rest of a pipe to stdout, which is the stderr of the process that had it."""
    known = Secrets(env={})
    known.remember(*json.loads(_shared(secrets) or b"[]"))
    sys.stderr = sys.stdout
    with stderr_log.json_stderr():
        stderr_log.json_handler().addFilter(Redacting(known))
        lines = stderr_log.Lines(lambda line: stderr_log.log.error("%s", line))
        lines.put(_shared(unlogged))
        os.set_blocking(reading, False)
        try:
            while some := os.read(reading, stderr_log.MAX_LINE):
                lines.put(some)
        except BlockingIOError:  # a child of the process still has the other end
            pass
        lines.end()


def _shared(number: int) -> bytes:
    return os.pread(number, os.fstat(number).st_size, 0)


if __name__ == "__main__":
    tell(*map(int, sys.argv[1:]))
