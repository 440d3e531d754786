"""The figures that show time: how windows close, and how an incident is told."""

from __future__ import annotations

from docs.generate.figures.drawing import Drawing
from pipeline.config.schema import Incidents, Windows

SECOND = 50  # px


def windows() -> str:
    """Three sources, their promises, the watermark and the windows that it closes."""
    size, hop = round(Windows().size), round(Windows().hop)
    drawing = Drawing(860, 440, "Windows: the watermark is the smallest promise of all sources")
    left, bottom = 170, 400
    lanes = (
        ("desk", "vision", ((0, 1), (2, 1), (4, 1), (6, 1), (8, 1)), 10.2),
        ("room", "sound", tuple((k, 1) for k in range(9)), 9.4),
        ("room/speech", "speech", ((2, 2.6),), 7.3),
    )
    for i, (name, stage, spans, promise) in enumerate(lanes):
        y = 20 + 56 * i
        drawing.box(10, y, f"{name}\n{stage}", "outside", width=130, height=46)
        drawing.line(left, y + 23, left + 11 * SECOND, y + 23)
        for start, long in spans:
            text = "utterance" if long > 1 else ""
            drawing.span(left + start * SECOND + 2, y + 13, long * SECOND - 4, text, "step")
        drawing.pill(left + promise * SECOND, y + 23, f"promise {promise:g} s", "state")
    mark = min(promise for *_, promise in lanes)
    x = left + mark * SECOND
    drawing.line(x, 160, x, bottom - 16, dashed=True)
    for i in range(7):
        y = 206 + 26 * i
        closed = i * hop + size <= mark
        text = f"window {i}: {'closed' if closed else 'open'}"
        kind = "topic" if closed else "outside"
        drawing.span(left + i * hop * SECOND, y, size * SECOND, text, kind)
    drawing.pill(x + 105, 190, f"watermark {mark:g} s: the smallest", "bad")
    drawing.line(left, bottom, left + 11 * SECOND, bottom)
    for k in range(0, 12):
        drawing.pill(left + k * SECOND, bottom, str(k))
    drawing.pill(left + 5 * SECOND, bottom + 26, "event time in seconds")
    drawing.box(10, 240, f"windows\n{size} s, every {hop} s", "outside", width=130, height=46)
    return drawing.svg()


def incident() -> str:
    """Anomalies, the incident that they make, and its revisions."""
    close = round(Incidents().close_after)
    drawing = Drawing(860, 330, "An incident: the anomalies that are near each other in time")
    left, scale, bottom = 160, 21, 290  # px a second
    rows = (
        ("anomalies", ((2, 1, ""), (4, 1, ""), (9, 2, ""), (15, 1, "")), "step"),
        ("incident", ((2, 14, "one incident: from its first evidence to its last"),), "topic"),
    )
    for i, (name, spans, kind) in enumerate(rows):
        y = 24 + 62 * i
        drawing.box(10, y - 10, name, "outside", width=130, height=38)
        for start, long, text in spans:
            drawing.span(left + start * scale, y, long * scale, text, kind)
    drawing.pill(left + 2.5 * scale, 62, "person")
    drawing.pill(left + 10 * scale, 62, "glass")
    drawing.box(10, 150, "alerts", "outside", width=130, height=38)
    told = (
        (2, "opened", 0, "high"),
        (9, "updated", 1, "critical"),
        (16 + close, "closed", 2, "critical"),
    )
    for at, state, number, severity in told:
        x = left + at * scale
        drawing.line(x, 20, x, bottom, dashed=True)
        text = f"revision {number}\n{state}, {severity}"
        drawing.box(x - 4, 150, text, "state" if state == "closed" else "bad", width=130)
    drawing.span(left + 16 * scale, 216, close * scale, f"close_after: {close} s", "outside")
    drawing.line(left, bottom, left + 31 * scale, bottom)
    for k in range(0, 31, 5):
        drawing.pill(left + k * scale, bottom, f"{k} s")
    return drawing.svg()
