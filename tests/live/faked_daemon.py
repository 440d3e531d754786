"""A daemon with fake models; one of them may hang, or take its time.

It plays a scene, or captures live without one. In the file `FUSEWATCH_TEST_CLOCK` stands by how
many seconds its wall clock is wrong; the test may change it at any time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

if "FUSEWATCH_TEST_CLOCK" in os.environ:  # before anything takes these functions
    _right, _wrong = time.time_ns, Path(os.environ["FUSEWATCH_TEST_CLOCK"])

    def _time_ns() -> int:
        return _right() + round(float(_wrong.read_text() or 0) * 1e9)

    time.time_ns = _time_ns
    time.time = lambda: _time_ns() / 1e9

from pipeline.errors import OutsideError
from tests.graph.conftest import FAKES
from workers import daemon
from workers.exit_codes import OUTSIDE
from workers.stages import overload


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


class Slow:
    """A model that takes some seconds for each item."""

    def __init__(self, model: Any, seconds: float) -> None:
        self.model, self.seconds = model, seconds

    def __call__(self, batch: Sequence[Any]) -> Any:
        time.sleep(self.seconds * len(batch))
        return self.model(batch)


MODELS = {
    "well": FAKES,
    "hangs": msgspec.structs.replace(FAKES, detector=Late(FAKES.detector, calls=2)),
    "slow-text": msgspec.structs.replace(FAKES, text=Slow(FAKES.text, seconds=0.1)),
    "overloaded": msgspec.structs.replace(
        FAKES, detector=Slow(FAKES.detector, seconds=0.1), sound=Slow(FAKES.sound, seconds=1.3)
    ),
    "slow": msgspec.structs.replace(FAKES, sound=Late(FAKES.sound, seconds=1.5)),
}

if __name__ == "__main__":
    if sys.argv[1] == "overloaded":  # hearing gives way within seconds, not minutes
        overload.MEASURED = 0.5
        overload.SPEECH_LIMITS.update({overload.TRANSCRIPTION: 1.0, overload.VOICE: 1.5})
        overload.SOUND_LIMITS[overload.SOUND] = 2.0
    config, state, *scene = map(Path, sys.argv[2:])
    played = scene[0] if scene else None
    try:
        code = daemon.run(config, scene=played, state=state, encoders=MODELS[sys.argv[1]])
    except OutsideError as error:
        print(error, file=sys.stderr)
        code = OUTSIDE
    os._exit(code)  # as the command does: a thread hangs, and will not end
