"""Builds the threads of a live capture: cameras, microphones, report endpoint, heartbeat monitor.

The daemon and a capture worker run the same threads; they differ in where `store` stores records.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from pipeline.config.schema import Config
from pipeline.errors import ConfigError, DiskFull, FileBusy
from pipeline.sources import roster
from pipeline.topics import FRAMES
from pipeline.types import SECOND, Record, Roster, SiteConfig
from workers.capture import factory
from workers.capture.capture import Publish
from workers.capture.clock import UtcClock
from workers.capture.heartbeat import HeartbeatMonitor
from workers.capture.report_api import DeadRetry, ReportApi
from workers.capture.report_client import own_token
from workers.capture.report_server import Endpoint
from workers.capture.reports import ReportBacklog, ReportSource, last_promises
from workers.capture.running_daemons import RunningDaemon, registered
from workers.config.secrets import Secrets
from workers.runtime.mode_store import ModeStore, SiteMode
from workers.runtime.rate_limited_log import RateLimitedLog
from workers.runtime.status import Status

log = logging.getLogger("fusewatch")

Thread = tuple[str, Callable[[], None]]  # its name, and the function that runs in it until the stop
Judged = Callable[[str], SiteConfig | None]  # site -> what judges it now; None: unknown
Last = Callable[[str, str], bytes | None]  # topic, key -> the newest stored value


class CaptureContext(msgspec.Struct, frozen=True, kw_only=True):
    """The settings and services that all threads of a capture share."""

    settings: Config
    path: Path  # of the config; its relative paths start at its folder
    folder: Path  # the state folder
    secrets: Secrets
    status: Status
    clock: UtcClock
    stop: threading.Event
    judged: Judged = lambda site: None


def select_sites(settings: Config, sites: Sequence[str]) -> Config:
    """The config with only these sites, or all sites if none is named; raises ConfigError."""
    unknown = [name for name in sites if name not in settings.sites]
    if unknown:
        known = ", ".join(settings.sites)
        msg = f"--sites: {unknown[0]!r} is not in the config, which has {known}"
        raise ConfigError(msg)
    chosen = {name: site for name, site in settings.sites.items() if not sites or name in sites}
    return msgspec.structs.replace(settings, sites=chosen)


def threads(
    place: CaptureContext,
    *,
    store: Publish,
    last: Last,
    healthy: Callable[[], bool],
    backlog: ReportBacklog | None = None,
    dead_retry: DeadRetry | None = None,
) -> list[Thread]:
    """Returns the threads of a live capture; nothing is published before they run.

    `store` is durable when it returns, or raises DiskFull or FileBusy. With a `backlog` a site
    whose reports are not read fast enough has to wait. `dead_retry` sends dead letters again.
    Errors of the config are raised here and not in the threads: ConfigError, or OutsideError for an
    address that is in use.
    """
    clock, stop, sites = place.clock, place.stop, place.settings.sites
    if clock.ahead > SECOND:
        log.warning(
            "the clock was set back: the log has reached %.0f s further than it shows; events "
            "are stamped that much ahead until it has caught up",
            clock.ahead / SECOND,
        )
    watch, keep = HeartbeatMonitor(clock), _warning(_naming(place.judged, store))

    def publish(topic: str, records: Sequence[Record]) -> None:
        watch.saw(topic, records)
        keep(topic, records)

    bodies = _captures(place, watch, publish)
    status = place.status

    def tell(site: str, mode: SiteMode) -> None:
        usual = mode.mode == sites[site].modes.default and not mode.snoozed
        status.mode(site, None if usual else mode)

    reports = ReportSource(
        sites,
        publish,
        clock,
        last_promises(last, tuple(sites)),
        backlog,
        ModeStore(sites, place.folder),
        tell,
    )
    api = ReportApi(
        reports,
        _token(place),
        lambda: msgspec.to_builtins(status.snapshot()),
        healthy,
        partial(_degraded, status),
        dead_retry,
    )
    endpoint = Endpoint(place.settings.api.listen, api, reports)
    return [
        *bodies,
        ("reports", partial(_serve, place, endpoint)),
        ("reports progress", partial(endpoint.progress_loop, stop)),
        ("watch", partial(_speak, stop, watch, keep)),
    ]


def _degraded(status: Status) -> Mapping[str, int]:
    """What fails without a reason to restart, by its name in the answer of `/healthz`."""
    now = status.snapshot()
    here = {"failing_subscribers": now.failing_subscribers} if now.subscribers else {}
    return {**here, "lost_sources": now.lost_sources}


def _serve(place: CaptureContext, endpoint: Endpoint) -> None:
    """Answers requests until the stop; meanwhile `fusewatch report` finds this process."""
    daemon = RunningDaemon(
        pid=os.getpid(),
        url=endpoint.url,
        sites=tuple(place.settings.sites),
        state=str(place.folder.absolute()),
        config=str(place.path.absolute()) if place.settings.api.token else "",
    )
    with registered(daemon):
        endpoint.serve(place.stop)


def _captures(place: CaptureContext, watch: HeartbeatMonitor, publish: Publish) -> list[Thread]:
    """Returns two threads for each connection; the monitor expects each source from the start."""
    bodies: list[Thread] = []
    for name, site in place.settings.sites.items():
        for capture in factory.captures(
            name,
            site,
            expand=place.secrets.source,
            base=place.path.parent,
            publish=publish,
            status=place.status,
            clock=place.clock,
            chance=random.random,
            max_bytes=place.settings.bus.max_message,
        ):
            for source, topic in capture.topics.items():
                camera = site.cameras.get(source) if topic == FRAMES else None
                watch.expect(
                    topic,
                    name,
                    source,
                    roster(site.cameras, site.microphones),
                    factory.silence_limit(camera),
                )
            names = "+".join(capture.topics)
            bodies += [
                (f"read {name}/{names}", partial(capture.read, place.stop)),
                (f"publish {name}/{names}", partial(capture.publish_loop, place.stop)),
            ]
    return bodies


def _token(place: CaptureContext) -> str:
    """The endpoint's token: from the config, else from the state folder."""
    given = place.settings.api.token
    if given:
        return place.secrets.lookup(given, "api.token").reveal()
    token = own_token(place.folder)
    place.secrets.remember(token)
    return token


def _speak(stop: threading.Event, watch: HeartbeatMonitor, store: Publish) -> None:
    """Publishes the records of the heartbeat monitor once a second."""
    while not stop.wait(1.0):
        for topic, record in watch.speak():
            with suppress(DiskFull, FileBusy):  # a warning was logged; the next second tries again
                store(topic, [record])


def _naming(judged: Judged, store: Publish) -> Publish:
    """The same store, in which each roster also says what judges its site."""

    def named(record: Record) -> Record:
        config = judged(record.site) if isinstance(record, Roster) else None
        if config is None:
            return record
        return msgspec.structs.replace(
            record, config=config.hash, head=config.head_sha256, since=config.start
        )

    def keep(topic: str, records: Sequence[Record]) -> None:
        store(topic, [named(record) for record in records])

    return keep


def _warning(store: Publish) -> Publish:
    """The same store, which also logs, at most once a minute, that the disk is full."""
    full = RateLimitedLog("what is captured is dropped: %s")

    def keep(topic: str, records: Sequence[Record]) -> None:
        try:
            store(topic, records)
        except DiskFull as error:
            full.warn(error)
            raise

    return keep
