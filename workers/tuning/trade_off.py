"""Draws the trade-off of a sweep as SVG: recall against false alerts an hour.

The picture needs no other file and no package, and the same figures give the same bytes. Colours
are distinct for colour-blind readers: Okabe and Ito, Color Universal Design, 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from pipeline.errors import ConfigError
from workers.tuning.sweep import Tried
from workers.tuning.swept_settings import word

WIDTH, HEIGHT = 720, 460  # px
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 46, 60  # px of margin
BLUE, RED, GREY = "#0072b2", "#d55e00", "#666666"
MAX_NAMES = 12  # points; of more, only those that matter have their values beside them
LINE, NAME_WIDTH = 13, 150  # px between the names of two points, and of a name

SVG_BEGIN = b"<svg "
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="sans-serif" font-size="12" role="img">
<title>Recall and false alerts an hour of {count} settings</title>
<rect width="100%" height="100%" fill="white"/>
"""


def draw(tried: Sequence[Tried]) -> str:
    """Returns an SVG document; raises ConfigError where no truth is known."""
    points = [
        (outcome.false_an_hour, outcome.recall, each)
        for each in tried
        if (outcome := each.outcome).recall is not None and outcome.false_an_hour is not None
    ]
    if not points:
        msg = "--picture: recall and false alerts are not known, for the inputs have no truth"
        raise ConfigError(msg)
    step = _step(max(false for false, _, _ in points))
    most = step * max(1, math.ceil(max(false for false, _, _ in points) / step))
    parts = [HEAD.format(width=WIDTH, height=HEIGHT, count=len(points)), *_axes(step, most)]
    front = sorted((false, recall) for false, recall, each in points if each.unbeaten)
    path = " ".join(f"{_x(false, most):.1f},{_y(recall):.1f}" for false, recall in front)
    if len(front) > 1:
        parts.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}"/>\n')
    parts += _points(points, most)
    return "".join([*parts, "</svg>\n"])


def _x(false: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * false / most


def _y(recall: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - recall)


def _step(most: float) -> float:
    """The distance of the marks on the axis: 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= most)


def _axes(step: float, most: float) -> Iterator[str]:
    for n in range(6):
        y = _y(n / 5)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>\n'
        yield _text(LEFT - 8, y + 4, f"{n / 5:.1f}", anchor="end")
    for n in range(round(most / step) + 1):
        x = _x(n * step, most)
        yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>\n'
        yield _text(x, HEIGHT - BOTTOM + 18, f"{n * step:g}", anchor="middle")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield _text(middle, HEIGHT - BOTTOM + 42, "false alerts an hour", anchor="middle")
    yield _text(14, TOP - 22, "recall")
    yield _text(
        LEFT,
        TOP - 22,
        "blue: no other setting beats it; ring: as now; in brackets: time to the alert",
        fill=GREY,
    )


def _points(points: Sequence[tuple[float, float, Tried]], most: float) -> Iterator[str]:
    """Draws a point for each place; settings with the same figures share one."""
    places: dict[tuple[float, float], list[Tried]] = {}
    for false, recall, each in points:
        places.setdefault((false, recall), []).append(each)
    taken: list[tuple[float, float]] = []  # places of names
    # Those that matter are drawn last, above the others.
    for (false, recall), there in sorted(places.items(), key=lambda item: _matters(item[1])):
        x, y = _x(false, most), _y(recall)
        there.sort(key=lambda each: (not each.unbeaten, not each.as_now))
        colour = BLUE if there[0].unbeaten else GREY
        if any(each.as_now for each in there):
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{RED}"/>\n'
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
        yield f"<title>recall {recall:.3f}, {false:.2f} false alerts an hour\n"
        yield escape("\n".join(_told(each) for each in there)) + "</title></circle>\n"
        if len(places) <= MAX_NAMES or _matters(there):
            at = y + 16
            while any(abs(at - other) < LINE and abs(x - by) < NAME_WIDTH for by, other in taken):
                at += LINE
            taken.append((x, at))
            end = x > WIDTH - NAME_WIDTH
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            yield _text(
                x - 6 if end else x + 6,
                at,
                ", ".join(map(word, there[0].values.values())) + _after(there[0]) + more,
                anchor="end" if end else "start",
                fill=colour,
            )


def _matters(there: Sequence[Tried]) -> bool:
    return any(each.unbeaten or each.as_now for each in there)


def _told(each: Tried) -> str:
    values = "; ".join(f"{path}={word(value)}" for path, value in each.values.items())
    return f"{values}{_after(each)}"


def _after(each: Tried) -> str:
    """How soon its alerts come."""
    after = each.outcome.alert_after_s
    return "" if after is None else f" ({after:.1f} s)"


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = "black") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">'
        f"{escape(text)}</text>\n"
    )
