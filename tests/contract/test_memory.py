"""What keeps memory small changes no result, and needs no luck to work."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from models import heap
from models.language.embedding_rows import rows_first

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import onnxruntime as ort  # noqa: E402  # isort: skip

TABLE = np.arange(-60, 60, dtype=np.int8).reshape(20, 6)


def looked_up(scales: np.ndarray, *, axis: int = 0, also: bool = False) -> bytes:
    """A model that makes a table float and looks up rows; `also`: the float table is an output."""
    nodes = [
        helper.make_node("Cast", ["table"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scales"], ["scaled"]),
        helper.make_node("Gather", ["scaled", "ids"], ["rows"], axis=axis),
    ]
    made = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)]
    if also:
        made.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, None))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [None, None])
    kept = [
        numpy_helper.from_array(TABLE, "table"),
        numpy_helper.from_array(scales.astype(np.float32), "scales"),
    ]
    graph = helper.make_graph(nodes, "g", [ids], made, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def rows(model: bytes) -> bytes:
    ids = np.array([[3, 0, 19], [5, 5, 1]], np.int64)
    return bytes(ort.InferenceSession(model).run(["rows"], {"ids": ids})[0].tobytes())


SCALES = np.linspace(0.001, 0.3, 20)[:, None]


def test_rows_that_are_looked_up_first_are_the_same_rows() -> None:
    model = looked_up(SCALES)
    turned = rows_first(model)
    kinds = [node.op_type for node in onnx.load_from_string(turned).graph.node]
    assert kinds == ["Gather", "Gather", "Cast", "Mul"]
    assert rows(turned) == rows(model)


@pytest.mark.parametrize(
    "model",
    [
        looked_up(SCALES, also=True),  # the float table is used elsewhere
        looked_up(np.ones((1, 6))),  # a scale for each column
    ],
)
def test_a_model_that_does_otherwise_is_unchanged(model: bytes) -> None:
    assert rows_first(model) == model


def test_a_look_up_by_another_axis_is_unchanged() -> None:
    model = looked_up(SCALES, axis=1)
    assert rows_first(model) == model


def test_free_memory_goes_back_to_the_system() -> None:
    code = (
        "from models import heap; assert heap.bound(); "
        "held = [bytearray(3 << 20) for _ in range(40)]\n"
        "top = bytearray(100); del held; assert heap.trim()\n"
        "import re; said = open('/proc/self/status').read()\n"
        "rss = int(re.search(r'VmRSS:\\s+(\\d+)', said)[1]); assert rss < 60_000, rss"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "LC_ALL": "C"})


def test_trimming_waits_for_its_time() -> None:
    trims: list[int] = []
    trimmer = heap.Trimmer(every=10, give_back=lambda: trims.append(1))
    for now in (0.0, 5.0, 9.9, 10.0, 19.0, 20.5):
        trimmer.look(now)
    assert len(trims) == 3
