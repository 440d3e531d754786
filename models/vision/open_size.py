"""Opens the height and width of a YOLOX graph whose input is a square of fixed size.

A picture of 16:9 fills 416 x 234 of a square of 416 x 416. The rest is padding, and costs as much
as the picture. YOLOX has no layer that depends on the size, so the same graph can look at 416 x
256.
The file stays as it is: the axes are opened in memory. The fields are those of `onnx.proto3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.onnx_file import message_class

STEP = 32  # px; the largest stride, by which height and width must be divisible

_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph")},
    "Graph": {"inputs": (11, "Value"), "outputs": (12, "Value"), "inner": (13, "Value")},
    "Value": {"type": (2, "Type")},
    "Type": {"tensor": (1, "Tensor")},
    "Tensor": {"shape": (2, "Shape")},
    "Shape": {"axes": (1, "Axis")},
    "Axis": {"size": (1, "int64"), "name": (2, "bytes")},
}
_MODEL = message_class(_MESSAGES)


def open_size(model: bytes) -> bytes:
    """Returns the model with open height, width and number of cells."""
    read = _MODEL.FromString(model)
    for graph in read.graph:
        _open(graph.inputs, {2: b"height", 3: b"width"})
        _open(graph.outputs, {1: b"cells"})
        del graph.inner[:]  # the shapes of before
    opened: bytes = read.SerializeToString()
    return opened


def _open(values: Any, axes: Mapping[int, bytes]) -> None:
    for value in values:
        for shape in (shape for kind in value.type for ten in kind.tensor for shape in ten.shape):
            for number, name in axes.items():
                axis = shape.axes[number]
                del axis.size[:]
                axis.name[:] = [name]


def same(one: Any, other: Any, side: int) -> bool:
    """Whether two sessions of ONNX Runtime agree on a square, and `other` finds as many cells in
    half of it as there are."""
    name, shape = one.get_inputs()[0].name, (1, 3, side, side)
    picture = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    half = picture[:, :, : -(-side // 2 // STEP) * STEP].copy()
    try:
        square, again = (each.run(None, {name: picture})[0] for each in (one, other))
        part = other.run(None, {name: half})[0]
    except Exception:  # its errors have no common base class
        return False
    cells = sum((half.shape[2] // stride) * (side // stride) for stride in (8, 16, 32))
    return np.allclose(square, again, 1e-3, 1e-3) and part.shape == (1, cells, square.shape[2])
