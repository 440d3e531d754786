"""Shows observations to the rules of a site, each in the modes in which it holds.

A rule without modes judges an observation when it arrives, and heeds the snoozes that have arrived.
A rule with modes judges it once the mode at its start is certain: when the reports source has
promised a later time, or is lost. Until then the observation waits, in the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pipeline.judge.modes import SiteModes
from pipeline.judge.rules import (
    HearingRule,
    ReadingRule,
    RuleFinding,
    SiteRule,
    TrackedFrame,
    VisionRule,
)
from pipeline.types import FOREVER, Described, Presence, Sound, Utterance

Seen = TrackedFrame | Sound | Utterance | Described
PresenceMap = Mapping[str, Presence]


class Judged(msgspec.Struct, frozen=True):
    """What the rules with modes found in an observation that has waited.

    `presence` is that of the sources when the observation arrived.
    """

    seen: Seen
    presence: PresenceMap
    findings: Sequence[RuleFinding]


class RuleGate:
    """The rules of one site; `modes` knows when they hold.

    The memory is bounded by what bounds the open windows: an observation waits until the reports
    source promises or is declared lost.
    """

    def __init__(
        self,
        modes: SiteModes,
        sees: Sequence[SiteRule[VisionRule]],
        hears: Sequence[SiteRule[HearingRule]],
        reads: Sequence[SiteRule[ReadingRule]],
    ) -> None:
        at_once, waiting = (
            _Rules(
                modes,
                [rule for rule in sees if bool(rule.modes) == waits],
                [rule for rule in hears if bool(rule.modes) == waits],
                [rule for rule in reads if bool(rule.modes) == waits],
            )
            for waits in (False, True)
        )
        self._at_once, self._later = at_once, waiting
        self._waiting: deque[tuple[Seen, PresenceMap]] = deque()
        self._due = FOREVER  # ns; the earliest start of those that wait

    @property
    def waiting(self) -> int:
        """The number of observations that wait for a promise of the reports source."""
        return len(self._waiting)

    def judge(self, seen: Seen, presence: PresenceMap) -> list[RuleFinding]:
        """Returns what the rules without modes find; the observation waits for the others."""
        if self._later.ask(seen):
            self._waiting.append((seen, presence))
            self._due = min(self._due, seen.start)
        return self._at_once.asked(seen)

    def release(self, promised: int) -> Iterator[Judged]:
        """Yields what the rules with modes find in observations that begin before `promised`."""
        if promised <= self._due:
            return
        waiting, self._waiting = self._waiting, deque()
        self._due = FOREVER
        for seen, presence in waiting:
            if seen.start < promised:
                yield Judged(seen, presence, self._later.asked(seen))
            else:
                self._waiting.append((seen, presence))
                self._due = min(self._due, seen.start)


class _Rules:
    """Some rules of a site, by what they judge."""

    def __init__(
        self,
        modes: SiteModes,
        sees: Sequence[SiteRule[VisionRule]],
        hears: Sequence[SiteRule[HearingRule]],
        reads: Sequence[SiteRule[ReadingRule]],
    ) -> None:
        self._modes, self._sees, self._hears, self._reads = modes, sees, hears, reads
        self._of: dict[str, list[SiteRule[VisionRule]]] = {}  # camera -> the rules about it

    def _about(self, camera: str) -> list[SiteRule[VisionRule]]:
        if camera not in self._of:
            self._of[camera] = [r for r in self._sees if r.cameras is None or camera in r.cameras]
        return self._of[camera]

    def ask(self, seen: Seen) -> bool:
        """Whether one of the rules judges such an observation."""
        match seen:
            case TrackedFrame():
                return bool(self._about(seen.source))
            case Sound():
                return bool(self._hears)
            case _:
                return bool(self._reads)

    def asked(self, seen: Seen) -> list[RuleFinding]:
        """Returns what those of the rules that hold find in an observation."""
        found: list[RuleFinding] = []
        watches, time = self._modes.watches, seen.start
        match seen:
            case TrackedFrame():
                for eye in self._about(seen.source):
                    holds = watches(eye.name, eye.modes, time)
                    found += eye.judge.see(seen if holds else _unwatched(seen))
            case Sound():
                for ear in self._hears:
                    if watches(ear.name, ear.modes, time):
                        found += ear.judge.hear(seen)
            case _:
                for reader in self._reads:
                    if watches(reader.name, reader.modes, time):
                        found += reader.judge.read(seen)
        return found


def _unwatched(seen: TrackedFrame) -> TrackedFrame:
    return msgspec.structs.replace(seen, watched=False)
