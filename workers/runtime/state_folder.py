"""Creates the state folder and opens the daemon's log in it."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline import topics
from pipeline.bus.log import LocalLog, Retention
from pipeline.config.schema import Config
from pipeline.config.topic_plan import shares
from pipeline.errors import OutsideError


def state_folder(settings: Config, given: Path | None = None) -> Path:
    """Returns the folder `given`, else the config's, and creates it; raises OutsideError."""
    folder = (given or Path(settings.state)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}; choose another state folder: --state"
        raise OutsideError(msg) from error
    return folder


def local_log(settings: Config, folder: Path) -> LocalLog:
    """Opens the daemon's log in the state folder `folder`; raises OutsideError while another
    process has it."""
    return LocalLog(folder / "log", clock=time.time_ns, retention=_retention(settings))


def _retention(settings: Config) -> dict[str, Retention]:
    """Each topic's share of the cap on disk; evidence gets the rest."""
    return {
        topic: Retention(
            max_bytes=max(1 << 20, size),  # less is too little for a topic
            max_age=age,
            hold=topic == topics.ALERTS,
            durable=topic in (topics.ALERTS, topics.REPORTS),
        )
        for topic, (size, age) in shares(settings).items()
    }
