"""Finds, downloads and verifies model files; `models/registry.py` lists them.

A model is a folder of files. It is looked for in `FUSEWATCH_WEIGHTS`, then among the files that
come with Fusewatch (`models/shipped_weights`), then in the user's cache (`XDG_CACHE_HOME`), and is
then downloaded to that cache. A file with a wrong hash is refused. All registered files are ONNX,
TFLite or CTranslate2: data, not code. A `.pt` file is a pickle and can run any code: it is loaded
only if the config names its path.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.download import digest, file_lock
from models.file_sources import complete
from models.registry import REGISTRY, File, Weights
from models.weight_folders import SHIPPED, cache, given
from pipeline.errors import WeightsError

DEFAULTS = tuple(name for name, weights in REGISTRY.items() if not weights.optional)
log = logging.getLogger("fusewatch.weights")


def find(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of a registered model with verified hashes; downloads missing files.

    Raises WeightsError for an unknown name, a file with a wrong hash, or a failed download.
    """
    weights = _registered(name)
    found = given(name, env)
    if found is None:
        return _pull(weights, env)
    for file in weights.files:
        if _state(found / file.name, file) != "right":
            msg = (
                f"{found / file.name} is not the file of {name} that it should be (wrong "
                "SHA-256, or missing); replace it, or unset FUSEWATCH_WEIGHTS to download it"
            )
            raise WeightsError(msg)
    return found


def _pull(weights: Weights, env: Mapping[str, str]) -> Path:
    """Returns the model's folder: the shipped one, or that in the user's cache, which is
    completed."""
    name = weights.name
    shipped, folder = SHIPPED / name, cache(env) / "weights" / name
    states = {_state(shipped / file.name, file) for file in weights.files}
    if states == {"right"}:
        return shipped
    if "wrong" in states:
        log.warning("%s: a file has a wrong SHA-256; install Fusewatch again", shipped)
    if all(_state(folder / file.name, file) == "right" for file in weights.files):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder.parent, f".{name}.lock"):  # several workers may start at once
            complete(weights, folder, env)
    except OSError as error:
        msg = f"{folder} cannot be written: {error.strerror or error}"
        raise WeightsError(msg) from error
    return folder


def list_weights(env: Mapping[str, str] = os.environ) -> list[dict[str, str | float]]:
    """Returns one row per registered model: description, licence, size and location."""
    rows: list[dict[str, str | float]] = []
    for weights in REGISTRY.values():
        state, folder = _whereabouts(weights, env)
        rows.append(
            {
                "name": weights.name,
                "licence": weights.licence,
                "megabytes": round(sum(file.size for file in weights.files) / 1e6, 1),
                "state": state,
                "folder": str(folder),
                "about": weights.about,
                "note": weights.note,
            }
        )
    return rows


def verify(
    names: Sequence[str] = DEFAULTS, *, as_json: bool = False, env: Mapping[str, str] = os.environ
) -> bool:
    """Hashes all bytes of the models, prints and returns whether they are right.

    The default is all but the optional ones.
    """
    rows = []
    for name in names:
        state, folder = _whereabouts(_registered(name), env)
        rows.append({"name": name, "state": state, "folder": str(folder)})
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        for row in rows:
            sys.stdout.write(f"{row['name']}: {row['state']} ({row['folder']})\n")
    return all(row["state"] == "right" for row in rows)


def _registered(name: str) -> Weights:
    if name in REGISTRY:
        return REGISTRY[name]
    close = difflib.get_close_matches(name[:60], REGISTRY, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(REGISTRY)}"
    msg = f"no such weights, and no such path: {name[:200]!r}{hint}"
    raise WeightsError(msg)


def _whereabouts(weights: Weights, env: Mapping[str, str]) -> tuple[str, Path]:
    """Returns the state of a model and its folder: the one that `find` would use."""
    folders = (SHIPPED / weights.name, cache(env) / "weights" / weights.name)
    found = given(weights.name, env)
    for folder in folders if found is None else (found,):
        states = {_state(folder / file.name, file) for file in weights.files}
        if states == {"right"}:
            break
    return next(state for state in ("wrong", "missing", "right") if state in states), folder


def _state(path: Path, file: File) -> str:
    """Returns `right`, `wrong` or `missing`.

    Every byte is hashed each time: a rotten disk and a restored time stamp change nothing that a
    shorter look would see.
    """
    try:
        return "right" if file.right(path.stat().st_size, digest(path)) else "wrong"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise WeightsError(msg) from error
