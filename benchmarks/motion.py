"""What the gate of a camera costs, how much it leaves out, and what it misses.

    python -m benchmarks.motion MEDIA WEIGHTS [--seconds 60] [--only idle|share] [--weather NAME]

Idle: 720p at 25 frames/s (H.264, GOP 50, up to 4 Mbit/s) of the empty room of `office_a.mp4`, as it
is, and with rain, flicker, noise, an automatic exposure and a waving tree laid over it. Every frame
is decoded as live capture does it, and 5 a second are measured. CPU time of decoding and of the
gate, in percent of a core. The weather is drawn with a fixed seed.

Share: the frames of the real videos at 5 a second that are gated, in all and where nobody is (the
detector finds nothing in the frame, and in those up to a second before and after it), and why the
others of the latter were looked at. And of those in which the detector finds a person or a vehicle
whose box has moved since the last frame that was looked at, how many are followed by a look within
0.6 s.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from models.vision.detector import Detector
from pipeline.types import SECOND, Box
from workers.media import motion
from workers.media.containers import open_file, picture_track
from workers.media.jpeg import encoded
from workers.media.motion import MotionModel
from workers.media.recordings import Picture, Video

EMPTY = 5  # s; the room is empty up to here
SIZE, RATE, GOP, LOOKS = (1280, 720), 25, 50, 5
LIMIT = {"maxrate": "4M", "bufsize": "4M"}  # the usual limit of a 720p camera
WITHIN, AWAY = 3, 5  # frames: 0.6 s; a second
RESTS = 0.8  # overlap (IoU) from which a box has not moved
REASONS = [look for look in motion.LOOKS if look]
LABELS = ("person", "bicycle", "car", "motorcycle", "bus", "truck")

Gray = NDArray[np.uint8]
Weather = Callable[[Gray, int, np.random.Generator], Gray]


def rain(luma: Gray, number: int, dice: np.random.Generator) -> Gray:
    """400 bright streaks a frame, each somewhere else."""
    streaks = np.zeros_like(luma)
    for x, y, length in zip(*(dice.integers(0, n, 400) for n in (1280, 720, 40)), strict=True):
        cv2.line(streaks, (int(x), int(y)), (int(x + length // 6), int(y + length)), 45, 1)
    return cv2.add(luma, cv2.GaussianBlur(streaks, (3, 3), 0))


def flicker(luma: Gray, number: int, dice: np.random.Generator) -> Gray:
    """Lamps at 100 Hz under a rolling shutter: bands that wander, 5 % bright."""
    rows = np.arange(720) / 720 * 2 + number * 0.07
    return np.clip(luma * (1 + 0.05 * np.sin(2 * np.pi * rows))[:, None], 0, 255).astype(np.uint8)


def noise(luma: Gray, number: int, dice: np.random.Generator) -> Gray:
    """A sensor in the dark: Gaussian, 8 levels."""
    return np.clip(luma + dice.normal(0, 8, luma.shape), 0, 255).astype(np.uint8)


def exposure(luma: Gray, number: int, dice: np.random.Generator) -> Gray:
    """The camera's own exposure: it swings by 12 % in 8 s, and steps by 6 % every 10 s."""
    gain = 1 + 0.12 * np.sin(2 * np.pi * number / RATE / 8) + 0.06 * (number // (10 * RATE) % 2)
    return np.clip(luma * gain, 0, 255).astype(np.uint8)


def tree(luma: Gray, number: int, dice: np.random.Generator) -> Gray:
    """Leaves over a quarter of the picture, which swing by up to 14 px in gusts."""
    leaves = cv2.resize(np.random.default_rng(7).integers(20, 160, (40, 40), np.uint8), (480, 480))
    now = number / RATE
    gust = 0.4 + 0.6 * np.sin(2 * np.pi * now / 13) ** 2
    sway = gust * 14 * np.sin(2 * np.pi * now / 1.7)
    drift = gust * 5 * np.sin(2 * np.pi * now / 0.9)
    move = np.float32([[1, 0.02 * sway / 14, sway], [0, 1, drift]])
    swung = cv2.warpAffine(leaves, move, (480, 480), borderMode=cv2.BORDER_REFLECT)
    made = luma.copy()
    made[:480, 800:] = swung
    return made


def plain(luma: Gray, number: int, dice: np.random.Generator) -> Gray:
    """The sensor's usual noise: Gaussian, 1.5 levels."""
    return np.clip(luma + dice.normal(0, 1.5, luma.shape), 0, 255).astype(np.uint8)


WEATHERS: dict[str, tuple[Weather, ...]] = {
    "plain": (plain,),
    "rain": (plain, rain),
    "flicker": (plain, flicker),
    "noise": (noise,),
    "auto-exposure": (plain, exposure),
    "waving tree": (plain, tree),
    "all of these": (tree, rain, flicker, exposure, noise),
}


def film(path: Path, rooms: list[Gray], weathers: tuple[Weather, ...], seconds: int) -> None:
    """Writes the empty room, forwards and back, in this weather."""
    dice = np.random.default_rng(1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.gop_size = "yuv420p", GOP
        stream.options = {"preset": "veryfast", "bf": "0", "sc_threshold": "0", **LIMIT}
        around = [*rooms, *rooms[-2:0:-1]]
        for number in range(seconds * RATE):
            luma = around[number % len(around)]
            for weather in weathers:
                luma = weather(luma, number, dice)
            planes = np.full((SIZE[1] * 3 // 2, SIZE[0]), 128, np.uint8)
            planes[: SIZE[1]] = luma
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def rooms_of(media: Path) -> list[Gray]:
    """The luma of the empty room's frames, at the size of the films."""
    found = []
    with open_file(media / "video/office_a.mp4") as file:
        for frame in file.decode(picture_track(file)):
            if frame.time >= EMPTY:
                return found
            small = frame.reformat(*SIZE, format="gray", interpolation="BICUBIC")
            found.append(small.to_ndarray())
    return found


def decoding(path: Path) -> float:
    """CPU seconds that decoding takes."""
    began = time.process_time()
    with open_file(path) as file:
        for _ in file.decode(picture_track(file)):
            pass
    return time.process_time() - began


def idle(path: Path, seconds: int, name: str) -> None:
    """Prints what one film costs, at best of three, and how many frames are gated after 10 s."""
    decode = min(decoding(path) for _ in range(3))
    runs = [gating(path) for _ in range(3)]
    gate, publish = (min(run[part] for run in runs) for part in (0, 1))
    late = runs[0][2][10 * LOOKS :]
    both = (decode + gate) / seconds
    print(
        f"  {name:14} decode {decode / seconds:6.2%}  gate {gate / seconds:6.2%}  both {both:6.2%} "
        f"of a core; the JPEG {publish / seconds:6.2%}; gated {late.count('') / len(late):5.1%}; "
        f"{path.stat().st_size * 8e-3 / seconds:5.0f} kbit/s",
        flush=True,
    )


def gating(path: Path) -> tuple[float, float, list[str]]:
    """CPU seconds of the gate and of JPEG, and why each frame was looked at."""
    gate, publish, model, looks = 0.0, 0.0, MotionModel(LOOKS), list[str]()
    with open_file(path) as file:
        for number, frame in enumerate(file.decode(picture_track(file))):
            if number % (RATE // LOOKS):
                continue
            picture, start = Picture(frame, 640), number * SECOND // RATE
            began = time.process_time()
            looks.append(model(picture.luma(), start).look)
            between = time.process_time()
            encoded(picture.pixels())
            gate, publish = gate + between - began, publish + time.process_time() - between
    return gate, publish, looks


def frames(path: Path) -> Iterator[Picture]:
    """The pictures of a video, LOOKS a second."""
    video, number = Video(path, 640, loop=False, count=print), 0
    while not isinstance(picture := video.at(Fraction(number, LOOKS)), str):
        yield picture
        number += 1


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    both = max(0.0, wide) * max(0.0, high)
    areas = ((b.x2 - b.x1) * (b.y2 - b.y1) for b in (one, other))
    return both / max(sum(areas) - both, 1e-9)


def moved(boxes: list[Box], seen: list[Box]) -> bool:
    """Whether a box is not where one of its label was when it was last looked at."""
    return any(
        max((overlap(box, was) for was in seen if was.label == box.label), default=0.0) < RESTS
        for box in boxes
    )


def share(path: Path, detector: Detector) -> Counter[str]:
    """How many frames of a video are gated, also where nobody is, and what is missed."""
    model, looks, found = MotionModel(LOOKS), list[str](), list[list[Box]]()
    for number, picture in enumerate(frames(path)):
        looks.append(model(picture.luma(), number * SECOND // LOOKS).look)
        boxes = detector([picture.pixels()])[0]
        found.append([box for box in boxes if box.label in LABELS and box.score >= 0.4])
    counted = Counter(frames=len(looks), gated=looks.count(""))
    seen: list[Box] = []
    for number, (look, boxes) in enumerate(zip(looks, found, strict=True)):
        if moved(boxes, seen):
            kept = any(looks[number : number + WITHIN + 1])
            counted.update({"moved": 1, "kept": kept})
        seen = boxes if look else seen
        if not any(found[max(0, number - AWAY) : number + AWAY + 1]):
            counted.update({"empty": 1, f"empty {look}": 1})
    return counted


def line(name: str, of: Counter[str]) -> str:
    """What is printed of a video, or of all."""
    where = f"{of['empty '] / of['empty']:.2f} of {of['empty']}" if of["empty"] else "none"
    why = ", ".join(f"{of[f'empty {look}']} {look}" for look in REASONS if of[f"empty {look}"])
    return (
        f"  {name:22} gated {of['gated'] / of['frames']:.2f} of {of['frames']}; "
        f"where nobody is {where}, looked at: {why or 'none'}; "
        f"moved boxes seen within 0.6 s: {of['kept']} of {of['moved']}"
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", choices=("idle", "share"))
    parser.add_argument("--weather", choices=WEATHERS, help="this one alone")
    parser.add_argument("--films", type=Path, help="folder that keeps the films")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    if asked.only != "share":
        print(f"idle, 720p, {RATE} frames/s, GOP {GOP}, {asked.seconds} s, {LOOKS} frames/s")
        with tempfile.TemporaryDirectory() as folder:
            rooms = rooms_of(asked.media)
            for name, weathers in WEATHERS.items():
                if asked.weather not in (None, name):
                    continue
                path = (asked.films or Path(folder)) / f"{name.replace(' ', '-')}.mp4"
                if not path.exists():
                    film(path, rooms, weathers, asked.seconds)
                idle(path, asked.seconds, name)
    if asked.only != "idle":
        print(f"share, {LOOKS} frames/s")
        detector = Detector(asked.weights / "yolox_nano/yolox_nano.onnx", threads=1)
        total = Counter[str]()
        for path in sorted(asked.media.rglob("*.mp4")):
            counted = share(path, detector)
            print(line(path.name, counted), flush=True)
            total += counted
        print(line("all", total))


if __name__ == "__main__":
    main()
