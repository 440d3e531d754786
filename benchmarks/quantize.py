"""Writes an int8 copy of YOLOX-Nano by ONNX Runtime's static quantization, to measure it.

    python -m benchmarks.quantize MEDIA WEIGHTS OUT.onnx [--calibration percentile] [--frames 64]
    python -m benchmarks.detection MEDIA WEIGHTS --also OUT.onnx

The ranges are learned from frames of MEDIA/video and MEDIA/behaviour, never from the pictures of
MEDIA/detection, which judge the copy. Weights are int8 by channel, activations are uint8; the last
convolutions, which make boxes and scores, stay float32. It needs the packages `onnx` and `sympy`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from models.vision.letterbox import Letterbox, Preprocess

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
OPSET = 13  # the first with ranges by channel


def frames(media: Path, count: int) -> list[np.ndarray]:
    """Frames, evenly from all videos but those of the judges."""
    videos = sorted([*(media / "video").glob("*.mp4"), *(media / "behaviour").rglob("*.mp4")])
    found = []
    for number in range(count):
        video = videos[number * len(videos) // count]
        capture = cv2.VideoCapture(str(video))
        length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.set(cv2.CAP_PROP_POS_FRAMES, (2 * number + 1) * length // (2 * count))
        good, picture = capture.read()
        if good:
            found.append(picture)
    return found


class Reader(CalibrationDataReader):
    """Gives the frames to ONNX Runtime as the detector's input."""

    def __init__(self, model: onnx.ModelProto, pictures: list[np.ndarray]) -> None:
        entry = model.graph.input[0]
        self._name = entry.name
        self._shape = [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        self._letterbox = Letterbox(*self._shape[2:], Preprocess())
        self._left = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input; None after the last."""
        picture = next(self._left, None)
        if picture is None:
            return None
        tensor = np.empty(self._shape, np.float32)
        self._letterbox.place(picture, tensor[0])
        return {self._name: tensor}


def last_nodes(graph: onnx.GraphProto) -> list[str]:
    """The names of the last convolutions and of all that follows them."""
    made = {output: node for node in graph.node for output in node.output}
    left, found = [graph.output[0].name], set()
    while left:
        node = made.get(left.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        if node.op_type != "Conv":
            left += node.input
    return sorted(found)


def main() -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("media", type=Path, help="folder of clips")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--calibration", choices=METHODS, default="percentile")
    parser.add_argument("--frames", type=int, default=64)
    options = parser.parse_args()
    pictures = frames(options.media, options.frames)
    with tempfile.TemporaryDirectory() as folder:
        ready = str(Path(folder) / "ready.onnx")
        quant_pre_process(str(options.weights / "yolox_nano/yolox_nano.onnx"), ready)
        model = version_converter.convert_version(onnx.load(ready), OPSET)
        onnx.save(model, ready)
        quantize_static(
            ready,
            str(options.target),
            Reader(model, pictures),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[options.calibration],
            nodes_to_exclude=last_nodes(model.graph),
        )
    print(f"{options.target}: calibrated on {len(pictures)} frames, {options.calibration}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
