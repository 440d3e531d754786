"""Draws a report's figures as SVG text: the same bytes for the same figures, nothing is loaded.

Texts stay text, escaped by matplotlib and never parsed as formulas, so a figure is searchable and
uses the page's font. The colours are distinct for colour-blind readers: Okabe and Ito, Color
Universal Design, 2008.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve

from models.training.metrics import DetectedEvent, Floats, Scored, Truth, hop, reliability
from pipeline.types import SECOND

BLUE, ORANGE, RED, GREY = "#0072b2", "#e69f00", "#d55e00", "#666666"
COLOURS = (BLUE, RED, "#009e73", "#cc79a7", ORANGE, "#56b4e9", "#000000", "#8a6d00")
DASHES = ("-", "--", "-.", ":")
WIDTH = 5.6  # inches; still readable when a phone scales it down
POINTS = 400  # of a curve, at most
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 10,
}


def _draw(name: str, height: float, draw: Callable[[Figure], None]) -> str:
    """Returns an `<svg>` element; `name` keeps its ids distinct from other figures in the page."""
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.print_svg(file, metadata=nothing)
    text = file.getvalue()
    svg = text[text.index("<svg") :].strip()

    def kept(match: re.Match[str]) -> str:
        used = f'#{match[2]}"' in svg or f"#{match[2]})" in svg
        return match[0] if used else match[1]

    return re.sub(r'(<[^<>]*?) id="([^"]*)"', kept, svg)


def precision_recall(curves: Mapping[str, Scored], main: Scored, threshold: float) -> str:
    """Draws one curve each with its average precision, and a dot at the threshold of `main`."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (name, scored) in enumerate(curves.items()):
            truth, score = _counted(scored)
            precision, recall, _ = precision_recall_curve(truth, score, drop_intermediate=True)
            some = np.unique(np.linspace(0, len(recall) - 1, POINTS).astype(int))
            axes.step(
                recall[some],
                precision[some],
                where="post",
                color=COLOURS[number % len(COLOURS)],
                linestyle=DASHES[number // len(COLOURS) % len(DASHES)],
                label=f"{name}  {average_precision_score(truth, score):.3f}",
            )
        truth, score = _counted(main)
        hot = score >= threshold
        if hot.any():
            at = truth[hot].sum() / truth.sum(), truth[hot].mean()
            axes.plot(*at, "o", color="black", label=f"threshold {threshold:.3f}", zorder=5)
        axes.axhline(truth.mean(), color=GREY, linestyle=":", label="by chance")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.03))
        figure.legend(loc="outside lower center", ncols=2)

    rows = (len(curves) + 3) // 2
    return _draw("precision-recall", 3.9 + 0.23 * rows, draw)


def calibration(scored: Scored) -> str:
    """Draws how often each score was right, and how many windows had it."""
    found = reliability(scored)

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
        upper.plot(found.score, found.share, "o-", color=BLUE, label="this head")
        upper.set(ylabel="share positive", ylim=(-0.03, 1.03))
        upper.legend(loc="upper left")
        edges = (np.floor(np.minimum(found.score, 0.999) * 10)) / 10
        lower.bar(edges, found.count, width=0.094, align="edge", color=BLUE)
        lower.set(xlabel="score", ylabel="windows", yscale="log", xlim=(-0.01, 1.01))
        lower.set_ylim(bottom=0.8)
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        lower.minorticks_off()

    return _draw("calibration", 4.3, draw)


def timeline(
    name: str,
    scored: Scored,
    places: Sequence[int],
    truths: Sequence[Truth],
    events: Sequence[DetectedEvent],
    threshold: float,
) -> str:
    """Draws the scores of a scene's windows at `places`, in seconds from the first one's start.

    Each score is drawn over its window's newest hop; truths are shaded, events are bars on top.
    """
    where, step = np.asarray(places), hop(scored)
    zero, last = int(scored.start_ns[where].min()), int(scored.end_ns[where].max())

    def seconds(time: Floats | int) -> Floats:
        return (np.asarray(time) - zero) / SECOND

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for truth in truths:
            start, end = max(truth.start_ns, zero), min(truth.end_ns, last)
            if start <= end:
                _shade(axes, float(seconds(start)), float(seconds(end)), truth.label)
        ends = scored.end_ns[where]
        edges = np.stack([seconds(ends - step), seconds(ends)], axis=1)
        pauses = np.diff(ends) > step
        x, y = edges.ravel(), np.repeat(scored.score[where].astype(float), 2)
        after = 2 * np.flatnonzero(pauses) + 2  # the line breaks where there is no window
        axes.plot(np.insert(x, after, np.nan), np.insert(y, after, np.nan), color=BLUE)
        axes.axhline(threshold, color=RED, linestyle="--", linewidth=1)
        for event in events:
            span = float(seconds(event.start_ns)), float(seconds(event.end_ns))
            axes.plot(span, (1.09, 1.09), color=RED, linewidth=4, solid_capstyle="butt")
        axes.set(xlim=(0, float(seconds(last))), ylim=(-0.03, 1.32), yticks=(0, 0.5, 1))
        axes.set(xlabel="seconds", ylabel="score")
        axes.grid(visible=False)

    return _draw(f"timeline-{name}", 1.9, draw)


def _shade(axes: Axes, start: float, end: float, label: str) -> None:
    end = max(end, start + 0.1)  # an instant must be visible, too
    axes.axvspan(start, end, ymax=0.81, color=ORANGE, alpha=0.35, linewidth=0)
    axes.text((start + end) / 2, 1.17, label, ha="center", fontsize=10, clip_on=True)


def _counted(scored: Scored) -> tuple[Floats, Floats]:
    counts = scored.anomaly >= 0
    return scored.anomaly[counts], scored.score[counts]
