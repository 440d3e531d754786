"""Tries a connection as `run` makes it: a picture of a camera, a second of sound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from pipeline.config.schema import Camera, Site
from pipeline.errors import OutsideError, SourceLost
from pipeline.types import AudioChunk, FrameChunk
from workers.capture import factory
from workers.config.source_address import NETWORK_SCHEMES, Address

TRIAL_TIMEOUT = 20.0  # s for a source to give its picture or second
SOON, RETRY_AFTER = 4.0, 1.0  # s; a network source that failed so soon is tried again then
MUTED_BELOW = 3  # of 32768; a microphone that stays below is muted or dead


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The first picture; sizes are width and height in pixels."""

    native: tuple[int, int]
    looked_at: tuple[int, int]
    size: int  # bytes of the JPEG that is kept
    after: float  # s
    decoder: str = ""  # what decodes the stream, where the config names a device

    @property
    def unread(self) -> str:
        """What to say of a stream that nothing reads yet."""
        wide, high = self.native
        return f"a frame of {wide} x {high} after {self.after:.1f} s; nothing reads it yet"

    def __str__(self) -> str:
        def times(size: tuple[int, int]) -> str:
            return f"{size[0]} x {size[1]}"

        same = self.native == self.looked_at
        use = "as it is" if same else f"as {times(self.looked_at)}"
        by = f", decoded by {self.decoder}" if self.decoder else ""
        return f"a frame of {times(self.native)} after {self.after:.1f} s, looked at {use}{by}"


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The first second of sound; `peak` is of 32768."""

    peak: int

    def __str__(self) -> str:
        return f"a second of sound, peak {100 * self.peak / 32768:.1f} % of full scale"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection gave before it ended; None: nothing."""

    seen: Seen | None = None
    heard: Heard | None = None

    def camera(self) -> Seen:
        """Returns the picture; raises OutsideError if there was none."""
        if self.seen is None:
            msg = "it ended before it gave a frame"
            raise OutsideError(msg)
        return self.seen

    def microphone(self) -> Heard:
        """Returns the sound; raises OutsideError if there was none, or silence only."""
        if self.heard is None:
            msg = "it ended before it gave a second of sound"
            raise OutsideError(msg)
        if self.heard.peak < MUTED_BELOW:
            msg = "it gives silence only: is it muted?"
            raise OutsideError(msg)
        return self.heard


@runtime_checkable
class _Decoding(Protocol):
    """A reader that decodes by a device where one is wanted and works."""

    decoder: str


@runtime_checkable
class _Sized(Protocol):
    """A reader that knows the size of its pictures before scaling."""

    native: tuple[int, int] | None


def try_connection(
    address: Address,
    site_name: str,
    site: Site,
    *,
    camera: str = "",
    microphone: str = "",
    pause: Callable[[float], object] = time.sleep,
) -> Trial:
    """Connects to `address` and reads a picture for `camera`, a second for `microphone`.

    A network source that fails soon is tried once more: a camera may still be busy with a viewer
    that has just left. Raises SourceLost.
    """

    def once() -> Trial:
        return _once(address, site_name, site, camera, microphone)

    began = time.monotonic()
    try:
        return once()
    except SourceLost:
        late = time.monotonic() - began > SOON
        if late or address.scheme not in NETWORK_SCHEMES:
            raise
    pause(RETRY_AFTER)
    return once()


def within(seconds: float, try_it: Callable[[], Trial]) -> Trial:
    """Returns what `try_it` returns; after `seconds` abandons it and raises OutsideError."""
    outcome: list[Trial | Exception] = []

    def work() -> None:
        try:
            outcome.append(try_it())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="trial", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        msg = f"gave nothing within {seconds:g} s"
        raise OutsideError(msg)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _once(address: Address, site_name: str, site: Site, camera: str, microphone: str) -> Trial:
    begun = time.monotonic()
    settings = site.cameras[camera] if camera else site.microphones[microphone]
    source = factory.source(
        address,
        site_name,
        camera,
        microphone,
        settings,
        hearing=site.microphones[microphone] if microphone else None,
        clock=time.time_ns,
        count=lambda *_: None,
    )
    seen: Seen | None = None
    peak: int | None = None
    heard = b""
    try:
        for chunk in source:
            match chunk:
                case FrameChunk() if seen is None:
                    size = chunk.width, chunk.height
                    native = source.native if isinstance(source, _Sized) else None
                    wanted = isinstance(settings, Camera) and settings.hwaccel != "off"
                    told = source.decoder if wanted and isinstance(source, _Decoding) else ""
                    seen = Seen(
                        decoder=told,
                        native=native or size,
                        looked_at=size,
                        size=len(chunk.data),
                        after=time.monotonic() - begun,
                    )
                case AudioChunk() if peak is None:
                    heard += chunk.data
                    if len(heard) >= 2 * chunk.rate * chunk.channels:
                        peak = max(abs(sample) for sample in memoryview(heard).cast("h"))
            if (seen or not camera) and (peak is not None or not microphone):
                break
    finally:
        source.close()
    return Trial(seen=seen, heard=None if peak is None else Heard(peak=peak))
