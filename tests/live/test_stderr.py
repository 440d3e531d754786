"""The daemon with its real models, sound and vision: each line on its stderr is JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.live, pytest.mark.slow]


def test_each_line_is_json_also_those_of_the_libraries_of_the_models(
    tmp_path: Path, weights: Path, scenes: Path
) -> None:
    words = ("run", "deploy/examples/office.yaml", "--scene", scenes / "office-break-in.yaml")
    with (tmp_path / "said").open("w") as said:
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", *words, "--state", tmp_path / "state"],
            cwd=ROOT, stderr=said, timeout=120, check=False,
            env={**os.environ, "FUSEWATCH_WEIGHTS": str(weights)},
        )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()]
    assert done.returncode == 0
    assert {"time", "level", "thread", "message"} <= set.intersection(*map(set, lines))
    assert any("XNNPACK" in line["message"] for line in lines if line["thread"] == "native")
    assert any(line["message"].startswith("alert opened") for line in lines)
