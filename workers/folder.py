"""The state folder, made where it is missing."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config
from pipeline.errors import OutsideError


def state_folder(settings: Config, given: Path | None = None) -> Path:
    """The folder `given`, else the config's; raises OutsideError when it cannot be made."""
    folder = (given or Path(settings.state)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}; choose another state folder: --state"
        raise OutsideError(msg) from error
    return folder
