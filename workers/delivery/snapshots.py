"""Writes snapshots of alerts: a JPEG with boxes for each camera, and a manifest of the results.

It is a consumer of alerts like any other. The alert already holds the file names; the picture is
written later, and its result is in `SITE/ALERT_REVISION.json`, never in the alert. Pictures come
from the chunk topic (`Bus.fetch`), boxes from the observations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import msgspec

from pipeline.config.schema import Config
from pipeline.errors import BrokersAway, DecodeError, Rejected, Retry
from pipeline.ports import Bus
from pipeline.types import Alert, Box, rfc3339
from workers.delivery import picture_folder
from workers.delivery.delivery import Subscriber
from workers.delivery.picture_folder import SITE, PictureFolder
from workers.delivery.shown_frame import AlertFrames
from workers.media import jpeg
from workers.media.jpeg import decoded
from workers.runtime.storage_cap import StorageCap

FOLDER_CAP = 2_000_000_000  # bytes of the whole folder

_NAME = re.compile(rf"({SITE})/([A-Za-z0-9-]{{1,64}})_(\d{{1,9}})_({SITE})\.jpg")
_OURS = re.compile(
    rf"[A-Za-z0-9-]{{1,64}}_\d{{1,9}}(_{SITE}\.jpg|\.json)((\.[0-9a-f]{{8}})?\.part)?"
)
_COLOUR, _WHITE = (0, 64, 255), (255, 255, 255)  # BGR
_LEAST_TEXT = 0.4  # of the font's size; smaller letters cannot be read


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one name; `time` is the frame's; `boxes` is None if it was not processed.

    `drawn` holds those that the picture shows; their label is the text beside them.
    """

    name: str
    camera: str
    ok: bool
    reason: str = ""
    sha256: str = ""
    time: str = ""
    boxes: tuple[Box, ...] | None = None
    drawn: tuple[Box, ...] = ()


def evidence_names(site: str, id_: str, revision: int, cameras: Sequence[str]) -> tuple[str, ...]:
    """The names of an alert's future snapshots, one a camera: `SITE/ID_REV_CAMERA.jpg`."""
    return tuple(f"{site}/{id_}_{revision}_{camera}.jpg" for camera in cameras)


def stem(alert: Alert) -> str:
    """`SITE/ID_REV`, with which the names of an alert's files begin; empty if site or id cannot be
    part of a file's name."""
    made = f"{alert.site}/{alert.id}_{alert.revision}"
    return made if _NAME.fullmatch(f"{made}_x.jpg") else ""


def camera_of(alert: Alert, name: str) -> str:
    """The camera of a name in `alert.evidence`; empty if it is none of this alert's."""
    match = _NAME.fullmatch(name)
    return match[4] if match and stem(alert) == f"{match[1]}/{match[2]}_{match[3]}" else ""


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
    this class names, and only below `folder`. Objects of the alert's findings get a box; those of
    an alert of an older version, all from the camera's score in `least` on. The manifest lists all
    boxes. Raises Rejected when the site or the id cannot be part of a file name, Retry when the
    disk does not take a file or the brokers are away.
    """

    def __init__(
        self,
        folder: Path,
        bus: Bus,
        cap: Callable[[], int] = lambda: FOLDER_CAP,
        least: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        self._folder = PictureFolder(folder, _OURS, cap)
        self._least = least or {}
        self._bus = bus

    def send(self, alert: Alert, trace: str = "") -> None:
        """Writes the alert's snapshots and manifest, and applies `cap`."""
        if not alert.evidence or alert.state == "closed":
            return  # a closing alert names the pictures of its opening
        if not stem(alert):
            msg = "neither this site nor this id can be part of a file's name"
            raise Rejected(msg)
        try:
            frames = AlertFrames(self._bus, alert, self._least)
            shots = [self._shot(alert, name, frames) for name in alert.evidence]
            manifest = {
                "alert_id": alert.id,
                "revision": alert.revision,
                "time": rfc3339(alert.time),
                "snapshots": shots,
            }
            self._folder.write(f"{stem(alert)}.json", msgspec.json.encode(manifest))
            self._folder.trim()
        except OSError as error:
            msg = f"evidence of {alert.site}: {error.strerror}"
            # Without an errno it is this site's folder alone; else the disk, which all need.
            raise Retry(msg, alone=not error.errno) from error
        except BrokersAway as error:
            raise Retry(str(error)) from error

    def _shot(self, alert: Alert, name: str, frames: AlertFrames) -> Shot:
        camera = camera_of(alert, name)
        if not camera:
            reason = "not a name of this alert's evidence"
            return Shot(name=name, camera="", ok=False, reason=reason)
        shown = frames.of(camera)
        if shown is None:
            reason = "no frame of this camera near the alert: it was lost, or its frames are gone"
            return Shot(name=name, camera=camera, ok=False, reason=reason)
        frame = shown.frame
        try:
            pixels = decoded(frame.data, frame.width, frame.height)
        except DecodeError as error:
            return Shot(name=name, camera=camera, ok=False, reason=str(error))
        picture = jpeg.encoded(marked(pixels, shown.drawn))
        self._folder.write(name, picture)
        return Shot(
            name=name,
            camera=camera,
            ok=True,
            sha256=hashlib.sha256(picture).hexdigest(),
            time=rfc3339(frame.start),
            boxes=shown.boxes,
            drawn=shown.drawn,
        )


def evict(folder: Path, wanted: int) -> int:
    """Deletes the oldest snapshots until `wanted` bytes are freed, for a full disk.

    Returns how many bytes are. A missing file is no error.
    """
    return picture_folder.evict(folder, _OURS, wanted)


def marked(pixels: jpeg.Pixels, boxes: Sequence[Box]) -> jpeg.Pixels:
    """Draws the boxes and their texts into the picture, and returns it."""
    height, width = pixels.shape[:2]
    thick = max(1, round(width / 400))
    for box in boxes:
        left, top = round(_inside(box.x1) * width), round(_inside(box.y1) * height)
        corner = (round(_inside(box.x2) * width), round(_inside(box.y2) * height))
        cv2.rectangle(pixels, (left, top), corner, _COLOUR, thick)
        _write(pixels, f"{box.label} {box.score:.2f}", left, top, thick)
    return pixels


def _inside(share: float) -> float:
    """A corner of a record that nobody vouches for, put into the picture."""
    return min(max(share, 0.0), 1.0)


def _write(pixels: jpeg.Pixels, words: str, left: int, top: int, thick: int) -> None:
    """Writes words on a bar above `top`; at the top of the picture, on a bar below it.

    Words that would leave the picture at its right begin further left.
    """
    text = words.encode("ascii", "replace").decode()
    width = pixels.shape[1]
    scale = max(width / 1300, _LEAST_TEXT)
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    left = max(0, min(left, width - wide))
    end = max(top, high + below + thick)
    cv2.rectangle(
        pixels, (left, end - high - below - thick), (left + wide, end), _COLOUR, cv2.FILLED
    )
    at = (left, end - below)
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _WHITE, thick, cv2.LINE_AA)
