"""The command `replay`: turns scenes, media, recordings or stored entries into files of alerts."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.config.schema import Config
from pipeline.errors import ConfigError, OutsideError
from pipeline.types import Alert
from workers.config import loader
from workers.config.output_file import check_output
from workers.config.secrets import Secrets
from workers.delivery.jsonl import LINE_BEGIN, alert_files, write_all
from workers.delivery.subscribers import deliver_now
from workers.replay.again import FRAMES, OBSERVATIONS, Way
from workers.replay.inputs import Given, Input, SceneInput, StoredInput, resolve
from workers.replay.scene_replay import Replayed, ReplayOptions, replay
from workers.replay.sent_alerts import overlapping
from workers.replay.stored_replay import StoredReplay, replay_stored
from workers.runtime.printable import printable
from workers.stored.left_out import Unusable
from workers.stored.pace import Heard
from workers.stored.rules_then import NOW, THEN
from workers.stored.wanted_encoders import WantedEncoders


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What `replay` is asked for.

    `out` is a file; it is a folder if it ends in `/`, is one, or there are several inputs.
    `origin` is what is judged: frames or observations (None: observations where they are stored).
    `rules` are those of now or of then.
    """

    given: Given
    out: str
    origin: str | None = None
    rules: str = NOW
    speed: float | None = None
    deliver: bool = False
    as_json: bool = False


def replay_command(path: Path, order: Order) -> bool:
    """Replays each input apart, writes its alerts, and prints what came of it.

    `path` is the config. Returns whether all inputs could be used; one of several that cannot is
    left out. Raises OutsideError and ConfigError.
    """
    settings = loader.load(path)
    unusable = Unusable()
    inputs = resolve(settings, path, order.given, rules=order.rules, unusable=unusable)
    _check(inputs, order)
    try:
        files = _files(inputs, order.out, alert_files(settings, order.given.state))
    except OSError as error:
        msg = f"--out {order.out}: cannot be written: {error.strerror}"
        raise OutsideError(msg) from error
    scenes = [one.scene for one in inputs if isinstance(one, SceneInput)]
    encoders = WantedEncoders(
        cameras=any(scene.cameras for scene in scenes),
        microphones=any(scene.microphones for scene in scenes),
    )
    rows: list[dict[str, Any]] = []
    for one, file in zip(inputs, files, strict=True):
        row: dict[str, Any] = {}
        alerts: Sequence[Alert] = ()
        with unusable.trying(one.path, alone=len(inputs) == 1):
            if isinstance(one, SceneInput):
                played = _play(settings, one, encoders, order)
                row, lines = _scene_row(one, file, played)
                alerts = played.alerts
            else:
                judged = _judge(settings, one, encoders, order)
                row, lines = _stored_row(one, file, judged)
                alerts = judged.alerts
        if not row:
            continue
        write_all(file, alerts)
        if order.deliver:
            _deliver(settings, alerts, Secrets(base=path.parent))
        rows.append(row)
        if not order.as_json:
            sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
            sys.stdout.flush()
    unusable.check(len(rows))
    if order.as_json:
        rows += [{"input": each.path, "left_out": each.why} for each in unusable.left_out]
        sys.stdout.write(json.dumps(rows if order.given.paths else rows[0]) + "\n")
    return not unusable.left_out


def _check(inputs: Sequence[Input], order: Order) -> None:
    """Raises ConfigError for an option that an input has no use for."""
    scene = next((one for one in inputs if isinstance(one, SceneInput)), None)
    if scene is not None and order.origin == OBSERVATIONS:
        msg = f"{scene.path}: has no observations: they are made of it; leave out --from"
        raise ConfigError(msg)
    if scene is not None and order.rules == THEN:
        msg = f"{scene.path}: nothing has judged it before: --config then is for what is stored"
        raise ConfigError(msg)
    if order.deliver and any(isinstance(one, StoredInput) for one in inputs):
        msg = "--deliver is for scenes: the alerts of what is stored have been delivered"
        raise ConfigError(msg)


def _play(settings: Config, one: SceneInput, encoders: WantedEncoders, order: Order) -> Replayed:
    chosen = one.selected
    with bar(one.name) as heard:
        played = replay(
            settings,
            one.scene,
            encoders.for_scenes(settings),
            speed=order.speed,
            heard=heard,
            study=ReplayOptions(keep=chosen.kept),
        )
    if chosen.since is None or chosen.until is None:
        return played
    alerts = overlapping(settings, played.alerts, chosen.since, chosen.until)
    return msgspec.structs.replace(played, alerts=tuple(alerts))


def _judge(
    settings: Config, one: StoredInput, encoders: WantedEncoders, order: Order
) -> StoredReplay:
    with bar(one.name) as heard:
        way = Way(
            origin=order.origin or OBSERVATIONS,
            selected=one.selected,
            speed=order.speed,
            heard=heard,
        )
        return replay_stored(settings, one, encoders, way, rules=order.rules)


@contextmanager
def bar(name: str) -> Iterator[Heard]:
    """Shows a bar on a terminal, with the speed as a multiple of real time."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[factor]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(name, total=None, factor="")

        def heard(done: int, all_: int) -> None:
            took = shown.tasks[0].elapsed or 0.0
            factor = f"{done / 1e9 / took:.1f} times real time" if took > 1 else ""
            shown.update(task, completed=done / 1e9, total=all_ / 1e9, factor=factor)

        yield heard


def _files(inputs: Sequence[Input], given: str, kept: Iterable[Path]) -> list[Path]:
    """Returns the output file of each input: `--out FILE` for one, `--out DIR/` for any number.

    Inputs with the same name but for the suffix keep the suffix: `clip.mp4.jsonl`. The files `kept`
    are not replaced.
    """
    out = Path(given)
    folder = out.is_dir() or given.endswith("/") or len(inputs) > 1
    if folder and out.is_file():
        msg = f"--out {out}: is a file, and several inputs need a folder: --out DIR/"
        raise ConfigError(msg)
    times = Counter(one.name for one in inputs)
    names = [one.name if times[one.name] == 1 else one.path.name for one in inputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = (
            f"two inputs are named {twice[0]}: their alerts would go to one file; replay them apart"
        )
        raise ConfigError(msg)
    files = [out / f"{name}.jsonl" for name in names] if folder else [out]
    theirs = {os.path.realpath(file) for file in kept}
    for file in files:
        if os.path.realpath(file) in theirs:
            msg = f"--out {file}: is where a daemon writes its alerts; name another"
            raise ConfigError(msg)
        check_output("--out", file, LINE_BEGIN, "file of alerts")
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=files[0].parent):
        return files  # the folder is writable: checked before hours of work


def _scene_row(one: SceneInput, file: Path, played: Replayed) -> tuple[dict[str, Any], list[str]]:
    """What came of a scene, for a program and for a person."""
    incidents = {alert.id: alert for alert in played.alerts}
    labels = sorted({label for alert in incidents.values() for label in alert.labels})
    unused = _unused(played)
    seconds = (played.scene.end - played.scene.start) / 1e9
    row = {
        "scene": one.name,
        "out": str(file),
        "seconds": seconds,
        "took": round(played.seconds, 2),
        "factor": round(played.factor, 1),
        "incidents": len(incidents),
        "revisions": len(played.alerts),
        "labels": labels,
        "unused": unused,
    }
    if one.said:
        row["chosen"] = list(one.said)
    damage = "".join(f"; {what}: {n}" for what, n in unused.items())
    named = f" ({', '.join(labels)})" if labels else ""
    line = (
        f"{one.name}: {len(incidents)} incidents, {len(played.alerts)} revisions"
        f"{named}; {seconds:g} s in {row['took']} s,"
        f" {row['factor']} times real time{damage} -> {file}"
    )
    return row, [line, *(f"  {said}" for said in one.said)]


def _unused(played: Replayed) -> dict[str, int]:
    """Returns the number of unusable pieces of the scene's media, by source and reason."""
    counts = played.status.snapshot().counts.get(played.scene.site, {})
    return {
        f"{source} {what}": n
        for source, known in sorted(counts.items())
        for what, n in sorted(known.items())
        if what.startswith(("dropped.", "unusable.", "repaired."))
    }


def _stored_row(
    one: StoredInput, file: Path, again: StoredReplay
) -> tuple[dict[str, Any], list[str]]:
    """What came of stored entries, for a program and for a person."""
    chunks = again.origin == FRAMES
    read = "records of frames, sound and reports" if chunks else "records of observations"
    row = {
        "out": str(file),
        "kind": one.kind,
        "from": again.origin,
        "rules": again.rules,
        "records" if chunks else "observations": again.entries,
        "seconds": again.seconds,
        "took": round(again.took, 2),
        "factor": round(again.factor, 1),
        "incidents": len({alert.id for alert in again.alerts}),
        "revisions": len(again.alerts),
        "configs": again.configs,
        "losses": list(again.losses),
        **({} if again.frames is None else msgspec.to_builtins(again.frames)),
        **msgspec.to_builtins(again.compared),
    }
    first = (
        f"{again.entries} {read}: {row['incidents']} incidents, {row['revisions']} revisions; "
        f"{again.seconds:g} s in {row['took']} s, {row['factor']} times real time -> {file}"
    )
    lines = [first, *again.compared.lines()]
    if not again.entries:
        lines.append("nothing that was observed then is stored")
    if again.rules == THEN:
        lines.append("judged by the rules of then:")
        lines += [f"  {line}" for line in again.configs.values()]
    lines += [f"  {loss}" for loss in again.losses]
    if again.frames is not None:
        lines += again.frames.lines()
    return row, lines


def _deliver(settings: Config, alerts: Sequence[Alert], secrets: Secrets) -> None:
    if missed := deliver_now(settings, alerts, secrets):
        msg = f"not every alert was taken by: {', '.join(missed)}"
        raise OutsideError(msg)
