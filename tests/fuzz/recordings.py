"""Mutated recordings: each is refused in one line, or read in part with its losses named."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline import topics
from pipeline.errors import ConfigError
from pipeline.ports import Entry
from tests.fuzz.mutations import damaged
from tests.recorded import entries, of_topic, write
from workers.recordings.recording import open_recording

SECONDS = 12


class Recordings:
    """A case is a recording with damage, of a recorder that ended or was killed."""

    name, target, batch, patience = "recordings", 1000, 50, 30.0
    files = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = entries(SECONDS)
        self._all: dict[str, set[Entry]] = {
            topic: set(of_topic(self._made, topic)) for topic in topics.ALL_TOPICS
        }
        whole = [write(folder / str(n), self._made, finish=bool(n))[0] for n in range(2)]
        self._contents = [file.read_bytes() for file in whole]

    def opened(self) -> Callable[[int, random.Random], None]:
        """The function of one case."""
        return self.case

    def case(self, number: int, dice: random.Random) -> None:
        """Reads a damaged recording; every entry that comes is one that was written."""
        path = self._folder / f"{number}.mcap"
        path.write_bytes(damaged(dice, dice.choice(self._contents), self._contents))
        with suppress(ConfigError):
            recording = open_recording(path)
            found = 0
            for topic in topics.ALL_TOPICS:
                for entry in recording.appended(topic):
                    assert entry in self._all[topic]
                    found += 1
            assert found == len(self._made) or recording.losses or recording.unfinished
        path.unlink()
