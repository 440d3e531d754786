"""Writes and reads an hour of a recording, by repeated records: size, CPU time, memory.

    python -m benchmarks.recordings [--minutes 60] [--folder DIR]

A site with 4 cameras (5 pictures a second) and 2 microphones, and what stages make of them. Only
the writer runs: nothing is captured or judged. The pictures are photographs of noise and shapes at
640 x 360, of 32 kB each. Reading happens in a process of its own, whose greatest memory is printed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline import codec, topics
from pipeline.ports import Entry
from pipeline.types import AudioChunk, Box, Detections, FrameChunk, Progress, Record, Sound, ns
from workers.media.jpeg import encoded
from workers.recordings.folder_writer import FolderWriter
from workers.recordings.metadata import About
from workers.recordings.recording import open_recording

BEGIN = 1_767_225_600  # s
CAMERAS, FPS, MICROPHONES = 4, 5, 2
CHUNKS_A_SECOND = 10  # of a microphone


def pictures() -> list[bytes]:
    """Some pictures of about 32 kB that are no repetition of each other."""
    dice = np.random.default_rng(7)
    made = []
    for _ in range(16):
        coarse = dice.integers(0, 255, (45, 80, 3), np.uint8)
        whole = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)
        noise = dice.integers(-6, 7, whole.shape)
        made.append(encoded(np.clip(whole + noise, 0, 255).astype(np.uint8)))
    return made


def second_of(second: int, shown: list[bytes], sound: bytes) -> Iterator[tuple[str, Record]]:
    """What is on the bus of a second."""
    boxes = tuple(
        Box(label="person", score=0.7, x1=0.1 * n, y1=0.2, x2=0.1 * n + 0.1, y2=0.8, motion=0.5)
        for n in range(5)
    )
    at = BEGIN + second
    for k in range(FPS):
        start, end = ns(at + k / FPS), ns(at + (k + 1) / FPS)
        for camera in range(CAMERAS):
            site = {"site": "office", "source": f"camera-{camera}"}
            data = shown[(second * FPS + k + 3 * camera) % len(shown)]
            yield topics.FRAMES, FrameChunk(
                **site, start=start, end=end, seq=second * FPS + k, width=640, height=360,
                data=data, look="motion", motion=bytes(range(144)),
            )  # fmt: skip
            yield (
                topics.OBSERVATIONS,
                Detections(**site, start=start, end=end, boxes=boxes, luma=0.4, sharpness=2.5),
            )
            yield topics.OBSERVATIONS, Progress(**site, upto=start + 1)
    for room in range(MICROPHONES):
        site = {"site": "office", "source": f"room-{room}"}
        for k in range(CHUNKS_A_SECOND):
            start, end = ns(at + k / CHUNKS_A_SECOND), ns(at + (k + 1) / CHUNKS_A_SECOND)
            yield topics.AUDIO, AudioChunk(
                **site, start=start, end=end, seq=second * CHUNKS_A_SECOND + k, rate=16_000,
                channels=1, data=sound, noise_db=-50,
            )  # fmt: skip
        yield topics.OBSERVATIONS, Sound(
            **site, start=ns(at), end=ns(at + 1), labels={"glass": 0.02, "gunshot": 0.01},
            loudness_db=-40.0, embedding=sound[:2048],
        )  # fmt: skip
        yield topics.OBSERVATIONS, Progress(**site, upto=ns(at + 1))


def write(folder: Path, seconds: int) -> tuple[float, int, int]:
    """Records so many seconds; returns CPU seconds of the writer, its entries and its bytes."""
    shown, dice = pictures(), np.random.default_rng(3)
    sound = (dice.normal(0, 300, 16_000 // CHUNKS_A_SECOND)).astype("<i2").tobytes()
    now, offsets, used, entries = [0.0], {}, 0.0, 0
    writer = FolderWriter(folder, About(log="benchmark"), monotonic=lambda: now[0])
    for second in range(seconds):
        came = []
        for topic, record in second_of(second, shown, sound):
            offset = offsets[topic] = offsets.get(topic, -1) + 1
            key = topics.key_of(topic, record)
            trace = f"00-{offset:032x}-{offset:016x}-01"
            came.append((topic, Entry(0, offset, key, codec.encode(record), trace)))
        begin = time.process_time()
        for topic, entry in came:
            writer.add(topic, entry)
        now[0] += 1.0
        writer.tick()
        used += time.process_time() - begin
        entries += len(came)
    begin = time.process_time()
    writer.close()
    return used + time.process_time() - begin, entries, writer.bytes


def read(folder: Path) -> dict[str, float]:
    """Reads a recording in this process, and returns what it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin = time.process_time()
    recording = open_recording(folder)
    found = {"index_s": time.process_time() - begin, "before_mb": before}
    for topic in (topics.OBSERVATIONS, topics.FRAMES):
        begin = time.process_time()
        found[f"{topic} entries"] = sum(1 for _ in recording.appended(topic))
        found[f"{topic} s"] = time.process_time() - begin
    found["lost"] = len(recording.losses)
    found["most_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--folder", type=Path, help="an empty folder for the files; kept")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read(given.read)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, seconds = given.folder or Path(temporary), round(given.minutes * 60)
        used, entries, size = write(folder, seconds)
        files = len(list(folder.glob("*.mcap")))
        print(f"{seconds / 60:g} minutes of {CAMERAS} cameras and {MICROPHONES} microphones:")
        print(f"  {entries} entries, {size / 1e6:.0f} MB in {files} files")
        print(f"  writing: {used:.1f} s of CPU time, {100 * used / seconds:.2f} % of a core live")
        command = [sys.executable, "-m", "benchmarks.recordings", "--read", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        took = json.loads(done.stdout)
        print(f"  index: {took['index_s']:.2f} s")
        for topic in (topics.OBSERVATIONS, topics.FRAMES):
            cpu, count = took[f"{topic} s"], took[f"{topic} entries"]
            rate = seconds / cpu if cpu else 0
            print(f"  {topic}: {count:.0f} entries in {cpu:.1f} s of CPU time, {rate:.0f} x live")
        print(f"  memory: {took['most_mb']:.0f} MB at most, {took['before_mb']:.0f} MB before")
        print(f"  losses: {took['lost']:.0f}")


if __name__ == "__main__":
    main()
