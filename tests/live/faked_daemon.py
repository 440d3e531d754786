"""A daemon with fake models that plays a scene; one of them may hang, or take its time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import OutsideError
from tests.graph.conftest import FAKES
from workers import daemon
from workers.exit_codes import OUTSIDE


class Late:
    """A model that answers each call after some seconds, and from a call on never again."""

    def __init__(self, model: Any, seconds: float = 0.0, calls: int = sys.maxsize) -> None:
        self.model, self.seconds, self.left = model, seconds, calls
        self.never = threading.Event()

    def __call__(self, batch: Sequence[Any]) -> Any:
        if self.left == 0:  # as a driver that lost its device
            self.never.wait()
        self.left -= 1
        self.never.wait(self.seconds)
        return self.model(batch)


MODELS = {
    "well": FAKES,
    "hangs": msgspec.structs.replace(FAKES, detector=Late(FAKES.detector, calls=2)),
    "slow": msgspec.structs.replace(FAKES, sound=Late(FAKES.sound, seconds=1.5)),
}

if __name__ == "__main__":
    config, state, scene = map(Path, sys.argv[2:])
    try:
        code = daemon.run(config, scene=scene, state=state, encoders=MODELS[sys.argv[1]])
    except OutsideError as error:
        print(error, file=sys.stderr)
        code = OUTSIDE
    os._exit(code)  # as the command does: a thread hangs, and will not end
