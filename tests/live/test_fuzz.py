"""Two minutes of `make fuzz`, and what the harness of it sees."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 2.0
FAULTY = """
import itertools, os, sys, time
from pathlib import Path
from tests.fuzz import harness

class Faulty:
    name, target, batch, patience, files = "faulty", 9, 3, 4.0, True
    def opened(self):
        return self.case
    def case(self, number, dice):
        Path(sys.argv[1], f"{number}-file").write_bytes(b"x")
        match number:
            case 2: raise ValueError("a defect")
            case 5: os.abort()
            case 7: time.sleep(60)
            case 8: raise ValueError("it is tried although 7 hangs")
            case 10: bytearray(300 << 20)
            case 11: os._exit(3)
        Path(sys.argv[1], f"{number}-file").unlink()

harness.KEPT = Path(sys.argv[2])
harness.MAX_GROWTH = 150 << 20
numbers = iter(range(1, 13))
result = harness.run(Faulty(), 1, Path(sys.argv[1]), numbers, time.monotonic() + 60)
for one in sorted(result.findings, key=lambda one: one.number):
    said = "took much memory" if one.what.startswith("took ") else one.what
    print(one.number, said.strip().splitlines()[-1])
"""


@pytest.mark.slow
def test_nothing_from_outside_is_a_defect_a_hang_or_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The seed is FUSEWATCH_FUZZ_SEED, or the date; it is printed with each finding."""
    seed = os.environ.get("FUSEWATCH_FUZZ_SEED") or time.strftime("%Y%m%d")
    command = ["-m", "tests.fuzz", "--minutes", str(MINUTES), "--seed", seed]
    with capfd.disabled():
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        print(done.stdout, flush=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_harness_sees_defects_crashes_hangs_and_memory(tmp_path: Path) -> None:
    folder, kept = tmp_path / "work", tmp_path / "kept"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FAULTY, str(folder), str(kept)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "2 ValueError: a defect",
        f"5 the process ended: {signal.SIGABRT.name}",
        "7 no end within 4 s",
        "8 ValueError: it is tried although 7 hangs",
        "10 took much memory",
        "11 the process ended: exit 3",
    ]
    assert {path.name for path in kept.iterdir()} == {f"faulty-{n}-file" for n in (2, 5, 7, 8, 11)}


@pytest.mark.parametrize("make", ["damaged", "rewritten"])
def test_a_case_is_the_same_each_time(make: str) -> None:
    from tests.fuzz import harness, mutations

    damage: Callable[[random.Random, bytes, list[bytes]], bytes] = getattr(mutations, make)
    data = np.arange(2000, dtype="<u2").tobytes() if make == "damaged" else b"a: b\nc: d\n" * 9
    made = [
        [damage(harness.dice_of(seed, "media", n), data, [data]) for n in range(50)]
        for seed in (1, 1, 2)
    ]
    assert made[0] == made[1] != made[2]
