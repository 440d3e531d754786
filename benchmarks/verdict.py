"""Measures what a verdict of a learned head costs where it is slow: on a likely window.

    python -m benchmarks.verdict [--head FOLDER] [--rounds 20]

A likely window gets contributions and words besides its score, both by occlusion. The windows are
those that ship with a head for fine-tuning, so no media are needed. One core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from models.fusion.learned_head import SHIPPED_FOLDER, LearnedHead
from models.training import dataset
from models.training.rehearsal import REHEARSAL_FILE


def main() -> None:
    """Prints milliseconds a verdict, for likely windows and for the others."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--head", type=Path, default=SHIPPED_FOLDER, help="the shipped one")
    ask.add_argument("--rounds", type=int, default=20)
    asked = ask.parse_args()
    head = LearnedHead.read(asked.head)
    windows = [row.tokens() for row in dataset.read([asked.head / REHEARSAL_FILE])]
    likely = [bool(head.judge(window).contributions) for window in windows]
    for name, wanted in (("likely", True), ("other", False)):
        took = []
        for _ in range(asked.rounds):
            for window, is_likely in zip(windows, likely, strict=True):
                if is_likely is wanted:
                    began = time.perf_counter()
                    head.judge(window)
                    took.append(1000 * (time.perf_counter() - began))
        took.sort()
        median, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        print(
            f"{name:6} windows: {likely.count(wanted):3}, median {median:.3f} ms, p99 {p99:.3f} ms"
        )


if __name__ == "__main__":
    main()
