"""How far the stages are: what waits for each, whether they caught up, whether they keep up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from pipeline.bus.log import LocalLog, LogReader
from pipeline.run import Runner

MANY = 1000  # entries; a stage with a larger backlog
LONG = 60.0  # for so many seconds does not keep up


class StageLag:
    """How far each stage has come: offsets below it are answered, published and committed."""

    def __init__(self, bus: LocalLog, runners: Sequence[Runner]) -> None:
        self._bus = bus
        self._topics = {runner.group: runner.topic for runner in runners}
        self._readers = {runner.group: runner.reader for runner in runners}
        self._at: dict[str, int] = dict.fromkeys(self._topics, 0)

    def moved(self, runner: Runner) -> None:
        """Called by the stage's own thread after each step."""
        self._at[runner.group] = sum(host.reached for host in runner.hosts.values())

    def behind(self) -> dict[str, int]:
        """Entries that each stage has not answered yet, in the order that records flow.

        Where all are zero the stages have answered all that there was when the call began.
        """
        return {name: self._bus.end(topic) - self._at[name] for name, topic in self._topics.items()}

    def lost(self) -> dict[str, int]:
        """Entries that retention deleted before each stage came, since the start."""
        return {
            name: reader.lost
            for name, reader in self._readers.items()
            if isinstance(reader, LogReader)
        }


def caught_up(
    behind: Callable[[], Mapping[str, int]], turn: Callable[[], bool], turns: int
) -> bool:
    """Whether the backlog is empty within `turns` turns; `turn` waits and returns true to stop."""
    for _ in range(turns):
        if not any(behind().values()):
            return True
        if turn():
            return False
    return not any(behind().values())


class KeepingUp:
    """Whether every stage keeps up: none has more than `MANY` entries of backlog for `LONG` s."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since: dict[str, float] = {}

    def saw(self, behind: Mapping[str, int]) -> None:
        """Notes the present backlog of the stages."""
        now = self._monotonic()
        self._since = {
            name: self._since.get(name, now) for name, entries in behind.items() if entries > MANY
        }

    def __call__(self) -> bool:
        now = self._monotonic()
        return all(now - since < LONG for since in self._since.values())
