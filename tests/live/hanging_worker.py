"""A vision worker whose model never answers: what the stall watchdog is for."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.errors import OutsideError
from tests.graph.conftest import FAKES
from workers import worker
from workers.exit_codes import OUTSIDE


def hang(batch: Sequence[object]) -> Sequence[object]:
    """As a driver that lost its device."""
    threading.Event().wait()
    return batch


if __name__ == "__main__":
    encoders = msgspec.structs.replace(FAKES, detector=hang)
    order = worker.WorkerOptions(stage="vision", recorded=True)
    try:
        code = worker.run(order, Path(sys.argv[1]), encoders)
    except OutsideError as error:
        print(error, file=sys.stderr)
        code = OUTSIDE
    os._exit(code)  # as the command does: a thread hangs, and will not end
