"""Writes an explanation as one HTML page that needs nothing else: no network, no script.

Pictures are data URIs. The template escapes every text, and the page's own policy forbids scripts
and anything from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import ConfigError
from pipeline.judge.refusal_words import clock, town
from pipeline.types import SECOND, Alert, Described, Utterance
from pipeline.zones import parse_points
from workers.explain import text
from workers.explain.explained import Explained
from workers.explain.html import ENVIRONMENT, STYLE, data_uri
from workers.explain.lanes import LEFT, RIGHT, Lane, LaneMaker, Scale, Trail, trails
from workers.explain.observed import Picture
from workers.explain.refusals import fired_seconds, near_misses, seconds_by_reason
from workers.runtime.printable import printable

TEMPLATE = Path(__file__).parent / "page.html"
LONGEST = 2 * 3600 * SECOND  # ns that a page shows
ASIDE = 300 * SECOND  # ns before and after a moment, or an incident, of a longer input
MOST_NEAR, MOST_WORDS = 30, 60  # rows of tables
MAP_WIDE = 640  # units of the picture with the ways of objects
COLOURS = {"vision": "seen", "sound": "heard", "speech": "said", "report": "reported"}


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one track over the picture, in units of its view box."""

    points: str
    x: float
    y: float
    text: str


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A zone or line of a camera, in units of the view box."""

    name: str
    points: str
    x: float
    y: float
    closed: bool


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """Where the objects of a camera went, over one of its pictures."""

    camera: str
    height: float
    picture: Picture | None
    shapes: Sequence[Shape]
    ways: Sequence[Way]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows; `at` and `revisions` are what was asked for."""

    of: Explained
    scale: Scale
    lanes: Sequence[Lane]
    height: float
    maps: Sequence[Ways]
    at: int | None
    revisions: Sequence[Alert]


def view(of: Explained, at: int | None = None, revisions: Sequence[Alert] = ()) -> View:
    """Returns what the page of an explanation shows; raises ConfigError if it is too long."""
    start, end = of.start, of.end
    if end - start > 2 * ASIDE and (at is not None or revisions):
        first, last = (at, at) if at is not None else (revisions[-1].start, revisions[-1].time)
        start, end = max(start, first - ASIDE), min(end, max(last, first) + ASIDE)
    if end - start > LONGEST:
        msg = f"--page shows at most {LONGEST // SECOND // 3600} hours: choose them by --since and"
        msg = f"{msg} --until, or a moment by --at"
        raise ConfigError(msg)
    scale, tracked = Scale(start, end), trails(of)
    maker = LaneMaker(of, scale, tracked)
    lanes = list(maker.lanes())
    return View(
        of=of,
        scale=scale,
        lanes=lanes,
        height=maker.height,
        maps=list(_maps(of, scale, tracked)),
        at=at,
        revisions=revisions,
    )


def rendered(shown: View) -> str:
    """The page, as text."""
    of = shown.of
    fired = fired_seconds(of.anomalies)
    near = near_misses(of.refusals, fired)
    asked = [] if shown.at is None else text.causes_around(of, shown.at)[0]
    last = of.last.values()
    begin = datetime.fromtimestamp(of.start // SECOND, of.zone)
    return ENVIRONMENT.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        of=of,
        style=STYLE,
        clean=printable,
        day=f"{begin:%Y-%m-%d}",
        town=town(of.zone),
        clock=lambda time: clock(time, of.zone),
        picture=lambda picture: data_uri("image/jpeg", picture.data),
        lanes=shown.lanes,
        maps=shown.maps,
        height=shown.height + 26,
        left=LEFT,
        right=RIGHT,
        wide=MAP_WIDE,
        ticks=list(_ticks(shown.scale, of)),
        marker=None if shown.at is None else shown.scale.x(shown.at),
        at=shown.at,
        asked=asked[: text.MOST_NEAR],
        cause=text.cause_line,
        local=lambda reason, alert: text.local(reason, alert, of),
        near=near[:MOST_NEAR],
        more=max(0, len(near) - MOST_NEAR),
        lasted=lambda each: (each.end - each.start) // SECOND,
        reasons=[
            (rule, seconds_by_reason(of.refusals, fired).get(rule), _found(of, rule))
            for rule in of.rules
        ],
        most=text.MOST_REASONS,
        incidents=[
            (alert, [a for a in of.alerts if a.id == alert.id], list(text.closing(of, alert)))
            for alert in last
            if not shown.revisions or alert.id == shown.revisions[-1].id
        ],
        words=[one for one in of.observations if isinstance(one, Utterance | Described)][
            :MOST_WORDS
        ],
        colours=COLOURS,
        notes=of.notes,
    )


def _ticks(scale: Scale, of: Explained) -> Iterator[dict[str, Any]]:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    lasted = (scale.end - scale.start) / SECOND
    step = next((n for n in steps if n * 12 >= lasted), 3600)
    first = -(-scale.start // (step * SECOND)) * step
    for second in range(first, scale.end // SECOND + 1, step):
        yield {"x": scale.x(second * SECOND), "text": clock(second * SECOND, of.zone)}


def _found(of: Explained, rule: str) -> int:
    """In how many seconds a rule fired."""
    return len({one.start // SECOND for one in of.anomalies if one.rule == rule})


def _maps(of: Explained, scale: Scale, tracked: Sequence[Trail]) -> Iterator[Ways]:
    for name, camera in of.settings.cameras.items():
        shown = [t for t in tracked if t.camera == name and scale.shows(t.start, t.end + 1)]
        pictures = [p for p in of.pictures.get(name, ()) if scale.shows(p.time, p.time + 1)]
        if not shown and not pictures:
            continue
        high = round(MAP_WIDE * 9 / 16)
        shapes = [
            *(_shape(zone, each.coordinates, high) for zone, each in camera.zones.items()),
            *(_shape(line, each.coordinates, high) for line, each in camera.lines.items()),
        ]
        ways = [_way(one, scale, of, high) for one in shown]
        picture = pictures[len(pictures) // 2] if pictures else None
        yield Ways(
            camera=name, height=high, picture=picture, shapes=shapes, ways=[w for w in ways if w]
        )


def _shape(name: str, coordinates: str, high: float) -> Shape:
    points = [(x * MAP_WIDE, y * high) for x, y in parse_points(coordinates)]
    return Shape(
        name=name,
        points=" ".join(f"{x:.0f},{y:.0f}" for x, y in points),
        x=min(max(points[0][0], 4), MAP_WIDE - 90),
        y=min(max(points[0][1], 16), high - 6),
        closed=len(points) > 2,
    )


def _way(one: Trail, scale: Scale, of: Explained, high: float) -> Way | None:
    points = [point for point in one.path if scale.shows(point.time, point.time + 1)]
    if not points:
        return None
    step = max(1, len(points) // 200)
    return Way(
        points=" ".join(f"{p.x * MAP_WIDE:.0f},{p.y * high:.0f}" for p in points[::step]),
        x=round(points[-1].x * MAP_WIDE),
        y=round(points[-1].y * high),
        text=one.told(of),
    )
