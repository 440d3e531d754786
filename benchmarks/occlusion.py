"""Whether a person who is hidden behind a drawn pillar has the same id afterwards.

    python -m benchmarks.occlusion MEDIA WEIGHTS [--seeds 14] [--videos NAME ...] [--each 10]

Each clip is a part of a video in which a pillar is drawn: it hides one person for 2 to 10 s. It
stands there for the whole clip, or it is there only while it hides the person, as a truck that
stops. Place, width, height, shade, person, time and kind are drawn by the seed. The truth is what
the detector shows without the pillar, of persons whom no other person covers. The frames are those
of a camera at 5 frames/s: 640 px, JPEG. Every clip is judged with appearance and without.

    same    the id after the hiding is the id before
    new     it is one that was not there before
    taken   another one got the id of the hidden person, or the hidden person got the id of another

Then: what appearance costs, in CPU time and in bytes.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from models.vision.detector import Detector
from pipeline.codec import encode
from pipeline.tracking.stationary import alike
from pipeline.tracking.track import Tracker
from pipeline.types import Box, Detections, ns
from workers.media.appearance import appearance, described
from workers.media.jpeg import Pixels, decoded, encoded, shrunk

VIDEOS = ("office_a.mp4", "vtest_first25s.mp4")
FPS, SIDE = 5, 640
SHORTEST, LONGEST = 2.0, 10.0  # s; how long a pillar hides the person
WIDEST = 0.45  # of the picture
WITHIN, APART = 0.9, 0.3  # parts of a box in the pillar: the person is hidden, or is seen
SIGHTS = 5  # looks at the person before and after
LEAD, AFTER = 6.0, 4.5  # s of the clip before and after the hiding
COVERED = 0.3
SAME_PLACE = 0.3  # IoU
Show = tuple[float, Pixels]
Sights = Sequence[tuple[float, Box]]


class Pillar(NamedTuple):
    """What is drawn, in fractions of the picture and grey values."""

    left: float
    top: float
    right: float
    bottom: float
    shade: int

    def share(self, box: Box) -> float:
        """The part of a box that lies in the pillar."""
        wide = min(box.x2, self.right) - max(box.x1, self.left)
        high = min(box.y2, self.bottom) - max(box.y1, self.top)
        return max(wide, 0) * max(high, 0) / ((box.x2 - box.x1) * (box.y2 - box.y1))

    def draw(self, picture: Pixels) -> Pixels:
        """The picture with the pillar; it is a little darker at its left side."""
        height, width = picture.shape[:2]
        left, right = round(max(0, self.left) * width), round(min(1, self.right) * width)
        rows = slice(round(max(0, self.top) * height), round(min(1, self.bottom) * height))
        ramp = self.shade + np.linspace(-25, 25, right - left)
        drawn = picture.copy()
        drawn[rows, left:right] = ramp.astype(np.uint8)[None, :, None]
        return drawn


class Clip(NamedTuple):
    """A part of a video with a pillar; times in s of the video."""

    video: str
    pillar: Pillar
    hidden: tuple[float, float]
    stands: bool  # for the whole clip
    before: Sights
    after: Sights

    def draw(self, at: float, picture: Pixels) -> Pixels:
        """The frame at a time."""
        there = self.stands or self.hidden[0] <= at <= self.hidden[1]
        return self.pillar.draw(picture) if there else picture


def shown(video: Path) -> list[Show]:
    """The frames of a camera that films the video."""
    capture = cv2.VideoCapture(str(video))
    rate, number, found = capture.get(cv2.CAP_PROP_FPS), 0, []
    while capture.grab():
        if number / rate >= len(found) / FPS - 1e-6:
            found.append((number / rate, shrunk(capture.retrieve()[1], SIDE)))
        number += 1
    return found


def seen(detect: Detector, picture: Pixels) -> tuple[Box, ...]:
    """What the vision stage finds of persons in a picture."""
    height, width = picture.shape[:2]
    camera = decoded(encoded(picture), width, height)
    return described(camera, [box for box in detect([camera])[0] if box.label == "person"])


def followed(rows: Sequence[tuple[float, Sequence[Box]]]) -> list[tuple[float, dict[int, Box]]]:
    """Time, and id -> box that is seen at that time."""
    tracker, told = Tracker(), []
    for at, boxes in rows:
        tracks = tracker.update(boxes, ns(at))
        told.append((at, {t.id: t.box for t in tracks if t.last_seen == ns(at)}))
    return told


def alone(rows: Sequence[tuple[float, Sequence[Box]]]) -> list[Sights]:
    """The persons of a video, while no other person covers them."""
    tracks: dict[int, list[tuple[float, Box]]] = defaultdict(list)
    for at, boxes in followed([(at, [box.bare() for box in boxes]) for at, boxes in rows]):
        for number, box in boxes.items():
            tracks[number].append((at, box))
    sure = {at: [box.bare() for box in boxes if box.score >= 0.2] for at, boxes in rows}
    persons: list[Sights] = []
    for sights in tracks.values():
        part: list[tuple[float, Box]] = []
        for at, box in sights:
            free = all(_cover(other, box) < COVERED for other in sure[at] if other != box)
            if part and (not free or at - part[-1][0] > 2.5 / FPS):
                persons.append(part)
                part = []
            if free:
                part.append((at, box))
        persons.append(part)
    return [p for p in persons if len(p) >= 2 * SIGHTS + SHORTEST * FPS and _moves(p)]


def _moves(person: Sights) -> bool:
    """Whether it goes a width of its box; the plaza has a thing that looks like a person."""
    middles = [(box.x1 + box.x2) / 2 for _, box in person]
    return max(middles) - min(middles) >= max(box.x2 - box.x1 for _, box in person)


def _cover(other: Box, box: Box) -> float:
    return Pillar(other.x1, other.y1, other.x2, other.y2, 0).share(box)


def clips(video: str, persons: Sequence[Sights], count: int, seed: int) -> Iterator[Clip]:
    """Draws clips."""
    draw = np.random.default_rng(seed)
    found: list[Clip] = []
    for _ in range(20_000):
        if len(found) == count or not persons:
            break
        person = persons[draw.integers(len(persons))]
        span = draw.uniform(SHORTEST, LONGEST)
        first, last = person[0][0] + 1, person[-1][0] - 1 - span
        begin = draw.uniform(first, max(first, last))
        shade, whole = int(draw.integers(60, 190)), draw.random() < 0.5
        stands = draw.random() < 0.5
        inside = [box for at, box in person if begin <= at <= begin + span]
        if last < first or not inside:
            continue
        pillar = Pillar(
            min(box.x1 for box in inside) - 0.004,
            0.0 if whole else min(box.y1 for box in inside) - 0.03,
            max(box.x2 for box in inside) + 0.004,
            1.0 if whole else max(box.y2 for box in inside) + 0.03,
            shade,
        )
        times = begin, begin + span
        clip = (_standing if stands else _passing)(video, pillar, person, times)
        if clip is not None and not any(_twice(clip, other) for other in found):
            found.append(clip)
    yield from found


def _standing(
    video: str, pillar: Pillar, person: Sights, times: tuple[float, float]
) -> Clip | None:
    """The clip in which the person goes behind the pillar and comes out, if there is one."""
    middle = sum(times) / 2
    seen_before = [at for at, box in person if pillar.share(box) < APART and at < middle]
    seen_after = [at for at, box in person if pillar.share(box) < APART and at > middle]
    if pillar.right - pillar.left > WIDEST or not seen_before or not seen_after:
        return None
    between = [(at, box) for at, box in person if seen_before[-1] < at < seen_after[0]]
    hidden = [at for at, box in between if pillar.share(box) >= WITHIN]
    if not hidden or not SHORTEST <= hidden[-1] - hidden[0] <= LONGEST:
        return None
    return _between(Clip(video, pillar, (hidden[0], hidden[-1]), True, (), ()), person)


def _passing(video: str, pillar: Pillar, person: Sights, times: tuple[float, float]) -> Clip | None:
    """The clip in which the pillar comes and goes."""
    if pillar.right - pillar.left > WIDEST:
        return None
    return _between(Clip(video, pillar, times, False, (), ()), person)


def _between(clip: Clip, person: Sights) -> Clip | None:
    """The clip with the sights of its person before and after; None if there are too few."""
    begin, end = clip.hidden
    free = [
        (at, box)
        for at, box in person
        if (clip.pillar.share(box) < APART or not clip.stands)
        and (begin - 3 <= at < begin or end < at <= end + 3)
    ]
    before = [(at, box) for at, box in free if at < begin]
    after = [(at, box) for at, box in free if at > end]
    if min(len(before), len(after)) < SIGHTS:
        return None
    return clip._replace(before=before, after=after)


def _twice(one: Clip, other: Clip) -> bool:
    """Whether two clips hide the same person at nearly the same time."""
    return one.after[-1] == other.after[-1] and all(
        abs(a - b) < 1.0 for a, b in zip(one.hidden, other.hidden, strict=True)
    )


def verdict(clip: Clip, rows: Sequence[tuple[float, Sequence[Box]]]) -> str:
    """`same`, `new`, `taken`, or `unseen` where the person has no id before or after."""
    told = followed(rows)
    before, after = _id(clip.before, told), _id(clip.after, told)
    if before is None or after is None:
        return "unseen"
    begin, end = clip.hidden
    elsewhere = any(
        before in boxes and clip.pillar.share(boxes[before]) < 0.5
        for at, boxes in told
        if begin + 0.3 < at < end - 0.3
    )
    if before == after:
        return "taken" if elsewhere else "same"
    others = {number for at, boxes in told if at < begin for number in boxes}
    later = any(before in boxes for at, boxes in told if at > end)
    return "taken" if elsewhere or later or after in others else "new"


def _id(sights: Sights, told: Sequence[tuple[float, dict[int, Box]]]) -> int | None:
    """The id that a person has most often."""
    where = dict(sights)
    ids = Counter(
        number
        for at, boxes in told
        for number, box in boxes.items()
        if at in where and alike(box, where[at], SAME_PLACE)
    )
    return ids.most_common(1)[0][0] if ids else None


def main() -> None:
    """Prints one line for each clip, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("media", type=Path, help="folder of clips, with video/")
    parser.add_argument("weights", type=Path, help="folder of model files")
    parser.add_argument("--videos", nargs="+", default=VIDEOS, help="files of MEDIA/video")
    parser.add_argument("--seeds", type=int, nargs="+", default=[14])
    parser.add_argument("--each", type=int, default=10, help="clips of a video and a seed")
    options = parser.parse_args()
    detect = Detector(options.weights / "yolox_nano/yolox_nano.onnx", threads=1)
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for name in options.videos:
        show = shown(options.media / "video" / name)
        persons = alone([(at, seen(detect, picture)) for at, picture in show])
        for seed in options.seeds:
            for clip in clips(name, persons, options.each, seed):
                _judge(clip, show, lambda picture: seen(detect, picture), sums)
        _cost(name, show, detect)
    for way, counts in sums.items():
        total = f"{way}: " + ", ".join(f"{what} {count}" for what, count in counts.most_common())
        print(total)


def _judge(
    clip: Clip,
    show: Sequence[Show],
    see: Callable[[Pixels], Sequence[Box]],
    sums: Mapping[str, Counter[str]],
) -> None:
    begin, end = clip.hidden
    rows = [
        (at, see(clip.draw(at, picture)))
        for at, picture in show
        if begin - LEAD <= at <= end + AFTER
    ]
    found = {
        "with appearance": verdict(clip, rows),
        "without": verdict(clip, [(at, [box.bare() for box in boxes]) for at, boxes in rows]),
    }
    for way, what in found.items():
        sums[way][what] += 1
    left, right = clip.pillar.left, clip.pillar.right
    told = "  ".join(f"{way} {what:6}" for way, what in found.items())
    kind = "stands" if clip.stands else "comes "
    print(
        f"{clip.video:20} pillar {kind} {begin:5.1f} to {end:5.1f} s, x {left:.2f} to {right:.2f}:"
        f"  {told}"
    )


def _cost(name: str, show: Sequence[Show], detect: Detector) -> None:
    """Prints the CPU time of a person, and the bytes of an hour at 5 frames/s."""
    pictures = [picture for _, picture in show]
    found = [seen(detect, picture) for picture in pictures]
    work = [
        (picture, box.bare())
        for picture, boxes in zip(pictures, found, strict=True)
        for box in boxes
    ]
    began = time.process_time()
    for picture, box in work:
        appearance(picture, box)
    spent = (time.process_time() - began) / max(1, len(work))
    more = sum(_bytes(boxes) - _bytes([box.bare() for box in boxes]) for boxes in found)
    hour = more / len(found) * FPS * 3600 / 1e6
    print(
        f"{name}: {len(work)} persons, {spent * 1e3:.3f} ms of CPU a person, {hour:.2f} MB an hour"
    )


def _bytes(boxes: Sequence[Box]) -> int:
    record = Detections(site="place", source="desk", start=0, end=1, boxes=tuple(boxes))
    return len(encode(record))


if __name__ == "__main__":
    main()
