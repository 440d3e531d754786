"""Checks the folder of the continuous recording: that it can be written, and has room."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from pipeline.bus.disk_space import usual_spare
from pipeline.config.schema import Config, Recording, size_bytes
from workers.recorder.continuous import folder_of
from workers.recorder.kept_files import KeptFiles

INSTEAD = "lower recording.keep, or name a larger disk in recording.path"


def recording_folder(config: Config) -> Path | None:
    """Returns the folder of the recordings; None if the config records nothing."""
    recording = config.recording
    if recording is None:
        return None
    return folder_of(recording, Path(config.state).expanduser())


def existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))


def checked(recording: Recording, folder: Path, log_grows: int) -> tuple[bool, str]:
    """Returns whether the folder is right, and what was found. It makes nothing.

    `log_grows` is what the log may still take of the same disk, in bytes; 0 on another disk.
    """
    there = existing(folder)
    if not there.is_dir():
        return False, f"{there} is no folder: name another in recording.path"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        used = KeptFiles(folder, 0).size()
    except OSError as error:
        return False, f"{there} cannot be used: {error.strerror}; name another in recording.path"
    free, keep = shutil.disk_usage(there).free, size_bytes(recording.keep)
    spare = 2 * usual_spare(there)  # with less, recording waits
    room = free + used - spare - log_grows
    made = "" if there == folder else " (to be made)"
    detail = f"{folder}{made}: {_gb(keep)} are kept; {_gb(used)} used, {_gb(free)} free"
    if room >= keep:
        return True, detail
    taken = f"{_gb(spare)} stay free"
    if log_grows:
        taken += f", and storage.cap may take {_gb(log_grows)} more of this disk"
    return False, f"{detail}, of which {taken}: {INSTEAD}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
