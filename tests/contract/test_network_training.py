"""Training and the optional adapters, which bring torch, turn to nobody either (under strace)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="extra `train` is not installed: NOT tested here")

from models.fusion.features import SIZES
from models.fusion.labels import LABELS
from models.training import dataset
from tests.network_watch import environment, watched
from tests.windows import row

pytestmark = pytest.mark.slow


@pytest.fixture
def env(tmp_path: Path, weights: Path) -> dict[str, str]:
    return {**environment(tmp_path / "home"), "FUSEWATCH_WEIGHTS": str(weights)}


def windows(file: Path, split: str, seed: int) -> Path:
    """Twenty scenes of ten windows; every other one holds a sound in three of them."""
    chance = np.random.default_rng(seed)
    rows = []
    for scene in range(20):
        for second in range(10):
            heard = scene % 2 == 1 and 4 <= second <= 6
            sound = chance.normal(0, 0.005, SIZES["sound"]).astype(np.float32)
            sound[10] += 3 * heard
            truth = LABELS[0] if heard else ""
            rows.append(
                row(f"{split}-{scene}", second, truth=truth, split=split, vectors={"sound": sound})
            )
    dataset.write(file, rows)
    return file


def test_training_turns_to_nobody(tmp_path: Path, env: dict[str, str]) -> None:
    for package in ("sklearn", "safetensors", "onnx"):
        pytest.importorskip(package, reason="extra `train` is not installed: NOT tested here")
    files = [str(windows(tmp_path / f"{s}.jsonl", s, i)) for i, s in enumerate(("train", "val"))]
    words = [
        *("-m", "workers.cli", "train", *files, "--out", str(tmp_path / "head")),
        *("--base", "none", "--epochs", "3"),
    ]
    traffic, _ = watched(words, tmp_path / "net.log", env)
    assert (tmp_path / "head/head.onnx").stat().st_size
    assert (traffic.called, traffic.listened, traffic.names_asked) == (set(), set(), set())
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))


def test_ultralytics_turns_to_nobody(tmp_path: Path, weights: Path, env: dict[str, str]) -> None:
    pytest.importorskip("ultralytics", reason="extra `ultralytics` is not installed: NOT tested")
    code = f"""
import sys
import numpy as np
from models.vision.ultralytics_detector import UltralyticsDetector
from ultralytics import YOLO
YOLO("yolo11n.yaml").save({str(tmp_path / "fresh.pt")!r})
for path in ({str(weights / "yolo11n_int8_openvino_model")!r}, {str(tmp_path / "fresh.pt")!r}):
    UltralyticsDetector(path)([np.zeros((64, 64, 3), np.uint8)] * 2)
"""
    traffic, _ = watched(["-c", code], tmp_path / "net.log", env)
    assert (traffic.called, traffic.listened, traffic.names_asked) == (set(), set(), set())
    assert not (tmp_path / "home/intel").exists()  # where OpenVINO keeps the id of its user


def test_openai_whisper_turns_to_nobody(tmp_path: Path, env: dict[str, str]) -> None:
    pytest.importorskip("whisper", reason="extra `whisper` is not installed: NOT tested here")
    code = """
import whisper
import models.hearing.openai_speech
whisper.tokenizer.get_tokenizer(False).encode("nobody")
"""
    traffic, _ = watched(["-c", code], tmp_path / "net.log", env)
    assert (traffic.called, traffic.listened, traffic.names_asked) == (set(), set(), set())
