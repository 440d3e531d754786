"""Draws boxes, arrows and time lines as SVG text.

Every text stands on a fill of its own, so a figure can be read on a light and on a dark page.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
SIZE, SMALL = 14, 12  # px; of letters
LETTER = 0.6  # width of a letter, in sizes: more than the fonts above need on average
LINE, INK = "#7d8590", "#14181f"
FILLS = {  # kind of a box -> fill, border
    "outside": ("#e4e7eb", "#8b949e"),
    "step": ("#cfe3ff", "#3b78c4"),
    "topic": ("#ffe2b0", "#b57a1a"),
    "state": ("#d3f0d2", "#3f8f45"),
    "bad": ("#ffd3d0", "#c0483f"),
    "group": ("none", "#8b949e"),
}


class Box(NamedTuple):
    """A rectangle: its corner and size, in px."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """The middle of the box."""
        return self.x + self.width / 2, self.y + self.height / 2


class Drawing:
    """An SVG picture of `width` x `height` px; `title` is what a screen reader says."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self._title = width, height, title
        self._lines: list[str] = []  # arrows lie below the boxes
        self._shapes: list[str] = []

    def box(self, x: float, y: float, text: str, kind: str = "step", **given: float) -> Box:
        """Draws a box with lines of text; the first is larger. `width` and `height` in px.

        Raises ValueError for a text that is wider than the box.
        """
        lines = text.split("\n")
        box = Box(x, y, given.get("width", 150), given.get("height", 18 + 18 * len(lines)))
        self._rectangle(box, kind)
        top = box.middle[1] - 17 * (len(lines) - 1) / 2 + SIZE * 0.35
        for i, line in enumerate(lines):
            size = SMALL if i else SIZE
            if len(line) * size * LETTER > box.width:
                msg = f"{line!r} is wider than its box"
                raise ValueError(msg)
            self._text(box.middle[0], top + 17 * i, line, size, bold=not i)
        return box

    def group(self, x: float, y: float, width: float, height: float, text: str) -> None:
        """Draws a dashed frame around other boxes, with its name on the upper edge."""
        box = Box(x, y, width, height)
        self._lines.append(_rectangle(box, *FILLS["group"], dashed=True))
        self.pill(x + 14 + len(text) * SMALL * LETTER / 2, y, text)

    def pill(self, x: float, y: float, text: str, kind: str = "outside") -> None:
        """Draws a small text around a point."""
        width = len(text) * SMALL * LETTER + 10
        box = Box(x - width / 2, y - 9, width, 18)
        self._rectangle(box, kind, thin=True)
        self._text(x, y + SMALL * 0.35, text, SMALL)

    def right(self, a: Box, b: Box, label: str = "", *, dashed: bool = False) -> None:
        """Draws an arrow from the right edge of `a` to the left edge of `b`."""
        start, end = (a.x + a.width, a.middle[1]), (b.x - 3, b.middle[1])
        bend = (start[0] + end[0]) / 2
        self._arrow(start, (bend, start[1]), (bend, end[1]), end, label, dashed=dashed)

    def down(
        self,
        a: Box,
        b: Box,
        label: str = "",
        *,
        at: float = 0.5,
        to: float = 0.5,
        dashed: bool = False,
    ) -> None:
        """Draws an arrow from the lower edge of `a` to the upper edge of `b`, or upwards.

        `at` and `to` are places on the edges, 0 left to 1 right.
        """
        x, end_x = a.x + a.width * at, b.x + b.width * to
        below = b.y > a.y
        start = (x, a.y + a.height if below else a.y)
        end = (end_x, b.y - 3 if below else b.y + b.height + 3)
        bend = (start[1] + end[1]) / 2
        self._arrow(start, (x, bend), (end_x, bend), end, label, dashed=dashed)

    def line(self, x: float, y: float, to_x: float, to_y: float, *, dashed: bool = False) -> None:
        """Draws a straight line without a head."""
        style = ' stroke-dasharray="5 4"' if dashed else ""
        self._lines.append(
            f'<path d="M{x:g} {y:g} L{to_x:g} {to_y:g}" stroke="{LINE}" stroke-width="1.5"'
            f' fill="none"{style}/>'
        )

    def span(self, x: float, y: float, width: float, text: str, kind: str) -> None:
        """Draws a bar with a small text in it."""
        box = Box(x, y, width, 20)
        self._rectangle(box, kind)
        self._text(box.middle[0], y + 10 + SMALL * 0.35, text, SMALL)

    def svg(self) -> str:
        """The picture as a file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}"'
            f' width="{self.width}" height="{self.height}" role="img" font-family="{FONT}">'
        )
        marker = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            f' markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker>'
            "</defs>"
        )
        title = f"<title>{escape(self._title)}</title>"
        return "\n".join([head, title, marker, *self._lines, *self._shapes, "</svg>"]) + "\n"

    def _rectangle(self, box: Box, kind: str, *, thin: bool = False) -> None:
        self._shapes.append(_rectangle(box, *FILLS[kind], thin=thin))

    def _text(self, x: float, y: float, text: str, size: int, *, bold: bool = False) -> None:
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y:.4g}" font-size="{size}"{weight} text-anchor="middle"'
            f' fill="{INK}">{escape(text)}</text>'
        )

    def _arrow(
        self,
        start: tuple[float, float],
        bend: tuple[float, float],
        other: tuple[float, float],
        end: tuple[float, float],
        label: str,
        *,
        dashed: bool,
    ) -> None:
        points = " ".join(f"{x:g} {y:g}" for x, y in (bend, other, end))
        style = ' stroke-dasharray="5 4"' if dashed else ""
        self._lines.append(
            f'<path d="M{start[0]:g} {start[1]:g} C{points}" stroke="{LINE}" stroke-width="1.8"'
            f' fill="none" marker-end="url(#head)"{style}/>'
        )
        if label:
            self.pill((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, label)


def _rectangle(
    box: Box, fill: str, border: str, *, thin: bool = False, dashed: bool = False
) -> str:
    style = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"'
        f' fill="{fill}" stroke="{border}" stroke-width="{0.6 if thin else 1.4}"{style}/>'
    )
