"""Finds, downloads and verifies model files; `models/registry.py` lists them.

A model is a folder of files. It is looked for in `FUSEWATCH_WEIGHTS`, then in the user's cache
(`XDG_CACHE_HOME`), and then downloaded to that cache. A file with a wrong hash is refused. All
registered files are ONNX, TFLite or CTranslate2: data, not code. A `.pt` file is a pickle and can
run any code: it is loaded only if the config names its path.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from models.download import Told, Wanted, digest, fetch, file_lock
from models.registry import REGISTRY, File, Weights
from pipeline.errors import WeightsError

DEFAULTS = tuple(REGISTRY)
log = logging.getLogger("fusewatch.weights")


def find(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of a registered model with verified hashes; downloads missing files.

    Raises WeightsError for an unknown name, a file with a wrong hash, or a failed download.
    """
    weights = _registered(name)
    given = _given(name, env)
    if given is not None:
        for file in weights.files:
            if _state(given / file.name, file, env) != "right":
                msg = (
                    f"{given / file.name} is not the file of {name} that it should be (wrong "
                    "SHA-256, or missing); replace it, or unset FUSEWATCH_WEIGHTS to download it"
                )
                raise WeightsError(msg)
        return given
    return pull(name, env)


def pull(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """Returns the model's folder in the user's cache; downloads what is missing or wrong there.

    Raises WeightsError.
    """
    weights = _registered(name)
    folder = cache(env) / "weights" / name
    if all(_state(folder / file.name, file, env) == "right" for file in weights.files):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(
            folder.parent, f".{weights.name}.lock"
        ):  # several workers may start at once on one cache
            _complete(weights, folder, env)
    except OSError as error:
        msg = f"{folder} cannot be written: {error.strerror or error}"
        raise WeightsError(msg) from error
    return folder


def _complete(weights: Weights, folder: Path, env: Mapping[str, str]) -> None:
    for file in weights.files:
        if _state(folder / file.name, file, env) == "right":
            continue
        if (folder / file.name).exists():
            log.warning("%s has a wrong SHA-256: it is downloaded again", folder / file.name)
            (folder / file.name).unlink()
        with _progress(f"{weights.name}/{file.name}", file) as told:
            _bring(file, folder, told)


def present(name: str, env: Mapping[str, str] = os.environ) -> bool:
    """Returns whether all files of a registered model are here; reads none of them."""
    folder = _given(name, env) or cache(env) / "weights" / name
    return all((folder / file.name).is_file() for file in REGISTRY[name].files)


def list_weights(env: Mapping[str, str] = os.environ) -> list[dict[str, str | float]]:
    """Returns one row per registered model: description, licence, size and location."""
    rows: list[dict[str, str | float]] = []
    for weights in REGISTRY.values():
        state, folder = _whereabouts(weights, env, fresh=False)
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
    names: Sequence[str] = (), *, as_json: bool = False, env: Mapping[str, str] = os.environ
) -> bool:
    """Hashes all bytes of the models (default: all), prints and returns whether they are right."""
    rows = []
    for name in names or DEFAULTS:
        state, folder = _whereabouts(_registered(name), env, fresh=True)
        rows.append({"name": name, "state": state, "folder": str(folder)})
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        for row in rows:
            sys.stdout.write(f"{row['name']}: {row['state']} ({row['folder']})\n")
    return all(row["state"] == "right" for row in rows)


def cache(env: Mapping[str, str] = os.environ) -> Path:
    """Returns the user's cache folder of Fusewatch (XDG Base Directory Specification)."""
    base = env.get("XDG_CACHE_HOME", "")
    home = Path(base) if base.startswith("/") else Path(env.get("HOME") or Path.home()) / ".cache"
    return home / "fusewatch"


def _registered(name: str) -> Weights:
    if name in REGISTRY:
        return REGISTRY[name]
    close = difflib.get_close_matches(name[:60], REGISTRY, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(REGISTRY)}"
    msg = f"no such weights, and no such path: {name[:200]!r}{hint}"
    raise WeightsError(msg)


def _given(name: str, env: Mapping[str, str]) -> Path | None:
    """Returns the model's folder under FUSEWATCH_WEIGHTS, or None if it does not exist."""
    folder = Path(env["FUSEWATCH_WEIGHTS"]).expanduser() if env.get("FUSEWATCH_WEIGHTS") else None
    return folder / name if folder is not None and (folder / name).is_dir() else None


def _whereabouts(weights: Weights, env: Mapping[str, str], *, fresh: bool) -> tuple[str, Path]:
    folder = _given(weights.name, env) or cache(env) / "weights" / weights.name
    states = {_state(folder / file.name, file, env, fresh=fresh) for file in weights.files}
    return next(state for state in ("wrong", "missing", "right") if state in states), folder


def _state(path: Path, file: File, env: Mapping[str, str], *, fresh: bool = False) -> str:
    """Returns `right`, `wrong` or `missing`; without `fresh` an unchanged file is hashed only
    once."""
    try:
        stat = path.stat()
        if stat.st_size != file.size:
            return "wrong"
        key, mark = str(path.resolve()), f"{stat.st_size} {stat.st_mtime_ns} {file.sha256}"
        known = _hashes(env)
        if not fresh and known.get(key) == mark:
            return "right"
        if digest(path) != file.sha256:
            return "wrong"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise WeightsError(msg) from error
    _remember(env, {**known, key: mark})
    return "right"


def _hashes(env: Mapping[str, str]) -> dict[str, str]:
    try:
        return msgspec.json.decode((cache(env) / "hashes.json").read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.info("the list of checked weights is made anew: %s", error)
        return {}


def _remember(env: Mapping[str, str], known: dict[str, str]) -> None:
    file = cache(env) / "hashes.json"
    part = file.with_name(f"hashes.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.encode(known))
        part.replace(file)
    except OSError as error:  # harmless: the next start hashes again
        log.info("%s cannot be written: %s", file, error)


def _bring(file: File, folder: Path, told: Told) -> None:
    if file.archive is None:
        fetch(Wanted(file.url, file.size, file.sha256), folder / file.name, told)
        return
    archive = folder / Path(file.archive.url).name
    fetch(Wanted(file.archive.url, file.archive.size, file.archive.sha256), archive, told)
    part = folder / f"{file.name}.part"
    with zipfile.ZipFile(archive) as opened, opened.open(file.inside) as source:
        part.write_bytes(source.read(file.size + 1))
    if digest(part) != file.sha256:
        part.unlink()
        msg = f"{file.inside} in {archive} is not the file that it should be (wrong SHA-256)"
        raise WeightsError(msg)
    part.replace(folder / file.name)
    archive.unlink()


@contextmanager
def _progress(what: str, file: File) -> Iterator[Told]:
    """Shows a progress bar on a terminal, or writes one log line elsewhere."""
    total = file.archive.size if file.archive else file.size
    if not sys.stderr.isatty():
        log.info("downloading %s (%.1f MB)", what, total / 1e6)
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - only a download on a terminal needs it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TransferSpeedColumn,
    )

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
