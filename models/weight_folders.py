"""The folders in which a registered model is looked for; reads no file and loads nothing slow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from models.registry import REGISTRY

SHIPPED = Path(__file__).with_name("shipped_weights")


def present(name: str, env: Mapping[str, str] = os.environ) -> bool:
    """Returns whether all files of a registered model are here; their hashes are not checked."""
    found = given(name, env)
    folders = (SHIPPED / name, cache(env) / "weights" / name) if found is None else (found,)
    files = REGISTRY[name].files
    return any(all((folder / file.name).is_file() for file in files) for folder in folders)


def given(name: str, env: Mapping[str, str]) -> Path | None:
    """Returns the model's folder under FUSEWATCH_WEIGHTS, or None if it does not exist."""
    folder = Path(env["FUSEWATCH_WEIGHTS"]).expanduser() if env.get("FUSEWATCH_WEIGHTS") else None
    return folder / name if folder is not None and (folder / name).is_dir() else None


def cache(env: Mapping[str, str] = os.environ) -> Path:
    """Returns the user's cache folder of Fusewatch (XDG Base Directory Specification)."""
    base = env.get("XDG_CACHE_HOME", "")
    home = Path(base) if base.startswith("/") else Path(env.get("HOME") or Path.home()) / ".cache"
    return home / "fusewatch"
