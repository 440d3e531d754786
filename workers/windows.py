"""`fusewatch features | export`: windows to learn from, of scenes and of past alerts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import Progress

from models.fusion import data
from models.fusion.labels import LABELS
from pipeline.types import FOREVER, SYSTEM, Alert
from workers import configfile, examples, graph
from workers.playback import moments, observed
from workers.rejudge import STAGES, rejudge, span
from workers.scenefile import load_scene
from workers.truth import truth


def encoded(config: Path, jobs: Sequence[examples.Job]) -> list[list[data.Row]]:
    """The rows of each job, with a progress bar on a terminal."""
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("windows", total=len(jobs))
        return list(
            examples.encode(
                config, jobs, told=lambda done, _: progress.update(task, completed=done)
            )
        )


def features(config: Path, scenes: Sequence[Path], out: Path, split: str) -> int:
    """Write the windows of scenes with their truth; how many."""
    for scene in scenes:
        truth(load_scene(scene))  # what is wrong is told before the long work
    jobs = [examples.Job(scene=str(scene), split=split) for scene in scenes]
    return data.write(out, (row for rows in encoded(config, jobs) for row in rows))


def export(
    path: Path,
    since: str,
    until: str | None,
    out: Path,
    state: Path | None,
    *,
    encoders: graph.Encoders | None = None,
) -> dict[str, object]:
    """Write the windows of each alert since then, for review; how many there are.

    What was observed is judged again by the rules and heads of now, by the same stages, so alerts
    have the ids that they had. `verdict` is null: a person makes it true or false in every line of
    an alert, and `label` what it was. Times as `fusewatch replay --since`; `encoders` are loaded as
    the config says unless they are given.
    """
    settings = configfile.load(path)
    start, end = moments(since, until)
    judges = graph.heads(settings)
    notes = {site: examples.Notes(judges.get(site)) for site in settings.sites}
    encoders = encoders or graph.load(settings.models, recorded=True, stages=STAGES)
    with observed(settings, path, state, *span(settings, start, end)) as entries:
        alerts, _ = rejudge(settings, encoders, entries, start, end, heads=notes)
    last = {alert.id: alert for alert in alerts if SYSTEM not in alert.rules}
    rows = [row for alert in last.values() for row in _windows(alert, notes[alert.site])]
    data.write(out, rows)
    return {"out": str(out), "alerts": len(last), "windows": len(rows)}


def _windows(alert: Alert, notes: examples.Notes) -> Iterator[data.Row]:
    """The windows that show something of the alert."""
    end = alert.end or FOREVER
    for window, tokens in notes.asked:
        if window.end > alert.start and window.start < end:
            yield data.Row(
                scene=alert.id,
                site=alert.site,
                start=window.start,
                end=window.end,
                alert=alert.id,
                label=alert.label if alert.label in LABELS else "",
                states=tokens.states,
                vectors=data.packed(tokens),
            )
