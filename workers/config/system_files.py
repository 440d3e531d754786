"""Tells which paths lead to devices and to files of the kernel, whatever way they take."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

KERNEL_FOLDERS = ("/proc", "/sys")
# What the starting program hands over: `file:/dev/fd/3` is a usual way to give a secret.
_HANDED_OVER = re.compile(r"/dev/(stdin|stdout|stderr|fd/\d+)|/proc/self/fd/\d+", re.ASCII)


def system_file(path: Path, *, handed_over: bool = False) -> bool:
    """Returns whether `path` is, or leads to, a device or a file below /dev, /proc or /sys.

    `..` and links are followed as far as they exist. With `handed_over`, the files that this
    process was started with are no such files, nor are those of /dev that are no block devices.
    """
    if handed_over and _HANDED_OVER.fullmatch(str(path)):
        return False
    real = os.path.realpath(path)
    refused = KERNEL_FOLDERS if handed_over else ("/dev", *KERNEL_FOLDERS)
    for each in (os.path.abspath(path), real):
        if any(each == folder or each.startswith(f"{folder}/") for folder in refused):
            return True
    return _device(real, blocks_only=handed_over)


def _device(path: str, *, blocks_only: bool) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # nothing to open there, or it is told when it is opened
    return stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not blocks_only)
