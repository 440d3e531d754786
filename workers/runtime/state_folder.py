"""Creates the state folder, bounds it, and opens the daemon's log in it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import topics
from pipeline.bus.disk_space import usual_spare
from pipeline.bus.log import LocalLog, Retention
from pipeline.config.schema import Config, size_bytes
from pipeline.config.topic_plan import shares
from pipeline.errors import OutsideError

CAP_EVERY = 30.0  # s between two looks at how large the state folder may be
HELD = (topics.REPORTS, topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS)  # until they are read
GIVES_WAY = {topics.FRAMES: 1, topics.AUDIO: 2}  # when the disk is full; frames first


def state_folder(settings: Config, given: Path | None = None) -> Path:
    """Returns the folder `given`, else the config's, and creates it; raises OutsideError."""
    folder = (given or Path(settings.state)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}; choose another state folder: --state"
        raise OutsideError(msg) from error
    return folder


class StorageCap:
    """The bytes that the state folder may take now: `storage.cap`, or less on a smaller disk.

    A disk counts with what it has free, less what is to stay free, and with what the folder takes
    already. Thread safe; it looks every `CAP_EVERY` s.
    """

    def __init__(self, settings: Config, folder: Path) -> None:
        self._cap = size_bytes(settings.storage.cap)
        self._folder = folder
        self._lock = threading.Lock()
        self._known, self._due = 0, 0.0

    def __call__(self) -> int:
        with self._lock:
            if time.monotonic() >= self._due:
                self._known, self._due = self._measured(), time.monotonic() + CAP_EVERY
            return self._known

    def _measured(self) -> int:
        free = shutil.disk_usage(self._folder).free - usual_spare(self._folder)
        return min(self._cap, max(0, _size(self._folder) + free))


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; a file that goes away meanwhile does not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def local_log(
    settings: Config,
    folder: Path,
    *,
    give: Callable[[int], int] = lambda wanted: 0,
    stop: threading.Event | None = None,
) -> LocalLog:
    """Opens the daemon's log in the state folder `folder`; raises OutsideError while another
    process has it.

    `give` frees about so many bytes of other files when the disk is full. Waits of the log end
    when `stop` is set.
    """
    state_folder(settings, folder)
    return LocalLog(
        folder / "log",
        clock=time.time_ns,
        retention=retention(settings, StorageCap(settings, folder)()),
        spare=usual_spare(folder),
        give=give,
        stop=stop,
    )


def retention(settings: Config, cap: int) -> dict[str, Retention]:
    """Each topic's share of `cap` bytes on disk; evidence gets the rest."""
    return {
        topic: Retention(
            max_bytes=max(1 << 20, size),  # less is too little for a topic
            max_age=age,
            hold=topic in HELD,
            # Stages may always write what they make of records that are held, or nobody moves.
            capped=topic in (topics.REPORTS, topics.OBSERVATIONS),
            durable=topic in (topics.ALERTS, topics.REPORTS),
            gives_way=GIVES_WAY.get(topic, 0),
            urgent=topic == topics.REPORTS,
        )
        for topic, (size, age) in shares(settings, cap).items()
    }
