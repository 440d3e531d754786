"""Opens TFLite files with LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from pipeline.errors import WeightsError


def open_tflite(path: Path, threads: int) -> Any:
    """Returns an interpreter that is ready to run; with `threads` 0 LiteRT chooses the number.

    Raises WeightsError if the file is missing or broken.
    """
    try:
        interpreter = Interpreter(str(path), num_threads=threads or None)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        msg = f"{path} cannot be loaded: {error}"
        raise WeightsError(msg) from error
    return interpreter


def shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a tensor, of its details."""
    return tuple(int(size) for size in tensor["shape"])
