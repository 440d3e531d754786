"""Checks that need more than one field of a config: references, and ranges against each other.

Nothing is repaired. Only the config and the time zones are read. Addresses are checked by
`workers/config/source_address.py` and `workers/config/ssrf_guard.py`. No message quotes a value
that may be a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pipeline.config import schema as c
from pipeline.config.checks_kafka import bus_problems
from pipeline.config.schedule import Schedule
from pipeline.config.schema import Config, Problem, Site
from pipeline.sources import REPORTS_SOURCE
from pipeline.types import content_id, ns
from pipeline.zones import Point, Polygon, parse_points

JPEG_BYTES_A_PIXEL = 0.5  # a busy picture at quality 85 has less
MOST_CORNERS = 100
LEAST_CAP = 100_000_000  # bytes; below this the log alone would fill the state folder
ONNX = tuple(c.PROVIDERS)
KINDS: dict[str, dict[str, tuple[str, ...]]] = {  # model -> adapter -> its providers
    "detector": {"yolox": ONNX, "onnx": ONNX, "ultralytics": ONNX},
    "speech": {"faster-whisper": ("cpu", "cuda"), "openai-whisper": ("cpu", "cuda")},
    "sound": {"yamnet": ("cpu",)},
    "text": {"minilm": ONNX},
}
ONE = ("ultralytics", "faster-whisper", "openai-whisper", "yamnet")  # these use only one provider
ON = ("speech", "report")

Way = tuple[str | int, ...]
T = TypeVar("T")


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
        yield from _times(site, way)
    yield from _webhooks(config)
    paths = Counter(sink.path for sink in config.jsonl)
    for i, sink in enumerate(config.jsonl):
        if paths[sink.path] > 1:
            yield Problem(("jsonl", i, "path"), "is another one's path too")
        yield from _known(sink.sites, config.sites, ("jsonl", i, "sites"), "site")
    yield from _tried(c.size_bytes, config.storage.cap, ("storage", "cap"), _cap)
    yield from _listen(config.api.listen)
    if _weak(config.api.token):
        yield Problem(
            ("api", "token"), "must have 16 characters; `fusewatch init` makes a good one"
        )
    yield from _models(config.models)
    if isinstance(config.bus, c.KafkaBus):
        yield from bus_problems(config, config.bus)


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns `; did you mean ...?` if a known word is similar, else ""."""
    close = difflib.get_close_matches(word[:60], list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


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
        most = camera.detect.width**2 * JPEG_BYTES_A_PIXEL
        if most > config.bus.max_message:
            width = int((config.bus.max_message / JPEG_BYTES_A_PIXEL) ** 0.5)
            what = f"pictures may outgrow bus.max_message ({config.bus.max_message} bytes)"
            yield Problem((*here, "detect", "width"), f"{what}; use at most {width}")
        for zone_name, zone in camera.zones.items():
            at = (*here, "zones", zone_name)
            yield from _tried(Polygon.parse, zone.coordinates, (*at, "coordinates"), _polygon)
            yield from _objects(zone.objects, (*at, "objects"))
        for line_name, line in camera.lines.items():
            at = (*here, "lines", line_name, "coordinates")
            yield from _tried(parse_points, line.coordinates, at, _segment)


def _polygon(polygon: Polygon) -> str:
    """Returns what is wrong with a zone beyond its syntax, or ""."""
    corners = polygon.points
    if len(corners) > MOST_CORNERS:
        return f"has {len(corners)} corners; {MOST_CORNERS} are enough for any room"
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
    times = Counter(rule.name for rule in site.rules if rule.name)
    for i, rule in enumerate(site.rules):
        here = (*way, "rules", i)
        if times[rule.name] > 1:
            yield Problem((*here, "name"), "is another rule's name too; names are unique in a site")
        match rule:
            case c.ZoneRule() | c.LoiteringRule() | c.CrowdRule():
                yield from _zone_rule(site, rule, here)
            case c.LineRule():
                lines = {name for camera in site.cameras.values() for name in camera.lines}
                yield from _known((rule.line,), lines, (*here, "line"), "line of a camera here")
                yield from _objects(rule.objects, (*here, "objects"))
                yield from _schedule(rule.schedule, here)
            case c.SoundRule():
                yield from _sound_rule(site, rule, here)
            case c.KeywordRule():
                yield from _keyword_rule(rule, here)
            case c.PhraseRule():
                yield from _on(rule.on, here)
                if not rule.phrases:
                    yield Problem((*here, "phrases"), "is empty; give a phrase to listen for")


def _zone_rule(
    site: Site, rule: c.ZoneRule | c.LoiteringRule | c.CrowdRule, here: Way
) -> Iterator[Problem]:
    zones = {name for camera in site.cameras.values() for name in camera.zones}
    yield from _known((rule.zone,), zones, (*here, "zone"), "zone of a camera here")
    yield from _schedule(rule.schedule, here)
    yield from _known(rule.objects, c.OBJECTS, (*here, "objects"), "object")
    seconds = getattr(rule, "seconds", 0)
    if seconds > site.windows.horizon:
        what = f"is longer than windows.horizon ({site.windows.horizon:g} s), which is as far back"
        yield Problem((*here, "seconds"), f"{what} as is remembered")


def _sound_rule(site: Site, rule: c.SoundRule, here: Way) -> Iterator[Problem]:
    if not rule.labels:
        yield Problem((*here, "labels"), f"is empty; known sounds: {', '.join(c.SOUNDS)}")
    if not site.microphones:
        yield Problem(here, "the site has no microphone to hear a sound with")
    yield from _schedule(rule.schedule, here)
    for label, threshold in rule.labels.items():
        yield from _known((label,), c.SOUNDS, (*here, "labels"), "sound", keys=True)
        if threshold == 0:
            yield Problem((*here, "labels", label), "must be more than 0, or it alarms for ever")


def _keyword_rule(rule: c.KeywordRule, here: Way) -> Iterator[Problem]:
    yield from _on(rule.on, here)
    if not any(rule.words.values()):
        yield Problem((*here, "words"), "is empty; give words by language: {en: [fire]}")
    codes = {name: code for code, name in c.LANGUAGES.items()}
    for language, words in rule.words.items():
        if language not in c.LANGUAGES:
            code = codes.get(language.lower())
            hint = f"; did you mean `{code}`?" if code else f"; known: {', '.join(c.LANGUAGES)}"
            yield Problem((*here, "words", language), f"is no language code{hint}")
        for k, word in enumerate(words):
            if not any(letter.isalnum() for letter in word):
                yield Problem((*here, "words", language, k), "holds no letter or digit")


def _schedule(text: str, here: Way) -> Iterator[Problem]:
    yield from _tried(Schedule.parse, text, (*here, "schedule"), lambda _: "")


def _on(on: tuple[str, ...], here: Way) -> Iterator[Problem]:
    yield from _known(on, ON, (*here, "on"), "kind of words")
    if not on:
        yield Problem((*here, "on"), f"is empty; one or more of: {', '.join(ON)}")


def _objects(objects: tuple[str, ...], way: Way) -> Iterator[Problem]:
    yield from _known(objects, c.OBJECTS, way, "object")
    if not objects:
        yield Problem(way, "is empty; name what to look for, like [person]")


def _times(site: Site, way: Way) -> Iterator[Problem]:
    try:
        ZoneInfo(site.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(site.timezone, available_timezones())
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


def _webhooks(config: Config) -> Iterator[Problem]:
    times = Counter(webhook_names(config))
    for i, (name, hook) in enumerate(zip(webhook_names(config), config.webhooks, strict=True)):
        way: Way = ("webhooks", i)
        if times[name] > 1:
            yield Problem((*way, "name"), "is another webhook's name too; give each its own")
        yield from _known(hook.sites, config.sites, (*way, "sites"), "site")
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


def _models(models: c.Models) -> Iterator[Problem]:
    for part, kinds in KINDS.items():
        model: c.Model = getattr(models, part)
        way: Way = ("models", part, "providers")
        yield from _known((model.kind,), kinds, ("models", part, "kind"), "adapter")
        usable = kinds.get(model.kind, ONNX)
        of = f" of {model.kind}" if model.kind in kinds else ""
        yield from _known(model.providers, usable, way, f"provider{of}")
        if not model.providers:
            yield Problem(way, "is empty; one or more of: " + ", ".join(usable))
        elif len(model.providers) > 1 and model.kind in ONE:
            yield Problem(way, f"names {len(model.providers)}; {model.kind} runs on one")


def _cap(size: int) -> str:
    return "" if size >= LEAST_CAP else f"must be at least {LEAST_CAP // 10**6} MB"


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


def _known(
    words: Iterable[str], known: Iterable[str], way: Way, what: str, *, keys: bool = False
) -> Iterator[Problem]:
    """Yields a problem for each unknown word, with the most similar known word."""
    known = list(known)
    few = f"; known: {', '.join(known)}" if 0 < len(known) <= 8 else ""
    for word in words:
        if word not in known:
            at = (*way, word) if keys else way
            yield Problem(at, f"{_shown(word)} is no {what}{nearest(word, known) or few}")


def _shown(word: str) -> str:
    return f"`{word}`" if c.WORD.fullmatch(word) else "what stands there"


def _tried(
    parse: Callable[[str], T], text: str, way: Way, judge: Callable[[T], str]
) -> Iterator[Problem]:
    try:
        wrong = judge(parse(text))
    except ValueError as error:
        wrong = str(error)
    if wrong:
        yield Problem(way, wrong)
