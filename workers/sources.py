"""A config's live sources, made: one `Capture` a connection, and the endpoint for reports.

A camera and a microphone of a site that name the same stream or file share one connection and one
clock (`workers/media.py`); every other source has its own.
"""

from __future__ import annotations

import random
import secrets as chance
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from pipeline import config, topics
from pipeline.bus.log import LocalLog
from pipeline.config import Config
from pipeline.errors import ConfigError, OutsideError
from pipeline.ports import Source
from pipeline.types import ns
from workers.addresses import Address, parse
from workers.capture import Capture, Publish, Settings, roster
from workers.clock import UtcClock
from workers.endpoint import Endpoint
from workers.reports import Api, Desk, promised
from workers.secrets import Secrets
from workers.status import Status

Dropped = Callable[[str, str], None]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One connection of a site: the camera, the microphone, or both that come over it."""

    site: str
    address: Address
    camera: str | None = None
    microphone: str | None = None


def wanted(settings: Config, secrets: Secrets) -> Iterator[Wanted]:
    """The connections that a config asks for, secrets put in; raises ConfigError."""
    for site, of in settings.sites.items():
        cameras = {
            name: _address(site, "camera", name, c, secrets) for name, c in of.cameras.items()
        }
        microphones = {
            name: _address(site, "microphone", name, m, secrets)
            for name, m in of.microphones.items()
        }
        for name, address in cameras.items():
            shared = [
                m for m, other in microphones.items() if address.streamed and other == address
            ]
            if shared:
                del microphones[shared[0]]
            yield Wanted(
                site=site, address=address, camera=name, microphone=shared[0] if shared else None
            )
        for name, address in microphones.items():
            yield Wanted(site=site, address=address, microphone=name)


def captures(
    settings: Config, secrets: Secrets, publish: Publish, status: Status
) -> Iterator[Capture]:
    """A `Capture` a connection; nothing is opened yet."""
    clock = UtcClock()
    for one in wanted(settings, secrets):
        site = settings.sites[one.site]
        names = {one.camera: topics.FRAMES, one.microphone: topics.AUDIO}
        dropped = partial(_count, status, one.site)
        yield Capture(
            Settings(site=one.site, sources=roster(site), hop=ns(site.windows.hop)),
            {name: topic for name, topic in names.items() if name},
            partial(opened, one, site, clock, dropped),
            publish=publish,
            status=status,
            clock=clock,
            chance=random.random,
        )


def opened(one: Wanted, site: config.Site, clock: UtcClock, dropped: Dropped) -> Source:
    """Connect; raises SourceLost. Device packages are imported here, when they are needed."""
    detect = site.cameras[one.camera].detect if one.camera else None
    if one.microphone and one.address.streamed:
        from workers.media import MediaSource

        return MediaSource(
            one.address,
            one.site,
            camera=one.camera,
            microphone=one.microphone,
            detect=detect,
            clock=clock,
            dropped=dropped,
        )
    if one.camera and detect:
        from workers.camera import CameraSource

        return CameraSource(one.address, one.site, one.camera, detect, clock=clock, dropped=dropped)
    try:
        from workers.microphone import MicrophoneSource
    except ImportError as error:
        msg = "microphones need PyAudio: pip install 'fusewatch[microphone]'"
        raise OutsideError(msg) from error
    return MicrophoneSource(one.address, one.site, one.microphone or "", clock=clock, lost=dropped)


def endpoint(
    settings: Config,
    folder: Path,
    secrets: Secrets,
    bus: LocalLog,
    publish: Publish,
    status: Callable[[], Mapping[str, object]],
) -> Endpoint:
    """The local endpoint; raises OutsideError when its port is taken."""
    token = _token(settings, folder, secrets)
    desk = Desk(settings.sites, publish, UtcClock(), promised(bus.last, tuple(settings.sites)))
    return Endpoint(settings.api.listen, Api(desk, token, status), desk)


def _token(settings: Config, folder: Path, secrets: Secrets) -> str:
    """The token of the config, else the one in the state folder, made if there is none."""
    if settings.api.token:
        return secrets.lookup(settings.api.token, "api.token").reveal()
    file = folder / "token"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(chance.token_urlsafe(32))
    token = file.read_text().strip()
    secrets.remember(token)
    return token


def _address(
    site: str,
    kind: str,
    name: str,
    source: config.Camera | config.Microphone,
    secrets: Secrets,
) -> Address:
    path = f"sites.{site}.{kind}s.{name}.source"
    try:
        return parse(secrets.source(source.source, path), kind)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(path) else f"{path}: {text}") from None


def _count(status: Status, site: str, source: str, what: str) -> None:
    status.count(site, source, what)
