"""The list of this user's running daemons, by which `fusewatch report` finds one.

Each daemon keeps a small file with its address, its sites and its state folder; no secret is in it.
The file is locked while the daemon runs. The system frees the lock when the process ends, however
it ends, so a file that can be locked is stale and is deleted.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

FOLDER = "running"  # below the default state folder, where there is no runtime folder
MAX_FILE_BYTES = 1 << 20

log = logging.getLogger("fusewatch")


class RunningDaemon(msgspec.Struct, frozen=True, kw_only=True):
    """What others may know of a daemon; paths are absolute."""

    pid: int
    url: str
    sites: tuple[str, ...]
    state: str  # the folder that holds its token
    config: str = ""  # the config that names its token; empty: the token is in the state folder

    def __str__(self) -> str:
        return f"{self.url} (process {self.pid}, state {self.state}, sites {', '.join(self.sites)})"


@contextmanager
def registered(daemon: RunningDaemon, env: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Lists `daemon` while the context lasts; where its file cannot be written, logs that."""
    port = daemon.url.rpartition(":")[2]
    path = _folders(env)[0] / f"{daemon.pid}-{port}.json"
    try:
        opened = _written(path, msgspec.json.encode(daemon))
    except OSError as error:
        log.info(
            "%s cannot be written (%s): `fusewatch report` needs --config or --state",
            path,
            error.strerror,
        )
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(opened)


def running(env: Mapping[str, str] = os.environ) -> Sequence[RunningDaemon]:
    """Returns the daemons of this user that run now; deletes the files of those that have ended."""
    found: dict[str, RunningDaemon] = {}
    for folder in dict.fromkeys(_folders(env)):
        for path in sorted(folder.glob("*.json")):
            daemon = _read(path)
            if daemon is not None:
                found[daemon.url] = daemon
    return [found[url] for url in sorted(found)]


def _folders(env: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders for the files, the first for writing.

    A daemon that a service manager started may have no XDG_RUNTIME_DIR where the user's shell has
    one, so all of them are read.
    """
    home = Path(env.get("HOME") or Path.home())
    given = env.get("XDG_RUNTIME_DIR", "")
    usual = Path(f"/run/user/{os.getuid()}")
    runtime = [Path(given)] if given.startswith("/") else []
    places = [place / "fusewatch" for place in (*runtime, usual) if _own(place)]
    state = home / ".local/state/fusewatch" / FOLDER
    return (*places, state) if runtime and places else (state, *places)


def _own(folder: Path) -> bool:
    """Whether nobody else may write into a folder: a file there can be believed."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _written(path: Path, data: bytes) -> int:
    """Writes and locks the file before it has its name; returns its descriptor."""
    for folder in (path.parent.parent, path.parent):  # `parents` would use the umask alone
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(".part")
    opened = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(opened, data)
        part.replace(path)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _read(path: Path) -> RunningDaemon | None:
    """The daemon of a file, or None if it has ended or the file is none of ours."""
    try:
        with path.open("rb") as file:
            if _own(path.parent):
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=RunningDaemon)
                path.unlink(missing_ok=True)
    except (OSError, msgspec.DecodeError):
        return None
    return None
