"""Reads cameras of this machine (V4L2) by OpenCV.

Every frame is grabbed, but only the wanted frames are decoded to pixels. The values that a camera
reports (size, time) are untrusted input and are checked before use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.config.schema import Detect
from pipeline.errors import SourceLost
from pipeline.limits import MAX_PIXELS
from pipeline.types import SECOND, FrameChunk
from workers.capture.clock import Clock, FrameRateLimiter, StreamClock
from workers.config.source_address import Address
from workers.media.jpeg import Pixels, encoded, fits, shrunk
from workers.media.motion import measured, model_for, small_luma

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # SourceLost reports it once

MAX_BROKEN_PICTURES = 10  # broken pictures in a row until a camera is lost


class CameraSource:
    """One connection to a camera; raises SourceLost when it cannot be opened, ends or hangs.

    A chunk carries one JPEG with `detect.width` pixels on its longest side; at most `detect.fps`
    chunks a second come. `seq` counts the grabbed frames. `count(source, what)` counts frames that
    could not be used.
    """

    def __init__(
        self,
        address: Address,
        site: str,
        name: str,
        detect: Detect,
        *,
        clock: Clock,
        count: Callable[[str, str], None],
        opened: Callable[[Address], Any] | None = None,
    ) -> None:
        self._site = site
        self._name = name
        self._detect = detect
        self._clock = clock
        self._count = count
        self._motion = model_for(detect, detect.fps)
        self._timed = False
        self.native: tuple[int, int] | None = None  # px, width and height before scaling
        self._camera = (opened or _opened)(address)

    def __iter__(self) -> Iterator[FrameChunk]:
        try:
            yield from self._frames()
        except (cv2.error, OSError) as error:
            msg = f"OpenCV failed while it read the camera ({type(error).__name__})"
            raise SourceLost(msg) from None  # the cause may quote the address

    def _frames(self) -> Iterator[FrameChunk]:
        times, pace = StreamClock(self._clock), FrameRateLimiter(self._detect.fps)
        seq = 0
        while (broken := self._grabbed()) >= 0:
            for _ in range(broken):
                self._count(self._name, "dropped.undecodable")
            seq += broken
            start = times.at(self._position(seq))
            if pace.wants(start):
                picture = self._picture()
                if picture is not None:
                    pixels, jpeg = picture
                    seen = measured(self._motion, partial(small_luma, pixels), start)
                    yield FrameChunk(
                        site=self._site,
                        source=self._name,
                        start=start,
                        end=start + pace.period,
                        seq=seq,
                        width=pixels.shape[1],
                        height=pixels.shape[0],
                        data=jpeg,
                        look=seen.look,
                        motion=seen.motion,
                        regions=seen.regions,
                    )
            seq += 1
        msg = "the camera stopped sending" if seq else "the camera sends no picture"
        raise SourceLost(msg)

    def close(self) -> None:
        """Closes the device or connection."""
        self._camera.release()

    def _grabbed(self) -> int:
        """Grabs a frame; the number of broken frames skipped before it, or -1 at the stream's end.

        `grab` returns False for a damaged picture and for a stream that has ended. After the end
        it returns False every time, without a wait.
        """
        for broken in range(MAX_BROKEN_PICTURES):
            began = self._clock()
            if self._camera.grab():
                return broken
            if self._clock() - began > SECOND:  # no damaged picture: the camera sent nothing
                break
        return -1

    def _position(self, seq: int) -> int | None:
        """The camera's own time (ns) of the grabbed frame, if it has one."""
        said = self._camera.get(cv2.CAP_PROP_POS_MSEC)
        # 0 means the start or "not known"; a negative time is valid.
        self._timed = self._timed or 0 < abs(said) < 1e14
        position = round(said * 1e6) if self._timed and abs(said) < 1e14 else None
        return 0 if position is None and seq == 0 else position

    def _picture(self) -> tuple[Pixels, bytes] | None:
        """Pixels, scaled, and JPEG of the grabbed frame; None if unusable, which is counted."""
        try:
            return self._decoded()
        except (cv2.error, ValueError):  # OpenCV cannot convert or encode this picture
            self._count(self._name, "dropped.undecodable")
            return None

    def _decoded(self) -> tuple[Pixels, bytes] | None:
        width, height = (
            int(self._camera.get(of))
            for of in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > MAX_PIXELS:  # a JPEG of another size is refused by OpenCV itself
            self._count(self._name, "dropped.size")
            return None
        done, pixels = self._camera.retrieve()
        if not done or pixels is None or 0 in pixels.shape:
            self._count(self._name, "dropped.undecodable")
            return None
        if not fits(pixels.shape[1], pixels.shape[0]):
            self._count(self._name, "dropped.size")
            return None
        if pixels.ndim != 3:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
        self.native = pixels.shape[1], pixels.shape[0]
        small = shrunk(pixels.astype(np.uint8, copy=False), self._detect.width)
        return small, encoded(small)


def _opened(address: Address) -> cv2.VideoCapture:
    camera = cv2.VideoCapture()
    number = address.target
    try:
        done = camera.open(int(number) if number.isdecimal() else number, cv2.CAP_V4L2)
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    except cv2.error as error:
        msg = f"OpenCV cannot open the camera (error {error.code})"
        raise SourceLost(msg) from None
    if not done:
        camera.release()
        raise SourceLost(_why(address))
    return camera


def _why(address: Address) -> str:
    device = Path(f"/dev/video{address.target}" if address.target.isdecimal() else address.target)
    if not device.exists():
        return f"there is no {device} on this machine; `fusewatch doctor` lists the cameras"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"this user may not open {device}; add the user to the group `video`"
    return f"{device} gives no picture: another program uses it, or it is no camera"
