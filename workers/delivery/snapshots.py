"""Writes snapshots of alerts: a JPEG with boxes for each camera, and a manifest of the results.

It is a consumer of alerts like any other. The alert already holds the file names; the picture is
written later, and its result is in `SITE/ALERT_REVISION.json`, never in the alert. Pictures come
from the chunk topic (`Bus.fetch`), boxes from the observations.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec

from pipeline import codec, topics
from pipeline.bus.private import private_file, private_folder
from pipeline.config.schema import Config
from pipeline.errors import BrokersAway, DecodeError, Rejected, Retry
from pipeline.ports import Bus
from pipeline.types import SECOND, Alert, Box, Detections, FrameChunk, rfc3339
from workers.delivery.delivery import Subscriber
from workers.media import jpeg
from workers.media.jpeg import decoded
from workers.runtime.storage_cap import StorageCap

SHOWN_BEFORE = 3 * SECOND  # ns before the alert's time; a frame in this span still shows the event
SHOWN_AFTER = 1 * SECOND  # ns after it
FOLDER_CAP = 2_000_000_000  # bytes of the whole folder
KEPT_SHARE = 0.9  # of the cap; the oldest files are deleted down to this

_SITE = r"[a-z0-9][a-z0-9_-]{0,39}"
_NAME = re.compile(rf"({_SITE})/([A-Za-z0-9-]{{1,64}})_(\d{{1,9}})_({_SITE})\.jpg")
_OURS = re.compile(rf"[A-Za-z0-9-]{{1,64}}_\d{{1,9}}(_{_SITE}\.jpg|\.json)(\.part)?")
_COLOUR, _WHITE = (0, 64, 255), (255, 255, 255)  # BGR


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one name; `time` is the frame's; `boxes` is None if it was not processed."""

    name: str
    camera: str
    ok: bool
    reason: str = ""
    sha256: str = ""
    time: str = ""
    boxes: tuple[Box, ...] | None = None


def evidence_names(site: str, id_: str, revision: int, cameras: Sequence[str]) -> tuple[str, ...]:
    """The names of an alert's future snapshots, one a camera: `SITE/ID_REV_CAMERA.jpg`."""
    return tuple(f"{site}/{id_}_{revision}_{camera}.jpg" for camera in cameras)


def subscribers(settings: Config, folder: Path, bus: Bus) -> Iterator[Subscriber]:
    """Yields the subscriber that writes `evidence/` in the state folder, a tenth of the cap."""
    cap = StorageCap(settings, folder)
    most = lambda: cap() // 10  # noqa: E731
    sink = SnapshotSink(folder / "evidence", bus, most, least_scores(settings))
    yield Subscriber(name="evidence", sink=sink)


def least_scores(settings: Config) -> Mapping[tuple[str, str], float]:
    """(site, camera) -> the score below which its objects are ignored, and get no box."""
    return {
        (name, source): camera.detect.min_score
        for name, site in settings.sites.items()
        for source, camera in site.cameras.items()
    }


class SnapshotSink:
    """A Sink that writes the snapshots of each alert into `folder`; a missing frame is no error.

    `cap` returns the most bytes of the folder: the oldest files are deleted first, only files that
    this class names, and only below `folder`. A box is drawn from the camera's score in `least` on;
    the manifest lists all boxes. Raises Rejected when the site or the id cannot be part of a file
    name, Retry when the disk does not take a file or the brokers are away.
    """

    def __init__(
        self,
        folder: Path,
        bus: Bus,
        cap: Callable[[], int] = lambda: FOLDER_CAP,
        least: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        self._folder = folder
        self._least = least or {}
        self._bus = bus
        self._cap = cap
        self._size = sum(size for _, size, _ in _files(folder))

    def send(self, alert: Alert, trace: str = "") -> None:
        """Writes the alert's snapshots and manifest, and applies `cap`."""
        if not alert.evidence or alert.state == "closed":
            return  # a closing alert names the pictures of its opening
        stem = f"{alert.site}/{alert.id}_{alert.revision}"
        if not _NAME.fullmatch(f"{stem}_x.jpg"):
            msg = "neither this site nor this id can be part of a file's name"
            raise Rejected(msg)
        try:
            found = self._observed(alert)
            shots = [self._shot(alert, name, found) for name in alert.evidence]
            manifest = {
                "alert_id": alert.id,
                "revision": alert.revision,
                "time": rfc3339(alert.time),
                "snapshots": shots,
            }
            self._write(f"{stem}.json", msgspec.json.encode(manifest))
            self._trim()
        except OSError as error:
            msg = f"evidence of {alert.site}: {error.strerror}"
            raise Retry(msg, alone=True) from error
        except BrokersAway as error:
            raise Retry(str(error)) from error

    def _observed(self, alert: Alert) -> Mapping[str, dict[int, Detections]]:
        """Camera -> start -> its Detections, near the alert's time."""
        found: dict[str, dict[int, Detections]] = {}
        for record in self._near(topics.OBSERVATIONS, alert.site, alert.time):
            if isinstance(record, Detections) and not record.gated:  # nobody looked at those
                found.setdefault(record.source, {})[record.start] = record
        return found

    def _near(self, topic: str, key: str, time: int) -> list[Any]:
        """The records of `key` near `time`; skips undecodable bytes, which a stage has reported."""
        records = []
        for value in self._bus.fetch(topic, key, time - SHOWN_BEFORE, time + SHOWN_AFTER):
            try:
                records.append(codec.decode(value))
            except DecodeError:
                continue
        return records

    def _shot(self, alert: Alert, name: str, found: Mapping[str, Mapping[int, Detections]]) -> Shot:
        match = _NAME.fullmatch(name)
        if match is None or not name.startswith(f"{alert.site}/{alert.id}_{alert.revision}_"):
            reason = "not a name of this alert's evidence"
            return Shot(name=name, camera="", ok=False, reason=reason)
        camera = match[4]
        key = f"{alert.site}/{camera}"
        frames = [
            record
            for record in self._near(topics.FRAMES, key, alert.time)
            if isinstance(record, FrameChunk)
        ]
        seen = found.get(camera, {})
        frame = _best(frames, seen, alert.time)
        if frame is None:
            reason = "no frame of this camera near the alert: it was lost, or its frames are gone"
            return Shot(name=name, camera=camera, ok=False, reason=reason)
        boxes = seen[frame.start].boxes if frame.start in seen else None
        least = self._least.get((alert.site, camera), 0.0)
        try:
            picture = drawn(frame, [box for box in boxes or () if box.score >= least])
        except DecodeError as error:
            return Shot(name=name, camera=camera, ok=False, reason=str(error))
        self._write(name, picture)
        digest = hashlib.sha256(picture).hexdigest()
        time = rfc3339(frame.start)
        return Shot(name=name, camera=camera, ok=True, sha256=digest, time=time, boxes=boxes)

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        if path.parent.is_symlink():
            msg = "a site's folder is a link to elsewhere"
            raise OSError(0, msg)
        private_folder(self._folder)
        private_folder(path.parent)
        part = path.with_name(f"{path.name}.part")
        with os.fdopen(private_file(part, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        self._size += len(data)

    def _trim(self) -> None:
        """Deletes the oldest files when the folder is too large."""
        cap = self._cap()
        if self._size <= cap:
            return
        self._size = sum(size for _, size, _ in _files(self._folder))  # `evict` may have deleted
        self._size -= evict(self._folder, round(self._size - cap * KEPT_SHARE))


def evict(folder: Path, wanted: int) -> int:
    """Deletes the oldest files of this class until `wanted` bytes are freed, for a full disk.

    Returns how many bytes are. A missing file is no error.
    """
    freed = 0
    for _, size, path in sorted(_files(folder)):
        if freed >= wanted:
            break
        path.unlink(missing_ok=True)
        freed += size
    return freed


def drawn(frame: FrameChunk, boxes: Sequence[Box]) -> bytes:
    """The frame with its boxes and their labels, as JPEG; raises DecodeError."""
    pixels = decoded(frame.data, frame.width, frame.height)
    height, width = pixels.shape[:2]
    thick = max(1, round(width / 400))
    for box in boxes:
        left, top = round(box.x1 * width), round(box.y1 * height)
        corner = (round(box.x2 * width), round(box.y2 * height))
        cv2.rectangle(pixels, (left, top), corner, _COLOUR, thick)
        _write(pixels, f"{box.label} {box.score:.2f}", left, top, thick)
    return jpeg.encoded(pixels)


def _write(pixels: jpeg.Pixels, words: str, left: int, top: int, thick: int) -> None:
    """Writes words on a bar above `top`; at the top of the picture, on a bar below it."""
    text = words.encode("ascii", "replace").decode()
    scale = pixels.shape[1] / 1300
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    end = max(top, high + below + thick)
    cv2.rectangle(
        pixels, (left, end - high - below - thick), (left + wide, end), _COLOUR, cv2.FILLED
    )
    at = (left, end - below)
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, thick, cv2.LINE_AA)


def _best(
    frames: Sequence[FrameChunk], seen: Mapping[int, Detections], time: int
) -> FrameChunk | None:
    """The frame to show: one with detections if possible; the last up to `time`, else the first
    after it."""

    def rank(frame: FrameChunk) -> tuple[bool, bool, int]:
        return frame.start not in seen, frame.start > time, abs(frame.start - time)

    return min(frames, key=rank, default=None)


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """(time of change, bytes, path) of each file of this class; ignores links and other files."""
    if not folder.is_dir():
        return []
    found = []
    for site in folder.iterdir():
        if not re.fullmatch(_SITE, site.name) or site.is_symlink() or not site.is_dir():
            continue
        for path in site.iterdir():
            if _OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    return found
