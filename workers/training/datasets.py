"""`fusewatch features | export`: writes training windows of scenes and of past alerts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import Progress

from models.fusion.labels import LABELS, SPLITS
from models.training import dataset
from pipeline.config.model_needs import needed_encoders
from pipeline.errors import ConfigError
from pipeline.stages import JUDGES
from pipeline.types import FOREVER, SEVERITIES, SYSTEM, Alert, Anomaly
from workers.bus.history import moments, observed
from workers.config import loader
from workers.replay.observation_replay import rejudge, span
from workers.replay.scene_file import load_scene
from workers.stages.encoders import Encoders, load_encoders
from workers.stages.site_plan import load_heads
from workers.training import feature_extraction
from workers.training.ground_truth import truth


def encoded(
    config: Path, jobs: Sequence[feature_extraction.ExtractionJob], name: str = "windows"
) -> list[list[dataset.WindowRow]]:
    """Returns the rows of each job; shows a progress bar `name` on a terminal."""
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(name, total=len(jobs))
        return list(
            feature_extraction.encode(
                config, jobs, told=lambda done, _: progress.update(task, completed=done)
            )
        )


def check_scenes(config: Path, scenes: Sequence[Path]) -> None:
    """Raises ConfigError for scenes that cannot be used, before the long work starts."""
    settings = loader.load(config)
    named: dict[str, Path] = {}
    for path in scenes:
        scene = load_scene(path)
        truth(scene)
        if scene.site not in settings.sites:
            msg = f"{path}: site: {scene.site!r} is not in {config}"
            raise ConfigError(msg)
        if named.setdefault(path.stem, path) != path:
            msg = f"{path}: {named[path.stem]} has the same name, by which windows are known"
            raise ConfigError(msg)


def features(config: Path, scenes: Sequence[Path], out: Path, split: str | None) -> int:
    """Writes the windows of scenes with their truth; returns their number.

    Without `split` it is the name of the scene's folder, as `compose` writes it, or `train`.
    """
    check_scenes(config, scenes)
    check_output(out)
    jobs = [
        feature_extraction.ExtractionJob(
            scene=str(scene),
            split=split or (scene.parent.name if scene.parent.name in SPLITS else "train"),
        )
        for scene in scenes
    ]
    return dataset.write(out, (row for rows in encoded(config, jobs) for row in rows))


def check_output(out: Path) -> None:
    """Raises ConfigError if `out` cannot be a file of windows, or holds a person's verdicts."""
    if out.is_dir():
        msg = f"--out {out}: is a folder: name the file to write"
        raise ConfigError(msg)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"--out {out}: its folder cannot be made: {error.strerror}"
        raise ConfigError(msg) from error
    if not out.exists():
        return
    try:
        said = {row.alert for row in dataset.read([out]) if row.verdict is not None}
    except ConfigError as error:
        msg = f"--out {out}: is there already, and is no file of windows: name another"
        raise ConfigError(msg) from error
    if said:
        msg = f"--out {out}: holds verdicts on {len(said)} alerts: name another file"
        raise ConfigError(msg)


def export(
    path: Path,
    since: str,
    until: str | None,
    out: Path,
    state: Path | None,
    *,
    encoders: Encoders | None = None,
) -> dict[str, object]:
    """Writes the windows of each alert in `[since, until)` for review; returns the counts.

    The stored observations are judged again with the present rules and heads by the same stages, so
    alerts keep their ids. `verdict` is null: a person sets it to true or false in every line of an
    alert. `label` is that of the most severe anomaly in the window, or the alert's. Times are as in
    `fusewatch replay --since`; `encoders` are loaded from the config unless given.

    Raises ConfigError for an `out` that holds verdicts. Without alerts nothing is written.
    """
    settings = loader.load(path)
    start, end = moments(since, until)
    check_output(out)
    judges = load_heads(settings)
    notes = {site: feature_extraction.RecordingHead(judges.get(site)) for site in settings.sites}
    needed = needed_encoders(settings, JUDGES)
    encoders = encoders or load_encoders(
        settings.models, recorded=True, stages=JUDGES, needed=needed
    )
    with observed(settings, path, state, *span(settings, start, end)) as entries:
        told = rejudge(settings, encoders, entries, start, end, heads=notes)
    last = {alert.id: alert for alert in told.alerts if SYSTEM not in alert.rules}
    rows = [
        row for alert in last.values() for row in _windows(alert, notes[alert.site], told.anomalies)
    ]
    if rows:
        dataset.write(out, rows)
    return {"out": str(out), "alerts": len(last), "windows": len(rows)}


def _windows(
    alert: Alert, notes: feature_extraction.RecordingHead, anomalies: Sequence[Anomaly]
) -> Iterator[dataset.WindowRow]:
    """Yields the windows that overlap the alert, each with the label of what was found in it."""
    end = alert.end or FOREVER
    found = [
        anomaly
        for anomaly in anomalies
        if anomaly.site == alert.site
        and anomaly.label in LABELS
        and anomaly.start < end
        and anomaly.end > alert.start
    ]
    for window, tokens in notes.asked:
        if window.end > alert.start and window.start < end:
            here = [a for a in found if a.start < window.end and a.end > window.start]
            gravest = max(
                here, key=lambda a: (SEVERITIES.index(a.severity), a.score), default=alert
            )
            yield dataset.WindowRow(
                scene=alert.id,
                site=alert.site,
                start=window.start,
                end=window.end,
                alert=alert.id,
                label=gravest.label if gravest.label in LABELS else "",
                states=tokens.states,
                vectors=dataset.packed(tokens),
            )
