"""Decodes the pictures of a live stream in software, or in hardware where it is wanted and works.

What fails in hardware is decoded again in software, from the last keyframe on. The stream stays in
software until it is opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from workers.media.containers import BROKEN, PICTURE_LIMITS

AUTO = ("cuda", "vaapi", "qsv")  # kinds of devices that `auto` tries, in this order
OFF, SOFTWARE = "off", "software"
KEPT_BYTES = 8_000_000  # of packets since the last keyframe that are kept

Open = Callable[[Any, str], Any]  # stream, kind of device -> codec context; raises BROKEN
Tell = Callable[[str], None]  # gets the reason why hardware is not used


def on_device(stream: Any, kind: str) -> Any:
    """A codec context that decodes `stream` on a device; raises one of BROKEN if there is none."""
    if kind not in hwdevices_available():
        msg = f"the FFmpeg of this PyAV knows no {kind}"
        raise ValueError(msg)
    codec = stream.codec_context
    device = HWAccel(kind, allow_software_fallback=False)
    made = av.CodecContext.create(codec.codec.canonical_name, "r", hwaccel=device)
    if not made.is_hwaccel:
        msg = f"{codec.codec.canonical_name} cannot be decoded by {kind}"
        raise ValueError(msg)
    made.extradata = codec.extradata
    made.options = dict(PICTURE_LIMITS)
    made.thread_count = 1
    return made


class PictureDecoder:
    """The decoder of one stream of pictures; `name` is the device that decodes, or `software`.

    `hwaccel` is that of the camera. `failed` gets the reason when hardware is wanted and is not
    used, or not any more. A damaged packet raises one of BROKEN.
    """

    def __init__(self, stream: Any, hwaccel: str, failed: Tell, opened: Open = on_device) -> None:
        self._stream = stream
        self._software = stream.codec_context
        self._context = self._software
        self._failed = failed
        self._kept: list[Any] = []  # packets since the last keyframe; in hardware only
        self._bytes = 0
        self._shown: int | None = None  # pts of the last frame; in hardware only
        self._apart: Any = None  # a keyframe after which the decoder was emptied
        self._after: int | None = None  # pts; frames up to it were given before
        self.name = SOFTWARE
        if hwaccel != OFF:
            self._try(AUTO if hwaccel == "auto" else (hwaccel,), opened)

    @property
    def in_software(self) -> bool:
        """Whether frames are decoded in software."""
        return self._context is self._software

    def decode(self, packet: Any) -> list[Any]:
        """Returns the frames that come out of the decoder after this packet."""
        apart, self._apart = self._apart, None
        frames = []
        if apart is not None:  # what follows a keyframe needs it
            self._context.flush_buffers()
            self._after = apart.pts
            frames = self._decoded(apart)
        frames += self._decoded(packet)
        if self._after is not None:
            frames = [f for f in frames if f.pts is None or f.pts > self._after]
            self._after = None if frames else self._after
        return frames

    def alone(self, packet: Any) -> list[Any]:
        """Returns the frame of a keyframe, decoded without what came before it.

        What follows the keyframe may be decoded next, or be left out.
        """
        self._context.flush_buffers()
        self._apart = self._after = None
        frames = self._decoded(packet)
        if not frames:  # the decoder waits for the frames that may stand before it
            frames = self.rest()
            self._apart = packet
        return frames

    def rest(self) -> list[Any]:
        """Returns the frames that are still in the decoder, which then needs a keyframe."""
        if self._apart is not None:
            return []
        try:
            frames = self._on_hand(list(self._context.decode(None)))
            self._context.flush_buffers()
        except BROKEN as error:
            if self.in_software:
                raise
            return [*self._given_up(error), *self._not_shown(self.rest())]
        for frame in frames:
            frame.time_base = self._stream.time_base
        return frames

    def skip_unwanted(self, unwanted: bool) -> None:
        """Says whether the frame of the next packet is unwanted: it is decoded only if others need
        it. In software only."""
        if self.in_software:
            self._context.skip_frame = "NONREF" if unwanted else "DEFAULT"

    def _decoded(self, packet: Any) -> list[Any]:
        if self.in_software:
            return list(self._context.decode(packet))
        self._keep(packet)
        try:
            frames = self._on_hand(list(self._context.decode(packet)))
        except BROKEN as error:
            return self._given_up(error)
        if frames:
            self._shown = frames[-1].pts
        return frames

    def _on_hand(self, frames: list[Any]) -> list[Any]:
        """Returns the frames; raises ValueError for one that is still on the device."""
        for frame in frames:
            if not frame.format.components:
                msg = f"a frame of the format {frame.format.name} cannot be downloaded"
                raise ValueError(msg)
        return frames

    def _keep(self, packet: Any) -> None:
        if packet.is_keyframe or self._bytes > KEPT_BYTES:
            self._kept, self._bytes = [], 0
        if packet.is_keyframe or self._kept:  # a packet is of no use without its keyframe
            self._kept.append(packet)
            self._bytes += packet.size

    def _given_up(self, error: Exception) -> list[Any]:
        """Goes on in software; returns the frames that hardware has not given."""
        self._failed(f"{self.name} failed: {words(error)}")
        self._context, self.name = self._software, SOFTWARE
        frames: list[Any] = []
        for packet in self._kept:
            with suppress(*BROKEN):
                frames += self._context.decode(packet)
        self._kept = []
        return self._not_shown(frames)

    def _not_shown(self, frames: list[Any]) -> list[Any]:
        """Those that hardware has not given before."""
        shown = self._shown
        return [f for f in frames if shown is None or f.pts is None or f.pts > shown]

    def _try(self, kinds: Sequence[str], opened: Open) -> None:
        why = []
        for kind in kinds:
            try:
                self._context = opened(self._stream, kind)
            except (*BROKEN, NotImplementedError) as error:
                why.append(f"{kind}: {words(error)}")
            else:
                self.name = kind
                return
        self._failed("no device can be used (" + "; ".join(why) + ")")


def joined(parts: list[Any]) -> Any:
    """One packet of the packets of a keyframe."""
    first = parts[0]
    if len(parts) == 1:
        return first
    whole = av.Packet(b"".join(map(bytes, parts)))
    whole.pts, whole.dts, whole.time_base = first.pts, first.dts, first.time_base
    whole.is_keyframe = True
    return whole


def words(error: Exception) -> str:
    """What an error says, without what FFmpeg adds to it."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
