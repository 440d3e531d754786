"""Opens TFLite files with LiteRT.

LiteRT 1 does not verify the structure of a file: a file that is cut ends the process by a signal.
So a file that is not one of the registry is opened in a child process first.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from models.download import digest
from models.registry import REGISTRY
from pipeline.errors import WeightsError

TRIAL = """
import sys
from ai_edge_litert.interpreter import Interpreter
Interpreter(sys.argv[1]).allocate_tensors()
"""
TRIAL_SECONDS = 60


def open_tflite(path: Path, threads: int) -> Any:
    """Returns an interpreter that is ready to run; with `threads` 0 LiteRT chooses the number.

    Raises WeightsError if the file is missing or broken.
    """
    _tried(path)
    try:
        interpreter = Interpreter(str(path), num_threads=threads or None)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        msg = f"{path} cannot be loaded: {error}"
        raise WeightsError(msg) from error
    return interpreter


def _tried(path: Path) -> None:
    """Raises WeightsError for a file that ends the process which opens it."""
    if not path.is_file():
        msg = f"{path} cannot be loaded: there is no such file"
        raise WeightsError(msg)
    if digest(path) in {file.sha256 for weights in REGISTRY.values() for file in weights.files}:
        return
    command = [sys.executable, "-c", TRIAL, str(path)]
    try:
        trial = subprocess.run(  # noqa: S603 - our own interpreter and program
            command, capture_output=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{path} cannot be loaded: LiteRT did not open it within {TRIAL_SECONDS} s"
        raise WeightsError(msg) from error
    if trial.returncode < 0:
        msg = f"{path} cannot be loaded: it is damaged (LiteRT crashed when it opened it)"
        raise WeightsError(msg)


def shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a tensor, of its details."""
    return tuple(int(size) for size in tensor["shape"])
