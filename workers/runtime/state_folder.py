"""Creates the state folder, keeps it private and bounded, and opens the daemon's log in it."""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline import topics
from pipeline.bus.disk_space import usual_spare
from pipeline.bus.log import LocalLog, Missed, Retention
from pipeline.bus.private import FOLDER, OTHERS, tighten
from pipeline.config.schema import Config
from pipeline.config.topic_plan import shares
from pipeline.errors import OutsideError
from workers.runtime.storage_cap import StorageCap

HELD = (topics.REPORTS, topics.OBSERVATIONS, topics.ANOMALIES, topics.ALERTS)  # until they are read
GIVES_WAY = {topics.FRAMES: 1, topics.AUDIO: 2}  # when the disk is full; frames first

log = logging.getLogger("fusewatch")

# what Fusewatch keeps in a state folder; `lost+found` is the file system's
_OURS = re.compile(
    r"log|evidence|pictures|recordings|enabled|token|webhook-secret|\w+-password(-\d+)?|running"
    r"|alerts\.jsonl.*|spool\..*|reserve|modes\.json(\.part)?"
)
_NOBODYS = {"lost+found"}


def state_folder(settings: Config, given: Path | None = None) -> Path:
    """Returns the folder `given`, else the config's, made private; raises OutsideError."""
    folder = (given or Path(settings.state)).expanduser()
    try:
        make_private(folder)
    except OSError as error:
        msg = f"{folder}: cannot be made: {error.strerror}; choose another state folder: --state"
        raise OutsideError(msg) from error
    return folder


def make_private(folder: Path) -> None:
    """Creates the state folder, or tightens it and all that Fusewatch kept in it before.

    A folder that holds other things too, or is another user's, keeps its mode: it may be somebody's
    home. What we keep in it is private all the same. A folder in which every user may write is
    refused, because others could replace what is kept. Raises OSError and OutsideError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER)
    names = set(os.listdir(folder)) - _NOBODYS
    ours = {name for name in names if _OURS.fullmatch(name)}
    for name in ours:
        _tighten_all(folder / name)
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not mode & OTHERS:
        return
    if names == ours and status.st_uid == os.geteuid():
        folder.chmod(mode & ~OTHERS)
    elif mode & stat.S_IWOTH:
        msg = (
            f"{folder}: every user may write in it, so others could replace what is kept there; "
            "choose another state folder: --state"
        )
        raise OutsideError(msg)
    else:
        log.warning(
            "%s may be listed by other users (mode %03o), and is left so, because it holds other "
            "things too or is another user's; what is kept in it is for this user only",
            folder,
            mode,
        )


def _tighten_all(path: Path) -> None:
    tighten(path)
    if path.is_dir() and not path.is_symlink():
        for each in path.rglob("*"):
            tighten(each)


def local_log(
    settings: Config,
    folder: Path,
    *,
    give: Callable[[int], int] = lambda wanted: 0,
    stop: threading.Event | None = None,
    missed: Missed = lambda group, chunks: None,
) -> LocalLog:
    """Opens the daemon's log in the state folder `folder`; raises OutsideError while another
    process has it.

    `give` frees about so many bytes of other files when the disk is full. Waits of the log end
    when `stop` is set. `missed` is told of chunks that were deleted before a stage read them.
    """
    state_folder(settings, folder)
    return LocalLog(
        folder / "log",
        clock=time.time_ns,
        retention=retention(settings, StorageCap(settings, folder)()),
        spare=usual_spare(folder),
        give=give,
        stop=stop,
        missed=missed,
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
