"""Where the groups of a topic continue: the offset and the note that each has committed.

A commit does not wait for the threads that append: while one of them holds the lock of the writer,
the commit is noted, and the next transaction stores it. If the process is killed before, the group
reads some entries again, as it does when it is killed before its commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

Place = tuple[int, bytes]  # offset, note
Execute = Callable[..., Any]

_READ = "SELECT offset, note FROM commits WHERE reader = ?"
_STORE = "INSERT OR REPLACE INTO commits VALUES (?, ?, ?)"
_FORGET = "DELETE FROM commits WHERE reader = ?"


class Places:
    """The places of the groups of one topic.

    `committed` has the stored offsets. Whoever calls `store`, `stored`, `read` or `forget` holds
    the lock of the writer; `store` and `forget` belong in its open transaction.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._lock = Lock()
        self._noted: dict[str, Place] = {}
        self.committed: dict[str, int] = {}

    def load(self) -> None:
        """Reads what is stored."""
        self.committed.update(self._execute("SELECT reader, offset FROM commits").fetchall())

    @property
    def waiting(self) -> bool:
        """Whether a noted place is not stored yet."""
        return bool(self._noted)

    def note(self, group: str, offset: int, note: bytes) -> None:
        """Notes a place, which the next `store` stores; any thread may call it."""
        with self._lock:
            self._noted[group] = (offset, note)

    def store(self) -> Mapping[str, Place]:
        """Writes what is noted; its result goes to `stored` when the transaction is committed."""
        with self._lock:
            noted = dict(self._noted)
        for group, place in noted.items():
            self._execute(_STORE, (group, *place))
        return noted

    def stored(self, places: Mapping[str, Place]) -> None:
        """Takes over what is on disk now."""
        with self._lock:
            for group, place in places.items():
                self.committed[group] = place[0]
                if self._noted.get(group) == place:
                    del self._noted[group]

    def read(self, group: str) -> Place | None:
        """The stored place of a group; None if it has never read."""
        row = self._execute(_READ, (group,)).fetchone()
        return (int(row[0]), bytes(row[1])) if row else None

    def forget(self, group: str) -> None:
        """Deletes the place of a group."""
        self._execute(_FORGET, (group,))
        with self._lock:
            self._noted.pop(group, None)
            self.committed.pop(group, None)
