"""Frames, findings and buses for the tests of pictures."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from pipeline import codec, topics
from pipeline.bus.memory import MemoryBus
from pipeline.types import Alert, Box, Corners, Finding, FrameChunk, Record, ns
from tests.make import alert
from workers.delivery.shown_frame import corners
from workers.delivery.snapshots import evidence_names
from workers.media import jpeg

AT = 1000.0  # s; the time of the alerts
BIG, LITTLE = (640, 360), (320, 180)


def scenery(seed: int = 1, size: tuple[int, int] = BIG) -> jpeg.Pixels:
    """A picture in greys that does not compress well: rough ground, as grass or gravel is."""
    chance = np.random.default_rng(seed)
    rough = chance.integers(60, 190, (size[1] // 6, size[0] // 6), dtype=np.uint8)
    grey: Any = cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC)
    return np.repeat(grey[:, :, None], 3, axis=2)


def frame(
    start: float = AT, *, source: str = "desk", seed: int = 1, size: tuple[int, int] = BIG,
    data: bytes | None = None,
) -> FrameChunk:  # fmt: skip
    """A frame of `scenery`."""
    return FrameChunk(
        site="office",
        source=source,
        start=ns(start),
        end=ns(start + 0.2),
        seq=0,
        width=size[0],
        height=size[1],
        data=jpeg.encoded(scenery(seed, size)) if data is None else data,
    )


def recorded(*records: Record) -> MemoryBus:
    """A bus with these frames and observations."""
    bus = MemoryBus(keep=True)
    for record in records:
        topic = topics.FRAMES if isinstance(record, FrameChunk) else topics.OBSERVATIONS
        bus.publish(topic, topics.key_of(topic, record), codec.encode(record))
    bus.flush()
    return bus


def finding(
    of: Box | None, at: float = AT, *, source: str = "desk", kind: str = "object", **given: Any
) -> Finding:
    """What a rule found at the place of a box."""
    place: Corners | None = corners(of) if of else None
    dull: dict[str, Any] = {
        **{"label": "intrusion", "object": of.label if of else "", "score": 0.9, "count": 1},
        **{"start": ns(at), "end": ns(at) + 1},
    }
    return Finding(source=source, kind=kind, box=place, at=ns(at), **(dull | given))


def pictured(*findings: Finding, cameras: tuple[str, ...] = ("desk",), **given: Any) -> Alert:
    """An alert at `AT` with findings, and evidence of cameras."""
    made = alert(**{"time": ns(AT), "changed": ("opened",), **given}, findings=findings)
    names = evidence_names(made.site, made.id, made.revision, cameras)
    return alert(
        **{"time": ns(AT), "changed": ("opened",), **given}, findings=findings, evidence=names
    )


def seen(data: bytes) -> jpeg.Pixels:
    """The pixels of a JPEG."""
    return jpeg.opened(data)


def from_event(event: dict[str, Any]) -> bytes:
    """The picture of a document."""
    return base64.b64decode(event["picture"], validate=True)


def framed(pixels: jpeg.Pixels, box: Box) -> bool:
    """Whether a box is drawn there: its left, right and bottom edges have the colour of boxes."""
    height, width = pixels.shape[:2]
    middle = (box.y1 + box.y2) / 2, (box.x1 + box.x2) / 2
    edges = ((middle[0], box.x1), (middle[0], box.x2), (box.y2, middle[1]))
    return all(_coloured(pixels, round(y * height), round(x * width)) for y, x in edges)


def _coloured(pixels: jpeg.Pixels, row: int, column: int) -> bool:
    near = pixels[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].astype(int)
    return bool(((near[:, :, 2] - near[:, :, 0]) > 70).any())
