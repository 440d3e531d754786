"""Writes the evaluation of a fusion head as one HTML file: tables, figures, scenes, the card.

The page loads and runs nothing (its own policy forbids both), is readable on a phone and in print,
and has the same bytes for the same figures. Every text is escaped: names come from other people's
files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.fusion.labels import LABELS
from models.training import figures
from models.training.metrics import (
    NOTHING,
    DetectedEvent,
    Metrics,
    Scored,
    TableRow,
    Truth,
    Truths,
    class_f1,
    confusion,
    detections,
    events,
    false_events,
    measure,
    reliability,
    windows_of,
)
from pipeline.types import SECOND

# limits: scenes, those with a miss, those with a false alarm
SHOWN_SCENES, SHOWN_MISSED, SHOWN_FALSE = 8, 3, 2
SHOWN_AROUND = 60 * SECOND  # ns; part of a long scene that is shown on either side
COLUMNS: Mapping[str, tuple[str, str]] = {
    "ap": ("average precision", ".3f"),
    "auc": ("ROC AUC", ".3f"),
    "f1": ("F1, mean of labels", ".3f"),
    "event_recall": ("events found", ".3f"),
    "false_alarms_per_hour": ("false alarms / h", ".2f"),
    "detect_median_s": ("told after, median s", ".1f"),
    "detect_p95_s": ("told after, 95 % s", ".1f"),
    "ece": ("calibration error", ".3f"),
    "windows": ("windows", ",d"),
    "positives": ("positive", ",d"),
}
SIDE_BY_SIDE = {"ap": True, "event_recall": True, "false_alarms_per_hour": False}  # more is better

CSS = """
:root{color-scheme:light}
body{margin:0 auto;max-width:74rem;padding:1rem;background:#fff;color:#1a1a1a;
font:16px/1.5 system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.2rem 0 .5rem;border-bottom:2px solid #0072b2;padding-bottom:.2rem}
p,figcaption,li{max-width:46rem}
.scroll{overflow-x:auto;margin:.3rem 0 1rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
thead th{vertical-align:bottom;white-space:normal;color:#333;background:#f4f6f8;
border-bottom:1px solid #999}
tbody th{position:sticky;left:0;background:#fff;text-align:left}
th.name,td.name{text-align:left}th.group{text-align:center}.first{border-left:1px solid #999}
figure{margin:.6rem 0;break-inside:avoid;min-width:0}figure.long{break-inside:auto}
figure svg{display:block;width:100%;max-width:35rem;height:auto;font-family:inherit}
figcaption{font-size:.875rem;color:#444;overflow-wrap:anywhere}figcaption b{color:#1a1a1a}
.pair{display:grid;gap:.5rem 1.5rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,28rem),1fr))}
.keys{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;margin:1rem 0;list-style:none}
.keys li{border:1px solid #ccc;border-radius:.4rem;padding:.4rem .8rem}
.keys b{display:block;font-size:1.3rem}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.2rem 1rem;margin:0}
dt{color:#444}dd{margin:0;overflow-wrap:anywhere;min-width:0}
.hit{outline:2px solid #0072b2;outline-offset:-2px}
@media print{html{font-size:11px}body{font-size:1rem;max-width:none;padding:0}
.scroll{overflow:visible}
h2{break-after:avoid}tr{break-inside:avoid}th,td{padding:.15rem .3rem}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


class Shown(NamedTuple):
    """A scene in the report, why it is there, and the time to show."""

    scene: str
    why: str
    at_ns: int


def write(  # noqa: PLR0913 - a report needs all of these
    path: Path,
    *,
    title: str,
    card: Mapping[str, object],
    rows: Sequence[TableRow],
    curves: Mapping[str, Scored],
    main: Scored,
    truths: Truths,
    threshold: float,
    notes: Sequence[str],
) -> None:
    """Writes the report on the head with the results `main`; `rows` and `curves` compare it.

    Tables keep the order in which names, modalities and conditions first occur in `rows`. Raises
    ValueError for two rows with the same name, modalities and condition.
    """
    parts = [
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none';",
        " style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _keys(measure(main, truths, threshold), threshold),
        *_compared(rows),
        *_curves(curves, main, threshold),
        *_labels(main, threshold),
        *_kinds(main, threshold),
        *_scenes(main, truths, threshold),
        *_all(rows),
        "<h2>Model card</h2>",
        _card(card),
        *_notes(notes),
        "</body></html>\n",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"  # noqa: RUF001


def _keys(found: Metrics, threshold: float) -> str:
    values = [
        (_number(found.ap, ".3f"), "average precision"),
        (_number(100 * found.event_recall, ".0f") + " %", "of events found"),
        (_number(found.false_alarms_per_hour, ".2f"), "false alarms an hour"),
        (_number(found.detect_median_s, ".1f") + " s", "until told, median"),
        (_number(found.ece, ".3f"), "calibration error"),
        (f"{threshold:.3f}", "threshold"),
        (f"{found.windows:,d}", f"windows, {found.positives:,d} positive"),
    ]
    items = "".join(f"<li><b>{value}</b>{escape(name)}</li>" for value, name in values)
    return f"<ul class=keys>{items}</ul>"


def _table(head: str, lines: Sequence[str], caption: str) -> str:
    body = "\n".join(lines)
    return (
        f"<figure{' class=long' * (len(lines) > 20)}><figcaption>{caption}</figcaption>"
        f"<div class=scroll tabindex=0><table><thead>{head}</thead><tbody>\n{body}\n"
        "</tbody></table></div></figure>"
    )


def _compared(rows: Sequence[TableRow]) -> Iterator[str]:
    found = {(row.name, row.modalities, row.condition): row.metrics for row in rows}
    if len(found) < len(rows):
        msg = "two rows have the same name, modalities and condition"
        raise ValueError(msg)
    yield "<h2>Modalities and conditions</h2>"
    yield (
        "<p>V is video, A is audio, T is text (speech and reports): a head saw these and no "
        "others. A condition is what was done to them.</p>"
    )
    for metric, more in SIDE_BY_SIDE.items():
        yield _side_by_side(rows, found, metric, more)


def _all(rows: Sequence[TableRow]) -> Iterator[str]:
    yield "<h2>All figures</h2>"
    heads = "".join(f"<th>{escape(name)}</th>" for name, _ in COLUMNS.values())
    lines = [
        f"<tr><th>{escape(row.name)} {escape(row.modalities)}</th>"
        f"<td class=name>{escape(row.condition)}</td>"
        + "".join(
            f"<td>{_number(getattr(row.metrics, metric), form)}</td>"
            for metric, (_, form) in COLUMNS.items()
        )
        + "</tr>"
        for row in rows
    ]
    yield _table(
        f"<tr><th class=name>head</th><th class=name>condition</th>{heads}</tr>",
        lines,
        "Each head at the same threshold; times are of the events that were found.",
    )


def _side_by_side(
    rows: Sequence[TableRow], found: Mapping[tuple[str, str, str], Metrics], metric: str, more: bool
) -> str:
    names = list(dict.fromkeys(row.name for row in rows))
    conditions = list(dict.fromkeys(row.condition for row in rows))
    groups = "".join(
        f'<th class="group first" colspan={len(names)}>{escape(c)}</th>' for c in conditions
    )
    heads = "".join(
        f"<th{' class=first' * (i == 0)}>{escape(name)}</th>"
        for _ in conditions
        for i, name in enumerate(names)
    )
    title, form = COLUMNS[metric]
    lines = []
    for modalities in dict.fromkeys(row.modalities for row in rows):
        cells = []
        for condition in conditions:
            texts = [
                _number(getattr(found[name, modalities, condition], metric), form)
                if (name, modalities, condition) in found
                else ""
                for name in names
            ]
            shown = {text for text in texts if text[:1].isdigit()}
            best = (max if more else min)(shown, key=float) if len(shown) > 1 else None
            for i, text in enumerate(texts):
                cell = f"<b>{text}</b>" if text == best else text
                cells.append(f"<td{' class=first' * (i == 0)}>{cell}</td>")
        lines.append(f"<tr><th>{escape(modalities)}</th>{''.join(cells)}</tr>")
    head = f"<tr><th class=name rowspan=2>sees</th>{groups}</tr><tr>{heads}</tr>"
    aim = "higher" if more else "lower"
    caption = f"<b>{escape(title.capitalize())}</b>: {aim} is better; the better head is bold."
    return _table(head, lines, caption)


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _curves(curves: Mapping[str, Scored], main: Scored, threshold: float) -> Iterator[str]:
    yield "<h2>Precision, recall and calibration</h2><div class=pair>"
    if len(set(main.anomaly.tolist()) - {-1}) < 2:
        yield "<p>All windows are of one class, so there is no precision over recall.</p>"
    else:
        yield _figure(
            figures.precision_recall(curves, main, threshold),
            "<b>Precision over recall, by windows.</b> Further up and to the right is better; the "
            "number is average precision. The dot is where this head works: what share of the "
            "windows it raises is right, and what share of those it should raise it does.",
        )
    yield _figure(
        figures.calibration(main),
        "<b>Reliability.</b> On the dotted line a score of 0.8 is right eight times in ten; below "
        "it the head is too sure, above it too modest. The bars say how many windows have such a "
        f"score: few make a point uncertain. Expected calibration error "
        f"{_number(reliability(main).ece, '.3f')}.",
    )
    yield "</div>"


def _labels(main: Scored, threshold: float) -> Iterator[str]:
    yield "<h2>Labels</h2>"
    table = confusion(main, threshold)
    each, _ = class_f1(main, threshold)
    names = (*LABELS, NOTHING)
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for i, name in enumerate(names):
        total = max(1, int(table[i].sum()))
        cells = "".join(
            f"<td{' class=hit' * (i == j)} "
            f'style="background:rgba(0,114,178,{0.45 * count / total:.2f})">{count:,d}</td>'
            for j, count in enumerate(table[i].tolist())
        )
        f1 = _number(each.get(name, math.nan), ".3f")
        lines.append(f"<tr><th>{escape(name)}</th>{cells}<td class=first>{f1}</td></tr>")
    yield _table(
        f"<tr><th class=name>it was</th>{heads}<th class=first>F1</th></tr>",
        lines,
        "<b>What it was (row) and what was told (column)</b>, in windows at the threshold. Framed "
        "is right; the last column of names is what was missed, the last row false alarms. Shade "
        "is the share of the row.",
    )


def _kinds(main: Scored, threshold: float) -> Iterator[str]:
    yield "<h2>Kinds of scenes</h2>"
    kind, hot = np.asarray(main.kind, dtype=object), main.score >= threshold
    lines = []
    for name in sorted(set(main.kind)):
        yes, no = ((kind == name) & (main.anomaly == value) for value in (1, 0))
        shares = [float(hot[some].mean()) if some.any() else math.nan for some in (yes, no)]
        found, raised = (_number(100 * share, ".1f") for share in shares)
        lines.append(
            f"<tr><th>{escape(name)}</th><td>{yes.sum():,d}</td><td>{found}</td>"
            f"<td>{no.sum():,d}</td><td>{raised}</td></tr>"
        )
    yield _table(
        "<tr><th class=name>kind</th><th>positive windows</th><th>found, %</th>"
        "<th>negative windows</th><th>raised, %</th></tr>",
        lines,
        "Where it is weak: few positive windows found, or many negative ones raised.",
    )


def select_scenes(main: Scored, truths: Truths, threshold: float) -> list[Shown]:
    """Returns at most eight scenes: the worst misses and false alarms, then good ones by name."""
    what = detections(main, truths, threshold)
    missed = sorted((d for d in what if math.isnan(d.seconds)), key=lambda d: (d.score, d.scene))
    false = sorted(false_events(main, truths, threshold), key=lambda e: (-e.score, e.scene))
    shown: dict[str, Shown] = {}
    for each in _first_of_scene(missed, SHOWN_MISSED):
        why = (
            f"Missed: {each.truth.label}. The highest score of a window that saw some of it is "
            f"{each.score:.3f}."
        )
        shown[each.scene] = Shown(each.scene, why, each.truth.start_ns)
    for event in [e for e in _first_of_scene(false, len(false)) if e.scene not in shown][
        :SHOWN_FALSE
    ]:
        why = f"False alarm: {event.label}, {event.score:.3f}, where the red bar is alone."
        shown[event.scene] = Shown(event.scene, why, event.start_ns)
    bad = {each.scene for each in (*missed, *false)}
    good = [each for each in what if each.scene not in bad]
    for each in _spread(good):
        if len(shown) == SHOWN_SCENES:
            break
        if each.scene not in shown:
            why = f"Good: {each.truth.label}, told {each.seconds:.1f} s after it began."
            shown[each.scene] = Shown(each.scene, why, each.truth.start_ns)
    return list(shown.values())


def _first_of_scene(many: Sequence, most: int) -> list:
    return list({each.scene: each for each in reversed(many)}.values())[::-1][:most]


def _spread(good: Sequence) -> list:
    """Returns the first scene of each label, then the second of each, and so on."""
    seen: dict[str, int] = {}
    turn = []
    for each in good:
        turn.append(seen.setdefault(each.truth.label, 0))
        seen[each.truth.label] += 1
    return [good[i] for i in sorted(range(len(good)), key=lambda i: (turn[i], i))]


def _scenes(main: Scored, truths: Truths, threshold: float) -> Iterator[str]:
    yield "<h2>Scenes</h2>"
    yield (
        "<p>The blue line is the score of each moment, the dashed one the threshold. What happened "
        "is shaded and named; a red bar on top is what was told.</p><div class=pair>"
    )
    told: dict[str, list[DetectedEvent]] = {}
    for event in events(main, threshold):
        told.setdefault(event.scene, []).append(event)
    windows = windows_of(main)
    for number, shown in enumerate(select_scenes(main, truths, threshold)):
        near = windows[shown.scene]
        ends = main.end_ns[near]
        if ends[-1] - ends[0] > 2 * SHOWN_AROUND:
            near = near[abs(ends - shown.at_ns) <= SHOWN_AROUND]
        happened: Sequence[Truth] = truths.get(shown.scene, ())
        svg = figures.timeline(
            str(number), main, near, happened, told.get(shown.scene, ()), threshold
        )
        yield _figure(svg, f"<b>{escape(shown.scene)}</b> {escape(shown.why)}")
    yield "</div>"


def _card(card: Mapping[str, object]) -> str:
    items = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{_value(value)}</dd>" for key, value in card.items()
    )
    return f"<dl>{items}</dl>"


def _value(value: object) -> str:
    match value:
        case Mapping():
            return _card(value)
        case list() | tuple():
            return escape(", ".join(map(str, value)))
    return escape(str(value))


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield "<h2>Notes</h2><ul>"
        yield from (f"<li>{escape(note)}</li>" for note in notes)
        yield "</ul>"
