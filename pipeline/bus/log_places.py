"""Where the groups of a topic continue: the offset and the note that each has committed.

A commit does not wait for a thread that writes. It is noted, and that thread stores it as soon as
it has written. If the process is killed before, the group reads some entries again, as it does when
it is killed before its commit.
"""

from __future__ import annotations

from threading import Lock

from pipeline.bus.sqlite_file import SqliteFile

Place = tuple[int, bytes]  # offset, note

READ = "SELECT offset, note FROM commits WHERE reader = ?"
_STORE = "INSERT OR REPLACE INTO commits VALUES (?, ?, ?)"
_FORGET = "DELETE FROM commits WHERE reader = ?"


class Places:
    """The places of the groups of one topic.

    `committed` has the offsets that are stored in the file, and no others: what retention deletes
    depends on them. Any thread may call `note` and `noted`. Whoever calls another method holds the
    lock of the writer.
    """

    def __init__(self, file: SqliteFile) -> None:
        self.committed: dict[str, int] = {}
        self._file = file
        self._lock = Lock()
        self._noted: dict[str, Place] = {}

    def load(self) -> None:
        """Reads what is stored."""
        self.committed.update(self._file.execute("SELECT reader, offset FROM commits").fetchall())

    @property
    def waiting(self) -> bool:
        """Whether a place is noted that is not stored; any thread may ask."""
        return bool(self._noted)

    def note(self, group: str, offset: int, note: bytes) -> None:
        """Notes a place, which the next `store` stores."""
        with self._lock:
            self._noted[group] = (offset, note)

    def noted(self, group: str) -> Place | None:
        """The place of a group that is noted and not stored."""
        with self._lock:
            return self._noted.get(group)

    def store(self, longest: float) -> None:
        """Stores what is noted, in one transaction; waits `longest` s for another program's lock.

        On an error all of it stays noted.
        """
        with self._lock:
            noted = dict(self._noted)
        with self._file.transaction(longest=longest) as run:
            run.executemany(_STORE, [(group, *place) for group, place in noted.items()])
        with self._lock:
            for group, place in noted.items():
                self.committed[group] = place[0]
                if self._noted.get(group) is place:  # else a newer one waits
                    del self._noted[group]

    def read(self, group: str) -> Place | None:
        """The stored place of a group; None if it has never read."""
        row = self._file.patiently(lambda: self._file.execute(READ, (group,)).fetchone())
        return (int(row[0]), bytes(row[1])) if row else None

    def forget(self, group: str) -> None:
        """Deletes the place of a group."""
        with self._file.transaction() as run:
            run.execute(_FORGET, (group,))
        with self._lock:
            self._noted.pop(group, None)
            self.committed.pop(group, None)
