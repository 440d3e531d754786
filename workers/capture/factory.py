"""Builds the live captures of a site's config and selects the adapter for each address."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline import codec
from pipeline.config.schema import Camera, Microphone, Site, addresses
from pipeline.errors import ConfigError, DecodeError, install_hint
from pipeline.limits import MAX_KEYFRAME_DISTANCE
from pipeline.ports import Source
from pipeline.sources import REPORTS_SOURCE, first_free, roster
from pipeline.topics import AUDIO, FRAMES, REPORTS
from pipeline.types import SECOND
from workers.capture.capture import (
    FRAMES_MISSED,
    MAX_CHUNK_BYTES,
    STALLED_AFTER,
    Capture,
    CaptureSettings,
    Count,
    MakeSource,
    Publish,
)
from workers.capture.clock import Clock
from workers.capture.heartbeat import LOST_AFTER
from workers.config.source_address import Address, parse
from workers.runtime.status import Status

Expand = Callable[[str | Mapping[str, str], str], str | Mapping[str, str]]  # Secrets.source


def captures(  # noqa: PLR0913
    name: str,
    site: Site,
    *,
    expand: Expand,
    base: Path,
    publish: Publish,
    status: Status,
    clock: Clock,
    chance: Callable[[], float],
    max_bytes: int = MAX_CHUNK_BYTES,
    load: Callable[[str], object] = importlib.import_module,
) -> list[Capture]:
    """Returns one capture for each connection of the site `name`; nothing is opened yet.

    A camera and a microphone with the same stream or file share its connection and its clock.
    Raises ConfigError for an address that is not allowed or that needs a missing package.
    """
    cameras, rooms = (
        {of: _address(name, kind, of, given, expand, base) for of, given in sources.items()}
        for kind, sources in (("camera", site.cameras), ("microphone", site.microphones))
    )
    made = connections(cameras, rooms)
    if any(not camera and not address.streamed for camera, _, address in made):
        _need_microphone(load)
    return [
        Capture(
            CaptureSettings(
                site=name,
                sources=roster(site.cameras, site.microphones),
                hop=round(site.windows.hop * SECOND),
                stalled=patience(site.cameras.get(camera)),
                max_bytes=max_bytes,
            ),
            {of: topic for of, topic in ((camera, FRAMES), (room, AUDIO)) if of},
            _maker(name, site, camera, room, address, clock),
            publish=publish,
            status=status,
            clock=clock,
            chance=chance,
        )
        for camera, room, address in made
    ]


def _address(
    site: str, kind: str, name: str, given: Camera | Microphone, expand: Expand, base: Path
) -> Address:
    """The address that is read: of a camera with two streams, the one that is looked at."""
    way, source = next(iter(addresses(given).items()))
    path = ".".join(map(str, ("sites", site, f"{kind}s", name, *way)))
    return parse(expand(source, path), kind, base)


def connections(
    cameras: Mapping[str, Address], microphones: Mapping[str, Address]
) -> list[tuple[str, str, Address]]:
    """Returns (camera, microphone, address) of each connection of a site; either may be empty.

    A camera and a microphone with the same stream or file are one connection.
    """
    rooms = dict(microphones)
    made = []
    for of, address in cameras.items():
        shared = next((room for room, other in rooms.items() if _same(address, other)), "")
        rooms.pop(shared, None)
        made.append((of, shared, address))
    return made + [("", room, address) for room, address in rooms.items()]


def sources(site: Site) -> Mapping[str, Iterable[str]]:
    """The captured sources of a site by the topic of their chunks."""
    return {FRAMES: site.cameras, AUDIO: site.microphones, REPORTS: (REPORTS_SOURCE,)}


def newest_event_time(last: Callable[[str, str], bytes | None], sites: Mapping[str, Site]) -> int:
    """The event time (ns) that the sources of `sites` have reached in the log; 0 if it is empty.

    A record that starts before it is ignored as a repeat. `last` returns the newest value of
    (topic, key).
    """
    newest = [
        last(topic, f"{site}/{source}")
        for site, of in sites.items()
        for topic, names in sources(of).items()
        for source in names
    ]
    return max((_first_free(value) for value in newest if value is not None), default=0)


def _first_free(value: bytes) -> int:
    try:
        return first_free(codec.decode(value))
    except DecodeError:
        return 0  # the stage that reads the entry sends it to `dead`


def silence_limit(camera: Camera | None, most: int = LOST_AFTER) -> int:
    """The longest time (ns) in which a live capture may publish nothing of a source.

    It is `most` for a usual source. A camera with one frame a minute is lost only after three
    minutes, and until then its capture may publish nothing. So is one whose keyframes alone are
    decoded after the time of three keyframes, at their greatest distance.
    """
    sparse = camera is not None and camera.detect.decode != "all"
    longest = FRAMES_MISSED * MAX_KEYFRAME_DISTANCE if sparse else 0
    return max(most, max(longest, patience(camera)) + 10 * SECOND)


def source(
    address: Address,
    site: str,
    camera: str,
    room: str,
    settings: Camera | Microphone,
    *,
    hearing: Microphone | None = None,
    clock: Clock,
    count: Count,
) -> Source:
    """Connects to `address`; raises SourceLost. `doctor` uses it too.

    `settings` are those of the camera, if there is one; `hearing` are those of the microphone.

    Device packages are imported here, so that an unused extra need not be installed.
    """
    seen = settings if isinstance(settings, Camera) else None
    track, hear = (hearing.track, hearing.hear) if hearing else (None, None)
    if address.scheme == "file":
        from workers.capture.recorded_file import RecordedSource

        return RecordedSource(
            address,
            site,
            camera=camera,
            microphone=room,
            track=track,
            detect=seen.detect if seen else None,
            hear=hear,
            clock=clock,
            count=count,
        )
    if address.streamed:
        from workers.capture.av_stream import MediaSource
        from workers.capture.stream_opening import STREAM_TIMEOUT
        from workers.media.picture_decoder import OFF

        return MediaSource(
            address,
            site,
            camera=camera,
            microphone=room,
            track=track,
            detect=seen.detect if seen else None,
            hear=hear,
            patience=max(STREAM_TIMEOUT, patience(seen) / SECOND),
            hwaccel=seen.hwaccel if seen else OFF,
            clock=clock,
            count=count,
        )
    if room:
        from workers.capture.microphone import MicrophoneSource

        return MicrophoneSource(address, site, room, clock=clock, count=count, hear=hear)
    from workers.capture.camera import CameraSource

    detect = settings.detect if isinstance(settings, Camera) else Camera(source="").detect
    return CameraSource(address, site, camera, detect, clock=clock, count=count)


def _need_microphone(load: Callable[[str], object]) -> None:
    """Raises ConfigError if the optional package for microphones is missing or broken."""
    try:
        load("workers.capture.microphone")
    except ImportError as error:
        msg = f"a microphone of this machine needs PyAudio ({error}): {install_hint('microphone')}"
        raise ConfigError(msg) from error


def _maker(
    name: str,
    site: Site,
    camera: str,
    room: str,
    address: Address,
    clock: Clock,
) -> MakeSource:
    settings = site.cameras[camera] if camera else site.microphones[room]
    hearing = site.microphones[room] if room else None
    return lambda count: source(
        address, name, camera, room, settings, hearing=hearing, clock=clock, count=count
    )


def _same(camera: Address, microphone: Address) -> bool:
    return camera.streamed and camera == microphone


def patience(camera: Camera | None) -> int:
    """Ns without a chunk after which a source is lost: three frame periods, and at least
    STALLED_AFTER. A file says its holes itself."""
    if camera is None:
        return STALLED_AFTER
    return max(STALLED_AFTER, round(FRAMES_MISSED * SECOND / camera.detect.fps))
