"""Writes a copy of a detector's ONNX file with an open batch axis, in half precision, or both.

    python -m models.vision.convert yolox_nano.onnx OUT.onnx [--open-batch] [--half]

The weights stay what they are; in half precision they are rounded. Two pictures at once must give
what each gives alone, or the copy is not written. `Detector` runs the pictures of several cameras
at once if the batch axis is open, which a GPU needs to be fast. The package `onnx` is needed (extra
`gpu`, `train` or `dev`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from models.onnx_file import read_onnx
from pipeline.errors import WeightsError

BATCH = "batch"  # name of the open axis


def open_batch(model: onnx.ModelProto) -> None:
    """Opens the first axis of the input and the outputs, which must be 1; raises WeightsError.

    Each Reshape to a fixed shape that starts with 1 keeps the batch instead.
    """
    if len(model.graph.input) != 1:
        msg = f"it has {len(model.graph.input)} inputs: one picture input is expected"
        raise WeightsError(msg)
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[:1]
        if not first or first[0].dim_value != 1:
            msg = f"`{value.name}` has no batch axis of 1: there is nothing to open"
            raise WeightsError(msg)
        first[0].dim_param = BATCH
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for node in model.graph.node:
        if node.op_type == "Constant" and set(node.output) & shapes:
            for attribute in node.attribute:
                _keep_batch(attribute.t)
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            _keep_batch(tensor)
    del model.graph.value_info[:]  # the shapes of before


def _keep_batch(shape: onnx.TensorProto) -> None:
    sizes = numpy_helper.to_array(shape).copy()
    if sizes.ndim == 1 and len(sizes) > 1 and sizes[0] == 1:
        sizes[0] = 0  # 0: as in the input (ONNX, Reshape)
        shape.CopyFrom(numpy_helper.from_array(sizes, shape.name))


def _compare(one: bytes, many: onnx.ModelProto) -> None:
    """Raises WeightsError unless two pictures at once give what each gives alone."""
    sessions = [
        ort.InferenceSession(each, providers=["CPUExecutionProvider"])
        for each in (one, many.SerializeToString())
    ]
    entry = sessions[0].get_inputs()[0]
    sizes = [size if isinstance(size, int) else 64 for size in entry.shape[1:]]
    kind = np.float16 if entry.type == "tensor(float16)" else np.float32
    pair = np.random.default_rng(0).uniform(0, 255, (2, *sizes)).astype(kind)
    alone = [sessions[0].run(None, {entry.name: pair[at : at + 1]}) for at in (0, 1)]
    together = sessions[1].run(None, {entry.name: pair})
    for first, second, both in zip(*alone, together, strict=True):
        expected = np.concatenate([first, second])
        if both.shape != expected.shape or not np.allclose(both, expected, rtol=1e-3, atol=1e-3):
            msg = "its batch axis cannot be opened: two pictures at once give something else"
            raise WeightsError(msg)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model in float16; its input and outputs are float16 too."""
    return convert_float_to_float16(model, keep_io_types=False)


def convert(source: Path, target: Path, *, batch: bool, halved: bool) -> None:
    """Reads `source` and writes the copy to `target`; raises WeightsError."""
    whole = read_onnx(source)
    model = onnx.load_model_from_string(whole)
    try:
        if batch:
            open_batch(model)
            _compare(whole, model)
        if halved:
            model = half(model)
        onnx.checker.check_model(model, full_check=True)
    except WeightsError as error:
        msg = f"{source}: {error}"
        raise WeightsError(msg) from error
    except Exception as error:  # ONNX Runtime's errors have no common base class
        msg = f"{source}: it cannot be converted: {(str(error).splitlines() or [''])[0][:200]}"
        raise WeightsError(msg) from error
    target.write_bytes(model.SerializeToString())


def main() -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="the detector's .onnx file")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--open-batch", action="store_true", help="take several pictures at once")
    parser.add_argument("--half", action="store_true", help="float16 instead of float32")
    asked = parser.parse_args()
    if not asked.open_batch and not asked.half:
        parser.error("nothing to do: name --open-batch, --half or both")
    try:
        convert(asked.source, asked.target, batch=asked.open_batch, halved=asked.half)
    except (WeightsError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command's only error line
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
