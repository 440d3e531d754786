"""What poses cost, and how well the pose models agree.

    python -m benchmarks.pose MEDIA WEIGHTS [--seconds 40] [--only models|pipeline]
        [--reference PICTURE]

Models: CPU time of one person, with the cut, on one thread; persons of the real videos, as the
vision stage sees them (640 px). Then two kinds of agreement, in heights of the person: of the two
models on the same person, and of a model with itself on the picture turned by a quarter, as if the
person lay. `--reference` is the picture of MoveNet's reference
(`movenet_single_pose_lightning_ptq_reference.csv`), which does not come with the weights.

Bytes: what the poses of two persons add to an hour of observations at 5 frames/s.

Pipeline: CPU time of the whole daemon (decoding, motion, JPEG, local log, vision, fusion, alerts)
in percent of a core: 720p at 25 frames/s, 5 of them analysed. Two people walk all the time (a part
of `vtest_first25s.mp4`, enlarged), and nobody is there (`office_a.mp4`). Each with poses and
without, in turn, in this one run.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import msgspec
import numpy as np

from models.vision.blazepose import BlazePose
from models.vision.detector import Detector
from models.vision.movenet import Movenet
from models.vision.person_crop import Person, Square, cut, square_around
from pipeline.codec import encode
from pipeline.config.model_needs import needed_encoders
from pipeline.judge.pose import Joint, pack, unpack
from pipeline.types import Box, Detections, ns
from workers import daemon
from workers.config import loader
from workers.stages.encoders import load_encoders

SIZE, RATE, LOOKS, AIM = (1280, 720), 25, 5, 40
TWO = (slice(120, 372), slice(0, 448))  # rows and columns of vtest: 2.4 persons in the mean
EMPTY = 4.5  # s; the room is empty up to here
VIDEOS = ("vtest_first25s.mp4", "office_a.mp4", "Retail02_short.mp4")
BODY = slice(Joint.LEFT_SHOULDER, len(Joint))
Picture = np.ndarray

CONFIG = """
version: 1
api: {{listen: "127.0.0.1:0"}}
sites:
  place:
    cameras:
      desk:
        source: "device:0"
        detect: {{poses: {poses}}}
        zones: {{floor: {{coordinates: "0,0, 1,0, 1,1, 0,1"}}}}
    rules: [{{rule: zone, zone: floor}}]
"""
SCENE = """
site: place
start: 2026-01-05T22:00:00Z
duration: {seconds}
cameras: {{desk: {{file: film.mp4}}}}
"""


class Adapter(NamedTuple):
    """A pose model, and how it cuts."""

    name: str
    make: Callable[..., Any]
    margin: float


ADAPTERS = {
    "movenet_lightning_int8": Adapter("MoveNet Lightning int8", Movenet, 0.1),
    "blazepose": Adapter("BlazePose lite", BlazePose, 0.2),
}


class Counted:
    """A pose model that counts the persons."""

    def __init__(self, model: Any) -> None:
        self._model, self.persons = model, 0

    def __call__(self, batch: Sequence[Person]) -> list[bytes]:
        self.persons += len(batch)
        return self._model(batch)


def read(video: Path, seconds: float = 600) -> Iterator[Picture]:
    """The pictures of the first seconds of a video."""
    capture = cv2.VideoCapture(str(video))
    for _ in range(round(seconds * capture.get(cv2.CAP_PROP_FPS))):
        good, picture = capture.read()
        if not good:
            return
        yield picture


def persons(media: Path, weights: Path) -> list[Person]:
    """Persons of the videos, at the size that cameras publish."""
    detector, found = Detector(weights / "yolox_nano/yolox_nano.onnx", threads=1), list[Person]()
    for name in VIDEOS:
        for picture in islice(read(media / "video" / name), 0, None, 30):
            scale = 640 / max(picture.shape[:2])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found += [
                Person(small, box)
                for box in detector([small])[0]
                if box.label == "person" and box.score >= 0.5 and upright(small, box) > 1.5
            ]
    return found


def upright(picture: Picture, box: Box) -> float:
    """Height by width of a box, in px; 0 for a box of less than 60 px."""
    height, width = picture.shape[:2]
    high, wide = (box.y2 - box.y1) * height, (box.x2 - box.x1) * width
    return high / wide if high >= 60 else 0.0


def places(estimate: Callable[[list[Person]], list[bytes]], person: Person) -> np.ndarray:
    """The keypoints from the shoulders down, in px."""
    keypoints = unpack(estimate([person])[0])
    height, width = person.picture.shape[:2]
    return np.array(keypoints)[BODY, :2] * (width, height)


def lying(person: Person) -> Person:
    """The same person in the picture turned to the left by a quarter."""
    box = person.box
    turned = Box(
        label=box.label, score=box.score, x1=box.y1, y1=1 - box.x2, x2=box.y2, y2=1 - box.x1
    )
    return Person(np.ascontiguousarray(np.rot90(person.picture)), turned)


def away(one: np.ndarray, other: np.ndarray, person: Person) -> float:
    """The median distance of keypoints, in heights of the person."""
    high = (person.box.y2 - person.box.y1) * person.picture.shape[0]
    return float(np.median(np.hypot(*(one - other).T)) / high)


def once(model: Any, adapter: Adapter, person: Person) -> np.ndarray:
    """The keypoints from the shoulders down, in px, of a model that sees the cut as it is."""
    square = square_around(person, adapter.margin)
    assert square is not None
    guess = model._run(cut(person.picture, square, model._size))  # noqa: SLF001
    return guess.points[BODY, :2] * square.side + (square.left, square.top)


def as_standing(lies: np.ndarray, stands: np.ndarray, person: Person) -> bool:
    """Whether keypoints in the turned picture are where those of the picture as it was are."""
    x, y = lies.T
    back = np.column_stack([person.picture.shape[1] - y, x])
    return away(back, stands, person) < 0.1


def models(media: Path, weights: Path) -> None:
    """Prints the cost of each model and its agreement."""
    people = persons(media, weights)
    print(f"{len(people)} upright persons of at least 60 px")
    found: dict[str, list[np.ndarray]] = {}
    for folder, adapter in ADAPTERS.items():
        model = adapter.make(weights / folder, threads=1)
        spent, cutting = [], []
        for person in people * 3:
            began = time.process_time()
            model([person])
            spent.append(time.process_time() - began)
            began = time.process_time()
            square = square_around(person, adapter.margin)
            assert square is not None
            cut(person.picture, square, model._size)  # noqa: SLF001
            cutting.append(time.process_time() - began)
        found[folder] = [places(model, person) for person in people]
        right, right_once = 0, 0
        for person, stands in zip(people, found[folder], strict=True):
            lies = lying(person)
            right += as_standing(places(model, lies), stands, person)
            right_once += as_standing(once(model, adapter, lies), stands, person)
        ms, cuts = statistics.median(spent) * 1e3, statistics.median(cutting) * 1e3
        print(
            f"  {adapter.name:24} {ms:5.1f} ms CPU a person, of which {cuts:.1f} for the cut;"
            f" lying as standing (within 0.1 heights): {right} of {len(people)},"
            f" {right_once} without turning"
        )
    apart = [away(*pair, person) for *pair, person in zip(*found.values(), people, strict=True)]
    print(f"  the two models are {statistics.median(apart):.3f} heights apart (median)")


def reference(picture: Path, weights: Path) -> None:
    """Prints how far the keypoints of the whole picture are from those of the reference."""
    folder = weights / "movenet_lightning_int8"
    (table,) = folder.glob("*_reference.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    told = np.array([[float(row["keypoint_x"]), float(row["keypoint_y"])] for row in rows])
    model, image = Movenet(folder), cv2.imread(str(picture))
    assert image is not None, f"{picture} is no picture"
    # The reference stretches the picture to the square of the network.
    square = cv2.resize(image, (192, 192))
    points = model._run(cut(square, Square(0, 0, 192), 192)).points[:, :2]  # noqa: SLF001
    off = np.hypot(*(points - told).T)
    print(f"reference: {off.mean():.3f} of the picture away in the mean, {off.max():.3f} at most")


def size_of(poses: int) -> int:
    """The bytes of one frame's observation with two persons."""
    box = Box(label="person", score=0.9, x1=0.123, y1=0.234, x2=0.345, y2=0.678)
    pose = pack([(0.2, 0.5, 0.7)] * len(Joint))
    posed = Box(**{n: getattr(box, n) for n in box.__struct_fields__ if n != "keypoints"},
                keypoints=pose)  # fmt: skip
    boxes = (*[posed] * poses, *[box] * (2 - poses))
    made = Detections(site="s", source="c", start=ns(1.8e9), end=ns(1.8e9 + 0.2), boxes=boxes)
    return len(encode(made))


def film(path: Path, pictures: list[Picture], each: int, seconds: int) -> None:
    """Writes pictures forwards and back, each of them `each` times, as a camera of 720p does."""
    around = [*pictures, *pictures[-2:0:-1]]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.gop_size = "yuv420p", 50
        stream.options = {"preset": "veryfast", "bf": "0", "maxrate": "4M", "bufsize": "4M"}
        for number in range(seconds * RATE):
            picture = cv2.resize(around[number // each % len(around)], SIZE)
            frame = av.VideoFrame.from_ndarray(picture, "bgr24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def pipeline(media: Path, seconds: int) -> None:
    """Prints what the daemon costs with poses and without, with two people and with nobody."""
    two = [picture[TWO] for picture in read(media / "video/vtest_first25s.mp4")]
    room = list(read(media / "video/office_a.mp4", EMPTY))
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures, each in (("two people walk", two, 2), ("nobody is there", room, 2)):
            spent: dict[int, list[float]] = {0: [], 4: []}
            place = Path(folder) / name.replace(" ", "-")
            place.mkdir()
            film(place / "film.mp4", pictures, each, seconds)
            (place / "scene.yaml").write_text(SCENE.format(seconds=seconds))
            for turn in range(6):  # the first two warm up
                poses = (0, 4)[turn % 2]
                share, persons = played(place, poses, seconds, turn)
                if turn > 1:
                    spent[poses].append(share)
            off, on = (statistics.median(spent[poses]) for poses in (0, 4))
            print(
                f"{name}: {off:.1f} % of a core without poses, {on:.1f} % with;"
                f" {persons / seconds / LOOKS:.2f} poses a frame"
                + (f" (aim {AIM} %)" if pictures is two else "")
            )


def played(place: Path, poses: int, seconds: int, turn: int) -> tuple[float, int]:
    """Percent of a core that the daemon takes for the film in `place`, and the poses."""
    config = place / f"poses-{poses}.yaml"
    config.write_text(CONFIG.format(poses=poses))
    settings = loader.load(config)
    encoders = load_encoders(settings.models, needed=needed_encoders(settings))
    pose = Counted(encoders.pose)
    encoders = msgspec.structs.replace(encoders, pose=pose)
    began = time.process_time()
    daemon.run(config, scene=place / "scene.yaml", state=place / f"state-{turn}", encoders=encoders)
    return (time.process_time() - began) / seconds * 100, pose.persons


def main() -> None:
    """Prints all figures."""
    ask = argparse.ArgumentParser()
    ask.add_argument("media", type=Path)
    ask.add_argument("weights", type=Path)
    ask.add_argument("--seconds", type=int, default=40, help="of each film")
    ask.add_argument("--only", choices=("models", "pipeline"))
    ask.add_argument("--reference", type=Path, help="the picture of MoveNet's reference")
    asked = ask.parse_args()
    if asked.only != "pipeline":
        models(asked.media, asked.weights)
        if asked.reference:
            reference(asked.reference, asked.weights)
        else:
            print("reference: its picture is not here; give it by --reference")
        bare, posed = size_of(0), size_of(2)
        hour = (posed - bare) * LOOKS * 3600 / 1e6
        print(f"two persons at {LOOKS} frames/s: {bare} bytes a frame, {posed} with poses;"
              f" {hour:.1f} MB an hour more")  # fmt: skip
    if asked.only != "models":
        pipeline(asked.media, asked.seconds)


if __name__ == "__main__":
    main()
