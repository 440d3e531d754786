"""The commands `weights list | pull | verify`: all model files, some, or those of a config.

`weights recommend` measures this machine.
"""

from __future__ import annotations

import json
from os import environ
from pathlib import Path
from typing import Annotated

from pipeline.errors import ConfigError
from workers.commands.options import (
    Config,
    Json,
    command,
    command_group,
    flag,
    number_option,
    path_option,
    text_argument,
)
from workers.exit_codes import FOUND, OK

MOST_SECONDS = 10.0  # of one measurement of `weights recommend`

app = command_group("Model files.")

All = Annotated[list[str] | None, text_argument("The models (default: all).")]
Names = Annotated[
    list[str] | None, text_argument("The models (default: all but the optional ones).")
]
OfConfig = Annotated[
    Path | None, path_option("--config", "Only the models that this config needs.")
]


def _chosen(names: list[str] | None, config: Path | None) -> list[str]:
    """The registered models that a command is about; raises ConfigError."""
    from models.registry import REGISTRY
    from models.weights import DEFAULTS

    if names and config:
        msg = "either names of models, or --config for those that a config needs"
        raise ConfigError(msg)
    if config:
        from pipeline.config.model_needs import needed_models
        from workers.config import loader

        needed = dict.fromkeys(m.weights for m in needed_models(loader.load(config)).values())
        return [name for name in needed if name in REGISTRY]  # others are the user's own files
    if unknown := [name for name in names or () if name not in REGISTRY]:
        msg = f"no such weights: {unknown[0]!r}; there are {', '.join(REGISTRY)}"
        raise ConfigError(msg)
    return names or list(DEFAULTS)


@command(app, "list")
def _list(names: All = None, config: OfConfig = None, as_json: Json = False) -> int:
    """Show the models: licence, size, purpose, and where their files are."""
    from models.registry import REGISTRY
    from models.weights import list_weights

    named = _chosen(names, config) if names or config else list(REGISTRY)
    rows = [row for row in list_weights() if row["name"] in named]
    if as_json:
        print(json.dumps(rows))
        return OK
    wide = max(len(str(row["name"])) for row in rows)
    for row in rows:
        size = f"{row['megabytes']:6.1f} MB"
        print(
            f"{row['name']:{wide}}  {row['state']:7}  {row['licence']:10}  {size}  {row['about']}"
        )
        print(f"{'':{wide}}  {row['folder']}")
        if row["note"]:
            print(f"{'':{wide}}  note: {row['note']}")
    return OK


@command(app, "pull")
def _pull(names: Names = None, config: OfConfig = None, as_json: Json = False) -> int:
    """Download what is missing. What FUSEWATCH_WEIGHTS holds is used as it is."""
    from models.weight_folders import given
    from models.weights import find

    rows = []
    for name in _chosen(names, config):
        rows.append({"name": name, "folder": str(find(name))})
        if not as_json:
            held = " (in FUSEWATCH_WEIGHTS; nothing was downloaded)" if given(name, environ) else ""
            print(f"{name}: {rows[-1]['folder']}{held}")
    if as_json:
        print(json.dumps(rows))
    return OK


@command(app, "verify")
def _verify(names: Names = None, config: OfConfig = None, as_json: Json = False) -> int:
    """Check the hashes of the files."""
    from models.weights import verify

    return OK if verify(_chosen(names, config), as_json=as_json) else FOUND


@command(app, "recommend")
def _recommend(
    config: Config,
    connect: Annotated[
        bool, flag("--connect", "Read the cameras for 5 s, and measure what that takes.")
    ] = False,
    seconds: Annotated[
        float, number_option("--seconds", "N", "Length of each measurement (default: 1.5).")
    ] = 1.5,
    as_json: Json = False,
) -> int:
    """Measure what this machine bears, and propose a detector for a config. Nothing is written."""
    import msgspec

    from workers.config import loader
    from workers.setup.camera_load import read_cameras
    from workers.setup.machine_speed import measure
    from workers.setup.recommendation import lines, recommend

    if not 0 < seconds <= MOST_SECONDS:
        msg = f"--seconds must be more than 0, and at most {MOST_SECONDS:g}"
        raise ConfigError(msg)
    settings = loader.load(config)
    read, unread = read_cameras(settings, environ, config.parent) if connect else ({}, {})
    made = recommend(settings, measure(settings, seconds=seconds), read, unread)
    if as_json:
        print(msgspec.json.encode(made).decode())
    else:
        print("\n".join(lines(made)))
    return OK if made.best is not None else FOUND
