"""The commands that teach the fusion head: compose, features, export, review, train, evaluate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError, install_hint
from workers.commands.options import (
    Config,
    Json,
    Panel,
    choice_option,
    command,
    command_group,
    flag,
    number_option,
    path_argument,
    path_option,
    text_argument,
    text_option,
    time_option,
    whole_option,
)
from workers.exit_codes import FOUND, OK

app = command_group("From clips to scenes, from scenes or alerts to windows, from these to a head.")


@command(app, "compose", Panel.LEARNING)
def _compose(
    media: Annotated[Path, path_argument("A folder of clips with a manifest.tsv.")],
    scenes: Annotated[int, whole_option("--scenes", "COUNT", "How many scenes to make.")],
    seed: Annotated[int, whole_option("--seed", "NUMBER", "The same seed gives the same bytes.")],
    out: Annotated[Path, path_option("--out", "A new folder, or a composed one.", "DIR")],
    manifest: Annotated[
        Path | None, path_option("--manifest", "The manifest (default: media/manifest.tsv).")
    ] = None,
    duration: Annotated[
        float, number_option("--duration", "SECONDS", "The length of a scene.")
    ] = 30.0,
    anomalies: Annotated[
        float, number_option("--anomalies", "SHARE", "The share of scenes with an anomaly.")
    ] = 0.5,
    splits: Annotated[str, text_option("--splits", "SHARES", "The shares of train/val/test.")] = (
        "60/15/25"
    ),
    quiet: Annotated[
        bool, flag("--quiet", "Make ordinary scenes only, of held-out (test) clips.")
    ] = False,
) -> int:
    """Make labelled scenes out of a folder of clips, to train and measure."""
    from workers.training.compose import compose, summary

    told = compose(
        media,
        out,
        scenes=scenes,
        seed=seed,
        manifest=manifest,
        duration=duration,
        anomalies=anomalies,
        splits=_shares(splits),
        quiet=quiet,
    )
    for line in summary(told):
        print(line)
    return OK


def _shares(word: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in word.split("/"))
    except ValueError:
        msg = "three shares with slashes: 60/15/25"
        raise typer.BadParameter(msg, param_hint="--splits") from None


@command(app, "features", Panel.LEARNING)
def _features(
    config: Config,
    scenes: Annotated[list[Path], path_argument("The scene files.", metavar="SCENE")],
    out: Annotated[Path, path_option("--out", "The .jsonl file to write.")],
    split: Annotated[
        str | None,
        choice_option(
            "--split", ("train", "val", "test"), "Their split (default: the name of their folder)."
        ),
    ] = None,
) -> int:
    """Write the windows of scenes, with their truth, to learn from."""
    from workers.training import datasets

    count = datasets.features(config, scenes, out, split)
    print(f"{count} windows of {len(scenes)} scenes -> {out}")
    return OK


@command(app, "export", Panel.LEARNING)
def _export(
    config: Config,
    since: Annotated[str, time_option("--since", "Alerts since then.")],
    out: Annotated[Path, path_option("--out", "The .jsonl file to write.")],
    until: Annotated[
        str | None, time_option("--until", "Alerts until then (default: now).")
    ] = None,
    state: Annotated[
        Path | None, path_option("--state", "The daemon's state folder.", "DIR")
    ] = None,
) -> int:
    """Write the windows of past alerts, for a person to review."""
    from workers.training import datasets

    told = datasets.export(config, since, until, out, state)
    if not told["alerts"]:
        print("nothing that was observed then is an alert by the rules and heads of now")
        return FOUND
    print(f"{told['windows']} windows of {told['alerts']} alerts -> {told['out']}")
    print(f"then: fusewatch review {told['out']}, and fusewatch train")
    return OK


@command(app, "review", Panel.LEARNING)
def _review(
    context: typer.Context,
    file: Annotated[Path, path_argument("The file that `fusewatch export` wrote.")],
    ids: Annotated[
        list[str] | None, text_argument("The id of an alert, or how it begins.", metavar="ID")
    ] = None,
    every: Annotated[bool, flag("--all", "All alerts of the file.")] = False,
    right: Annotated[bool, flag("--right", "They were right.")] = False,
    wrong: Annotated[bool, flag("--wrong", "They were wrong.")] = False,
    unsure: Annotated[bool, flag("--unsure", "Nobody can tell.")] = False,
    label: Annotated[
        str, text_option("--label", "LABEL", "What it was, where it was told as another.")
    ] = "",
    as_json: Json = False,
) -> int:
    """List exported alerts, or say which were right."""
    import msgspec

    from workers.training import review

    if right + wrong + unsure > 1:
        context.fail("only one of --right, --wrong and --unsure")
    if not (right or wrong or unsure):
        if ids or every or label:
            context.fail("what of them? --right, --wrong or --unsure")
        found = review.alerts(file)
    elif bool(ids) == every:
        context.fail("either the IDs that `fusewatch review FILE` lists, or --all")
    else:
        found = review.review(file, ids or [], None if unsure else right, label)
    for alert in found:
        print(msgspec.json.encode(alert).decode() if as_json else alert.line())
    return OK


@command(app, "train", Panel.LEARNING)
def _train(
    files: Annotated[list[Path], path_argument("Files of windows (.jsonl).", metavar="FILE")],
    out: Annotated[Path, path_option("--out", "The folder of the new head.", "DIR")],
    base: Annotated[
        str, text_option("--base", "HEAD", "The head to train on from, or none.")
    ] = "shipped",
    network: Annotated[
        str, choice_option("--network", ("attention", "concat"), "The network of a new head.")
    ] = "concat",
    name: Annotated[str, text_option("--name", "NAME", "The name of the head in alerts.")] = "site",
    seed: Annotated[int, whole_option("--seed", "NUMBER", "The seed of chance.")] = 1,
    epochs: Annotated[int, whole_option("--epochs", "COUNT", "The rounds of training.")] = 30,
    per_hour: Annotated[
        float,
        number_option("--per-hour", "COUNT", "False alarms an hour to allow, for --base none."),
    ] = 0.5,
    device: Annotated[str, text_option("--device", "DEVICE", "cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> int:
    """Train a fusion head, from windows of scenes or reviewed alerts."""
    told = _of_extra("workers.training.train").train(
        files,
        out,
        base=base,
        network=network,
        seed=seed,
        epochs=epochs,
        per_hour=per_hour,
        device=device,
        name=name,
    )
    _print(told, as_json=as_json)
    return OK


@command(app, "evaluate", Panel.LEARNING)
def _evaluate(
    context: typer.Context,
    inputs: Annotated[
        list[Path] | None, path_argument("Files of windows (.jsonl), or scenes.", metavar="FILE")
    ] = None,
    head: Annotated[
        str, text_option("--head", "HEAD", "shipped, or the folder of a head.")
    ] = "shipped",
    config: Annotated[
        Path | None, path_option("--config", "The config of the scenes' sites.")
    ] = None,
    clips: Annotated[
        Path | None,
        path_option("--clips", "A folder of sounds to judge one by one, instead of files.", "DIR"),
    ] = None,
    manifest: Annotated[
        Path | None, path_option("--manifest", "The labels of the clips (default: their names).")
    ] = None,
    report: Annotated[Path | None, path_option("--report", "An .html file to write.")] = None,
    least: Annotated[
        float, number_option("--least", "SHARE", "End with 1 where AP or accuracy is below it.")
    ] = 0.0,
    as_json: Json = False,
) -> int:
    """Tell what a fusion head is worth, on windows, scenes or clips."""
    if bool(inputs) == bool(clips):
        context.fail("either files of windows and scenes, or --clips FOLDER")
    evaluation = _of_extra("workers.training.evaluate")
    if clips:
        told = evaluation.evaluate_clips(clips, head, manifest)
    else:
        told = evaluation.evaluate(inputs, head, config, report)
    _print(told, as_json=as_json)
    reached = told["accuracy"] if clips else told["ap"]
    return OK if not least or float(reached or 0) >= least else FOUND


def _of_extra(module: str) -> ModuleType:
    """A module that needs the extra `train`."""
    try:
        return import_module(module)
    except ImportError as error:
        msg = f"this needs the package {error.name}: {install_hint('train')}"
        raise ConfigError(msg) from error


def _print(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:24} {round(value, 4) if isinstance(value, float) else value}")
