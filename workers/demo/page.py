"""Writes the story as one HTML page that needs nothing else: no network, no script, no other file.

Pictures and sounds are data URIs. The template escapes every text, and the page's own policy
forbids scripts and anything from elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.types import SECOND, rfc3339
from workers.demo.story import Chapter, Span, Story
from workers.explain.html import ENVIRONMENT, STYLE, data_uri, tick_step
from workers.runtime.printable import printable

TEMPLATE = Path(__file__).parent / "page.html"
LEFT, RIGHT, HIGH = 130, 975, 34  # of the time line, in units of its view box: 1000 wide
QUIET_DB, LOUD_DB = -60.0, -10.0  # dBFS: no bar, and a full one
COLOURS = {"vision": "seen", "sound": "heard", "speech": "said", "report": "reported"}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A span on the time line, in units of its view box."""

    x: float
    width: float
    text: str
    kind: str
    height: float = HIGH - 12
    link: str = ""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the time line."""

    name: str
    y: int
    marks: Sequence[Mark]


def rendered(story: Story) -> str:
    """The page, as text."""
    template = ENVIRONMENT.from_string(TEMPLATE.read_text(encoding="utf-8"))
    lanes = list(_lanes(story))
    return template.render(
        story=story,
        style=STYLE,
        clean=printable,
        first=story.chapters[0].alert if story.chapters else None,
        worst=max(story.chapters, key=lambda one: one.alert.score, default=None),
        incidents=len({chapter.alert.id for chapter in story.chapters}),
        arrived=sum(chapter.post is not None for chapter in story.chapters),
        lasted=(story.scene.end - story.scene.start) / SECOND,
        day=rfc3339(story.scene.start)[:10],
        after=lambda time: f"{(time - story.scene.start) / SECOND:.1f}",
        clock=lambda time: rfc3339(time)[11:19],
        picture=_picture,
        sound=lambda span: data_uri("audio/wav", span.sound),
        document=_document,
        headers=_headers,
        events=_events(story),
        colours=COLOURS,
        lanes=lanes,
        ticks=list(_ticks(story)),
        height=28 + HIGH * len(lanes),
        left=LEFT,
        right=RIGHT,
        row=HIGH,
    )


def _picture(chapter: Chapter) -> str:
    return data_uri("image/jpeg", chapter.picture.read_bytes()) if chapter.picture else ""


def _document(chapter: Chapter) -> str:
    """The webhook's document, indented; characters beyond ASCII are escaped."""
    return json.dumps(chapter.post.event, indent=2) if chapter.post else ""


def _headers(chapter: Chapter) -> list[tuple[str, str]]:
    """The headers of Standard Webhooks and the content type, as they arrived."""
    named = {name.lower(): value for name, value in chapter.post.headers.items()}  # type: ignore[union-attr]
    wanted = ("content-type", "webhook-id", "webhook-timestamp", "webhook-signature")
    return [(name, named[name]) for name in wanted if name in named]


def _events(story: Story) -> list[tuple[str, Span]]:
    """What was heard, said and reported, in the order of time, each with its kind."""
    kinds = (("heard", story.heard), ("said", story.said), ("reported", story.reported))
    return sorted(
        ((kind, span) for kind, spans in kinds for span in spans), key=lambda one: one[1].start
    )


def _lanes(story: Story) -> Iterator[Lane]:
    def x(time: int) -> float:
        share = (time - story.scene.start) / (story.scene.end - story.scene.start)
        return round(LEFT + min(max(share, 0.0), 1.0) * (RIGHT - LEFT), 1)

    def mark(span: Span, kind: str) -> Mark:
        words = f"{span.author}: {span.text}" if span.author else span.text
        return Mark(
            x=x(span.start), width=max(x(span.end) - x(span.start), 5), text=words, kind=kind
        )

    rows: list[tuple[str, list[Mark]]] = []
    for name in story.site.cameras:
        rows.append((name, [mark(s, "seen") for s in story.seen if s.source == name]))
    for name in story.site.microphones:
        bars = [
            Mark(
                x=x(start) + 1,
                width=max(x(start + SECOND) - x(start) - 2, 0.5),
                text=f"{level:.0f} dBFS",
                kind="level",
                height=_bar(level),
            )
            for start, level in story.levels.get(name, ())
            if start < story.scene.end
        ]
        rows.append((name, bars + [mark(s, "heard") for s in story.heard if s.source == name]))
        speech = [mark(s, "said") for s in story.said if s.source == f"{name}/speech"]
        rows.append((f"{name}, speech", speech))
    rows.append(("reports", [mark(span, "reported") for span in story.reported]))
    alerts = [
        Mark(
            x=x(chapter.alert.time) - 5,
            width=10,
            text=f"{chapter.alert.state}: {', '.join(chapter.alert.labels)}",
            kind=chapter.alert.state,
            link=f"#alert-{number}",
        )
        for number, chapter in enumerate(story.chapters, 1)
    ]
    rows.append(("alerts", alerts))
    for number, (name, marks) in enumerate(rows):
        yield Lane(name=name, y=HIGH * number, marks=marks)


def _bar(level: float) -> float:
    share = (level - QUIET_DB) / (LOUD_DB - QUIET_DB)
    return round(min(max(share, 0.02), 1.0) * (HIGH - 12), 1)


def _ticks(story: Story) -> Iterator[dict[str, Any]]:
    """The marks below the time line: a round number of seconds apart, about ten of them."""
    lasted = (story.scene.end - story.scene.start) / SECOND
    step = tick_step(lasted)
    for number in range(math.floor(lasted / step) + 1):
        at = number * step
        yield {"x": round(LEFT + at / lasted * (RIGHT - LEFT), 1), "text": f"{at:g} s"}
