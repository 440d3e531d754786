"""The status of a running process: counters, gauges and the state of each source.

Names hold no address, no id and no secret, so that all values may be shown, logged and scraped.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from pipeline.judge.refusal import Ask
from pipeline.types import Presence
from workers.runtime.mode_store import SiteMode


class Ledger(Protocol):
    """Counts what a stage did with the records that it read; `Status` is one."""

    def count(self, site: str, source: str, what: str, n: int = 1) -> None: ...
    def counts(self, site: str, source: str, more: Mapping[str, int]) -> None: ...
    def reach(self, site: str, source: str, what: str, time: int) -> None: ...


class SourceState(msgspec.Struct, frozen=True):
    """The state of a source: `connecting`, `live`, `playing`, `lost` or `ended`, and its reason."""

    state: str
    reason: str = ""
    changes: int = 0  # how often the state changed since the start


class SubscriberState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a subscriber, the same for webhooks, files and snapshots.

    - `taking`: it takes alerts. A single failure does not change that; it has a `reason` then.
    - `failing`: three attempts in a row failed. It is tried again at `next_try`.
    - `giving up`: it has failed for so long that alerts become dead letters.
    - `disabled`: it answered 410 Gone. Its alerts become dead letters until it is enabled.
    """

    state: Literal["taking", "failing", "giving up", "disabled"] = "taking"
    reason: str = ""  # of the last failure since it took an alert
    attempts: int = 0  # failures in a row
    since: str = ""  # RFC 3339; the first of these failures
    next_try: str = ""  # RFC 3339; empty where no alert is to be tried again
    waiting: int = 0  # alerts that wait to be delivered to it
    dead: int = 0  # alerts that became dead letters since it failed

    @property
    def well(self) -> bool:
        """Whether it takes alerts."""
        return self.state == "taking"


class Snapshot(msgspec.Struct, frozen=True):
    """A consistent copy of a Status; `counts` is site -> source -> what -> number.

    `waiting` is site -> source -> how many captured frames or audio chunks no stage has answered
    yet, for the sources that this process captures.
    `reached` is site -> source -> what -> event time (ns), `presence` is site -> source -> presence
    in the newest window. `modes` is site -> what is in force, where it is not the default.
    `subscribers` is name -> state.
    """

    counts: dict[str, dict[str, dict[str, int]]]
    sources: dict[str, dict[str, SourceState]]
    gauges: dict[str, float]
    reached: dict[str, dict[str, dict[str, int]]] = {}
    presence: dict[str, dict[str, Presence]] = {}
    modes: dict[str, SiteMode] = {}
    subscribers: dict[str, SubscriberState] = {}
    waiting: dict[str, dict[str, int]] = {}

    @property
    def lost_sources(self) -> int:
        """The number of cameras and microphones that are lost, have ended, or connect again."""
        return sum(
            state.state in ("lost", "ended") or (state.state == "connecting" and state.changes > 0)
            for sources in self.sources.values()
            for state in sources.values()
        )

    @property
    def failing_subscribers(self) -> int:
        """The number of subscribers that do not take alerts, disabled ones included."""
        return sum(not state.well for state in self.subscribers.values())


class Status:
    """Counters, gauges and source states; thread safe.

    The balance of a source: the sum of `captured*` = `processed` + the sum of `gated.*` + the sum
    of `dropped.*` + waiting, over distinct frames or audio chunks. A frame that is published and
    then skipped is `dropped.stale`. Other counters (published, overrun, ahead, damaged, cut.*,
    repaired.*, unusable.*) are not part of the balance. What changes together is counted together,
    by `counts`, so that no snapshot is taken between.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._sources: dict[tuple[str, str], SourceState] = {}
        self._gauges: dict[str, float] = {}
        self._reached: dict[tuple[str, str, str], int] = {}
        self._presence: dict[str, dict[str, Presence]] = {}
        self._modes: dict[str, SiteMode] = {}
        self._subscribers: dict[str, SubscriberState] = {}

    def count(self, site: str, source: str, what: str, n: int = 1) -> None:
        """Adds `n` to a counter, e.g. `("office", "desk", "dropped.newer", 1)`."""
        if n:
            with self._lock:
                self._counts[site, source, what] += n

    def counts(self, site: str, source: str, more: Mapping[str, int]) -> None:
        """Adds to several counters of a source at once: a snapshot has all of it or nothing."""
        with self._lock:
            for what, n in more.items():
                if n:
                    self._counts[site, source, what] += n

    def source(self, site: str, source: str, state: str, reason: str = "") -> None:
        """Sets the state of a source; the same state again changes nothing."""
        old = self._sources.get((site, source))  # one thread sets the state of a source
        if old is not None and (old.state, old.reason) == (state, reason):
            return  # said for each frame: no other thread has to wait for that
        with self._lock:
            old = self._sources.get((site, source))
            if old is None or (old.state, old.reason) != (state, reason):
                changes = old.changes + (old.state != state) if old else 0
                self._sources[site, source] = SourceState(state, reason, changes)

    def gauge(self, name: str, value: float) -> None:
        """Sets a gauge to its present value; the name includes the unit (`lag_seconds`)."""
        with self._lock:
            self._gauges[name] = value

    def reach(self, site: str, source: str, what: str, time: int) -> None:
        """Sets the event time (ns) up to which a source is `captured` or `processed`."""
        with self._lock:
            self._reached[site, source, what] = max(
                time, self._reached.get((site, source, what), time)
            )

    def presence(self, site: str, sources: Mapping[str, Presence]) -> None:
        """Sets the presence of a site's sources in its newest window."""
        with self._lock:
            self._presence[site] = dict(sources)

    def mode(self, site: str, mode: SiteMode | None) -> None:
        """Sets what is in force at a site; None: its default, which is not shown."""
        with self._lock:
            if mode is None:
                self._modes.pop(site, None)
            else:
                self._modes[site] = mode

    def subscriber(self, name: str, state: SubscriberState) -> None:
        """Sets the state of a subscriber, and its gauges."""
        with self._lock:
            self._subscribers[name] = state
        self.gauge(f"pending.{name}", state.waiting)
        self.gauge(f"failing.{name}", bool(state.reason))

    def counted(self, site: str, source: str, what: str) -> int:
        """Returns one counter's value."""
        with self._lock:
            return self._counts[site, source, what]

    def snapshot(self) -> Snapshot:
        """Returns a copy of all values at one moment."""
        with self._lock:
            counts: dict[str, dict[str, dict[str, int]]] = {}
            for (site, source, what), n in sorted(self._counts.items()):
                counts.setdefault(site, {}).setdefault(source, {})[what] = n
            sources: dict[str, dict[str, SourceState]] = {}
            for (site, source), state in sorted(self._sources.items()):
                sources.setdefault(site, {})[source] = state
            reached: dict[str, dict[str, dict[str, int]]] = {}
            for (site, source, what), time in self._reached.items():
                reached.setdefault(site, {}).setdefault(source, {})[what] = time
            return Snapshot(
                counts,
                sources,
                dict(self._gauges),
                reached,
                dict(self._presence),
                dict(self._modes),
                dict(self._subscribers),
                {site: _waiting(of) for site, of in counts.items()},
            )


def _waiting(sources: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """What of each captured source is in no other place of the balance.

    A capture worker has handed on what the brokers acknowledged (`forwarded`).
    """
    waiting = {}
    for source, counts in sources.items():
        came = sum(n for what, n in counts.items() if what.startswith("captured"))
        if came:
            gone = sum(n for what, n in counts.items() if what.startswith(("gated.", "dropped.")))
            waiting[source] = came - gone - counts.get("processed", 0) - counts.get("forwarded", 0)
    return waiting


def refused(rule: str, reason: str) -> str:
    """The name of a counter; the config bounds how many rules there are, the code the reasons."""
    return f"refused.{rule}.{reason}"


class RefusalCounts:
    """A collector that counts the refusals of one site, and asks for no words.

    They stand under `rules/` and the source, apart from what was captured and analysed.
    """

    def __init__(self, ledger: Ledger, site: str) -> None:
        self._ledger, self._site = ledger, site

    def refuse(self, rule: str, source: str, start: int, reason: str, ask: Ask) -> None:
        """Counts one refusal."""
        self._ledger.count(self._site, f"rules/{source}", refused(rule, reason))
