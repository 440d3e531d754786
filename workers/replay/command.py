"""The command `replay`: turns recorded scenes or stored observations into files of alerts."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress as Bar

from pipeline.config.model_needs import needed_encoders
from pipeline.config.schema import Config
from pipeline.errors import ConfigError, OutsideError
from pipeline.stages import JUDGES
from workers.bus.history import history, moments
from workers.config import loader
from workers.config.secrets import Secrets
from workers.delivery.jsonl import write_all
from workers.delivery.subscribers import deliver_now
from workers.replay.again import judge_again
from workers.replay.scene_player import scene_of
from workers.replay.scene_replay import Replayed, replay
from workers.stages.encoders import load_encoders


def replay_command(
    path: Path,
    scenes: Sequence[Path],
    *,
    out: str,
    speed: float | None,
    deliver: bool,
    as_json: bool,
) -> int:
    """Replays every scene separately, writes its alerts, and prints one line per scene; returns 0.

    `out` is a file; it is a folder if it ends in `/`, is one, or there are several scenes. Raises
    OutsideError and ConfigError.
    """
    settings = loader.load(path)
    try:
        files = _files(scenes, out)
    except OSError as error:
        msg = f"--out {out}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    # Errors of all scenes are reported before the first is played.
    read = [scene_of(settings, scene) for scene in scenes]
    needed = needed_encoders(
        settings,
        cameras=any(scene.cameras for scene in read),
        microphones=any(scene.microphones for scene in read),
    )
    encoders = load_encoders(settings.models, recorded=True, needed=needed)
    console = Console(stderr=True)
    summaries = []
    for scene, file in zip(scenes, files, strict=True):
        with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(scene.stem, total=None)
            played = replay(
                settings,
                scene,
                encoders,
                speed=speed,
                heard=lambda done, all_, bar=bar, task=task: bar.update(  # type: ignore[misc]
                    task, completed=done / 1e9, total=all_ / 1e9
                ),
            )
        write_all(file, played.alerts)
        if deliver:
            _deliver(settings, played, Secrets(base=path.parent))
        summaries.append(_summary(scene, file, played))
        if not as_json:
            sys.stdout.write(_line(summaries[-1]) + "\n")
            sys.stdout.flush()
    if as_json:
        sys.stdout.write(json.dumps(summaries) + "\n")
    return 0


def rejudge_command(
    path: Path, since: str, until: str | None, *, out: str, state: Path | None, as_json: bool
) -> int:
    """Judges the observations of `[since, until)` again and writes the alerts; returns 0.

    Says how they compare with what was sent, and what judges differently now. Times are as in
    `time_option`; `until` defaults to now.
    """
    settings = loader.load(path)
    span_ = moments(since, until)
    (file,) = _files([path], out)
    needed = needed_encoders(settings, JUDGES)
    encoders = load_encoders(settings.models, recorded=True, stages=JUDGES, needed=needed)
    with history(settings, path, state) as stored:
        again = judge_again(settings, encoders, stored, *span_)
    write_all(file, again.judged.alerts)
    compared, alerts = again.compared, again.judged.alerts
    row = {
        "out": str(file),
        "observations": again.judged.entries,
        "incidents": len({alert.id for alert in alerts}),
        "revisions": len(alerts),
        **msgspec.to_builtins(compared),
    }
    first = (
        f"{row['observations']} records of observations: {row['incidents']} incidents, "
        f"{row['revisions']} revisions -> {file}"
    )
    text = json.dumps(row) if as_json else "\n".join([first, *compared.lines()])
    sys.stdout.write(text + "\n")
    return 0


def _files(scenes: Sequence[Path], given: str) -> list[Path]:
    """Returns the output file of each scene: `--out FILE` for one, `--out DIR/` for any number."""
    out = Path(given)
    folder = out.is_dir() or given.endswith("/") or len(scenes) > 1
    if folder and out.is_file():
        msg = f"--out {out}: is a file, and several scenes need a folder: --out DIR/"
        raise ConfigError(msg)
    names = [scene.stem for scene in scenes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = (
            f"two scenes are named {twice[0]}: their alerts would go to one file; replay them apart"
        )
        raise ConfigError(msg)
    files = [out / f"{name}.jsonl" for name in names] if folder else [out]
    for file in files:
        if file.is_symlink() or (file.exists() and not file.is_file()):
            # The output replaces the file: it would delete /dev/stdout.
            msg = f"--out {file}: is no regular file, and would be replaced; name another"
            raise ConfigError(msg)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=files[0].parent):
        return files  # the folder is writable: checked before hours of work


def _summary(scene: Path, file: Path, played: Replayed) -> dict[str, object]:
    incidents = {alert.id: alert for alert in played.alerts}
    return {
        "scene": scene.stem,
        "out": str(file),
        "seconds": (played.scene.end - played.scene.start) / 1e9,
        "took": round(played.seconds, 2),
        "factor": round(played.factor, 1),
        "incidents": len(incidents),
        "revisions": len(played.alerts),
        "labels": sorted({label for alert in incidents.values() for label in alert.labels}),
        "unused": _unused(played),
    }


def _unused(played: Replayed) -> dict[str, int]:
    """Returns the number of unusable pieces of the scene's media, by source and reason."""
    counts = played.status.snapshot().counts.get(played.scene.site, {})
    return {
        f"{source} {what}": n
        for source, known in sorted(counts.items())
        for what, n in sorted(known.items())
        if what.startswith(("dropped.", "unusable.", "repaired."))
    }


def _line(row: dict[str, object]) -> str:
    labels = ", ".join(row["labels"]) if isinstance(row["labels"], list) else ""
    unused = row["unused"] if isinstance(row["unused"], dict) else {}
    damage = "".join(f"; {what}: {n}" for what, n in unused.items())
    return (
        f"{row['scene']}: {row['incidents']} incidents, {row['revisions']} revisions"
        f"{f' ({labels})' if labels else ''}; {row['seconds']:g} s in {row['took']} s,"
        f" {row['factor']} times real time{damage} -> {row['out']}"
    )


def _deliver(settings: Config, played: Replayed, secrets: Secrets) -> None:
    if missed := deliver_now(settings, played.alerts, secrets):
        msg = f"not every alert was taken by: {', '.join(missed)}"
        raise OutsideError(msg)
