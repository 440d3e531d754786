"""Opens TFLite files with LiteRT.

LiteRT 1 does not verify the structure of a file, and a damaged one can end the process by a signal.
So only files of the registry are opened, wherever they lie: their SHA-256 decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from models.download import digest
from models.registry import REGISTRY
from pipeline.errors import WeightsError


def open_tflite(path: Path, threads: int) -> Any:
    """Returns an interpreter that is ready to run; with `threads` 0 LiteRT chooses the number.

    Raises WeightsError if the file is missing, or is not one of the registry.
    """
    _registered(path)
    try:
        interpreter = Interpreter(str(path), num_threads=threads or None)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        msg = f"{path} cannot be loaded: {error}"
        raise WeightsError(msg) from error
    return interpreter


def _registered(path: Path) -> None:
    """Raises WeightsError unless the file has the bytes of a registered one."""
    if not path.is_file():
        msg = f"{path} cannot be loaded: there is no such file"
        raise WeightsError(msg)
    if digest(path) not in {file.sha256 for model in REGISTRY.values() for file in model.files}:
        msg = (
            f"{path} is damaged, or is none of the TFLite files that Fusewatch knows (wrong "
            "SHA-256); use the registered name of the model (`fusewatch weights list`)"
        )
        raise WeightsError(msg)


def shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a tensor, of its details."""
    return tuple(int(size) for size in tensor["shape"])
