"""The commands that teach the fusion head: compose, features, export, review, train, evaluate."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from pipeline.errors import ConfigError
from workers.exit_codes import FOUND, OK, Add


def add_commands(add: Add) -> None:
    """From clips to scenes, from scenes or alerts to windows, from windows to a head."""
    _add_compose(add)
    _add_features(add)
    _add_export(add)
    _add_review(add)
    _add_train(add)
    _add_evaluate(add)


def _add_compose(add: Add) -> None:
    made = add(
        "compose", _compose, "labelled scenes out of a folder of clips, to train and measure"
    )
    made.add_argument("media", type=Path, help="folder of clips, with a manifest.tsv")
    made.add_argument("--scenes", type=int, required=True, help="how many")
    made.add_argument("--seed", type=int, required=True, help="the same gives the same bytes")
    made.add_argument("--out", type=Path, required=True, help="a new folder, or a composed one")
    made.add_argument("--manifest", type=Path, help="instead of MEDIA/manifest.tsv")
    made.add_argument("--duration", type=float, default=30.0, help="seconds of a scene (30)")
    made.add_argument("--anomalies", type=float, default=0.5, help="share of scenes (0.5)")
    made.add_argument("--splits", type=_shares, default=(60, 15, 25), help="train/val/test")
    made.add_argument(
        "--quiet", action="store_true", help="ordinary scenes only, of held-out (test) clips"
    )


def _add_features(add: Add) -> None:
    made = add("features", _features, "the windows of scenes, with their truth, to learn from")
    made.add_argument("config", type=Path)
    made.add_argument("scenes", type=Path, nargs="+", metavar="SCENE")
    made.add_argument("--out", type=Path, required=True, help="a .jsonl file")
    made.add_argument("--split", choices=("train", "val", "test"), help="default: the folder")


def _add_export(add: Add) -> None:
    made = add("export", _export, "the windows of past alerts, for a person to review")
    made.add_argument("config", type=Path)
    made.add_argument("--since", required=True, help="a time like 2026-01-05T22:00:00Z")
    made.add_argument("--until", help="... (default: now)")
    made.add_argument("--state", type=Path, help="state folder of the daemon")
    made.add_argument("--out", type=Path, required=True, help="a .jsonl file")


def _add_review(add: Add) -> None:
    made = add("review", _review, "list exported alerts, or say which were right")
    made.add_argument("file", type=Path, help="of `fusewatch export`")
    made.add_argument("ids", nargs="*", metavar="ID", help="of an alert, or how it begins")
    made.add_argument("--all", action="store_true", help="say it of all alerts of the file")
    said = made.add_mutually_exclusive_group()
    for name, verdict in (("right", True), ("wrong", False), ("unsure", None)):
        said.add_argument(f"--{name}", dest="said", action="append_const", const=verdict)
    made.add_argument("--label", default="", help="what it was, where it was told as another")
    made.add_argument("--json", action="store_true")
    made.set_defaults(parser=made)


def _add_train(add: Add) -> None:
    made = add("train", _train, "a fusion head, from windows of scenes or reviewed alerts")
    made.add_argument("files", type=Path, nargs="+", metavar="FILE", help="windows: .jsonl")
    made.add_argument("--out", type=Path, required=True, help="folder of the head")
    made.add_argument("--base", default="shipped", help="head to train on from; none: anew")
    made.add_argument("--network", choices=("attention", "concat"), default="concat")
    made.add_argument("--name", default="site", help="of the head, as alerts tell it")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--epochs", type=int, default=30)
    made.add_argument("--per-hour", type=float, default=0.5, help="false alarms, for --base none")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--json", action="store_true")


def _add_evaluate(add: Add) -> None:
    made = add("evaluate", _evaluate, "what a fusion head is worth, on windows, scenes or clips")
    made.add_argument("inputs", type=Path, nargs="*", metavar="FILE", help=".jsonl or scenes")
    made.add_argument("--head", default="shipped", help="shipped, or a folder")
    made.add_argument("--config", type=Path, help="of the scenes' sites")
    made.add_argument("--clips", type=Path, help="instead: a folder of sounds, each by itself")
    made.add_argument("--manifest", type=Path, help="of the clips' labels, instead of their names")
    made.add_argument("--report", type=Path, help="an .html file to write")
    made.add_argument("--least", type=float, default=0.0, help="AP or accuracy below it: exit 1")
    made.add_argument("--json", action="store_true")
    made.set_defaults(parser=made)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split("/"))
    except ValueError:
        msg = "three shares with slashes: 60/15/25"
        raise argparse.ArgumentTypeError(msg) from None


def _compose(given: argparse.Namespace) -> int:
    from workers.training.compose import compose, summary

    told = compose(
        given.media,
        given.out,
        scenes=given.scenes,
        seed=given.seed,
        manifest=given.manifest,
        duration=given.duration,
        anomalies=given.anomalies,
        splits=given.splits,
        quiet=given.quiet,
    )
    for line in summary(told):
        print(line)
    return OK


def _features(given: argparse.Namespace) -> int:
    from workers.training import datasets

    count = datasets.features(given.config, given.scenes, given.out, given.split)
    print(f"{count} windows of {len(given.scenes)} scenes -> {given.out}")
    return OK


def _export(given: argparse.Namespace) -> int:
    from workers.training import datasets

    told = datasets.export(given.config, given.since, given.until, given.out, given.state)
    if not told["alerts"]:
        print("nothing that was observed then is an alert by the rules and heads of now")
        return FOUND
    print(f"{told['windows']} windows of {told['alerts']} alerts -> {told['out']}")
    print(f"then: fusewatch review {told['out']}, and fusewatch train")
    return OK


def _review(given: argparse.Namespace) -> int:
    from workers.training import review

    if given.said is None:
        if given.ids or given.all or given.label:
            given.parser.error("what of them? --right, --wrong or --unsure")
        found = review.alerts(given.file)
    elif bool(given.ids) == given.all:
        given.parser.error("either the IDs that `fusewatch review FILE` lists, or --all")
    else:
        found = review.review(given.file, given.ids, given.said[-1], given.label)
    for alert in found:
        print(msgspec.json.encode(alert).decode() if given.json else alert.line())
    return OK


def _train(given: argparse.Namespace) -> int:
    told = _of_extra("workers.training.train").train(
        given.files,
        given.out,
        base=given.base,
        network=given.network,
        seed=given.seed,
        epochs=given.epochs,
        per_hour=given.per_hour,
        device=given.device,
        name=given.name,
    )
    _print(told, as_json=given.json)
    return OK


def _evaluate(given: argparse.Namespace) -> int:
    if bool(given.inputs) == bool(given.clips):
        given.parser.error("either files of windows and scenes, or --clips FOLDER")
    evaluation = _of_extra("workers.training.evaluate")
    if given.clips:
        told = evaluation.evaluate_clips(given.clips, given.head, given.manifest)
    else:
        told = evaluation.evaluate(given.inputs, given.head, given.config, given.report)
    _print(told, as_json=given.json)
    reached = told["accuracy"] if given.clips else told["ap"]
    return OK if not given.least or float(reached or 0) >= given.least else FOUND


def _of_extra(module: str) -> ModuleType:
    """A module that needs the extra `train`."""
    try:
        return import_module(module)
    except ImportError as error:
        msg = f"this needs the package {error.name}: pip install 'fusewatch[train]'"
        raise ConfigError(msg) from error


def _print(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        print(f"{name:24} {round(value, 4) if isinstance(value, float) else value}")
