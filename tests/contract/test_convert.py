"""Copies of the detector's file: several pictures at once give what single ones give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.vision.convert import convert
from models.vision.detector import Detector
from pipeline.errors import WeightsError

ROOT = Path(__file__).resolve().parents[2]
YOLOX = "yolox_nano/yolox_nano.onnx"
Pictures = list[np.ndarray]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    chance = np.random.default_rng(3)
    shapes = ((360, 640, 3), (416, 416, 3), (576, 768, 3))
    return [chance.integers(0, 255, shape, np.uint8) for shape in shapes]


def test_an_open_batch_gives_what_single_pictures_give(
    tmp_path: Path, weights: Path, pictures: Pictures
) -> None:
    convert(weights / YOLOX, tmp_path / "open.onnx", batch=True, halved=False)
    single = Detector(weights / YOLOX, threads=1, fitted=False)
    many = Detector(tmp_path / "open.onnx", threads=1)
    assert (single.batch, many.batch) == (1, 16)
    for slot, picture in enumerate(pictures):
        many.prepare(picture, slot)
    together = many.run(len(pictures))
    for picture, output in zip(pictures, together, strict=True):
        single.prepare(picture)
        assert np.abs(single.run()[0][0] - output[0]).max() <= 1e-3
    assert many(pictures) == single(pictures)


def test_half_precision_stays_near(tmp_path: Path, weights: Path, pictures: Pictures) -> None:
    convert(weights / YOLOX, tmp_path / "half.onnx", batch=True, halved=True)
    single = Detector(weights / YOLOX, threads=1, fitted=False)
    many = Detector(tmp_path / "half.onnx", threads=1)
    for picture in pictures:
        single.prepare(picture)
        many.prepare(picture)
        scores = np.abs(single.run()[0][0][:, 4:] - many.run(1)[0][0][:, 4:].astype(np.float32))
        assert scores.max() < 0.1


def test_a_file_with_an_open_batch_is_refused(tmp_path: Path, weights: Path) -> None:
    convert(weights / YOLOX, tmp_path / "open.onnx", batch=True, halved=False)
    with pytest.raises(WeightsError, match=r"open\.onnx: `images` has no batch axis of 1"):
        convert(tmp_path / "open.onnx", tmp_path / "again.onnx", batch=True, halved=False)


def test_a_graph_that_depends_on_the_batch_is_refused(tmp_path: Path) -> None:
    """Its Reshape needs one picture: a copy would be broken."""
    one = helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, 4, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 48])
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [3, 4, 4])
    last = helper.make_tensor("last", TensorProto.INT64, [2], [1, 48])
    nodes = [
        helper.make_node("Reshape", ["in", "shape"], ["flat"]),
        helper.make_node("Reshape", ["flat", "last"], ["out"]),
    ]
    graph = helper.make_graph(nodes, "g", [one], [out], [shape, last])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, tmp_path / "fixed.onnx")
    with pytest.raises(WeightsError, match=r"fixed\.onnx: it"):
        convert(tmp_path / "fixed.onnx", tmp_path / "open.onnx", batch=True, halved=False)


def benchmark(media: Path, weights: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", str(media), str(weights), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT,
                          timeout=200, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip


def test_the_gpu_benchmark_agrees_on_a_processor(media: Path, weights: Path) -> None:
    ran = benchmark(media, weights, "--device", "cpu", "--parts", "agreement", "--seconds", "0.1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(": equal within") == 2


def test_the_gpu_benchmark_says_what_it_skips(media: Path, weights: Path) -> None:
    ran = benchmark(media, weights, "--device", "cpu", "--parts", "tensorrt")
    assert ran.returncode == 3
    assert "SKIPPED: TensorRT needs --device cuda" in ran.stderr
