"""Measures the CPU time of one camera in a capture worker: decoding, resizing and JPEG.

    python -m benchmarks.capture MEDIA [--fps 5] [--width 640]

Each clip of MEDIA/video is read like a live stream: every frame is decoded, and `--fps` of them are
resized and encoded by the functions of capture. One thread. Prints the share of a core and the size
of the JPEGs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2

from workers.media.jpeg import encoded, shrunk


def measure(path: Path, fps: float, width: int) -> None:
    """Prints the share of a core and the size of the JPEGs of one clip."""
    clip = cv2.VideoCapture(str(path))
    rate, size = clip.get(cv2.CAP_PROP_FPS), [int(clip.get(n)) for n in (3, 4)]
    frames, sizes = 0, list[int]()
    began = time.process_time()
    while clip.grab() and frames < 250:
        frames += 1
        if frames % max(1, round(rate / fps)) == 0:
            sizes.append(len(encoded(shrunk(clip.retrieve()[1], width))))
    core = (time.process_time() - began) / frames * rate
    print(
        f"{path.name}: {size[0]} x {size[1]} at {rate:.0f} frames/s: {core:.1%} of a core; "
        f"JPEGs of {statistics.mean(sizes) / 1e3:.0f} kB, {max(sizes) / 1e3:.0f} kB at most"
    )


def main() -> None:
    """Measures each clip of the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path)
    parser.add_argument("--fps", type=float, default=5)
    parser.add_argument("--width", type=int, default=640)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    for path in sorted((asked.media / "video").glob("*.mp4")):
        measure(path, asked.fps, asked.width)


if __name__ == "__main__":
    main()
