"""What a running process knows of itself: counters, gauges and the state of each source.

Names hold no address, no id and no secret, so that all of it may be shown, logged and scraped.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

import msgspec


class Ledger(Protocol):
    """Where a stage counts what became of what it read; `Status` is one."""

    def count(self, site: str, source: str, what: str, n: int = 1) -> None: ...


class SourceState(msgspec.Struct, frozen=True):
    """How a source is: `connecting`, `live`, `lost` or `ended`, and why."""

    state: str
    reason: str = ""
    changes: int = 0  # how often the state changed since the start


class Snapshot(msgspec.Struct, frozen=True):
    """A consistent copy; `counts` is site -> source -> what -> number."""

    counts: dict[str, dict[str, dict[str, int]]]
    sources: dict[str, dict[str, SourceState]]
    gauges: dict[str, float]


class Status:
    """Counters that any thread may write; reading gives a consistent copy.

    The ledger of a source: `captured` = `processed` + `gated.*` + `dropped.*` + what waits, over
    distinct frames or chunks of sound; what is published and then skipped is `dropped.stale`.
    Other words (published, overrun, ahead, damaged, cut.*, repaired.*, unusable.*) stand beside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._sources: dict[tuple[str, str], SourceState] = {}
        self._gauges: dict[str, float] = {}

    def count(self, site: str, source: str, what: str, n: int = 1) -> None:
        """Add `n` to a counter, e.g. `("office", "desk", "dropped.newer", 1)`."""
        if n:
            with self._lock:
                self._counts[site, source, what] += n

    def source(self, site: str, source: str, state: str, reason: str = "") -> None:
        """Say how a source is; repeating it changes nothing."""
        with self._lock:
            old = self._sources.get((site, source))
            if old is None or (old.state, old.reason) != (state, reason):
                changes = old.changes + (old.state != state) if old else 0
                self._sources[site, source] = SourceState(state, reason, changes)

    def gauge(self, name: str, value: float) -> None:
        """Say how much of something there is now; units belong in the name (`lag_seconds`)."""
        with self._lock:
            self._gauges[name] = value

    def counted(self, site: str, source: str, what: str) -> int:
        """One counter's value."""
        with self._lock:
            return self._counts[site, source, what]

    def snapshot(self) -> Snapshot:
        """Everything, as it stood at one moment."""
        with self._lock:
            counts: dict[str, dict[str, dict[str, int]]] = {}
            for (site, source, what), n in sorted(self._counts.items()):
                counts.setdefault(site, {}).setdefault(source, {})[what] = n
            sources: dict[str, dict[str, SourceState]] = {}
            for (site, source), state in sorted(self._sources.items()):
                sources.setdefault(site, {})[source] = state
            return Snapshot(counts, sources, dict(self._gauges))
