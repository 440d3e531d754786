"""Checks that need more than one field of a config: references, and ranges against each other.

Nothing is repaired. Only the config and the time zones are read. Addresses are checked by
`workers/config/source_address.py` and `workers/config/ssrf_guard.py`. No message quotes a value
that may be a secret.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pipeline.config import schema as c
from pipeline.config.checks_kafka import bus_problems
from pipeline.config.problem import Problem, Way, known_only, nearest, tried
from pipeline.config.rule_kinds import RuleSite, some_objects
from pipeline.config.schema import Config, Site
from pipeline.config.site_modes import mode_problems, named_modes
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import content_id, ns
from pipeline.zones import Point, Polygon, parse_points

JPEG_BYTES_A_PIXEL = 0.5  # a busy picture at quality 85 has less
MAX_CORNERS = 100
MIN_CAP_BYTES = 100_000_000  # bytes; below this the log alone would fill the state folder


def problems(config: Config) -> Iterator[Problem]:
    """Yields every problem between the fields of `config`, each with its path."""
    if not config.sites:
        yield Problem(("sites",), "names no site; Fusewatch needs one to watch")
    for name, site in config.sites.items():
        way: Way = ("sites", name)
        yield from _sources(site, way)
        yield from _cameras(config, site, way)
        yield from _rules(site, way)
        if site.fusion.threshold == 0:
            what = "must be more than 0, or it alarms for ever"
            yield Problem((*way, "fusion", "threshold"), what)
        yield from mode_problems(site.modes, (*way, "modes"))
        yield from named_modes(site.fusion.modes, site.modes, (*way, "fusion"))
        yield from _times(site, way)
    yield from _webhooks(config)
    paths = Counter(file.path for file in config.jsonl)
    for i, file in enumerate(config.jsonl):
        if paths[file.path] > 1:
            yield Problem(("jsonl", i, "path"), "is another one's path too")
    for to, sink in config.destinations():
        yield from known_only(sink.sites, config.sites, (*to, "sites"), "site")
    yield from tried(c.size_bytes, config.storage.cap, ("storage", "cap"), _cap)
    if config.recording is not None:
        yield from tried(c.size_bytes, config.recording.keep, ("recording", "keep"), _cap)
    yield from _listen(config.api.listen)
    if _weak(config.api.token):
        yield Problem(
            ("api", "token"), "must have 16 characters; `fusewatch init` makes a good one"
        )
    if isinstance(config.bus, c.KafkaBus):
        yield from bus_problems(config, config.bus)


def webhook_names(config: Config) -> tuple[str, ...]:
    """Returns the name of each webhook, in order: its own, or one made from its address.

    The name identifies the webhook's position in the log, so it must not change when another
    webhook is inserted before it. It shows the host and 8 digits of a hash: the path of the URL may
    be a secret.
    """
    return tuple(hook.name or _webhook_name(hook.url) for hook in config.webhooks)


def _webhook_name(url: str) -> str:
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()
    word = re.sub(r"[^a-z0-9]+", "-", host).strip("-")[:31].rstrip("-") or "webhook"
    return f"{word}-{content_id(url)[:8]}"


def _sources(site: Site, way: Way) -> Iterator[Problem]:
    for kind, names in (("cameras", site.cameras), ("microphones", site.microphones)):
        if REPORTS_SOURCE in names:
            yield Problem(
                (*way, kind, REPORTS_SOURCE), "is the source of reports; use another name"
            )
    for name in sorted(set(site.cameras) & set(site.microphones)):
        yield Problem((*way, "microphones", name), "is a camera's name too; use another one")


def _cameras(config: Config, site: Site, way: Way) -> Iterator[Problem]:
    for name, camera in site.cameras.items():
        here = (*way, "cameras", name)
        if not camera.source and camera.streams is None:
            yield Problem((*here, "source"), "is missing; a camera has `source` or `streams`")
        if camera.source and camera.streams is not None:
            what = "is in place of `source`; write one of the two"
            yield Problem((*here, "streams"), what)
        if camera.detect.decode == "auto" and camera.detect.gate == "off":
            what = "needs the motion that `gate: auto` measures; write `all` or `keyframes`"
            yield Problem((*here, "detect", "decode"), what)
        most = camera.detect.width**2 * JPEG_BYTES_A_PIXEL
        if most > config.bus.max_message:
            width = int((config.bus.max_message / JPEG_BYTES_A_PIXEL) ** 0.5)
            what = f"pictures may outgrow bus.max_message ({config.bus.max_message} bytes)"
            yield Problem((*here, "detect", "width"), f"{what}; use at most {width}")
        for zone_name, zone in camera.zones.items():
            at = (*here, "zones", zone_name)
            yield from tried(Polygon.parse, zone.coordinates, (*at, "coordinates"), _polygon)
            yield from some_objects(zone.objects, (*at, "objects"))
        for line_name, line in camera.lines.items():
            at = (*here, "lines", line_name, "coordinates")
            yield from tried(parse_points, line.coordinates, at, _segment)


def _polygon(polygon: Polygon) -> str:
    """Returns what is wrong with a zone beyond its syntax, or ""."""
    corners = polygon.points
    if len(corners) > MAX_CORNERS:
        return f"has {len(corners)} corners; {MAX_CORNERS} are enough for any room"
    edges = list(zip(corners, (*corners[1:], corners[0]), strict=True))
    if any(a == b for a, b in edges):
        return "gives one point twice in a row"
    if any(_cross(*one, *two) for one, two in combinations(edges, 2)):
        return "crosses itself; give the corners in their order around the zone"
    return ""


def _cross(a: Point, b: Point, p: Point, q: Point) -> bool:
    """Returns whether segment ab properly crosses pq; touching ends do not count."""

    def side(o: Point, d: Point, x: Point) -> float:
        return (d[0] - o[0]) * (x[1] - o[1]) - (d[1] - o[1]) * (x[0] - o[0])

    return side(a, b, p) * side(a, b, q) < 0 and side(p, q, a) * side(p, q, b) < 0


def _segment(ends: tuple[Point, ...]) -> str:
    if len(ends) != 2:
        return f"holds {len(ends)} points; a line needs two"
    return "begins where it ends" if ends[0] == ends[1] else ""


def _rules(site: Site, way: Way) -> Iterator[Problem]:
    cameras = site.cameras.values()
    known = RuleSite(
        cameras=site.cameras,
        zones=dict.fromkeys(name for camera in cameras for name in camera.zones),
        lines=dict.fromkeys(name for camera in cameras for name in camera.lines),
        microphones=site.microphones,
        horizon=site.windows.horizon,
    )
    times = Counter(rule.name for rule in site.rules if rule.name)
    for i, rule in enumerate(site.rules):
        here = (*way, "rules", i)
        if times[rule.name] > 1:
            yield Problem((*here, "name"), "is another rule's name too; names are unique in a site")
        yield from rule.problems(known, here)
        for name, camera in site.cameras.items():
            if camera.detect.poses == 0 and rule.judges_poses(camera.zones):
                what = f"judges poses, and cameras.{name}.detect.poses is 0"
                yield Problem(here, f"{what}; leave that out, or name a zone of another camera")
        yield from named_modes(rule.modes, site.modes, here)


def _times(site: Site, way: Way) -> Iterator[Problem]:
    try:
        ZoneInfo(site.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest_timezone(site.timezone)
        yield Problem((*way, "timezone"), f"is not a time zone, like Europe/Berlin{hint}")
    windows = site.windows
    if ns(windows.size) % ns(windows.hop):
        yield Problem((*way, "windows", "hop"), "must divide windows.size")
    if windows.size > windows.horizon:
        yield Problem((*way, "windows", "size"), "is longer than windows.horizon")
    if windows.patience < windows.horizon:
        yield Problem((*way, "windows", "patience"), "is shorter than windows.horizon")
    if site.stationary.after > windows.horizon:
        yield Problem((*way, "stationary", "after"), "is longer than windows.horizon")
    if site.incidents.lost_after > windows.horizon:
        yield Problem((*way, "incidents", "lost_after"), "is longer than windows.horizon")


def nearest_timezone(word: str) -> str:
    """Returns `; did you mean ...?` for a similar time zone or its city, else ""."""
    zones = sorted(available_timezones())
    cities = {zone.rpartition("/")[2]: zone for zone in zones if "/" in zone}
    return nearest(word, zones, cities)


def _webhooks(config: Config) -> Iterator[Problem]:
    times = Counter(webhook_names(config))
    for i, (name, hook) in enumerate(zip(webhook_names(config), config.webhooks, strict=True)):
        way: Way = ("webhooks", i)
        if times[name] > 1:
            yield Problem((*way, "name"), "is another webhook's name too; give each its own")
        secrets = (hook.secret,) if isinstance(hook.secret, str) else hook.secret
        if not secrets:
            yield Problem((*way, "secret"), "is empty; `fusewatch init` makes one")
        for secret in secrets:
            if wrong := _secret(secret):
                yield Problem((*way, "secret"), wrong)


def signing_key(secret: str) -> bytes:
    """Returns the key bytes of a `whsec_` secret, padded or not (Standard Webhooks 1.0).

    Raises ValueError, which says what is wrong and does not quote the secret.
    """
    if not secret.startswith("whsec_"):
        msg = "must be whsec_..., ${VARIABLE} or file:PATH; `fusewatch init` makes one"
        raise ValueError(msg)
    encoded = secret.removeprefix("whsec_")
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        msg = "is not base64 after whsec_"
        raise ValueError(msg) from None
    if not 24 <= len(key) <= 64:
        msg = f"holds {len(key)} bytes; 24 to 64 are needed"
        raise ValueError(msg)
    return key


def _secret(secret: str) -> str:
    """Returns what is wrong with the form of a secret, or ""."""
    if secret.startswith("file:") or "${" in secret:
        return ""
    try:
        signing_key(secret)
    except ValueError as error:
        return str(error)
    return ""


def _cap(size: int) -> str:
    return "" if size >= MIN_CAP_BYTES else f"must be at least {MIN_CAP_BYTES // 10**6} MB"


def _weak(token: str) -> bool:
    pointed = token.startswith("file:") or "${" in token
    return not pointed and 0 < len(token) < 16


def _listen(listen: str) -> Iterator[Problem]:
    host, _, port = listen.rpartition(":")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        yield Problem(("api", "listen"), "must be a loopback address, like 127.0.0.1:8674")
    if not port.isascii() or not port.isdecimal() or not 0 <= int(port) <= 65535:
        yield Problem(("api", "listen"), "must end with a port, 0 to 65535")
