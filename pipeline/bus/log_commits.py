"""Reads what the groups of a local log have committed; a daemon may use the log meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from sqlite3 import Error as SqliteError
from sqlite3 import connect
from urllib.parse import quote

from pipeline.errors import OutsideError


def commits(folder: Path, topic: str) -> Mapping[str, tuple[int, bytes]]:
    """Returns the offset and the note of each group that has read `topic`; none without a log.

    `folder` is that of the log. Raises OutsideError for a file that is not readable or no log.
    """
    path = folder / f"{topic}.db"
    if not path.exists():
        return {}
    try:
        with closing(connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as link:
            rows = link.execute("SELECT reader, offset, note FROM commits").fetchall()
    except SqliteError as error:
        msg = f"{path} cannot be read ({error}); is this the state folder of a daemon?"
        raise OutsideError(msg) from error
    return {str(group): (int(offset), bytes(note)) for group, offset, note in rows}
