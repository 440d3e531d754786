"""Puts a small picture into the documents of the webhooks that have `picture: inline`.

The document gets the CloudEvents extension attribute `picture`: a JPEG in base64, which is how the
JSON format writes the type Binary. The picture is cut for the first attempt of the first webhook,
and kept in `pictures/SITE/ID_REV.jpg` of the state folder before anything is sent. So all attempts
of all webhooks carry the same bytes. An empty file says that there is none.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#type-system
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.errors import DecodeError, OutsideError
from pipeline.ports import Bus
from pipeline.types import Alert
from workers.delivery import cloudevent, picture_folder
from workers.delivery.picture_folder import PictureFolder
from workers.delivery.shown_frame import AlertFrames, ShownFrame
from workers.delivery.snapshots import camera_of, least_scores, marked, stem
from workers.media import jpeg
from workers.runtime.rate_limited_log import RateLimitedLog
from workers.runtime.storage_cap import StorageCap

FOLDER = "pictures"  # in the state folder
MOST_BYTES = 12_000  # of a picture
CUT_TIMEOUT = 5.0  # s after which no further camera is tried: the alert is more urgent
SIDES = (640, 560, 480, 400, 320, 240, 160)  # px; the longest side; the first that fits is used
BEST_QUALITY, LEAST_QUALITY = 85, 30  # of the JPEG; below, a smaller picture shows more
WORST_QUALITY = 20  # of the smallest picture
MOST_UNKEPT = 4096  # alerts that are remembered because the disk did not take their picture

_OURS = re.compile(r"[A-Za-z0-9-]{1,64}_\d{1,9}\.jpg(\.[0-9a-f]{8}\.part)?")
_BEFORE, _AFTER = b',"picture":"', b'"}'  # in place of the document's last brace

Cut = Callable[[Alert, int], bytes]  # alert, most bytes -> a JPEG, or nothing


class InlinePictures:
    """Makes the document of an alert with its picture. Thread safe.

    All processes that share the folder agree on one picture: the first that is written counts.
    Without `cut` only pictures that are kept already are used, and none is made. A picture that
    the disk did not take is not sent, and this process makes no other for the alert.
    """

    def __init__(
        self, folder: Path, cut: Cut | None = None, cap: Callable[[], int] = lambda: 100_000_000
    ) -> None:
        self._folder = PictureFolder(folder, _OURS, cap, marks=True)
        self._cut = cut
        self._lock = threading.Lock()
        self._unkept: deque[str] = deque(maxlen=MOST_UNKEPT)
        self._failed = RateLimitedLog("alerts are sent without their picture: %s")
        self._untrimmed = RateLimitedLog("old pictures of alerts cannot be deleted: %s")

    def event_bytes(self, alert: Alert) -> bytes:
        """Returns the document of `cloudevent.event_bytes`, with the picture if there is one.

        It stays below `MAX_EVENT_BYTES`. A closing alert has none. Raises ValueError as
        `cloudevent.event_bytes`.
        """
        document = cloudevent.event_bytes(alert)
        return with_picture(document, self._picture(alert, room(document)))

    def _picture(self, alert: Alert, most: int) -> bytes:
        name = f"{stem(alert)}.jpg"
        if alert.state == "closed" or not alert.evidence or not stem(alert):
            return b""  # for each attempt: this depends on the alert alone
        with self._lock:
            if name in self._unkept:
                return b""
            try:
                kept = self._folder.read(name)
                if kept is not None or self._cut is None:
                    return kept or b""
                kept = self._folder.write_first(name, self._cut(alert, most))
            except OSError as error:
                self._unkept.append(name)
                self._failed.warn(error)
                return b""
            self._trim()
            return kept

    def _trim(self) -> None:
        try:
            self._folder.trim()
        except OSError as error:  # the alert has its picture
            self._untrimmed.warn(error)


class PictureCutter:
    """Cuts the picture of an alert from the stored frames of `bus`; `least` as in AlertFrames.

    It shows the camera of the gravest finding that has a frame, else the first camera that has
    one. Equal frames and findings give equal bytes.
    """

    def __init__(
        self,
        bus: Bus,
        least: Mapping[tuple[str, str], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._least = least
        self._clock = clock
        self._failed = RateLimitedLog("alerts are sent without their picture: %s")

    def __call__(self, alert: Alert, most: int) -> bytes:
        """Returns a JPEG of at most `most` bytes, or nothing when there is no frame, when the
        frames cannot be read now, or when none is small enough."""
        until = self._clock() + CUT_TIMEOUT
        frames = AlertFrames(self._bus, alert, self._least)
        try:
            for camera in _cameras(alert):
                shown = frames.of(camera) if self._clock() < until else None
                if shown is not None and (pixels := _pixels(shown)) is not None:
                    return _small(pixels, shown, most)
        except OutsideError as error:
            self._failed.warn(error)
        return b""


def inline_pictures(settings: Config, folder: Path, bus: Bus | None) -> InlinePictures:
    """Returns the pictures in the state folder `folder`, cut from the frames of `bus`, if any."""
    cap = StorageCap(settings, folder)
    cut = PictureCutter(bus, least_scores(settings)) if bus is not None else None
    return InlinePictures(folder / FOLDER, cut, lambda: cap() // 100)


def room(document: bytes) -> int:
    """The bytes of the largest picture that fits into a document; may be negative."""
    chars = cloudevent.MAX_EVENT_BYTES - len(document) - len(_BEFORE) - len(_AFTER)
    return min(MOST_BYTES, chars // 4 * 3)


def with_picture(document: bytes, picture: bytes) -> bytes:
    """Returns the document with the attribute `picture`; as it is if there is none, or no room."""
    if not picture or len(picture) > room(document):
        return document
    return document[:-1] + _BEFORE + base64.b64encode(picture) + _AFTER


def evict(folder: Path, wanted: int) -> int:
    """Makes the oldest pictures give way until `wanted` bytes are freed, for a full disk.

    Their alerts have none from then on. Returns how many bytes are freed.
    """
    return picture_folder.evict(folder, _OURS, wanted, marks=True)


def _cameras(alert: Alert) -> Iterator[str]:
    """The cameras of the alert's evidence: those of findings first, the gravest first."""
    there = [camera for name in alert.evidence if (camera := camera_of(alert, name))]
    told = [finding.source for finding in alert.findings if finding.source in there]
    yield from dict.fromkeys((*told, *there))


def _pixels(shown: ShownFrame) -> jpeg.Pixels | None:
    frame = shown.frame
    try:
        return jpeg.decoded(frame.data, frame.width, frame.height)
    except DecodeError:
        return None  # a stage has reported it


def _small(pixels: jpeg.Pixels, shown: ShownFrame, most: int) -> bytes:
    """The largest picture of `SIDES` that fits; nothing if none does."""
    longest = max(pixels.shape[:2])
    for side in dict.fromkeys(min(side, longest) for side in SIDES):
        least = LEAST_QUALITY if side > SIDES[-1] else WORST_QUALITY
        small = marked(jpeg.shrunk(pixels, side).copy(), shown.drawn)
        if data := jpeg.within(small, most, least, BEST_QUALITY):
            return data
    return b""
