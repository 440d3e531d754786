"""A real disk of a few MB for a test: a tmpfs, which root alone may mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mounts a tmpfs on a new folder below `folder`; skips the test where that is not allowed."""
    place = folder / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    size = ["-o", f"size={megabytes}m,mode=700"]
    command = ["mount", "-t", "tmpfs", *size, "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(file: Path) -> None:
    """Writes zeros into `file` until the disk is full, as another program would."""
    block = bytes(1 << 20)
    with open(file, "ab", buffering=0) as out:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while out.write(block[:size]) == size:
                    pass
